-- The tables of schema/coursework.py. Ids are UUIDs made by the front end; no sequence, no identity.
-- A user can never make the database refuse: what he may not do, a rule refuses.

-- migrate:up
create table public."user" (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    name text not null,
    suspended boolean not null default false
);

create table public.course (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    teacher_id uuid not null,
    title text not null,
    description text not null,
    assignment_count bigint not null default 0,
    constraint course_author_fk foreign key (teacher_id) references public."user" (id)
);

create table public.assignment (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    course_id uuid not null,
    title text not null,
    task text not null,
    due_at timestamptz,
    max_points bigint not null,
    constraint assignment_course_fk foreign key (course_id) references public.course (id)
        on delete cascade
);
create index assignment_of_course on public.assignment (course_id, id);

create table public.enrolment (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    course_id uuid not null,
    teacher_id uuid not null,
    student_id uuid not null,
    constraint enrolment_course_fk foreign key (course_id) references public.course (id)
        on delete cascade,
    constraint enrolment_author_fk foreign key (teacher_id) references public."user" (id)
);
create index enrolment_of_course on public.enrolment (course_id, id);
create index enrolment_of_teacher on public.enrolment (teacher_id, id);

create table public.place (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    enrolment_id uuid not null,
    course_id uuid not null,
    student_id uuid not null,
    constraint place_enrolment_fk foreign key (enrolment_id) references public.enrolment (id)
        on delete cascade,
    constraint place_course_fk foreign key (course_id) references public.course (id)
        on delete cascade
);
create index place_of_enrolment on public.place (enrolment_id, id);
create index place_of_course on public.place (course_id, id);
create index place_of_student on public.place (student_id, id);

create table public.handin (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    course_id uuid not null,
    assignment_id uuid not null,
    marked boolean not null default false,
    constraint handin_course_fk foreign key (course_id) references public.course (id)
        on delete cascade,
    constraint handin_assignment_fk foreign key (assignment_id) references public.assignment (id)
        on delete cascade
);
create index handin_of_course on public.handin (course_id, id);
create index handin_of_assignment on public.handin (assignment_id, id);

create table public.submission (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    handin_id uuid not null,
    assignment_id uuid not null,
    place_id uuid not null,
    student_id uuid not null,
    file_url text not null,
    file_name text not null,
    file_bytes bigint not null,
    file_sha256 text not null,
    media_type text not null,
    paper_count bigint not null default 0,
    constraint submission_handin_fk foreign key (handin_id) references public.handin (id)
        on delete cascade,
    constraint submission_assignment_fk foreign key (assignment_id) references public.assignment (id)
        on delete cascade,
    constraint submission_author_fk foreign key (student_id) references public."user" (id)
);
create index submission_of_handin on public.submission (handin_id, id);
create index submission_of_assignment on public.submission (assignment_id, id);
create index submission_of_student on public.submission (student_id, id);

create table public.paper (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    handin_id uuid not null,
    submission_id uuid not null,
    assignment_id uuid not null,
    course_id uuid not null,
    teacher_id uuid not null,
    student_id uuid not null,
    file_url text not null,
    file_name text not null,
    file_bytes bigint not null,
    file_sha256 text not null,
    media_type text not null,
    points bigint,
    feedback text not null default '',
    constraint paper_handin_fk foreign key (handin_id) references public.handin (id)
        on delete cascade,
    constraint paper_submission_fk foreign key (submission_id) references public.submission (id)
        on delete cascade,
    constraint paper_assignment_fk foreign key (assignment_id) references public.assignment (id)
        on delete cascade,
    constraint paper_course_fk foreign key (course_id) references public.course (id)
        on delete cascade,
    constraint paper_author_fk foreign key (student_id) references public."user" (id)
);
create index paper_of_handin on public.paper (handin_id, id);
create index paper_of_submission on public.paper (submission_id, id);
create index paper_of_assignment on public.paper (assignment_id, id);
create index paper_of_course on public.paper (course_id, id);
create index paper_of_teacher on public.paper (teacher_id, id);

create table public.grade (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    handin_id uuid not null,
    paper_id uuid not null,
    assignment_id uuid not null,
    teacher_id uuid not null,
    student_id uuid not null,
    points bigint not null,
    feedback text not null default '',
    constraint grade_handin_fk foreign key (handin_id) references public.handin (id)
        on delete cascade,
    constraint grade_paper_fk foreign key (paper_id) references public.paper (id)
        on delete cascade,
    constraint grade_assignment_fk foreign key (assignment_id) references public.assignment (id)
        on delete cascade,
    constraint grade_author_fk foreign key (teacher_id) references public."user" (id)
);
create index grade_of_handin on public.grade (handin_id, id);
create index grade_of_paper on public.grade (paper_id, id);
create index grade_of_assignment on public.grade (assignment_id, id);
create index grade_of_student on public.grade (student_id, id);

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
    on public."user", public.course, public.assignment, public.enrolment, public.place, public.handin,
        public.submission, public.paper, public.grade, public.notice
    to afterwrite_writer;
grant select
    on public."user", public.course, public.assignment, public.enrolment, public.place, public.handin,
        public.submission, public.paper, public.grade, public.notice
    to afterwrite_frontend;

-- migrate:down
drop table public.notice, public.grade, public.paper, public.submission, public.handin, public.place,
    public.enrolment, public.assignment, public.course, public."user";
