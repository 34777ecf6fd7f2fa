"""`afterwrite`: the list of subcommands, and how their errors look.

A subcommand is `module:object` below; the object is a function with typer's annotations, or a
`typer.Typer` with subcommands of its own. Only the module of the one that was called is imported,
so `afterwrite --help` is fast and a broken optional part breaks only its own command.

Exit codes, the same everywhere: 0 all well; 1 unhealthy, or the answer is no; 2 wrong usage or
settings; 3 something needed cannot be reached. Raise a `deploy.errors.Trouble` for the last three.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from deploy.errors import Trouble, trouble_of

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("deploy.commands.up:up", "Start everything on this machine, in one folder."),
    "env": ("deploy.commands.env:env", "Print the settings of the running stack."),
    "logs": ("deploy.commands.logs:logs", "Show what a process of the stack has logged."),
    "doctor": ("deploy.commands.doctor:doctor", "Look for what is wrong, and say what to do."),
    "serve": ("deploy.commands.serve:app", "Run one process: the API, a writer or a notifier."),
    "mail-worker": ("deploy.commands.mail_worker:mail_worker", "Send the mail that is queued."),
    "mail": ("deploy.commands.mail:app", "Mails that could not be sent, and why."),
    "migrate": ("deploy.commands.migrate:migrate", "Bring database and topics up to date."),
    "status": ("deploy.commands.status:status", "Show how the running system is doing."),
    "alerts": (
        "deploy.commands.alerts:app",
        "Try the channels to the administrators; list alerts.",
    ),
    "tail": ("deploy.commands.tail:tail", "Follow what becomes of changes."),
    "command": ("deploy.commands.command:app", "The whole life of one command."),
    "dead": (
        "deploy.commands.dead:app",
        "Dead letters: look at them, mend, replay or discard them.",
    ),
    "writer": ("deploy.commands.writer:app", "Pause the writer, and let it go on."),
    "lane": ("deploy.commands.lane:app", "Lanes: let a halted one go on."),
    "audit": ("deploy.commands.audit:audit", "Prove that the ledger and the content agree."),
    "token": ("deploy.commands.token:token", "Mint a bearer token, for trying things out."),
    "openapi": ("deploy.commands.descriptions:openapi", "Print the OpenAPI description."),
    "asyncapi": ("deploy.commands.descriptions:asyncapi", "Print the AsyncAPI description."),
    "load": ("deploy.commands.load:app", "Send real content through the API."),
    "bench": ("deploy.commands.bench:bench", "Measure it beside its references, from a checkout."),
}


def build(argv: Sequence[str]) -> typer.Typer:
    """The program for one call: its subcommand for real, the others by name and help only."""
    root = typer.Typer(
        name="afterwrite",
        help="A write-behind updater for PostgreSQL: accepted at once, seen at once, "
        "saved exactly once.",
        epilog="Example: afterwrite up",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    root.callback()(_root)
    called = next((word for word in argv if not word.startswith("-")), None)
    completing = "_AFTERWRITE_COMPLETE" in os.environ
    for name, (target, summary) in COMMANDS.items():
        if not _is_there(target):
            continue
        if completing or name == called:
            _add(root, name, target, summary)
        else:
            root.command(name, help=summary)(_only_listed)
    return root


def _is_there(target: str) -> bool:
    try:
        return importlib.util.find_spec(target.partition(":")[0]) is not None
    except ModuleNotFoundError:
        return False


def _add(root: typer.Typer, name: str, target: str, summary: str) -> None:
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    if isinstance(command, typer.Typer):
        root.add_typer(command, name=name, help=summary)
    else:
        root.command(name)(command)


def _root() -> None:
    pass


def _only_listed() -> None:
    pass


def main() -> None:
    """The console script. Ends the process with one of the exit codes above."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that what a site calls its files cannot take our place
    try:
        build(sys.argv[1:])()
    except Trouble as trouble:
        sys.exit(report(trouble))
    except OSError as error:
        known = trouble_of(error)
        if known is None:
            raise
        sys.exit(report(known))
    except KeyboardInterrupt:
        sys.exit(130)


def report(trouble: Trouble) -> int:
    """Prints what is wrong and what to do; returns the exit code."""
    typer.echo(f"afterwrite: {trouble.what}", err=True)
    typer.echo(f"  → {trouble.todo}", err=True)
    return trouble.exit_code


if __name__ == "__main__":
    main()
