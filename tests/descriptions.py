"""The descriptions of both interfaces, and their snapshots."""

import json
from pathlib import Path
from typing import Any

from deploy.commands.descriptions import openapi_of, rendered
from schema.asyncapi import asyncapi_document
from schema.catalog import load_catalog
from schema.settings import Settings
from schema.topics import topics

GOLDEN = Path(__file__).parent / "contract" / "golden"
CONTENT = ("schema.forum", "schema.coursework", "tests.content_library")
"""Content types whose descriptions are looked at; the first ones' are kept as snapshots."""


def openapi(content: str = CONTENT[0]) -> dict[str, Any]:
    return openapi_of(Settings(content=content))


def asyncapi(content: str = CONTENT[0]) -> dict[str, Any]:
    settings = Settings(content=content)
    return asyncapi_document(load_catalog(content), topics(settings))


def must_be_as_kept(document: dict[str, Any], name: str) -> None:
    """The snapshot is what others have built upon: a difference must be meant."""
    kept = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert document == kept, (
        f"the {name} description has changed. If that is meant, keep the new one and say in the "
        f"changelog what others must know: afterwrite {name} > tests/contract/golden/{name}.json"
    )


def references(part: Any) -> set[str]:
    """Every reference in a document."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(references(value) for value in part.values()))
    if isinstance(part, list):
        return set().union(*(references(value) for value in part))
    return set()


def names_of_components(document: dict[str, Any]) -> set[str]:
    return {
        f"#/components/{section}/{name}"
        for section, parts in document["components"].items()
        for name in parts
    }


__all__ = [
    "CONTENT",
    "GOLDEN",
    "asyncapi",
    "must_be_as_kept",
    "names_of_components",
    "openapi",
    "references",
    "rendered",
]
