-- How users want to be told: one row for each, by its natural key.

-- migrate:up
create table public.preference (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    user_id uuid not null,
    mail boolean not null default true,
    locale text,
    constraint preference_user_fk foreign key (user_id) references public."user" (id)
);
create unique index preference_of_user on public.preference (user_id);

grant select, insert, update, delete on public.preference to afterwrite_writer;
grant select on public.preference to afterwrite_frontend;

-- migrate:down
drop table public.preference;
