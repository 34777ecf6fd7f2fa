"""Templates, static files and the headers of every page."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

HERE: Final = Path(__file__).parent
SCRIPTS: Final = ("htmx/htmx.min.js", "htmx/hx-sse.min.js", "forum.js")
_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
GUARD: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every answer to a browser: nothing inline runs, nothing is fetched from elsewhere."""


@dataclass(frozen=True)
class StaticFile:
    content: bytes
    media_type: str
    digest: str


def load_static() -> dict[str, StaticFile]:
    """Every file that pages refer to. The scripts are one file: an extension of htmx that came
    after htmx had begun would not be heard."""
    folder = HERE / "static"
    scripts = b"\n;\n".join((folder / name).read_bytes() for name in SCRIPTS)
    return {
        "forum.js": _static(scripts, "text/javascript; charset=utf-8"),
        "forum.css": _static((folder / "forum.css").read_bytes(), "text/css; charset=utf-8"),
        "icon.svg": _static((folder / "icon.svg").read_bytes(), "image/svg+xml"),
    }


def _static(content: bytes, media_type: str) -> StaticFile:
    return StaticFile(content, media_type, hashlib.sha256(content).hexdigest()[:16])


class Rendering:
    """The templates, loaded once. Whatever is put into them is escaped."""

    def __init__(self, static: Mapping[str, StaticFile]) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals["static"] = lambda name: f"/static/{name}?{static[name].digest}"
        self._templates.filters["moment"] = _moment
        self._templates.filters["counted"] = _counted

    def text(self, template: str, context: Mapping[str, Any]) -> Markup:
        return Markup(self._templates.get_template(template).render(context))  # noqa: S704 - escaped


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page, or a part of one. It is its reader's own: nobody may keep it."""
    own = {"Cache-Control": "private, no-store", "Vary": "HX-Request, Cookie"}
    return Response(text, status, {**GUARD, **own, **(headers or {})}, "text/html; charset=utf-8")


def _moment(at: datetime) -> Markup:
    """A time for people and for machines."""
    at = at.astimezone(UTC)
    shown = f"{at.day} {at:%b %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds").replace("+00:00", "Z"), shown
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
