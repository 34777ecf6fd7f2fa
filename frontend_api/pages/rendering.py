"""Templates, static files and the headers of every page."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

_HERE: Final = Path(__file__).parent
_HTMX: Final = _HERE / "htmx"
_SCRIPTS: Final = ("htmx.min.js", "hx-sse.min.js")
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
_KEEP: Final = "public, max-age=31536000, immutable"  # its address says which content it is


@dataclass(frozen=True)
class StaticFile:
    content: bytes
    media_type: str
    digest: str


@dataclass(frozen=True)
class Site:
    """Pages with one look. `folder` has their `templates`, and `static` files called by `name`."""

    name: str
    title: str
    folder: Path
    home: str
    """Where their beginning is."""
    at: str
    """Where their files are served."""


def load_static(site: Site) -> dict[str, StaticFile]:
    """Every file that the pages of a site refer to.

    Its script has htmx in front of it, and its style sheet what all sites share: they are one file
    each. An extension of htmx that came after htmx had begun would not be heard.
    """
    own = site.folder / "static"
    scripts = [*(_HTMX / name for name in _SCRIPTS), own / f"{site.name}.js"]
    sheets = [_HERE / "static" / "shared.css", own / f"{site.name}.css"]
    return {
        f"{site.name}.js": _static(scripts, b"\n;\n", "text/javascript"),
        f"{site.name}.css": _static(sheets, b"\n", "text/css"),
        "icon.svg": _static([own / "icon.svg"], b"", "image/svg+xml"),
    }


def _static(files: Sequence[Path], between: bytes, media_type: str) -> StaticFile:
    content = between.join(file.read_bytes() for file in files)
    digest = hashlib.sha256(content).hexdigest()[:16]
    return StaticFile(content, f"{media_type}; charset=utf-8", digest)


class Rendering:
    """The templates of a site, loaded once. Whatever is put into them is escaped.

    `static` are the files that they refer to.
    """

    def __init__(self, site: Site, static: Mapping[str, StaticFile]) -> None:
        self._templates = Environment(
            loader=FileSystemLoader([site.folder / "templates", _HERE / "templates"]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals["site"] = site
        self._templates.globals["static"] = lambda name: f"{site.at}/{name}?{static[name].digest}"
        self._templates.filters["moment"] = _moment
        self._templates.filters["counted"] = _counted

    def add_filters(self, **filters: Callable[..., Any]) -> None:
        """More filters, for these templates alone."""
        self._templates.filters.update(filters)

    def text(self, template: str, context: Mapping[str, Any]) -> Markup:
        return Markup(self._templates.get_template(template).render(context))  # noqa: S704 - escaped


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page, or a part of one. It is its reader's own: nobody may keep it."""
    own = {"Cache-Control": "private, no-store", "Vary": "HX-Request, Cookie"}
    return Response(text, status, {**GUARD, **own, **(headers or {})}, "text/html; charset=utf-8")


def serve_static(request: Request, files: Mapping[str, StaticFile]) -> Response:
    """The file that the path's `name` says; it may be kept for ever under its digest."""
    found = files.get(request.path_params["name"])
    if found is None:
        return Response("There is no such file.\n", 404, media_type="text/plain")
    etag = f'"{found.digest}"'
    headers = {**GUARD, "ETag": etag, "Cache-Control": _KEEP}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, 200, headers, found.media_type)


def is_htmx(request: Request) -> bool:
    """Whether a script of the page asks, and not the browser itself."""
    return request.headers.get("hx-request") == "true"


def see_other(to: str) -> Response:
    return RedirectResponse(to, 303, dict(GUARD))


def _moment(at: datetime) -> Markup:
    """A time for people and for machines."""
    at = at.astimezone(UTC)
    shown = f"{at.day} {at:%b %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds").replace("+00:00", "Z"), shown
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
