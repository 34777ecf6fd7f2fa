"""`afterwrite audit`, with the settings of the running stack."""

from typing import Annotated

import typer

from deploy.embedded.home import known_settings
from writer.audit_command import audit_with


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON object.")] = False,
) -> None:
    """Prove that the ledger and the content agree. Changes nothing; runs on a live system.

    Exit codes: 0 clean, 1 findings, 2 wrong settings, 3 the database cannot be reached. Reads
    AFTERWRITE_DATABASE_URL (the owner) and AFTERWRITE_CONTENT.

    Example: afterwrite audit --json
    """
    raise typer.Exit(audit_with(known_settings(), as_json))
