"""Which content types the data of a home belong to: another set cannot go on with them."""

from collections.abc import Mapping

from deploy.embedded.home import Home
from deploy.errors import Trouble, UsageTrouble
from schema.catalog import Catalog, CatalogError, load_catalog
from schema.sql import MalformedMigration, migrations

DEFAULT = "schema.forum"


def check(home: Home, environ: Mapping[str, str]) -> None:
    """Raises `Trouble` if the content types cannot be used, or lack one that the home has rows of."""
    module = _module(environ)
    catalog = _load(module)
    known = home.read("version.json").get("content", {})
    missing = [name for name in known.get("types", []) if name not in catalog]
    if missing:
        raise Trouble(
            f"{home.path} holds the content types of {known['module']}, and {module} does not "
            f"declare {', '.join(missing)}.",
            f"Set AFTERWRITE_CONTENT={known['module']}, or AFTERWRITE_HOME to a folder of its own.",
        )


def record(home: Home, environ: Mapping[str, str]) -> None:
    """Remember the content types, once their tables are there."""
    module = _module(environ)
    types = [kind.name for kind in _load(module)]
    versions = home.read("version.json")
    home.write("version.json", versions | {"content": {"module": module, "types": types}})


def is_default(environ: Mapping[str, str]) -> bool:
    """Whether the site is the forum that ships."""
    return _module(environ) == DEFAULT


def _module(environ: Mapping[str, str]) -> str:
    return environ.get("AFTERWRITE_CONTENT") or DEFAULT


def _load(module: str) -> Catalog:
    try:
        catalog = load_catalog(module)
        migrations(catalog.migrations)
        return catalog
    except (CatalogError, MalformedMigration) as error:
        raise UsageTrouble(
            f"The content types cannot be used. {error}.",
            "Correct the module that AFTERWRITE_CONTENT names.",
        ) from error
