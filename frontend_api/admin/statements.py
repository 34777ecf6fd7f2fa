"""Every statement of the operators' pages. All of them only read, and look at a bounded number of rows.

Texts that vary are chosen from those here, never made of a request; values are always parameters.
"""

from typing import Final

MOST_COUNTED: Final = 10_000
"""Up to here rows are counted; beyond it, it is said that there are more."""
MOST_LOOKED_AT: Final = 5000
"""Rows of the ledger that one page looks through for those that its filter wants."""
MOST_GROUPED: Final = 20_000
"""Dead letters that are put into groups, the newest first."""

LANES: Final = """
select lane, position, epoch, owner, leased_until > clock_timestamp() as leased, halted, paused,
    deaths, outcome_seq - settled_seq as unsettled, settled_seq as settled
from afterwrite.lane order by lane
"""

COUNTS: Final = f"""
select
    (select count(*) from (
        select from afterwrite.dead_letter where closed is null limit {MOST_COUNTED + 1}) d) as dead,
    p.commands as parked, p.streams, p.since as parked_since, p.next as next_retry
from (
    select count(*) as commands, count(distinct (lane, stream)) as streams,
        min(parked_at) as since, min(retry_at) as next
    from (select lane, stream, parked_at, retry_at from afterwrite.parked
          limit {MOST_COUNTED + 1}) bounded
) p
"""  # noqa: S608 - from the texts here

# Of the last hundred commands of each lane, if they are of the last quarter of an hour.
LATENCY: Final = """
select percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from took)) as seconds
from afterwrite.lane l cross join lateral (
    select g.outcome, g.decided_at, g.decided_at - g.accepted_at as took from afterwrite.ledger g
    where g.lane = l.lane order by g.seq desc limit 100
) t
where t.outcome = 'saved' and t.decided_at > now() - interval '15 minutes'
"""

_LEDGER: Final = """command_id, outcome, lane, "offset", author_id, stream, accepted_at, decided_at,
    effects, problem, duplicate_of, seq"""

STATES: Final = {
    "": "outcome <> 'duplicate'",
    "saved": "outcome = 'saved'",
    "rejected": "outcome = 'rejected'",
    "parked": "outcome = 'parked'",
    "duplicate": "outcome = 'duplicate'",
}
"""Which rows of the ledger are meant, by the state that is asked for; none: all but repeats."""


def _looked(state: str, *, author: bool) -> str:
    """The rows that are looked at. $1 and $2: ids below and from, $3: author."""
    who = "author_id = $3" if author else "$3::uuid is null"
    return f"""
with looked as (
    select {_LEDGER} from afterwrite.ledger
    where {STATES[state]} and {who} and command_id < $1 and command_id >= $2
    order by command_id desc limit {MOST_LOOKED_AT}
)"""  # noqa: S608 - from the texts above


def commands(state: str, *, author: bool) -> str:
    """$4: code, $5: type, $6: limit. Newest first."""
    return f"""{_looked(state, author=author)}
select looked.*, d.type as dead_type, d.closed
from looked left join afterwrite.dead_letter d using (lane, "offset")
where ($4::text is null or problem ->> 'code' = $4)
    and ($5::text is null or d.type = $5
         or effects @> jsonb_build_array(jsonb_build_object('type', $5::text)))
order by command_id desc limit $6
"""  # noqa: S608 - from the texts here


def looked_at(state: str, *, author: bool) -> str:
    """How many rows `commands` looks at, and the last of them."""
    return f"""{_looked(state, author=author)}
select count(*) as number, (select command_id from looked order by command_id limit 1) as last
from looked
"""  # noqa: S608 - from the texts here


COMMAND: Final = f"""
select {_LEDGER} from afterwrite.ledger where command_id = $1 and outcome <> 'duplicate'
union all
(select {_LEDGER} from afterwrite.ledger
 where command_id = $1 and outcome = 'duplicate' limit 20)
"""  # noqa: S608 - from the texts here

SETTLED: Final = "select settled_seq from afterwrite.lane where lane = $1"

_LETTER: Final = """lane, "offset", command_id, author_id, code, detail, sqlstate, constraint_name,
    attempts, died_at, type, closed, closed_at, replay_id"""

CLOSED: Final = {
    "open": "closed is null",
    "replayed": "closed = 'replayed'",
    "discarded": "closed = 'discarded'",
    "all": "true",
}
"""Which dead letters are meant."""


def _chosen(closed: str) -> str:
    """$1: code, $2: type (`-`: none), $3: author, $4 and $5: from and before when they died."""
    return f"""{CLOSED[closed]} and ($1::text is null or code = $1)
    and ($2::text is null or type = $2 or ($2 = '-' and type is null))
    and ($3::uuid is null or author_id = $3)
    and ($4::timestamptz is null or died_at >= $4) and ($5::timestamptz is null or died_at < $5)"""


def groups(closed: str) -> str:
    return f"""
select code, type, (died_at at time zone 'UTC')::date as day, count(*) as number,
    count(distinct author_id) as authors, max(died_at) as newest,
    (array_agg(detail order by died_at desc))[1] as sample
from (
    select code, type, died_at, author_id, detail from afterwrite.dead_letter
    where {_chosen(closed)} order by died_at desc limit {MOST_GROUPED}
) bounded
group by 1, 2, 3 order by 3 desc, 4 desc, 1, 2 limit 500
"""  # noqa: S608 - from the texts above


def letters(closed: str) -> str:
    """$6, $7, $8: the letter to go on behind; $9: limit. Newest first."""
    return f"""
select {_LETTER} from afterwrite.dead_letter
where {_chosen(closed)} and ($6::timestamptz is null or (died_at, lane, "offset") < ($6, $7::int, $8::bigint))
order by died_at desc, lane desc, "offset" desc limit $9
"""  # noqa: S608 - from the texts above


def in_order(closed: str) -> str:
    """What an act would take, in its order. $6: limit."""
    return f"""
select {_LETTER} from afterwrite.dead_letter
where {_chosen(closed)} order by lane, "offset" limit $6
"""  # noqa: S608 - from the texts above


PLACES: Final = f"""
select {_LETTER} from afterwrite.dead_letter
where (lane, "offset") in (select * from unnest($1::int[], $2::bigint[])) order by lane, "offset"
"""  # noqa: S608 - from the texts here

LETTER: Final = f"""
select {_LETTER}, key, value, headers from afterwrite.dead_letter where lane = $1 and "offset" = $2
"""  # noqa: S608 - from the texts here

HELD: Final = """
select key, value, headers, parked_at, retry_at, attempts, code, waits_for
from afterwrite.parked where lane = $1 and "offset" = $2
"""

# The head of each stream, and how many wait in it. The ledger says when the head was accepted.
PARKED: Final = f"""
select heads.*, l.accepted_at, l.author_id
from (
    select * from (
        select distinct on (lane, stream) lane, stream, "offset", period, command_id, code, waits_for,
            parked_at, attempts, retry_at, count(*) over (partition by lane, stream) as waiting
        from (select * from afterwrite.parked order by lane, "offset" limit {MOST_COUNTED + 1}) bounded
        order by lane, stream, "offset"
    ) firsts
    order by retry_at, lane, "offset" limit 500
) heads
left join lateral (
    select g.accepted_at, g.author_id from afterwrite.ledger g
    where g.lane = heads.lane and g."offset" = heads."offset" and g.period = heads.period limit 1
) l on true
order by heads.retry_at, heads.lane, heads."offset"
"""  # noqa: S608 - from the texts here

# $1: who, $2: act, $3 and $4: from and before when, $5 and $6: the row to go on behind; $7: limit.
AUDIT: Final = """
select act_id, at, who, act, target, reason, result from afterwrite.audit_log
where ($1::text is null or starts_with(who, $1)) and ($2::text is null or act = $2)
    and ($3::timestamptz is null or at >= $3) and ($4::timestamptz is null or at < $4)
    and ($5::timestamptz is null or (at, act_id) < ($5, $6::uuid))
order by at desc, act_id desc limit $7
"""

ACT: Final = """
select act_id, at, who, act, target, reason, result from afterwrite.audit_log where act_id = $1
"""
