-- What an operator does: pausing a lane, replaying, editing and discarding dead letters; and who did it.

-- migrate:up
-- Why an operator has paused the lane; its writer keeps it and applies nothing.
alter table afterwrite.lane add column paused text;

-- A dead letter stays what it was. When it has been dealt with, it says how, and is listed no more.
alter table afterwrite.dead_letter
    add column type text,
    add column closed text check (closed in ('replayed', 'discarded')),
    add column closed_at timestamptz,
    -- The command that repeats it, and what it does otherwise (`values`, `any_version`). Written before
    -- that is published, so that asking again is asking for the same.
    add column replay_id uuid unique,
    add column replay_edit jsonb,
    -- Where in the log it was confirmed, for the audit.
    add column replay_lane integer,
    add column replay_offset bigint,
    add check (closed is null or closed_at is not null),
    add check (closed is distinct from 'replayed' or replay_id is not null);
update afterwrite.dead_letter set type = convert_from(value, 'UTF8')::json -> 'mutations' -> 0 ->> 'type'
where command_id is not null;
create index dead_letter_open on afterwrite.dead_letter (died_at) where closed is null;

-- Every act of an operator, once: `act_id` makes asking twice safe.
create table afterwrite.audit_log (
    act_id uuid primary key,
    at timestamptz not null,
    who text not null,
    act text not null,
    target jsonb not null,
    reason text,
    result jsonb not null
);
create index audit_log_at on afterwrite.audit_log (at);

grant select, insert, update on afterwrite.audit_log to afterwrite_writer;
grant select on afterwrite.dead_letter, afterwrite.audit_log to afterwrite_frontend;

-- migrate:down
revoke select on afterwrite.dead_letter from afterwrite_frontend;
drop table afterwrite.audit_log;
drop index afterwrite.dead_letter_open;
alter table afterwrite.dead_letter
    drop column type, drop column closed, drop column closed_at, drop column replay_id,
    drop column replay_edit, drop column replay_lane, drop column replay_offset;
alter table afterwrite.lane drop column paused;
