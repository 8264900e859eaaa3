"""`grade`: a folder of submissions to a gradebook and a page for each student.

Graded submissions are kept by the hash of their content, the lesson and the course's
code: a second run grades only what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import gradebook
from course_lib.base import write_text
from course_lib.exercises import LessonError, exercises
from course_lib.marking import Template, TemplateEnded
from course_lib.sources import Lesson, read_source
from course_lib.sources import select as select_lessons

CAN_FORK = hasattr(os, "fork")
MAX_BYTES = 16 * 2**20
_CODE = ("answers", "exercises", "marking", "sandbox", "sources", "submissions")


@dataclass(frozen=True)
class Submission:
    """One notebook of one student; `lesson` is None where its name does not say it."""

    student: str
    path: Path
    lesson: str | None


# ------------------------------------------------------------------ what was handed in


def find(folder: Path, lessons: Sequence[Lesson]) -> list[Submission]:
    """The notebooks in `folder`: `alice.ipynb`, or `alice/03_dcgan.ipynb`.

    A student's folder may hold one a lesson, as nbgrader's `submitted/` does. A link is
    not followed: it may lead to another's work. Raises LessonError.
    """
    if not folder.is_dir():
        raise LessonError(f"{folder} is no folder; give the folder of the notebooks")
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            inside = sorted(_notebooks(path)) or [path]  # an empty folder is told
            found += [Submission(path.name, x, _lesson_in(x, lessons)) for x in inside]
        elif path.suffix == ".ipynb":
            lesson = _lesson_in(path, lessons)
            name = path.stem
            for x in lessons:
                name = name.replace(x.name, "").strip("_- ") or path.stem
            found.append(Submission(name, path, lesson))
    if not found:
        raise LessonError(
            f"{folder} holds no notebook; a student's is named alice.ipynb or "
            "alice/03_dcgan.ipynb"
        )
    return found


def _notebooks(folder: Path) -> list[Path]:
    """The notebooks in a student's folder and in the folders there."""
    folders = [
        x
        for x in folder.iterdir()
        if x.is_dir() and not x.is_symlink() and not x.name.startswith(".")
    ]
    return [x for place in (folder, *folders) for x in place.glob("*.ipynb")]


def _lesson_in(path: Path, lessons: Sequence[Lesson]) -> str | None:
    for lesson in lessons:
        if lesson.name in path.stem or path.stem == lesson.number:
            return lesson.number
    return None


def read_bytes(path: Path) -> bytes:
    """The content of a small, plain file. Raises LessonError for any other."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise LessonError(f"The file cannot be read ({error.strerror}).") from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise LessonError("There is no notebook, or it is no plain file.")
    with os.fdopen(handle, "rb") as file:
        if about.st_size > MAX_BYTES:
            raise LessonError(
                f"The notebook has {about.st_size / 2**20:.0f} MB, more than "
                f"{MAX_BYTES // 2**20}: clear its outputs and hand it in again."
            )
        return file.read(MAX_BYTES + 1)


def stamp(lessons: Iterable[Lesson]) -> str:
    """A hash of the code that grades and of the lessons."""
    import torch

    digest = hashlib.sha256(f"{sys.version}{torch.__version__}".encode())
    package = Path(__file__).parent
    files = [package / f"{name}.py" for name in _CODE]
    files += sorted((package / "checks").glob("*.py"))
    files += [lesson.source for lesson in lessons]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


# ------------------------------------------------------------------ a class


def grade(
    submissions: Path | str,
    *,
    out: Path | str = "grades",
    lesson: str | None = None,
    workers: int | None = None,
    seconds: int = 10,
) -> int:
    """Grade a folder; `gradebook.csv` and `feedback/` under `out`. Exit code.

    `lesson`: the number of all notebooks (default: each one's name or metadata say it);
    `seconds`: of the processor, for each answer.
    0, also where submissions are hostile; 2 for a wrong request; 130 after Ctrl-C: what
    is graded stays, and the next run grades the rest.
    """
    out = Path(out)
    if not CAN_FORK:
        print(
            "course_lib: grade runs what students wrote in confined processes, which "
            "Windows cannot make: no limit on files, network or memory would hold. "
            "Run it in WSL or in a container.",
            file=sys.stderr,
        )
        return 2
    try:
        lessons = select_lessons([lesson] if lesson else None)
        found = find(Path(submissions), lessons)
        if lesson:
            found = _only(lessons[0].number, found)
        out.mkdir(parents=True, exist_ok=True)
    except (LessonError, OSError) as error:
        print(f"course_lib: {error}", file=sys.stderr)
        return 2
    try:
        rows, complete = _grade_all(
            found, lessons, out, workers or os.cpu_count() or 1, seconds
        )
    except LessonError as error:
        print(f"course_lib: {error}", file=sys.stderr)
        return 1
    gradebook.write_gradebook(out / "gradebook.csv", rows)
    gradebook.write_feedback(out / "feedback", rows)
    gradebook.print_summary(rows, out)
    if not complete:
        print("interrupted; the same command grades the rest")
        return 130
    return 0


def _only(number: str, found: Sequence[Submission]) -> list[Submission]:
    """Those that may be of this lesson: their name says so, or says no lesson."""
    kept = [
        Submission(x.student, x.path, number)
        for x in found
        if x.lesson or not re.match(r"\d\d_", x.path.stem)
    ]
    if not kept:
        raise LessonError(f"no notebook here is of lesson {number}")
    return kept


def _grade_all(
    found: Sequence[Submission],
    lessons: Sequence[Lesson],
    out: Path,
    workers: int,
    seconds: int,
) -> tuple[list[dict[str, Any]], bool]:
    """The rows in the order of `found`, and whether that is all of them."""
    from tqdm import tqdm

    numbers = [lesson.number for lesson in lessons]
    tasks = {x.number: _tasks(x) for x in lessons}
    version, kept = stamp(lessons), out / ".graded"
    kept.mkdir(exist_ok=True)
    own, templates, told = threading.local(), [], threading.Lock()
    stopped = threading.Event()

    def ask(data: bytes, number: str | None) -> dict[str, Any]:
        for _ in range(2):
            if stopped.is_set():
                raise TemplateEnded
            if getattr(own, "template", None) is None:
                own.template = Template(numbers, seconds)
                with told:
                    templates.append(own.template)
                    if len(templates) == 1:
                        _tell_barriers(own.template.barriers)
            try:
                return own.template.ask(data, number)
            except TemplateEnded:
                own.template.close()
                own.template = None
        raise TemplateEnded

    def one(submission: Submission) -> dict[str, Any]:
        try:
            data = read_bytes(submission.path)
        except LessonError as error:
            return _row(submission, _unread(submission.lesson, tasks, str(error)))
        key = hashlib.sha256(
            f"{version} {submission.lesson} {seconds} ".encode() + data
        )
        file = kept / f"{key.hexdigest()}.json"
        try:
            result = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            try:
                result = ask(data, submission.lesson)
            except TemplateEnded:
                if stopped.is_set():
                    raise
                note = "It ended the process that grades, twice: look at it yourself."
                return _row(submission, _unread(submission.lesson, tasks, note))
            write_text(file, json.dumps(result))
        return _row(submission, result)

    rows: dict[int, dict[str, Any]] = {}
    pool = ThreadPoolExecutor(max(1, min(workers, len(found))))
    jobs = {pool.submit(one, x): i for i, x in enumerate(found)}
    try:
        shown = sys.stderr.isatty()
        for job in tqdm(as_completed(jobs), total=len(jobs), disable=not shown):
            rows[jobs[job]] = job.result()
    except KeyboardInterrupt:
        for job, i in jobs.items():  # done, and not yet looked at
            if job.done() and not job.cancelled() and not job.exception():
                rows[i] = job.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for template in templates:
            template.close()
    return [rows[i] for i in sorted(rows)], len(rows) == len(found)


def _tell_barriers(barriers: Mapping[str, bool]) -> None:
    missing = [name for name, held in barriers.items() if not held]
    if missing:
        print(
            f"This system does not hold back: {', '.join(missing)}. Python's audit "
            "hook refuses them, which machine code can get around; on Linux with "
            "libseccomp and Landlock the system refuses them.",
            file=sys.stderr,
        )


def _tasks(lesson: Lesson) -> list[dict[str, str]]:
    found = exercises(read_source(lesson.source))
    return [{"id": task.id, "name": task.name} for _, task in found]


def _unread(
    lesson: str | None, tasks: Mapping[str, list[dict[str, str]]], note: str
) -> dict[str, Any]:
    missing = {"passed": False, "message": "it could not be read."}
    results = [task | missing for task in tasks.get(lesson or "", [])]
    return {"lesson": lesson, "results": results, "notes": [note]}


def _row(submission: Submission, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "student": submission.student,
        "file": submission.path.name,
        "lesson": result["lesson"] or "?",
        "points": sum(x["passed"] for x in result["results"]),
        "of": len(result["results"]),
        "results": result["results"],
        "notes": result["notes"],
    }
