"""When a class sees what: a table of lessons with the days of release and hand-in.

    lesson,release,due
    01,2026-10-05,2026-10-12
    02,2026-10-12,

`build --site --schedule FILE` leaves out what is not released, and answers until the
day after they are due (without a due day: for good). It sets the pace of a class and
keeps no secret: the course is open, and the library holds what its lessons teach.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from course_lib.exercises import LessonError
from course_lib.sources import Lesson

COLUMNS = ("lesson", "release", "due")


class Dates(NamedTuple):
    """The first day on which a lesson is shown, and the last one to hand it in."""

    release: datetime.date
    due: datetime.date | None = None

    def released(self, today: datetime.date) -> bool:
        """Whether students see the lesson."""
        return self.release <= today

    def answered(self, today: datetime.date) -> bool:
        """Whether students see its answers."""
        return self.due is not None and self.due < today


def read(path: Path | str, lessons: Iterable[Lesson]) -> dict[str, Dates]:
    """{number of a lesson: its dates} from a CSV file, as spreadsheets write it.

    Raises LessonError, with the line, for what cannot be read.
    """
    known = {lesson.number for lesson in lessons}
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LessonError(f"--schedule {path}: {error}") from None
    lines = text.splitlines()
    split = ";" if lines and ";" in lines[0] else ","
    table = csv.reader(lines, delimiter=split)
    if tuple(x.strip().lower() for x in next(table, ())) != COLUMNS:
        raise LessonError(f"{path}: the first line must be {','.join(COLUMNS)}")
    found: dict[str, Dates] = {}
    for row in table:
        if not any(x.strip() for x in row):
            continue
        where = f"{path}, line {table.line_num}"
        lesson, release, due = (*(x.strip() for x in row), "", "", "")[:3]
        number = lesson.zfill(2)
        if number not in known:
            raise LessonError(f"{where}: no lesson {lesson!r}; write 01, 02, ...")
        if number in found:
            raise LessonError(f"{where}: lesson {number} stands twice")
        dates = Dates(_day(release, where), _day(due, where) if due else None)
        if dates.due and dates.due < dates.release:
            raise LessonError(f"{where}: due before it is released")
        found[number] = dates
    if not found:
        raise LessonError(f"{path}: no lesson is named in it")
    return found


def _day(text: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise LessonError(
            f"{where}: {text!r} is no day; write 2026-10-05 (year, month, day)"
        ) from None


def spoken(day: datetime.date) -> str:
    """5 October 2026."""
    return f"{day.day} {day:%B %Y}"
