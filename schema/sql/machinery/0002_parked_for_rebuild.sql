-- The front end may read parked commands: when Redis has lost the overlay, those that are older than
-- the log's beginning are found nowhere else. Nothing but the rebuild reads them.

-- migrate:up
grant select on afterwrite.parked to afterwrite_frontend;

-- migrate:down
revoke select on afterwrite.parked from afterwrite_frontend;
