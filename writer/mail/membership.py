"""Whether the group knows us: asked of the broker, by another connection than the one that may be stuck."""

import asyncio
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient

from writer.failures import LogUnavailable
from writer.kafka_errors import translated

_ANSWER_S: Final = 10.0


async def is_member(bootstrap: str, group: str, client_id: str) -> bool | None:
    """Whether a member with this client id is in the group; `None` when nobody can say."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, client_id="afterwrite-mail-watch", request_timeout_ms=5000
    )
    try:
        async with asyncio.timeout(_ANSWER_S):
            with translated():
                await admin.start()
                answers = await admin.describe_consumer_groups([group])
        return _found(answers, client_id)
    except (LogUnavailable, TimeoutError):
        return None
    finally:
        closing = asyncio.ensure_future(admin.close())
        await asyncio.wait({closing}, timeout=5)
        closing.cancel()


def _found(answers: list[Any], client_id: str) -> bool | None:
    for answer in answers:
        for group in answer.to_object()["groups"]:
            if group["error_code"] != 0:
                return None
            return any(member["client_id"] == client_id for member in group["members"])
    return None
