"""`afterwrite mail-worker`: sends the mail that is queued."""

import typer

from deploy.errors import UsageTrouble
from deploy.settings import read_settings
from schema.settings import MailSettings


def mail_worker() -> None:
    """Send queued mail by SMTP until SIGTERM or Ctrl-C. Run as many as you like; each mail goes once.

    A worker that has got stuck ends with exit code 1: let a supervisor start it again.

    Example: afterwrite mail-worker
    """
    from writer.mail.app import BadAddress, BadSmtpUrl, check, serve

    settings = read_settings(MailSettings)
    try:
        check(settings)
    except BadSmtpUrl as error:
        raise UsageTrouble(
            f"AFTERWRITE_SMTP_URL cannot be used: {error}.", "See docs/how-to/send-mail.md."
        ) from error
    except BadAddress as error:
        raise UsageTrouble(
            f"AFTERWRITE_MAIL_FROM cannot be used: {error}.", "See docs/how-to/send-mail.md."
        ) from error
    raise typer.Exit(serve(settings))
