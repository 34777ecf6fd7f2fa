"""`afterwrite openapi` and `afterwrite asyncapi`: the descriptions of what others can build upon."""

import asyncio
import json
from typing import Any

import typer

from deploy.settings import read_catalog, read_settings
from schema.asyncapi import asyncapi_document
from schema.settings import FrontendSettings, Settings
from schema.topics import topics

_UNUSED = {
    "frontend_database_url": "postgresql://not-connected",
    "signing_keys": "unused:" + "-" * 32,
    "jwt_secret": "-" * 32,
    "jwks": None,
}
"""What a process must be given and a description does not say."""


def openapi() -> None:
    """Print the OpenAPI description of the HTTP interface, as JSON. Needs no server.

    It follows the content types that AFTERWRITE_CONTENT names. A running API has it at
    /openapi.json.

    Example: afterwrite openapi > openapi.json
    """
    typer.echo(rendered(openapi_of(read_settings(Settings))))


def asyncapi() -> None:
    """Print the AsyncAPI description of what flows through Kafka, as JSON. Needs no server.

    It follows AFTERWRITE_CONTENT, AFTERWRITE_PREFIX and AFTERWRITE_LANES. A running API has it at
    /asyncapi.json.

    Example: afterwrite asyncapi > asyncapi.json
    """
    settings = read_settings(Settings)
    typer.echo(rendered(asyncapi_document(read_catalog(settings), topics(settings))))


def openapi_of(settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of an installation with these settings."""
    from frontend_api.app import describe

    read_catalog(settings)  # tells what is wrong with it as an operator should be told
    frontend = FrontendSettings.model_validate(settings.model_dump() | _UNUSED)
    return asyncio.run(describe(frontend))


def rendered(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
