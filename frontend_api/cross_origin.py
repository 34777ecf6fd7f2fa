"""Which other sites' pages may use the API from a browser (CORS)."""

from typing import Any, Final

EXPOSED: Final = (
    "Age", "ETag", "Idempotency-Replayed", "Link", "Location", "Preference-Applied", "RateLimit",
    "RateLimit-Policy", "Retry-After", "traceparent",
)  # fmt: skip
"""Headers of answers that a page may read, beside those that it always may."""
ACCEPTED: Final = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "Last-Event-ID", "Prefer",
    "traceparent", "tracestate",
)  # fmt: skip
"""Headers of requests that a page may send."""
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_MAX_AGE_S: Final = 600


def cors(origins: str) -> dict[str, Any]:
    """Arguments of the layer that answers for these origins, a list with commas; `*` for all.

    No cookies: who calls is told by a bearer token, which a page has to have.
    """
    return {
        "allow_origins": [origin.strip() for origin in origins.split(",") if origin.strip()],
        "allow_methods": _METHODS,
        "allow_headers": ACCEPTED,
        "expose_headers": EXPOSED,
        "allow_credentials": False,
        "max_age": _MAX_AGE_S,
    }
