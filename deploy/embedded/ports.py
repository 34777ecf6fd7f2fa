"""Free ports of 127.0.0.1."""

import random
import socket

FIRST, LAST = 20_000, 32_000
"""Below the range systems take outgoing ports from, so that a recorded port stays free."""


def refusal(port: int, host: str = "127.0.0.1") -> OSError | None:
    """Why a server could not listen on `port` now; `None` if it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, or a port with connections in TIME_WAIT would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    return refusal(port) is None


def choose(preferred: int | None, taken: set[int]) -> int:
    """`preferred` if it is free, else a free port that is not in `taken`."""
    if preferred and is_free(preferred):
        return preferred
    candidates = random.sample(range(FIRST, LAST), 200)
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise OSError(f"none of 200 ports between {FIRST} and {LAST} is free on 127.0.0.1")
