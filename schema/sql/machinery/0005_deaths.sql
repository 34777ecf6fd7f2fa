-- Which writers died at a position, by name: one that comes back has only lost its connection, and two
-- that lose theirs in turns are not to be taken for a command that kills whoever tries it.

-- migrate:up
alter table afterwrite.lane add column fallen text[] not null default '{}';

-- migrate:down
alter table afterwrite.lane drop column fallen;
