-- Two writers may meet a new month together. Waiting for the advisory lock does not refresh what a
-- session believes about names, so the one that waited looked with to_regclass, saw nothing, and
-- failed with duplicate_table. A query sees what has been committed by now.

-- migrate:up
create or replace function afterwrite.ensure_ledger_period(month date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    first date := date_trunc('month', month)::date;
    name text := 'ledger_' || to_char(first, 'YYYYMM');
begin
    if to_regclass('afterwrite.' || name) is not null then
        return;
    end if;
    -- One at a time.
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

-- migrate:down
-- The function of 0001 can stay as it is now.
select 1;
