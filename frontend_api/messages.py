"""A request as our handlers see it, and their answer.

The framework's own make for each request what no handler here asks for; these look up what is asked.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

EXCHANGE: Final = "afterwrite.exchange"
"""Where a scope of our own server has its `Exchange`."""


class Request:
    """One request. Its body was read before the handler is called. Names of headers are lower case."""

    __slots__ = ("_headers", "_query", "_values", "body", "method", "path", "path_params")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.body = b""
        self.path_params: Mapping[str, str] = {}
        """What the parts of the address are that vary."""
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._values = dict(self._headers)
        self._query: bytes = scope.get("query_string", b"")

    def header(self, name: bytes) -> str | None:
        """Its value, the first if it came several times; None if it did not come."""
        last = self._values.get(name)
        if last is None:
            return None
        once = len(self._values) == len(self._headers)
        return last.decode("latin-1") if once else self.headers(name)[0]

    def headers(self, name: bytes) -> list[str]:
        """All its values, in their order."""
        if name not in self._values:
            return []
        return [value.decode("latin-1") for key, value in self._headers if key == name]

    def query(self, name: str) -> str | None:
        """A parameter behind the address, the last if it came several times; None if it did not."""
        if not self._query:
            return None
        return dict(parse_qsl(self._query.decode("latin-1"), keep_blank_values=True)).get(name)


class Response:
    """An answer whose body is known. What sends it says how long it is."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.body = body
        self.status = status
        self.headers = headers
        """Plain ASCII without line breaks."""

    def head(self) -> str:
        """The lines of its headers. Raises ValueError if one is more than a line."""
        lines = [f"{name.lower()}: {value}" for name, value in self.headers.items()]
        if not "".join(lines).isprintable():
            raise ValueError("a header must be one line")
        lines.append(f"content-length: {len(self.body)}\r\n")
        return "\r\n".join(lines)

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The same for ASGI."""
        lines = self.head().encode("ascii").splitlines()
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


class Exchange(Protocol):
    """What our own server offers beside ASGI, for requests and answers in one piece."""

    def body(self) -> bytes | None:
        """The whole body; None if it is not there yet."""

    async def answer(self, response: Response) -> None: ...


Handler = Callable[[Request], Awaitable[Response]]
