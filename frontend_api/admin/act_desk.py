"""Orders acts: an operator's act goes signed into the acts topic, and what became of it comes back."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol

from aiokafka.errors import KafkaError

from frontend_api.kafka_producer import (
    NotAccepted,
    OutcomeUnknown,
    Producer,
    ProducerBurned,
    Published,
)
from schema.acts import Act, seal_act
from schema.envelope import Keyring, Record

MOST_RESULTS: Final = 1000
_LIMIT_S: Final = 3.0


class PublisherPort(Protocol):
    """Raises `NotAccepted` or `OutcomeUnknown`."""

    async def publish(self, record: Record) -> None: ...


class ActPublisher:
    """Kafka adapter: a producer that is there from the first act on, and made anew after an error."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._producer: Producer | None = None
        self._lock = asyncio.Lock()

    async def publish(self, record: Record) -> None:
        until = asyncio.get_running_loop().time() + _LIMIT_S
        async with self._lock:  # operators are few
            try:
                producer = await self._started()
                await producer.send(record, 0, until, _late)
            except ProducerBurned as error:
                await self._drop()
                if error.queued:
                    raise OutcomeUnknown(str(error)) from error
                raise NotAccepted(str(error)) from error
            except (NotAccepted, OutcomeUnknown):
                await self._drop()
                raise

    async def close(self) -> None:
        await self._drop()

    async def _started(self) -> Producer:
        if self._producer is None:
            producer = Producer(self._bootstrap, self._topic)
            try:
                await producer.start(_LIMIT_S)
            except (KafkaError, OSError, TimeoutError) as error:
                await producer.stop()
                raise NotAccepted(type(error).__name__) from error
            self._producer = producer
        return self._producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()


def _late(_: Published) -> None:
    """Its result will be told by the writer."""


class ActDesk:
    """What was ordered here and what became of it, as the outcomes topic tells; bounded, in memory.

    What it has forgotten, the audit log knows.
    """

    def __init__(self, publisher: PublisherPort, keyring: Keyring) -> None:
        self._publisher = publisher
        self._keyring = keyring
        self._ordered: OrderedDict[uuid.UUID, Act] = OrderedDict()
        self._results: OrderedDict[uuid.UUID, Mapping[str, Any]] = OrderedDict()

    async def order(self, act: Act) -> None:
        """Have the writer do it; the same act again changes nothing. Raises `NotAccepted` or
        `OutcomeUnknown`."""
        _keep(self._ordered, act.act_id, act)
        try:
            await self._publisher.publish(seal_act(act, self._keyring, "urn:afterwrite:admin"))
        except NotAccepted:
            self._ordered.pop(act.act_id, None)
            raise

    def tell(self, message: Mapping[str, Any]) -> None:
        """A message of the outcomes topic; all but the results of acts are left alone."""
        if message.get("kind") != "act":
            return
        try:
            act = uuid.UUID(str(message["act_id"]))
        except (KeyError, ValueError):
            return
        _keep(self._results, act, message)

    def ordered(self, act: uuid.UUID) -> Act | None:
        return self._ordered.get(act)

    def result(self, act: uuid.UUID) -> Mapping[str, Any] | None:
        """`{"ok": …, "result": {…}}`, if it is known here."""
        return self._results.get(act)


def _keep(kept: "OrderedDict[uuid.UUID, Any]", key: uuid.UUID, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > MOST_RESULTS:
        kept.popitem(last=False)
