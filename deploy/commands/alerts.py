"""`afterwrite alerts`: do the channels to the administrators work, and what was told by them."""

import asyncio
import json
import logging
from typing import Annotated

import typer

from deploy.errors import NotReachable, UsageTrouble
from deploy.settings import read_settings
from schema.alerts import Alert
from schema.clock import now
from schema.identifiers import new_id
from schema.settings import AlertSettings
from schema.telemetry import configure_logging
from schema.topics import topics
from writer.alerting.addresses import ChannelRefused
from writer.alerting.channel import Attempt
from writer.alerting.channels import Channels
from writer.alerting.history import open_incidents, recent_alerts
from writer.failures import LogUnavailable

app = typer.Typer(no_args_is_help=True, help="Alerts: try the channels, list what was told.")
_ALL = 1_000_000


@app.command("test")
def try_channels(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Send a test alert through every channel of AFTERWRITE_ALERT_URLS, and say which took it.

    Each channel is tried once, all side by side, for at most 10 seconds. Exit code 0 when all took
    it, 1 when one did not, 2 when none is named or a URL is malformed.

    Example: afterwrite alerts test
    """
    settings = read_settings(AlertSettings)
    configure_logging("error", settings.log_format)  # the answer says what the log would
    attempts = asyncio.run(_probe(settings))
    if not attempts:
        raise UsageTrouble(
            "AFTERWRITE_ALERT_URLS names no channel.",
            "Set it, as in AFTERWRITE_ALERT_URLS=mailto://mail.example.org?to=ops@example.org",
        )
    failed = [attempt for attempt in attempts if not attempt.delivered]
    if as_json:
        typer.echo(json.dumps(_report(attempts), indent=2))
    else:
        typer.echo(_text(attempts))
    raise typer.Exit(1 if failed else 0)


@app.command("list")
def list_alerts(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    only_open: Annotated[
        bool, typer.Option("--open", help="Only incidents that last: the latest alert of each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """Show the last alerts of the past week, the newest last. It asks Kafka only.

    Exit code 0, also when there is none; 3 when Kafka cannot be reached.

    Example: afterwrite alerts list --open
    """
    logging.disable(logging.CRITICAL)  # the client logs what the answer says
    settings = read_settings(AlertSettings)
    topic = topics(settings).alerts.name
    try:
        alerts = asyncio.run(
            recent_alerts(settings.kafka_bootstrap, topic, _ALL if only_open else limit)
        )
    except (LogUnavailable, TimeoutError) as error:
        raise NotReachable(
            f"Kafka: {str(error) or 'no answer'}.", "Check AFTERWRITE_KAFKA_BOOTSTRAP."
        ) from error
    if only_open:
        alerts = open_incidents(alerts)[-limit:]
    if as_json:
        typer.echo(json.dumps([alert.to_json() for alert in alerts], indent=2))
        return
    nothing = "No incident is open." if only_open else "No alerts in the past week."
    typer.echo("\n".join(_line(alert) for alert in alerts) or nothing)


async def _probe(settings: AlertSettings) -> list[Attempt]:
    try:
        channels = Channels.of(settings)
    except ChannelRefused as error:
        raise UsageTrouble(
            f"{error}.", "docs/how-to/get-alerted.md has an example of each kind."
        ) from error
    at = now()
    alert = Alert(
        alert_id=new_id(),
        incident="test",
        phase="test",
        severity="info",
        title="Test: alerts arrive here",
        text="Somebody ran `afterwrite alerts test`. Nothing is wrong, and there is nothing to do.",
        since=at,
        at=at,
    )
    try:
        return await channels.probe(alert)
    finally:
        await channels.close()


def _report(attempts: list[Attempt]) -> dict[str, object]:
    return {
        "delivered": all(attempt.delivered for attempt in attempts),
        "channels": [
            {
                "name": attempt.name,
                "delivered": attempt.delivered,
                "seconds": round(attempt.seconds, 3),
                "error": attempt.error,
            }
            for attempt in attempts
        ],
    }


def _text(attempts: list[Attempt]) -> str:
    width = max(len(attempt.name) for attempt in attempts)
    lines = [
        f"{attempt.name:<{width}}  {'delivered' if attempt.delivered else 'failed   '}  "
        f"{attempt.seconds:6.2f} s  {attempt.error or ''}".rstrip()
        for attempt in attempts
    ]
    failed = sum(not attempt.delivered for attempt in attempts)
    verdict = f"{failed} of {len(attempts)} failed." if failed else "All channels took it."
    return "\n".join([*lines, verdict])


def _line(alert: Alert) -> str:
    waiting = "" if alert.waiting is None else f", {alert.waiting} waiting"
    return (
        f"{alert.at:%Y-%m-%d %H:%M:%S}Z  {alert.phase:<8}  {alert.severity:<8}  "
        f"{alert.incident}: {alert.title} (since {alert.since:%Y-%m-%d %H:%M}Z{waiting})"
    )
