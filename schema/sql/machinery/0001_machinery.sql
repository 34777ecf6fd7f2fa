-- The machinery: lanes, ledger, idempotency keys, parked commands, dead letters, and who may do what.
-- Roles are made beforehand (see deploy/roles.sql): afterwrite_owner, afterwrite_writer,
-- afterwrite_frontend.

-- migrate:up
create schema if not exists afterwrite;
revoke all on schema afterwrite from public;
revoke create on schema public from public;

-- One row a lane: where its writer stands, and which epoch may move it.
create table afterwrite.lane (
    lane integer primary key check (lane >= 0),
    log_id uuid not null,
    position bigint not null default 0 check (position >= 0),
    epoch bigint not null default 0,
    owner text,
    leased_until timestamptz,
    -- The last outcome number given in this lane, and the last one that is settled.
    outcome_seq bigint not null default 0,
    settled_seq bigint not null default 0,
    -- How often in a row a writer died here without moving on.
    deaths integer not null default 0,
    died_at_position bigint not null default -1,
    -- Why the lane stands still until an operator resumes it.
    halted text,
    -- The ledger is complete from here on; before it, retention has dropped rows.
    ledger_from bigint not null default 0,
    check (settled_seq <= outcome_seq)
);

-- Exactly one row for every offset of every lane below its position. `period` is the month in which
-- the command was accepted, which its id tells: a function of the record, so that the primary key is
-- unique by (lane, offset) and a command id is unique among effective rows, across partitions.
create table afterwrite.ledger (
    lane integer not null,
    "offset" bigint not null,
    period date not null,
    seq bigint not null,
    epoch bigint not null,
    outcome text not null check (outcome in ('saved', 'rejected', 'parked', 'duplicate', 'dead')),
    command_id uuid,
    author_id uuid,
    stream uuid,
    accepted_at timestamptz,
    decided_at timestamptz not null,
    -- What was changed: [{type, id, op, version, digest, parents}].
    effects jsonb not null default '[]',
    -- Why not, as RFC 9457 members.
    problem jsonb,
    -- The command that this one repeats.
    duplicate_of uuid,
    -- Rows that this outcome keeps from being there: what a rejected or parked command would have
    -- created, what a saved one deleted. Later commands that need such a row learn its fate here.
    denied uuid[],
    primary key (lane, "offset", period)
) partition by range (period);
create unique index ledger_command on afterwrite.ledger (command_id, period)
    where outcome <> 'duplicate';
create index ledger_seq on afterwrite.ledger (lane, seq);
create index ledger_author on afterwrite.ledger (author_id, command_id);
create index ledger_denied on afterwrite.ledger using gin (denied) where denied is not null;
create table afterwrite.ledger_other partition of afterwrite.ledger default;

-- One row for each Idempotency-Key of each author, so that losing Redis cannot double a post.
create table afterwrite.idempotency_key (
    author_id uuid not null,
    key text not null,
    command_id uuid not null,
    fingerprint text,
    used_at timestamptz not null,
    primary key (author_id, key)
);
create index idempotency_key_age on afterwrite.idempotency_key (used_at);

-- Commands held back. The head of a stream waits for a row (`waits_for`) or for `retry_at`; the
-- others of its stream wait behind it, in the order of their offsets.
create table afterwrite.parked (
    lane integer not null,
    "offset" bigint not null,
    period date not null,
    stream uuid not null,
    command_id uuid not null unique,
    key bytea not null,
    value bytea not null,
    headers jsonb not null,
    code text not null,
    waits_for uuid[],
    parked_at timestamptz not null,
    attempts integer not null default 0,
    retry_at timestamptz not null,
    primary key (lane, "offset")
);
create index parked_stream on afterwrite.parked (lane, stream, "offset");

-- What was rejected, kept whole: an operator can look, mend, replay or discard.
create table afterwrite.dead_letter (
    lane integer not null,
    "offset" bigint not null,
    command_id uuid,
    author_id uuid,
    key bytea,
    value bytea,
    headers jsonb not null,
    code text not null,
    detail text not null,
    sqlstate text,
    constraint_name text,
    attempts integer not null default 1,
    died_at timestamptz not null,
    primary key (lane, "offset")
);

-- The writer has no right to change tables, but ledger partitions must appear month by month.
create function afterwrite.ensure_ledger_period(month date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    first date := date_trunc('month', month)::date;
    name text := 'ledger_' || to_char(first, 'YYYYMM');
begin
    if to_regclass('afterwrite.' || name) is not null then
        return;
    end if;
    -- One at a time: two writers may meet a new month together. Waiting for the lock does not refresh
    -- what a session believes about names, so the one that waited asks with a query.
    perform pg_advisory_xact_lock(hashtextextended('afterwrite.ensure_ledger_period', 0));
    if exists (select from pg_class where relname = name
               and relnamespace = 'afterwrite'::regnamespace) then
        return;
    end if;
    if exists (select from afterwrite.ledger_other
               where period >= first and period < first + interval '1 month') then
        return; -- rows of this month are in the default partition already; they stay there
    end if;
    execute format(
        'create table afterwrite.%I partition of afterwrite.ledger for values from (%L) to (%L)',
        name, first, (first + interval '1 month')::date);
end $$;
revoke all on function afterwrite.ensure_ledger_period(date) from public;

grant usage on schema afterwrite to afterwrite_writer, afterwrite_frontend;
grant select, update on afterwrite.lane to afterwrite_writer;
grant select, insert, update on afterwrite.ledger to afterwrite_writer;
grant select, insert, delete on afterwrite.idempotency_key to afterwrite_writer;
grant select, insert, update, delete on afterwrite.parked to afterwrite_writer;
grant select, insert, update, delete on afterwrite.dead_letter to afterwrite_writer;
grant execute on function afterwrite.ensure_ledger_period(date) to afterwrite_writer;
grant select on afterwrite.lane, afterwrite.ledger to afterwrite_frontend;

-- migrate:down
drop schema afterwrite cascade;
