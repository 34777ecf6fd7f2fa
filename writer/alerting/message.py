"""An alert as people read it: one line and a text, the same on every channel."""

from schema.alerts import Alert


def subject(alert: Alert) -> str:
    """One line without control characters, so that it can be a header."""
    printable = "".join(c if c.isprintable() else " " for c in alert.title)
    return f"[afterwrite] {' '.join(printable.split())}"


def body(alert: Alert) -> str:
    """The text, with the link if it is not in there."""
    if alert.link is None or alert.link in alert.text:
        return alert.text
    return f"{alert.text.rstrip()}\n\n{alert.link}"
