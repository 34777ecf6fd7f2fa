"""The HTTP API as the loader uses it: every request is repeated until it is answered.

That is safe for submissions, because each repeats its Idempotency-Key, and it carries a load over
a restart of any server.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import jwt

from deploy.errors import NotReachable, UsageTrouble
from schema.identifiers import user_id_for

_TOKEN_HOURS = 12
_BACKOFF_MIN_S = 0.2
_BACKOFF_MAX_S = 10.0
_RETRIED = frozenset({408, 425, 429})


class Refused(Exception):
    """The API has answered, and the answer is no. `status` is HTTP's, `code` the problem's."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


@dataclass
class Tokens:
    """One bearer token for each author, signed as the API's own issuer would. Never shown."""

    secret: str = field(repr=False)
    audience: str | None = None
    _minted: dict[str, tuple[datetime, str]] = field(default_factory=dict, repr=False)

    def of(self, author: str) -> str:
        """A token that is valid for some hours yet."""
        now = datetime.now(tz=UTC)
        made, token = self._minted.get(author, (datetime.min.replace(tzinfo=UTC), ""))
        if now - made > timedelta(hours=_TOKEN_HOURS / 2):
            token = self._mint(author, now)
            self._minted[author] = (now, token)
        return token

    def _mint(self, author: str, now: datetime) -> str:
        claims: dict[str, Any] = {
            "sub": str(user_id_for(author)),
            "name": author,
            "roles": [],
            "iat": now,
            "exp": now + timedelta(hours=_TOKEN_HOURS),
        }
        if self.audience:
            claims["aud"] = self.audience
        return jwt.encode(claims, self.secret, algorithm="HS256")


@dataclass
class Patience:
    """How long to go on while nothing at all is answered: `give_up_after_s` seconds in one piece."""

    give_up_after_s: float
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _since: float | None = None

    def answered(self) -> None:
        if self._since is not None:
            self.say("The API answers again.")
        self._since = None

    async def wait(self, attempt: int, retry_after_s: float, why: str) -> None:
        """Waits before the next attempt: exponential with full jitter, and at least what the server
        asked for. Raises `NotReachable` when the stall has lasted too long."""
        now = self.clock()
        if self._since is None:
            self._since = now
            self.say(f"The API does not take requests ({why}); trying on.")
        left_s = self._since + self.give_up_after_s - now
        if left_s <= 0:
            raise NotReachable(
                f"The API has not answered for {self.give_up_after_s:.0f} s ({why}).",
                "Look at `afterwrite status`, then run the same command again: it goes on here.",
            )
        ceiling = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** min(attempt, 10))
        pause = max(retry_after_s, random.uniform(_BACKOFF_MIN_S / 2, ceiling))  # noqa: S311
        await self.sleep(min(pause, left_s))


class Api:
    """Requests in the name of any author."""

    def __init__(self, client: httpx2.AsyncClient, tokens: Tokens, patience: Patience) -> None:
        self._client = client
        self._tokens = tokens
        self._patience = patience

    async def post(self, path: str, author: str, key: str, body: Mapping[str, str]) -> Any:
        """The body of the 2xx answer. Raises `Refused`, `NotReachable`, `UsageTrouble`."""
        return await self._request("POST", path, author, {"Idempotency-Key": key}, body)

    async def get(self, path: str, author: str) -> Any:
        """The body of the 2xx answer. Raises `Refused`, `NotReachable`, `UsageTrouble`."""
        return await self._request("GET", path, author, {}, None)

    async def _request(
        self,
        method: str,
        path: str,
        author: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None,
    ) -> Any:
        attempt = 0
        while True:
            token = {"Authorization": f"Bearer {self._tokens.of(author)}"}
            try:
                answer = await self._client.request(
                    method, path, headers={**token, **headers}, json=body
                )
                found = _body(answer)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                await self._patience.wait(attempt, 0, type(error).__name__)
            else:
                if not _passing(answer.status_code, found):
                    self._patience.answered()
                    return _result(answer.status_code, found)
                why = f"{answer.status_code} {found.get('code', '')}".strip()
                await self._patience.wait(attempt, _retry_after_s(answer), why)
            attempt += 1


def _body(answer: httpx2.Response) -> Any:
    """The JSON of an answer. A 2xx that is none is an answer cut off: it counts as not received."""
    try:
        return answer.json()
    except ValueError as error:
        if answer.is_success:
            raise httpx2.DecodingError("the answer is not JSON") from error
        return {}


def _passing(status: int, body: Any) -> bool:
    """Whether an answer is one that may be another next time."""
    in_flight = status == 409 and body.get("code") == "in_flight"
    return status >= 500 or status in _RETRIED or in_flight


def _result(status: int, body: Any) -> Any:
    if status < 400:
        return body
    if status == 401:
        raise UsageTrouble(
            "The API does not accept the authors' tokens.",
            "Set AFTERWRITE_JWT_SECRET to the secret that the API has.",
        )
    code = str(body.get("code", f"http_{status}"))
    details = [f"{e.get('pointer', '')} {e.get('detail', '')}" for e in body.get("errors", [])]
    reason = "; ".join([str(body.get("detail", f"HTTP {status}")), *details])
    raise Refused(status, code, f"{code}: {reason}")


def _retry_after_s(answer: httpx2.Response) -> float:
    """Seconds asked for by Retry-After; a date or nonsense counts as nothing asked."""
    try:
        return max(0.0, float(answer.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0
