"""Are administrators told, and would the channels' URLs be taken? Nothing is sent."""

from collections.abc import Mapping

from pydantic import ValidationError

from deploy.doctor import Finding
from schema.settings import AlertSettings
from writer.alerting.addresses import ChannelRefused
from writer.alerting.channels import Channels

SUBJECT = "alerts"


async def check_channels(settings: Mapping[str, str]) -> list[Finding]:
    """The channels by name: their URLs may be secrets."""
    given = {
        name: settings[key]
        for name in AlertSettings.model_fields
        if (key := f"AFTERWRITE_{name.upper()}") in settings
    }
    try:
        channels = Channels.of(AlertSettings.model_validate(given))
    except ValidationError:
        return []  # that a setting is wrong is said by the check of the settings
    except ChannelRefused as error:
        todo = "Correct it; docs/how-to/get-alerted.md has an example of each kind."
        return [Finding(SUBJECT, "bad", str(error), todo)]
    names = ", ".join(state.name for state in channels.states())
    if not names:
        todo = "Set AFTERWRITE_ALERT_URLS; see docs/how-to/get-alerted.md."
        return [Finding(SUBJECT, "warning", "nobody is told when something fails", todo)]
    return [Finding(SUBJECT, "ok", f"go out by {names}; `afterwrite alerts test` tries them")]
