"""One connection to Redis, as thin as it can be: bytes go out, and so many answers come back.

redis-py opens it, which knows of addresses, passwords, TLS and databases, and hands it over. Reading by
redis-py takes several coroutines for each answer; here hiredis parses what came in the turn it came in.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

_NOTHING: Final = object()
"""What the parser says when there is no whole answer yet; None is an answer."""

Done = Callable[["list[Any] | Exception"], None]
"""Is called with all answers, among them refusals as `ResponseError`, or with why there are none."""


class Wire(asyncio.Protocol):
    """Takes over a connection of redis-py that is connected and has nothing to read."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(replyError=_refusal, encoding="utf-8", notEnoughData=_NOTHING)
        self._answers: list[Any] = []
        self._wanted = 0
        self._done: Done | None = None
        self._transport: asyncio.Transport = connection._writer.transport
        self._transport.set_protocol(self)

    @property
    def open(self) -> bool:
        """False when the server has closed it, as far as that is known without asking."""
        return not self._transport.is_closing()

    def exchange(self, data: bytes, wanted: int, done: Done) -> None:
        """Send `data`, and call `done` once with `wanted` answers. One exchange at a time."""
        assert self._done is None
        self._answers, self._wanted, self._done = [], wanted, done
        self._transport.write(data)

    def close(self) -> None:
        """At once. Whoever waits for answers is not called any more."""
        self._done = None
        self._transport.abort()
        self._connection._close()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _NOTHING:
                if not isinstance(answer, hiredis.PushNotification):
                    self._answers.append(answer)
        except (hiredis.HiredisError, UnicodeDecodeError) as error:
            self._end(error)
            return
        if self._done is None or len(self._answers) > self._wanted:
            self._end(RedisError("an answer that nobody asked for"))
        elif len(self._answers) == self._wanted:
            done, self._done = self._done, None
            done(self._answers)

    def eof_received(self) -> None:
        self._end(ConnectionResetError("closed by the server"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("closed"))

    def _end(self, error: Exception) -> None:
        done = self._done
        self.close()
        if done is not None:
            done(error)


def _refusal(text: str) -> ResponseError:
    if text.startswith("NOSCRIPT"):
        return NoScriptError(text)
    return OutOfMemoryError(text) if text.startswith("OOM") else ResponseError(text)
