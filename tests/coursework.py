"""What teachers and students of `schema/coursework.py` send, as JSON bodies of requests."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from schema.fields import render_time
from schema.identifiers import new_row_id, user_id_for

Body = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """An assignment as those who hand in have to know it."""

    course: str
    assignment: str
    teacher: str


@dataclass(frozen=True)
class HandIn:
    """One hand-in and the ids its student chose."""

    task: Task
    student: str
    place: str
    file_name: str = "essay.pdf"
    handin: str = field(default_factory=lambda: str(new_row_id()))
    submission: str = field(default_factory=lambda: str(new_row_id()))
    paper: str = field(default_factory=lambda: str(new_row_id()))

    @property
    def file(self) -> Body:
        return {
            "file_url": f"https://files.example/{self.submission}/{self.file_name}",
            "file_name": self.file_name,
            "file_bytes": 48_213,
            "file_sha256": "0123456789abcdef" * 4,
            "media_type": "application/pdf",
        }

    def command(self, *, without: str = "", **paper: Any) -> Body:
        """Hand-in, submission and paper. `without` leaves one out, `paper` falsifies the copy."""
        task = self.task
        made = [
            create("handin", self.handin, course_id=task.course, assignment_id=task.assignment),
            create(
                "submission",
                self.submission,
                handin_id=self.handin,
                assignment_id=task.assignment,
                place_id=self.place,
                **self.file,
            ),
            create(
                "paper",
                self.paper,
                **{
                    "handin_id": self.handin,
                    "submission_id": self.submission,
                    "assignment_id": task.assignment,
                    "course_id": task.course,
                    "teacher_id": task.teacher,
                    **self.file,
                    **paper,
                },
            ),
        ]
        return {"mutations": [m for m in made if m["type"] != without]}

    def grading(self, points: int, feedback: str = "Well done.", **grade: Any) -> Body:
        """The teacher's marks, and what he tells the student of them."""
        marks = {"points": points, "feedback": feedback}
        told = {
            "handin_id": self.handin,
            "paper_id": self.paper,
            "assignment_id": self.task.assignment,
            "student_id": str(user_id_for(self.student)),
            **marks,
        }
        return {
            "mutations": [
                {"op": "update", "type": "paper", "id": self.paper, "values": marks},
                {"op": "update", "type": "handin", "id": self.handin, "values": {"marked": True}},
                create("grade", None, **told | grade),
            ]
        }


def create(type_: str, row_id: str | None, **values: Any) -> Body:
    chosen = {"id": row_id} if row_id else {}
    return {"op": "create", "type": type_, **chosen, "values": values}


def enrolling(course: str, student: str) -> tuple[Body, str]:
    """The command of a teacher, and the id of the place that the student gets by it."""
    enrolment, place = str(new_row_id()), str(new_row_id())
    who = {"course_id": course, "student_id": str(user_id_for(student))}
    return {
        "mutations": [
            create("enrolment", enrolment, **who),
            create("place", place, enrolment_id=enrolment, **who),
        ]
    }, place


COURSE = {"title": "Analytical engines", "description": "From Jacquard to Babbage."}


def assignment(due_at: datetime | None = None, max_points: int = 20) -> Body:
    due = {"due_at": render_time(due_at)} if due_at else {}
    return {"title": "Note G", "task": "Compute B7.", "max_points": max_points, **due}
