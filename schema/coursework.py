"""The content types of a course platform: courses, assignments, hand-ins, grades. `AFTERWRITE_CONTENT`
is `schema.coursework` for a site that wants them.

A row has one reader or all (`private_to`). So what two people must read is two rows which one command
writes, and a rule keeps them equal:

    course ── assignment                  everybody
       └───── enrolment ── place          the teacher's entry ── its student's copy
    handin                                whoever knows its id: which assignment, marked or not; no name
       ├───── submission ── paper         the student's ── its teacher's copy, on which he marks
       └───── grade                       the student's: what the teacher tells him of his marks

A hand-in is the stream of all that hangs on it: a submission, its withdrawal and its grade are ordered
among each other, and a deadline does not make one bottleneck of a whole course.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator
from pydantic import Field as Bounds

from schema.content import ContentType, Listing
from schema.fields import Author, ByRule, Fixed, Ref, Text
from schema.forum import Body, Name, Notice, Title

_URL = Text(max_bytes=2048, one_line=True)
_WORD = Text(max_bytes=100, one_line=True)
_FEEDBACK = Text(max_bytes=16_384, min_chars=0)

Url = Annotated[str, AfterValidator(_URL.check), _URL, Bounds(pattern=r"^https://[^\s/]+/[^\s]*$")]
Sha256 = Annotated[str, AfterValidator(_WORD.check), _WORD, Bounds(pattern="^[0-9a-f]{64}$")]
MediaType = Annotated[
    str, AfterValidator(_WORD.check), _WORD, Bounds(pattern=r"^[a-z]+/[a-z0-9][a-z0-9.+-]*$")
]
Bytes = Annotated[int, Bounds(ge=1, le=2**40)]
Points = Annotated[int, Bounds(ge=0, le=1_000_000)]
Feedback = Annotated[str, AfterValidator(_FEEDBACK.check), _FEEDBACK]


class User(ContentType):
    """Who writes. There is no list of users: only who knows an id can ask for the name."""

    table = "user"
    plural = "users"
    is_actor = True

    name: Name
    suspended: Annotated[bool, ByRule("actor.staff or actor.admin")] = False

    may_change = "row.id = actor.id and not actor.suspended or actor.staff or actor.admin"


class Course(ContentType):
    """What one teacher teaches: whoever has created it. Everybody may read of it."""

    table = "course"
    plural = "courses"
    lists = {"courses": Listing(newest_first=True)}

    teacher_id: Annotated[UUID, Author()]
    title: Title
    description: Body

    may_create = "not actor.suspended and (actor.teacher or actor.staff or actor.admin)"
    may_change = "not actor.suspended and (row.teacher_id = actor.id or actor.staff or actor.admin)"


class Assignment(ContentType):
    """A task of a course. Without `due_at` it may be handed in at any time."""

    table = "assignment"
    plural = "assignments"
    stream = "course_id"
    lists = {"course_assignments": Listing(by="course_id")}
    counted_in = {"course_id": "assignment_count"}

    course_id: Annotated[UUID, Ref("course")]
    title: Title
    task: Body
    due_at: datetime | None = None
    max_points: Annotated[int, Bounds(ge=1, le=1_000_000)]

    may_create = (
        "not actor.suspended "
        "and (parent.course.teacher_id = actor.id or actor.staff or actor.admin)"
    )
    may_change = (
        "not actor.suspended "
        "and (parent.course.teacher_id = actor.id or actor.staff or actor.admin)"
    )


class Enrolment(ContentType):
    """The teacher's entry of one student in his course. Deleting it takes the student's place."""

    table = "enrolment"
    plural = "enrolments"
    stream = "course_id"
    lists = {"course_enrolments": Listing(by="course_id")}
    private_to = "teacher_id"

    course_id: Annotated[UUID, Ref("course")]
    teacher_id: Annotated[UUID, Author()]
    student_id: Annotated[UUID, Fixed()]  # no reference: he need not have written anything yet

    may_create = "not actor.suspended and parent.course.teacher_id = actor.id"
    may_delete = "not actor.suspended and row.teacher_id = actor.id"


class Place(ContentType):
    """The student's copy of his enrolment, which he names when he hands something in."""

    table = "place"
    plural = "places"
    stream = "enrolment_id.course_id"
    lists = {"places": Listing()}
    private_to = "student_id"

    enrolment_id: Annotated[UUID, Ref("enrolment")]
    course_id: Annotated[UUID, Ref("course")]
    student_id: Annotated[UUID, Fixed()]

    may_create = (
        "not actor.suspended and parent.enrolment.teacher_id = actor.id "
        "and row.course_id = parent.enrolment.course_id "
        "and row.student_id = parent.enrolment.student_id"
    )


class Handin(ContentType):
    """What submission, paper and grade hang on. It is not private, so it says nothing of anybody.

    `marked` is the teacher's word that nothing may be withdrawn or replaced any more.
    """

    table = "handin"
    plural = "handins"

    course_id: Annotated[UUID, Ref("course")]
    assignment_id: Annotated[UUID, Ref("assignment")]
    marked: bool = False

    may_create = (
        "not actor.suspended and row.course_id = parent.assignment.course_id and not row.marked"
    )
    may_change = "not actor.suspended and parent.course.teacher_id = actor.id"


class Submission(ContentType):
    """A file that a student hands in: where it lies and what it must be, never the file itself.

    It counts as handed in once it has its paper (`paper_count`). It is never changed: a better one
    takes its place, and has to be in time. What counts is when it was *accepted*, so a command that
    waits for a lost database is not late.
    """

    table = "submission"
    plural = "submissions"
    stream = "handin_id"
    lists = {"submissions": Listing(newest_first=True)}
    private_to = "student_id"

    handin_id: Annotated[UUID, Ref("handin")]
    assignment_id: Annotated[UUID, Ref("assignment")]
    place_id: Annotated[UUID, Ref("place", weak=True)]  # who leaves the course keeps his work
    student_id: Annotated[UUID, Author()]
    file_url: Annotated[Url, Fixed()]
    file_name: Annotated[Name, Fixed()]
    file_bytes: Annotated[Bytes, Fixed()]
    file_sha256: Annotated[Sha256, Fixed()]
    media_type: Annotated[MediaType, Fixed()]

    may_create = (
        "not actor.suspended and not parent.handin.marked "
        "and row.assignment_id = parent.handin.assignment_id "
        "and parent.place.student_id = actor.id "
        "and parent.place.course_id = parent.assignment.course_id "
        "and (parent.assignment.due_at is null or row.created_at <= parent.assignment.due_at)"
    )
    may_delete = "not actor.suspended and row.student_id = actor.id and not parent.handin.marked"


class Paper(ContentType):
    """The teacher's copy of a submission, written by the same command; here he keeps his marks."""

    table = "paper"
    plural = "papers"
    stream = "handin_id"
    lists = {
        "papers": Listing(newest_first=True),
        "assignment_papers": Listing(by="assignment_id"),
    }
    counted_in = {"submission_id": "paper_count"}
    private_to = "teacher_id"

    handin_id: Annotated[UUID, Ref("handin")]
    submission_id: Annotated[UUID, Ref("submission")]
    assignment_id: Annotated[UUID, Ref("assignment")]
    course_id: Annotated[UUID, Ref("course")]
    teacher_id: Annotated[UUID, Fixed()]
    student_id: Annotated[UUID, Author()]
    file_url: Annotated[Url, Fixed()]
    file_name: Annotated[Name, Fixed()]
    file_bytes: Annotated[Bytes, Fixed()]
    file_sha256: Annotated[Sha256, Fixed()]
    media_type: Annotated[MediaType, Fixed()]
    points: Points | None = None
    feedback: Feedback = ""

    may_create = (
        "parent.submission.student_id = actor.id "
        "and row.created_at = parent.submission.created_at "  # so it is the same command
        "and row.handin_id = parent.submission.handin_id "
        "and row.assignment_id = parent.submission.assignment_id "
        "and row.course_id = parent.assignment.course_id "
        "and row.teacher_id = parent.course.teacher_id "
        "and row.file_url = parent.submission.file_url "
        "and row.file_name = parent.submission.file_name "
        "and row.file_bytes = parent.submission.file_bytes "
        "and row.file_sha256 = parent.submission.file_sha256 "
        "and row.media_type = parent.submission.media_type "
        "and row.points is null and row.feedback = ''"
    )
    may_change = (
        "not actor.suspended and row.teacher_id = actor.id "
        "and new.points >= 0 and new.points <= parent.assignment.max_points"
    )


class Grade(ContentType):
    """What a teacher tells a student of his marks. It stays; a correction is a later grade."""

    table = "grade"
    plural = "grades"
    stream = "handin_id"
    lists = {"grades": Listing(newest_first=True)}
    private_to = "student_id"

    handin_id: Annotated[UUID, Ref("handin")]
    paper_id: Annotated[UUID, Ref("paper")]
    assignment_id: Annotated[UUID, Ref("assignment")]
    teacher_id: Annotated[UUID, Author()]
    student_id: Annotated[UUID, Fixed()]
    points: Annotated[Points, Fixed()]
    feedback: Annotated[Feedback, Fixed()] = ""

    may_create = (
        "not actor.suspended and parent.paper.teacher_id = actor.id and parent.handin.marked "
        "and row.handin_id = parent.paper.handin_id "
        "and row.assignment_id = parent.paper.assignment_id "
        "and row.student_id = parent.paper.student_id "
        "and row.points = parent.paper.points and row.feedback = parent.paper.feedback"
    )


CONTENT_TYPES = (
    User, Course, Assignment, Enrolment, Place, Handin, Submission, Paper, Grade, Notice,
)  # fmt: skip
MIGRATIONS = "schema.sql.coursework"
