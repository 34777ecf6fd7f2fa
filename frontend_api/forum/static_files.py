"""The forum's own files: its script, its style sheet, its picture, its templates."""

from pathlib import Path
from typing import Final

from frontend_api.pages.rendering import StaticFile, script, text_file

_HERE: Final = Path(__file__).parent
TEMPLATES: Final = _HERE / "templates"


def load_static() -> dict[str, StaticFile]:
    """Every file that pages refer to."""
    folder = _HERE / "static"
    return {
        "forum.js": script(folder / "forum.js"),
        "forum.css": text_file(folder / "forum.css", "text/css"),
        "icon.svg": text_file(folder / "icon.svg", "image/svg+xml"),
    }
