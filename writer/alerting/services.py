"""Everything that the apprise library knows, by its URLs: chat, SMS gateways, push services, and more.

The library waits inside, so each attempt has a thread. A thread cannot be ended: what has not answered
within the channel's timeout goes on by itself, a few at a time, and if it succeeds after all, that counts.
"""

import asyncio
import logging
import threading
import time
import uuid
import warnings
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from schema.alerts import Alert
from writer.alerting.addresses import Address
from writer.alerting.message import body, subject
from writer.alerting.sending import SendFailed

if TYPE_CHECKING:
    import apprise

_AT_ONCE: Final = 3
_LONGEST_REST_S: Final = 3.0
_LEAST_SECRET: Final = 3
_NAME: Final = "apprise"


class _Heard(logging.Handler):
    """What the library says while it works in a thread: it answers only yes or no."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        lines = getattr(self.thread, "lines", None)
        if lines is not None:
            lines.append(record.getMessage())


_heard: Final = _Heard()


class Service:
    """One URL of the library. Raises `ChannelRefused` when it is not there or does not take the URL."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._secrets = secrets_of(address.url)
        try:
            import apprise
        except ImportError:
            raise address.refused(
                "it needs the package apprise; install it with `pip install 'afterwrite[alerts]'`"
            ) from None
        log = logging.getLogger(_NAME)
        log.propagate = False  # it shows what is a secret in some URLs; we say it ourselves
        if _heard not in log.handlers:
            log.addHandler(_heard)
        self._library = apprise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the modules it loads now
            plugin = self._plugin()
        self._rest_s = min(plugin.request_rate_per_sec, _LONGEST_REST_S)
        self._free_at = 0.0
        self._under_way = 0
        self._late: deque[uuid.UUID] = deque(maxlen=100)

    async def send(self, alert: Alert) -> str | None:
        if alert.alert_id in self._late:
            return None
        if self._under_way >= _AT_ONCE:
            raise SendFailed(f"{_AT_ONCE} earlier attempts have not ended yet")
        await asyncio.sleep(self._free_at - time.monotonic())
        self._free_at = time.monotonic() + self._rest_s
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str | None] = loop.create_future()
        self._under_way += 1
        threading.Thread(
            target=self._work, args=(alert, loop, ended), daemon=True, name=self._address.name
        ).start()
        error = await asyncio.shield(ended)
        if error is not None:
            raise SendFailed(error)
        return None

    async def close(self) -> None:
        """A thread that still waits ends with the process."""

    def _work(
        self, alert: Alert, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[str | None]"
    ) -> None:
        error = self._deliver(alert)
        try:
            loop.call_soon_threadsafe(self._end, alert, ended, error)
        except RuntimeError:
            return  # the loop has been closed meanwhile

    def _deliver(self, alert: Alert) -> str | None:
        """In a thread. Returns what was wrong."""
        lines: list[str] = []
        _heard.thread.lines = lines
        try:
            # A plugin of its own for each attempt: one that hangs may still use its own.
            taken = self._plugin().notify(
                body=body(alert),
                title=subject(alert),
                notify_type=_kind(alert),
                body_format=self._library.NotifyFormat.TEXT,
            )
        except Exception as error:  # noqa: BLE001 - a library of a hundred services; said as its answer
            return self._without_secrets(f"{type(error).__name__}: {error}")
        if taken:
            return None
        return self._without_secrets("; ".join(lines)) or "not taken"

    def _end(self, alert: Alert, ended: "asyncio.Future[str | None]", error: str | None) -> None:
        self._under_way -= 1
        if error is None:
            self._late.append(alert.alert_id)
        if not ended.cancelled():
            ended.set_result(error)

    def _plugin(self) -> "apprise.NotifyBase":
        library = self._library
        asset = library.AppriseAsset(
            app_id="afterwrite",
            app_desc="afterwrite",
            app_url="",
            image_url_mask="",  # what it would send is an address of its own project
            image_url_logo="",
            async_mode=False,
            storage_mode=library.PersistentStoreMode.MEMORY,
        )
        plugin: apprise.NotifyBase | None = library.Apprise.instantiate(
            self._address.url, asset=asset
        )
        if plugin is None:
            raise self._address.refused("apprise does not take this URL")
        return plugin

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _kind(alert: Alert) -> str:
    if alert.phase == "closed":
        return "success"
    return {"critical": "failure", "warning": "warning", "info": "info"}[alert.severity]


def secrets_of(url: str) -> list[str]:
    """Every part of a URL behind its scheme that may be a secret: with these URLs the host may be
    a token, too. The longest first."""
    parts = urlsplit(url)
    login, _, where = parts.netloc.rpartition("@")
    pieces = [*login.split(":"), where, *where.split(":")[:1], *parts.path.split("/")]
    pieces += [value for pair in parts.query.split("&") for value in pair.split("=", 1)[1:]]
    found = {form for piece in pieces for form in (piece, unquote(piece))}
    return sorted((f for f in found if len(f) >= _LEAST_SECRET), key=len, reverse=True)
