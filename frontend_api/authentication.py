"""Who asks: bearer tokens (JWT), signed with a shared secret (HS256) or a key of a JWKS."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import jwt
from pydantic_core import PydanticCustomError

from frontend_api.ids import read_id
from frontend_api.problems import ProblemError, fail
from schema.commands import Author
from schema.contact import bare_address, language_tag
from schema.fields import Text
from schema.identifiers import UserId, user_id_for
from schema.telemetry import Log

_ASYMMETRIC: Final = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip
_REFRESH_S: Final = 300.0
_MISS_PAUSE_S: Final = 10.0
_FETCH_TIMEOUT_S: Final = 5.0
_MAX_ROLES: Final = 32
_REMEMBERED: Final = 8192
"""Tokens that are remembered as valid..."""
_REMEMBERED_CHARS: Final = 2048
"""...and how long one may be for that."""
_NAME: Final = Text(max_bytes=400, max_chars=100, one_line=True)

_log = Log("frontend_api")


class Jwks:
    """The keys of a JWKS file or URL, loaded when first needed and again when they grow old."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._loaded_at = -_REFRESH_S
        self._lock = asyncio.Lock()

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """The key of this id. Raises `ProblemError` (401, or 503 while no key could be loaded)."""
        age = time.monotonic() - self._loaded_at
        if age > _REFRESH_S or (kid not in self._keys and age > _MISS_PAUSE_S):
            await self._load(age)
        if not self._keys:
            raise fail("not_accepted", "The keys that tokens are verified with cannot be loaded.")
        found = self._keys.get(kid)
        if found is None and kid is None and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if found is None:
            raise _refused("The token is signed with an unknown key.")
        return found

    async def _load(self, age: float) -> None:
        async with self._lock:
            if time.monotonic() - self._loaded_at < age:
                return  # another request loaded them meanwhile
            try:
                loaded = await asyncio.to_thread(_load_keys, self._source)
                self._keys = {key.key_id: key for key in loaded}
            except (OSError, ValueError, jwt.PyJWTError, httpx2.HTTPError) as error:
                _log.error("unexpected_error", what="jwks", error=str(error))
            self._loaded_at = time.monotonic()


def _load_keys(source: str) -> list[jwt.PyJWK]:
    if urlsplit(source).scheme in ("http", "https"):
        answer = httpx2.get(source, timeout=_FETCH_TIMEOUT_S)
        answer.raise_for_status()
        text = answer.text
    else:
        text = Path(source).read_text(encoding="utf-8")
    return [key for key in jwt.PyJWKSet.from_json(text).keys if key.algorithm_name in _ASYMMETRIC]


@dataclass(frozen=True)
class _Verified:
    """What a token that was verified says, and for how long it does."""

    author: Author
    expires: float
    begins: float
    key: Any
    """What it was verified with: once that key is gone, or another has its id, it is verified anew."""
    kid: str | None


class Authentication:
    """Turns an Authorization header into an author. One of `secret` and `jwks` is needed.

    A signature is verified once, and remembered; time and key are looked at each time.
    """

    def __init__(self, secret: str | None, jwks: str | None, audience: str | None) -> None:
        if (secret is None) == (jwks is None):
            raise ValueError("set either AFTERWRITE_JWT_SECRET or AFTERWRITE_JWKS")
        self._secret = secret
        self._jwks = Jwks(jwks) if jwks is not None else None
        self._audience = audience
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def author(self, authorization: str | None) -> Author:
        """Raises `ProblemError` 401 with what is wrong with the token, without repeating it.

        An address or a language that cannot be used is passed over: nobody is turned away for it.
        """
        return (await self.session(authorization))[0]

    async def session(self, authorization: str | None) -> tuple[Author, float]:
        """The author, and when his token expires (seconds since 1970). Raises as `author` does."""
        known = self._verified.get(authorization or "")
        if known is not None and await self._still_holds(known):
            return known.author, known.expires
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _refused("Send Authorization: Bearer with a token.")
        kid, key = await self._key(token.strip())
        claims = self._claims(token.strip(), key)
        verified = _Verified(_author(claims), float(claims["exp"]), _begin(claims), key, kid)
        if authorization is not None and len(authorization) <= _REMEMBERED_CHARS:
            self._verified[authorization] = verified
            while len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        return verified.author, verified.expires

    async def _still_holds(self, known: _Verified) -> bool:
        if not known.begins <= time.time() < int(known.expires):
            return False
        return self._jwks is None or await self._jwks.key(known.kid) is known.key

    async def _key(self, token: str) -> tuple[str | None, Any]:
        """The key that a token says it is signed with, and that key's id."""
        if self._jwks is None:
            return None, self._secret
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _refused("The token is not valid.") from None
        return kid, await self._jwks.key(kid)

    def _claims(self, token: str, key: Any) -> dict[str, Any]:
        algorithms = ["HS256"] if self._jwks is None else [key.algorithm_name]
        options: Any = {"require": ["exp", "sub"], "verify_aud": self._audience is not None}
        try:
            return jwt.decode(
                token, key, algorithms=algorithms, audience=self._audience, options=options
            )
        except jwt.ExpiredSignatureError:
            raise _refused("The token has expired.") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"The token has no claim {error.claim!r}.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _refused("The token is not valid.") from None


def _begin(claims: dict[str, Any]) -> float:
    """From when on a token holds: should the clock be set back, it must not be taken earlier."""
    return max(float(claims.get("nbf", 0)), float(claims.get("iat", 0)))


def _author(claims: dict[str, Any]) -> Author:
    sub, name, roles = claims["sub"], claims.get("name"), claims.get("roles", [])
    try:
        user_id = read_id(sub)
    except (ValueError, TypeError, AttributeError):
        raise _refused("The token's sub is not a UUID.") from None
    if name is None:
        name = str(user_id)
    try:
        _NAME.check(name)
    except (PydanticCustomError, TypeError, AttributeError):
        raise _refused(
            f"The token's name must be one line of 1 to {_NAME.max_chars} characters."
        ) from None
    if not isinstance(roles, list) or len(roles) > _MAX_ROLES:
        raise _refused("The token's roles must be a list.")
    try:
        for role in roles:
            _NAME.check(role)
    except (PydanticCustomError, TypeError, AttributeError):
        raise _refused("The token's roles must be short texts.") from None
    email = bare_address(claims.get("email")) if _verified(claims) else None
    return Author(UserId(user_id), name, tuple(roles), email, language_tag(claims.get("locale")))


def _verified(claims: dict[str, Any]) -> bool:
    """Whether the address is the user's own, as far as who made the token says: some never do."""
    return claims.get("email_verified", True) in (True, "true")


def _refused(detail: str) -> ProblemError:
    return fail("unauthenticated", detail)


def mint_token(
    secret: str,
    user_name: str,
    roles: Sequence[str] = (),
    ttl_s: float = 86_400,
    audience: str | None = None,
    email: str | None = None,
    locale: str | None = None,
) -> str:
    """A token for trying out and imports; the user id follows from the name, `ttl_s` is seconds."""
    now = datetime.now(tz=UTC)
    claims: dict[str, Any] = {
        "sub": str(user_id_for(user_name)),
        "name": user_name,
        "roles": list(roles),
        "iat": now,
        "exp": now + timedelta(seconds=ttl_s),
    }
    more = {"aud": audience, "email": email, "locale": locale}
    claims |= {name: value for name, value in more.items() if value is not None}
    return jwt.encode(claims, secret, algorithm="HS256")
