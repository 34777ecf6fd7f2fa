-- The tables of schema/forum.py. Ids are UUIDs made by the front end; no sequence, no identity.

-- migrate:up
create table public."user" (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    name text not null,
    banned boolean not null default false,
    moderator boolean not null default false
);

create table public.topic (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    author_id uuid not null,
    title text not null,
    locked boolean not null default false,
    post_count bigint not null default 0,
    constraint topic_author_fk foreign key (author_id) references public."user" (id)
);

create table public.post (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    topic_id uuid not null,
    author_id uuid not null,
    reply_to uuid,
    body text not null,
    reaction_count bigint not null default 0,
    constraint post_topic_fk foreign key (topic_id) references public.topic (id) on delete cascade,
    constraint post_author_fk foreign key (author_id) references public."user" (id)
);
create index post_of_topic on public.post (topic_id, id);

create table public.reaction (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    post_id uuid not null,
    author_id uuid not null,
    emoji text not null,
    constraint reaction_post_fk foreign key (post_id) references public.post (id) on delete cascade,
    constraint reaction_author_fk foreign key (author_id) references public."user" (id)
);
create index reaction_of_post on public.reaction (post_id, id);

create table public.notice (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    user_id uuid not null,
    kind text not null,
    command_id uuid not null,
    code text not null,
    detail text not null,
    returned json,
    read boolean not null default false
);
create index notice_of_user on public.notice (user_id, id);

grant select, insert, update, delete
    on public."user", public.topic, public.post, public.reaction, public.notice to afterwrite_writer;
grant select
    on public."user", public.topic, public.post, public.reaction, public.notice to afterwrite_frontend;

-- migrate:down
drop table public.notice, public.reaction, public.post, public.topic, public."user";
