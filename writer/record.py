"""One record of a lane: the bytes as they are in the log, and the command they hold, if any."""

from collections.abc import Iterable
from datetime import UTC, date, datetime

from schema.commands import Command
from schema.envelope import Envelope, EnvelopeError, Keyring, UnknownVersion, open_record
from schema.identifiers import month_of
from schema.structs import struct
from writer.failures import Halt
from writer.ids import read_id

Headers = tuple[tuple[str, bytes | None], ...]


@struct(frozen=True)
class LaneRecord:
    """A record with its place in the lane. Either `envelope` or `fault` is set."""

    lane: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    envelope: Envelope | None
    fault: EnvelopeError | None = None

    @property
    def command(self) -> Command:
        if self.envelope is None:
            raise AssertionError("a record without a command was asked for it")
        return self.envelope.command

    @property
    def period(self) -> date:
        """The month whose ledger partition has this record's row: a function of the record."""
        if self.envelope is not None:
            try:
                return month_of(self.envelope.command.command_id)
            except ValueError:
                pass  # no UUIDv7: nobody but ourselves could have signed it, and it is kept all the same
        moment = datetime.fromtimestamp(max(self.timestamp_ms, 0) / 1000, tz=UTC)
        return moment.date().replace(day=1)


def read_record(
    lane: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    keyring: Keyring,
) -> LaneRecord:
    """Decode a record. Bytes that are no command become a record with a fault.

    Raises `Halt` for a genuine command of a newer version: the writer is older than the front end,
    and rejecting would lose what a newer writer can save.
    """
    kept = tuple(headers)
    try:
        envelope = open_record(key, value, kept, keyring, read_id)
    except UnknownVersion as error:
        raise Halt(f"lane {lane} offset {offset}: {error}; upgrade the writer first") from error
    except EnvelopeError as error:
        return LaneRecord(lane, offset, timestamp_ms, key, value, kept, None, error)
    return LaneRecord(lane, offset, timestamp_ms, key, value, kept, envelope)
