"""How full the brokers' disks are, asked with the writer's Kafka client. What is asked, and what the
answer means, is `schema.broker_disks`'s."""

import asyncio

from aiokafka.client import AIOKafkaClient

from schema.broker_disks import BrokerDisk, DisksUnknown, brokers_of, disk_of
from writer.failures import LogUnavailable
from writer.kafka_errors import given_time, translated


async def broker_disks(bootstrap: str, timeout_s: float) -> list[BrokerDisk]:
    """The disk of each broker that answers, by broker id.

    Raises `LogUnavailable` when none does within the time, `DisksUnknown` when none of them can
    tell: they are older than Kafka 3.3, or their disks have failed.
    """
    client = AIOKafkaClient(
        bootstrap_servers=bootstrap,
        client_id="afterwrite-disks",
        request_timeout_ms=int(timeout_s * 1000),
    )
    try:
        with translated():
            async with asyncio.timeout(timeout_s):
                await client.bootstrap()
            answers = await asyncio.gather(
                *(_ask(client, broker, timeout_s) for broker in brokers_of(client))
            )
    except (OSError, TimeoutError) as error:
        raise LogUnavailable(repr(error)) from error
    finally:
        await given_time(client.close())
    found = [answer for answer in answers if isinstance(answer, BrokerDisk)]
    if not found:
        raise next((a for a in answers if isinstance(a, DisksUnknown)), LogUnavailable("no broker"))
    return found


async def _ask(client: AIOKafkaClient, broker: int, timeout_s: float) -> BrokerDisk | Exception:
    """The disk, or why it is not known: of several brokers, one may be away."""
    try:
        with translated():
            async with asyncio.timeout(timeout_s):
                return await disk_of(client, broker)
    except (DisksUnknown, LogUnavailable, OSError, TimeoutError) as error:
        return error
