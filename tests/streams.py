"""A client of event streams, as a browser is one: it keeps the last id and comes back with it."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.installation import Installation


class EventSource:
    """An open stream of a user. `last` is the id to come back with."""

    def __init__(
        self, installation: Installation, user: str, api: str = "api", last: str | None = None
    ) -> None:
        self.last = last
        self._blocks: asyncio.Queue[dict[str, str] | None] = asyncio.Queue()
        self._client = installation.client(user, api=api)
        headers = {"Last-Event-ID": last} if last is not None else {}
        self._request = self._client.stream("GET", "/v1/events", headers=headers, timeout=60)

    async def __aenter__(self) -> Self:
        """Returns when the server has told where the stream begins, unless it goes on."""
        response = await self._request.__aenter__()
        assert response.status_code == 200, await response.aread()
        self._reading = asyncio.create_task(self._read(response))
        while self.last is None:
            await self._block(10)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._request.__aexit__(kind, error, trace)
        await self._client.aclose()

    async def _read(self, response: httpx2.Response) -> None:
        block: dict[str, str] = {}
        try:
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    block[name] = value
                else:
                    self._blocks.put_nowait(block)
                    block = {}
        except httpx2.HTTPError:
            pass  # broken, not ended: the same to a browser
        self._blocks.put_nowait(None)

    async def _block(self, timeout: float) -> dict[str, str]:
        async with asyncio.timeout(timeout):
            block = await self._blocks.get()
        if block is None:
            raise EOFError
        self.last = block.get("id", self.last)
        return block

    async def next(self, timeout: float = 20) -> tuple[str, Any]:
        """The next event: its name and its data. Raises `EOFError` at the end of the stream."""
        while True:
            block = await self._block(timeout)
            if "event" in block:
                return block["event"], json.loads(block["data"])

    async def until(self, name: str, command: str, timeout: float = 20) -> Any:
        """The data of the first event of this name and command; others are passed over."""
        while True:
            event, data = await self.next(timeout)
            if (event, data.get("command")) == (name, command):
                return data


async def end_of(stream: EventSource, timeout: float = 10) -> None:
    """Wait until the stream is at its end."""
    try:
        while True:
            await stream.next(timeout)
    except EOFError:
        return
