"""SQL of the writer. Names come from declarations only; values are always parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from schema.content import Kind


@dataclass(frozen=True)
class Statements:
    """The set-based statements of one content type; `select` and `lock` are texts of questions."""

    select: str
    lock: str
    insert: str
    copied: tuple[str, ...]
    """The columns by which many new rows are copied; none if a column has no binary form here."""
    update: str
    delete: str
    count: dict[str, str]
    below: dict[str, str]
    """Reference → the rows that hang on others by it: (parent, id), $2 for each parent at most."""

    @classmethod
    def of(cls, kind: Kind) -> "Statements":
        table = f'public."{kind.name}"'
        columns = kind.written_columns
        types = kind.column_types()
        names = ", ".join(f'"{c}"' for c in columns)
        arrays = ", ".join(f"${n}::{types[c]}[]" for n, c in enumerate(columns, 1))
        changed = ", ".join(f'"{c}" = u."{c}"' for c in columns if c not in ("id", "created_at"))
        every = ", ".join(f'"{c}"::{types[c]}' for c in kind.columns)
        select = f"SELECT {every} FROM {table} WHERE id = ANY(${{}}::uuid[])"  # noqa: S608
        return cls(
            select=select,
            lock=f"{select} ORDER BY id FOR UPDATE",
            insert=f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})",  # noqa: S608
            copied=() if "json" in types.values() else columns,
            update=(
                f"UPDATE {table} t SET {changed} "  # noqa: S608
                f"FROM unnest({arrays}) AS u({names}) WHERE t.id = u.id"
            ),
            delete=f"DELETE FROM {table} WHERE id = ANY($1::uuid[])",  # noqa: S608
            count={
                column: f'UPDATE {table} t SET "{column}" = t."{column}" + u.delta '  # noqa: S608
                "FROM unnest($1::uuid[], $2::bigint[]) AS u(id, delta) WHERE t.id = u.id"
                for column in kind.counters
            },
            below={
                field.name: "SELECT p.id AS parent, c.id FROM unnest($1::uuid[]) AS p(id) "  # noqa: S608
                f'CROSS JOIN LATERAL (SELECT id FROM {table} WHERE "{field.name}" = p.id '
                "ORDER BY id LIMIT $2) c"
                for field in kind.refs
            },
        )


class Question(NamedTuple):
    """A SELECT with `${}` for each parameter, in order, and the parameters."""

    text: str
    values: tuple[object, ...]

    def numbered(self, after: int = 0) -> str:
        return self.text.format(*range(after + 1, after + len(self.values) + 1))


def in_one(questions: Sequence[Question]) -> Question:
    """One for several, in order: it answers with one row, in which the rows of each are an array.

    Columns must have built-in types: in an array they are described by nothing else.
    """
    parts: list[str] = []
    values: list[object] = []
    for question in questions:
        parts.append(f"ARRAY(SELECT ROW(q.*) FROM ({question.numbered(len(values))}) q)")  # noqa: S608
        values += question.values
    return Question("SELECT " + ", ".join(parts), tuple(values))


# Whoever holds a lane holds a lock of its session, too, named after lane and epoch. It is free when that
# session has ended, whatever ended it, and a zombie's lock is in nobody's way: its epoch is over. Probing
# takes it for the length of the statement, shared, so that several may probe.
_SESSION: Final = "(24934::bigint << 48) | (lane::bigint << 32) | ((epoch + {}) & 4294967295)"
_FREE: Final = f"""(owner IS NULL OR owner = $2 OR leased_until < clock_timestamp()
    OR pg_try_advisory_xact_lock_shared({_SESSION.format(0)}))"""

# Before the lane is taken the next epoch's lock is: nobody may find an epoch whose lock is free
# though its writer lives.
CLAIM_LANE: Final = f"""
SELECT epoch, halted, deaths > 0 AND $2 = ANY(fallen) AS taken_for_dead,
    CASE WHEN halted IS NULL AND {_FREE} THEN pg_try_advisory_lock({_SESSION.format(1)}) ELSE false END
        AS claimed
FROM afterwrite.lane WHERE lane = $1
"""  # noqa: S608

UNCLAIM_LANE: Final = f"""
SELECT pg_advisory_unlock({_SESSION.format(1)})
FROM (SELECT $1::integer AS lane, $2::bigint AS epoch) AS claim
"""  # noqa: S608

# A writer that only lost its connection did not die here.
NOT_DEAD: Final = """
UPDATE afterwrite.lane SET fallen = array_remove(fallen, $2), deaths = cardinality(array_remove(fallen, $2))
WHERE lane = $1 AND deaths > 0 AND $2 = ANY(fallen)
"""

# Taking a lane: the row lock waits for whatever transaction the previous owner still has open, and
# the position that comes back is what was committed before the epoch was raised. Then it is asked
# again whether the lane is free: the transaction may have been a long one of an owner who lives.
TAKE_LANE: Final = f"""
UPDATE afterwrite.lane SET
    epoch = epoch + 1,
    owner = $2,
    leased_until = clock_timestamp() + $3::interval,
    (deaths, fallen) = (
        SELECT cardinality(f.names), f.names FROM (SELECT CASE
            WHEN owner IS NULL OR owner = $2 THEN '{{}}'
            WHEN died_at_position = position AND deaths > 0 THEN array_remove(fallen, $2) || owner
            ELSE ARRAY[owner] END) AS f(names)),
    died_at_position = position
WHERE lane = $1 AND epoch = $4 AND halted IS NULL AND {_FREE}
RETURNING epoch, position, log_id, outcome_seq, settled_seq, deaths
"""  # noqa: S608

LAST_APPLIED: Final = """
SELECT command_id FROM afterwrite.ledger WHERE lane = $1 AND "offset" = $2
"""

# Only an idle writer renews: nobody dies of an empty log, so deaths are forgotten.
RENEW_LANE: Final = """
UPDATE afterwrite.lane SET leased_until = clock_timestamp() + $3::interval, deaths = 0,
    settled_seq = greatest(settled_seq, $4)
WHERE lane = $1 AND epoch = $2
RETURNING halted
"""

# While an operator has paused it: the lease is kept, and it is not forgotten who died here.
KEEP_LANE: Final = """
UPDATE afterwrite.lane SET leased_until = clock_timestamp() + $3::interval,
    settled_seq = greatest(settled_seq, $4)
WHERE lane = $1 AND epoch = $2
RETURNING halted
"""

# What a writer looks at now and then: may it go on, and is a parked stream due.
LOOK: Final = """
SELECT paused, (SELECT min(retry_at) FROM afterwrite.parked WHERE lane = $1) AS due
FROM afterwrite.lane WHERE lane = $1
"""

RELEASE_LANE: Final = """
UPDATE afterwrite.lane SET owner = NULL, leased_until = NULL, deaths = 0,
    settled_seq = greatest(settled_seq, $3)
WHERE lane = $1 AND epoch = $2
"""

HALT_LANE: Final = "UPDATE afterwrite.lane SET halted = $3 WHERE lane = $1 AND epoch = $2"

# The two ends of every transaction. A round trip takes as long as its work, and somebody waits for each: so
# these go as scripts, which take no parameters. What is put into them are numbers, and `d` lets nothing else.

# The compare-and-swap on position, outcome number and epoch is the fence. It refuses while the lane is
# paused, too: who pauses it waits for the transaction that has moved the position, and there is no next one.
# Constraints are checked at once, so that a violation is met at the statement that causes it.
BEGIN_BATCH: Final = """
BEGIN; SET CONSTRAINTS ALL IMMEDIATE;
UPDATE afterwrite.lane SET position = {to:d}, leased_until = clock_timestamp() + {lease_ms:d} * interval '1 ms',
    settled_seq = greatest(settled_seq, {settled:d}), deaths = 0
WHERE lane = {lane:d} AND epoch = {epoch:d} AND position = {position:d} AND outcome_seq = {seq:d}
    AND halted IS NULL AND paused IS NULL
"""

# Only a pause keeps the position of a lane that is held still.
IS_HELD: Final = """
SELECT FROM afterwrite.lane
WHERE lane = $1 AND epoch = $2 AND position = $3 AND outcome_seq = $4 AND halted IS NULL
"""

# The lease counts from here: a batch may have taken longer than it.
COMMIT_BATCH: Final = """
UPDATE afterwrite.lane SET outcome_seq = {seq:d},
    leased_until = clock_timestamp() + {lease_ms:d} * interval '1 ms'
WHERE lane = {lane:d};
COMMIT
"""

# The text of a question. A row without an id says that the lane holds commands back.
DECIDED: Final = """
SELECT command_id FROM afterwrite.ledger
WHERE command_id = ANY(${}::uuid[]) AND period = ANY(${}::date[]) AND outcome <> 'duplicate'
UNION ALL
SELECT NULL WHERE EXISTS (SELECT FROM afterwrite.parked WHERE lane = ${})
"""

USED_KEYS: Final = """
SELECT author_id, key, command_id, fingerprint FROM afterwrite.idempotency_key
WHERE (author_id, key) IN (SELECT * FROM unnest(${}::uuid[], ${}::text[]))
"""

# The only effect of a rejected command is its notice.
DENIED: Final = """
SELECT command_id, author_id, outcome, denied, problem, effects FROM afterwrite.ledger
WHERE denied IS NOT NULL AND denied && $1::uuid[] ORDER BY lane, seq
"""

REJECTED: Final = """
SELECT command_id, author_id, outcome, denied, problem, effects FROM afterwrite.ledger
WHERE command_id = ANY($1::uuid[]) AND period = ANY($2::date[]) AND outcome = 'rejected'
"""

PARKED: Final = """
SELECT "offset", stream, key, value, headers, code, waits_for, parked_at, attempts, retry_at
FROM afterwrite.parked
WHERE lane = $1 AND stream IN (
    SELECT stream FROM afterwrite.parked
    WHERE lane = $1 AND (stream = ANY($2::uuid[]) OR waits_for && $3::uuid[]))
ORDER BY "offset"
"""

# Only the head of a stream has a time of its own.
DUE_STREAMS: Final = """
SELECT stream, max(attempts) AS attempts FROM afterwrite.parked
WHERE lane = $1 AND retry_at <= $2 GROUP BY stream ORDER BY min(retry_at) LIMIT 50
"""

# Not later than at the horizon $5; but what is beyond it already may have killed the writer, and waits.
POSTPONE: Final = """
UPDATE afterwrite.parked p SET attempts = attempts + 1,
    retry_at = least($4, CASE WHEN l.accepted_at + $5::interval > $3 THEN l.accepted_at + $5::interval END)
FROM afterwrite.ledger l
WHERE p.lane = $1 AND p.stream = $2 AND p.retry_at <= $3
    AND l.lane = p.lane AND l."offset" = p."offset" AND l.period = p.period
"""

LEDGER_COLUMNS: Final = (
    "lane",
    "offset",
    "period",
    "seq",
    "epoch",
    "outcome",
    "command_id",
    "author_id",
    "stream",
    "accepted_at",
    "decided_at",
    "effects",
    "problem",
    "duplicate_of",
    "denied",
)
INSERT_LEDGER: Final = f"""
INSERT INTO afterwrite.ledger ({", ".join(f'"{name}"' for name in LEDGER_COLUMNS)})
VALUES ({", ".join(f"${n}" for n in range(1, len(LEDGER_COLUMNS) + 1))})
"""  # noqa: S608 - from the names above

UPDATE_LEDGER: Final = """
UPDATE afterwrite.ledger SET outcome = $4, seq = $5, epoch = $6, decided_at = $7, effects = $8,
    problem = $9, denied = $10
WHERE lane = $1 AND "offset" = $2 AND period = $3 AND outcome = 'parked'
"""

INSERT_KEYS: Final = """
INSERT INTO afterwrite.idempotency_key (author_id, key, command_id, fingerprint, used_at)
SELECT u.author_id, u.key, u.command_id, u.fingerprint, $1
FROM unnest($2::uuid[], $3::text[], $4::uuid[], $5::text[])
    AS u(author_id, key, command_id, fingerprint)
"""

INSERT_DEAD: Final = """
INSERT INTO afterwrite.dead_letter (lane, "offset", command_id, author_id, key, value, headers, code,
    detail, sqlstate, constraint_name, attempts, died_at, type)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""

INSERT_PARKED: Final = """
INSERT INTO afterwrite.parked (lane, "offset", period, stream, command_id, key, value, headers, code,
    waits_for, parked_at, attempts, retry_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""

UPDATE_PARKED: Final = """
UPDATE afterwrite.parked SET code = $3, waits_for = $4, attempts = $5, retry_at = $6
WHERE lane = $1 AND "offset" = $2
"""

DELETE_PARKED: Final = (
    'DELETE FROM afterwrite.parked WHERE lane = $1 AND "offset" = ANY($2::bigint[])'
)

UNSETTLED: Final = """
SELECT l."offset", l.seq, l.outcome, l.command_id, l.author_id, l.problem, l.duplicate_of,
    l.accepted_at, l.decided_at, l.effects
FROM afterwrite.ledger l WHERE l.lane = $1 AND l.seq > $2 ORDER BY l.seq LIMIT $3
"""

FIRST_OUTCOMES: Final = """
SELECT command_id, outcome, lane, "offset" FROM afterwrite.ledger
WHERE command_id = ANY($1::uuid[]) AND outcome <> 'duplicate'
"""

# A letter whose command repeats another letter's names it, and when the first of them died.
DEAD_LETTERS: Final = """
WITH RECURSIVE letter AS (
    SELECT * FROM afterwrite.dead_letter WHERE lane = $1 AND "offset" = ANY($2::bigint[])
), chain AS (
    SELECT "offset" AS of, command_id, NULL::uuid AS replay_of, died_at FROM letter
    UNION ALL
    SELECT chain.of, d.command_id, coalesce(chain.replay_of, d.command_id), d.died_at
    FROM chain JOIN afterwrite.dead_letter d ON d.replay_id = chain.command_id
)
SELECT letter.*, first.replay_of, first.died_at AS first_died_at
FROM letter JOIN LATERAL (
    SELECT replay_of, died_at FROM chain WHERE chain.of = letter."offset" ORDER BY died_at LIMIT 1
) AS first ON true
ORDER BY letter."offset"
"""
