"""Time in which this very process did not run, and for which no server is to blame.

A process that was stopped, or had no core, finds its timers rung late and the answers that came meanwhile
unread. It must neither say that there was none nor that it came too late.
"""

from typing import Final

HEAR_S: Final = 0.2
"""How much longer a server is listened to behind a standstill."""
_LATE_S: Final = 0.05
"""What rings so much later than asked for was not rung by a loop that ran."""


def stood_still(due: float, now: float) -> bool:
    """Whether what was due then, and is looked at now, was held up by this process. Seconds of one clock."""
    return now - due > _LATE_S
