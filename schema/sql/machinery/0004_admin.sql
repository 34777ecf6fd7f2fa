-- What the operators' pages look for: what was not saved among all that was, and letters by the time
-- of their death. Building the first one reads the whole ledger once.

-- migrate:up
create index ledger_unsaved on afterwrite.ledger (command_id) where outcome <> 'saved';
create index dead_letter_died on afterwrite.dead_letter (died_at, lane, "offset");

-- migrate:down
drop index afterwrite.dead_letter_died;
drop index afterwrite.ledger_unsaved;
