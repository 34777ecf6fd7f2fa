"""`afterwrite serve`: one process of the system."""

import typer

from deploy.errors import UsageTrouble
from deploy.settings import read_settings
from schema.settings import FrontendSettings, NotifierSettings, WriterSettings

app = typer.Typer(no_args_is_help=True, help="Run one process until SIGTERM or Ctrl-C.")


@app.command()
def api() -> None:
    """Run the front-end API. It accepts changes, and reads; it cannot write to the database.

    Example: afterwrite serve api
    """
    from frontend_api.app import serve

    serve(read_settings(FrontendSettings))


@app.command()
def writer() -> None:
    """Run a writer. One of several holds each lane; the others stand by and take over in seconds.

    Example: afterwrite serve writer
    """
    from writer.app import serve

    serve(read_settings(WriterSettings))


@app.command()
def notifier() -> None:
    """Run a notifier. It tells administrators and authors; one of several does, the others stand by.

    Example: afterwrite serve notifier
    """
    from writer.alerting.addresses import ChannelRefused
    from writer.notifier.app import serve

    try:
        serve(read_settings(NotifierSettings))
    except ChannelRefused as error:
        raise UsageTrouble(
            f"{error}.", "docs/how-to/get-alerted.md has an example of each kind."
        ) from error
