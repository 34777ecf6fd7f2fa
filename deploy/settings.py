"""Settings of a command: the running stack's, overridden by the environment, as typed objects."""

import os
from typing import TypeVar

from pydantic import ValidationError

from deploy.embedded.home import known_settings
from deploy.errors import UsageTrouble
from schema.catalog import Catalog, CatalogError, load_catalog
from schema.settings import ENV_PREFIX, Settings

S = TypeVar("S", bound=Settings)


def read_settings(kind: type[S]) -> S:
    """The settings of this kind. Raises `UsageTrouble` that names what is missing or wrong."""
    os.environ.update(known_settings())
    try:
        return kind()
    except ValidationError as error:
        wrong = "; ".join(
            f"{ENV_PREFIX}{'.'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise UsageTrouble(
            f"The settings are not complete or not valid: {wrong}.",
            "Start a stack with `afterwrite up`, or set these in the environment.",
        ) from error


def read_catalog(settings: Settings) -> Catalog:
    """The content types. Raises `UsageTrouble` when their declaration is wrong."""
    try:
        return load_catalog(settings.content)
    except CatalogError as error:
        raise UsageTrouble(
            f"The content types cannot be used. {error}.",
            "Correct the module that AFTERWRITE_CONTENT names.",
        ) from error
