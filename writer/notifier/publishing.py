"""Doing what is owed: notices into the overlay and the log, mail and alerts into their topics.

Every step may be repeated. A notice is the same command however often it is published, and the writer
takes it once; a mail has an id, by which those who send it know it.
"""

import json
import uuid
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from schema.alerts import Alert
from schema.catalog import Catalog
from schema.commands import Command
from schema.envelope import Envelope, Keyring, seal
from schema.failpoints import reach
from schema.fields import render_time
from schema.overlay import CONFIRM, LAY, PUT
from schema.redis_keys import RedisKeys, short_id
from schema.scopes import Touch, entry_of, scopes_of_touches
from schema.telemetry import Log
from schema.topics import Topics, lane_of
from writer.notifier.memory import Memory
from writer.publisher import Message

SOURCE: Final = "/afterwrite/notifier"
_REDIS_S: Final = 1.0
_AT_ONCE: Final = 200


class PublisherPort(Protocol):
    async def publish(self, messages: Sequence[Message]) -> list[int | None]: ...


class NoticeOverlay:
    """Redis adapter: shows a notice to its user before it is stored. Raises `RedisError` or `OSError`."""

    def __init__(self, url: str, keys: RedisKeys, catalog: Catalog, grace_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_REDIS_S,
            socket_connect_timeout=_REDIS_S,
            decode_responses=True,
        )
        self._keys = keys
        self._catalog = catalog
        self._lay_within_ms = int(grace_s * 1000 / 2)

    async def put(self, command: Command) -> None:
        """Lay it, unconfirmed: its author sees it, and nobody else ever does."""
        await self._run(PUT, command, [])

    async def lay(self, command: Command, lane: int | None, offset: int | None) -> None:
        """It is in the log: lay it if it is not there, and say where it is, if that is certain."""
        place = [str(lane), str(offset)] if offset is not None else ["", ""]
        confirmed = await self._redis.eval(
            CONFIRM,
            1,
            self._keys.entries(command.author.id),
            short_id(command.command_id),
            *place,
        )
        if confirmed is None:
            until_ms = int(command.accepted_at.timestamp() * 1000) + self._lay_within_ms
            await self._run(LAY, command, [*place, str(until_ms)])

    async def close(self) -> None:
        await self._redis.aclose()

    async def _run(self, script: str, command: Command, args: Sequence[str]) -> None:
        owner = command.author.id
        touches = [
            Touch(kind, m.id, kind.from_json(m.values), 1)
            for m in command.mutations
            for kind in [self._catalog[m.type]]
        ]
        scopes = scopes_of_touches(self._catalog, self._keys, command, touches)
        payload, members = entry_of(self._keys, command, scopes)
        await self._redis.eval(
            script,
            2,
            self._keys.entries(owner),
            self._keys.index(owner),
            short_id(command.command_id),
            payload,
            *args,
            *members,
        )


@dataclass
class Outbox:
    """Works off what the memory says is owed. `log_id` names the log; without it nothing is published."""

    memory: Memory
    publisher: PublisherPort
    overlay: NoticeOverlay
    catalog: Catalog
    keyring: Keyring
    topics: Topics
    log: Log
    log_id: uuid.UUID | None = None
    never_tried: set[str] = field(default_factory=set)
    """Keys of notices that were owed by this process and that it has not yet tried to publish. Any
    other may be in the log already: then its place is not certain, and the ledger is asked."""

    def owe(self, records: Mapping[str, Any]) -> None:
        """Remember these, among which may be notices."""
        self.never_tried.update(key for key in records if key.startswith("notice:"))
        self.memory.put(records)

    async def notices(self) -> list[str]:
        """Publish the notices that are owed; returns their kinds. Raises `LogUnavailable`, `TimeoutError`.

        Lay, publish, confirm, tell: as accepting does. What Redis does not take is laid later.
        """
        if self.log_id is None:
            return []
        owed = self.memory.below("notice:")
        fresh = _commands(owed, published=False)
        unshown = _commands(owed, published=True)
        await self._each_shown({k: self.overlay.put(c) for k, c in fresh.items()})
        reach("notifier_after_overlay")
        sure = self.never_tried & fresh.keys()
        self.never_tried -= sure
        places = await self._publish(fresh, sure)
        reach("notifier_after_publish")
        places |= {key: owed[key]["place"] for key in unshown}
        commands = fresh | unshown
        shown = await self._each_shown(
            {key: self.overlay.lay(commands[key], *place) for key, place in places.items()}
        )
        reach("notifier_after_confirm")
        if fresh:
            await self.publisher.publish([self._message(command) for command in fresh.values()])
        reach("notifier_before_told")
        self.memory.put(
            {
                key: None if key in shown else {**owed[key], "place": place}
                for key, place in places.items()
                if key in shown or key in fresh
            }
        )
        await self.memory.written(5.0)
        return [command.mutations[0].values["kind"] for command in fresh.values()]

    async def mails(self, most: int) -> int:
        """Queue mails that are owed, at most so many; returns how many."""
        owed = list(self.memory.below("mail:").items())[:most]
        if not owed:
            return 0
        await self.publisher.publish(
            [
                Message(
                    self.topics.mail.name,
                    key.removeprefix("mail:").encode(),
                    json.dumps(value, ensure_ascii=False).encode(),
                )
                for key, value in owed
            ]
        )
        self.memory.put(dict.fromkeys((key for key, _ in owed), None))
        return len(owed)

    async def alerts(self, alerts: Sequence[Alert]) -> None:
        """Copies of what the channels were given, for the pages of operators."""
        await self.publisher.publish(
            [
                Message(
                    self.topics.alerts.name,
                    alert.incident.encode(),
                    json.dumps(alert.to_json(), ensure_ascii=False).encode(),
                )
                for alert in alerts
            ]
        )

    async def _publish(
        self, commands: Mapping[str, Command], sure: Collection[str]
    ) -> dict[str, list[int | None]]:
        """Into the log; lane and offset by memory key, the offset if it is certain."""
        assert self.log_id is not None
        lanes = self.topics.commands.partitions
        if not commands:
            return {}
        messages = []
        for command in commands.values():
            record = seal(Envelope(command, self.log_id), self.keyring, SOURCE)
            lane = lane_of(command.stream, lanes)
            messages.append(
                Message(self.topics.commands.name, record.key, record.value, record.headers, lane)
            )
        offsets = await self.publisher.publish(messages)
        return {
            key: [message.partition, offset if key in sure else None]
            for key, message, offset in zip(commands, messages, offsets, strict=True)
        }

    async def _each_shown(self, works: Mapping[str, Coroutine[Any, Any, None]]) -> set[str]:
        """The keys of what Redis took. When it takes one no more, the rest is left for later."""
        taken: set[str] = set()
        left = iter(works.items())
        try:
            for key, work in left:
                await work
                taken.add(key)
        except (RedisError, OSError, TimeoutError) as error:
            self.log.info("overlay_unavailable", error=repr(error))
        finally:
            for _, work in left:
                work.close()
        return taken

    def _message(self, command: Command) -> Message:
        """What the API tells its user at once."""
        mutation = command.mutations[0]
        at = render_time(command.accepted_at)
        kind = self.catalog[mutation.type]
        row = {name: f.to_json(f.default) for name, f in kind.fields.items()}
        row |= {"id": str(mutation.id), "version": 1, "created_at": at, "updated_at": at}
        value = {
            "kind": "notice",
            "author": str(command.author.id),
            "command": str(command.command_id),
            "notice": row | dict(mutation.values),
            "at": at,
        }
        return Message(
            self.topics.outcomes.name, str(command.author.id).encode(), json.dumps(value).encode()
        )


def _commands(owed: Mapping[str, Any], *, published: bool) -> dict[str, Command]:
    """Some of the notices that are owed: those that were published and are not shown yet, or others."""
    some = [key for key, value in owed.items() if (value["place"] is not None) == published]
    return {key: Command.from_json(owed[key]["command"]) for key in some[:_AT_ONCE]}
