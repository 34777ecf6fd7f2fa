"""Is it ready? One small question in each server's own protocol, over a plain socket.

An open port is not enough: PostgreSQL answers while it still recovers, Redis while it loads, Kafka
before its broker is registered. A probe takes at most `TIMEOUT_S` and never raises.
"""

import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable

TIMEOUT_S = 1.0


def _ask(port: int, question: bytes, enough: Callable[[bytes], bool]) -> bytes:
    """What the server on 127.0.0.1 answers, read until `enough`; empty if it does not answer."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
            connection.sendall(question)
            while not enough(answer):
                part = connection.recv(65_536)
                if not part:
                    break
                answer += part
    except OSError:
        return b""
    return answer


def postgres(port: int) -> bool:
    """It asks us for a password (`R`); while starting or stopping it sends an error (`E`)."""
    parameters = b"user\0postgres\0database\0postgres\0\0"
    startup = struct.pack("!ii", len(parameters) + 8, 196_608) + parameters
    return _ask(port, startup, lambda answer: len(answer) >= 1)[:1] == b"R"


def redis(port: int, password: str) -> bool:
    """It answers PING; while loading its data it does not."""
    question = f"AUTH {password}\r\nPING\r\n".encode()
    answer = _ask(port, question, lambda answer: answer.count(b"\r\n") >= 2)
    return answer == b"+OK\r\n+PONG\r\n"


def kafka(port: int) -> bool:
    """Its metadata name at least one live broker and a controller."""
    body = struct.pack("!hhih", 3, 1, 1, 4) + b"afwr" + struct.pack("!i", 0)
    answer = _ask(port, struct.pack("!i", len(body)) + body, _kafka_complete)
    if not _kafka_complete(answer):
        return False
    try:
        return _brokers_and_controller(answer[8:])
    except (struct.error, IndexError):
        return False


def _kafka_complete(answer: bytes) -> bool:
    return len(answer) >= 4 and len(answer) >= 4 + int(struct.unpack_from("!i", answer)[0])


def _brokers_and_controller(body: bytes) -> bool:
    """Metadata response, version 1: brokers (id, host, port, rack), then the controller's id."""
    (count,) = struct.unpack_from("!i", body)
    at = 4
    for _ in range(count):
        (host,) = struct.unpack_from("!h", body, at + 4)
        at += 6 + host + 4
        (rack,) = struct.unpack_from("!h", body, at)
        at += 2 + max(rack, 0)
    (controller,) = struct.unpack_from("!i", body, at)
    return bool(count >= 1 and controller >= 0)


def http(url: str, accept: frozenset[int] = frozenset({200})) -> bool:
    """A GET answers with a status in `accept`."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 (our own URL)
            return int(response.status) in accept
    except urllib.error.HTTPError as error:
        with error:
            return error.code in accept
    except (OSError, ValueError):
        return False


def smtp(port: int) -> bool:
    """It greets."""
    return _ask(port, b"QUIT\r\n", lambda answer: b"\r\n" in answer)[:3] == b"220"
