"""The webhook of our own, `json://` and `jsons://`: one POST an alert, signed as Standard Webhooks are."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import httpx2

from schema.alerts import Alert
from writer.alerting.addresses import Address
from writer.alerting.sending import SendFailed

_ENCODED_KEY: Final = "whsec_"
_STEP_S: Final = 10.0


def key_of(secret: str) -> bytes:
    """The HMAC key: the bytes of the secret; of one that begins with `whsec_`, what follows in base64,
    which is how the libraries for Standard Webhooks write keys. Raises ValueError."""
    if not secret.startswith(_ENCODED_KEY):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_ENCODED_KEY), validate=True)
    except binascii.Error:
        raise ValueError("what follows whsec_ is not base64") from None


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The value of `webhook-signature`: over id, timestamp and body with points between."""
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """Posts alerts as JSON. Any 2xx means taken; redirects are not followed, nothing is read of the
    answer but its status. `webhook-timestamp` is when it is sent, so a repetition has a new one."""

    def __init__(
        self, address: Address, key: bytes | None, clock: Callable[[], float] = time.time
    ) -> None:
        parts = address.split()
        host = parts.hostname or ""
        self._url = httpx2.URL(
            scheme="https" if address.scheme == "jsons" else "http",
            host=host,
            port=parts.port,
            path=parts.path or "/",
            query=parts.query.encode(),
        )
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self._auth = httpx2.BasicAuth(user, password) if user or password else None
        self._key = key
        self._clock = clock

    async def send(self, alert: Alert) -> str | None:
        body = json.dumps(alert.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
        message_id, timestamp = str(alert.alert_id), str(int(self._clock()))
        headers = {
            "content-type": "application/json",
            "user-agent": "afterwrite",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, message_id, timestamp, body)
        try:
            # A client for each: a kept connection may have been closed by the other side meanwhile.
            async with (
                httpx2.AsyncClient(timeout=_STEP_S, auth=self._auth) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except httpx2.HTTPError as error:
            raise SendFailed(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise SendFailed(f"HTTP {status}")
        return None

    async def close(self) -> None:
        pass
