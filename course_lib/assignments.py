"""Lessons as nbgrader assignments, and notes for who teaches them.

The student's notebook carries nbgrader's cell metadata (`exercises.student`), so what a
student hands in can be autograded as it is. nbgrader makes its release from an
instructor's version, which holds the solutions between its own markers: `write_source`
lays it where nbgrader looks, `DIR/source/NN_name/NN_name.ipynb`. A hub needs no
configuration for it. nbgrader runs submissions unprotected; `grade` does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.exercises import cell_id, exercises, student
from course_lib.sources import read_source, select, write

if TYPE_CHECKING:
    from nbformat import NotebookNode


def instructor_version(notebook: NotebookNode) -> NotebookNode:
    """The student's notebook with the solutions between nbgrader's markers."""
    result = student(notebook)
    for _, task in exercises(notebook):
        cell = next(x for x in result.cells if x.id == cell_id(task.id))
        stub = next(x for x in task.stub.split("\n") if x.endswith(f'("{task.id}")'))
        indent = stub[: len(stub) - len(stub.lstrip())]
        begin, end = f"{indent}### BEGIN SOLUTION", f"{indent}### END SOLUTION"
        cell.source = task.stub.replace(stub, "\n".join([begin, task.solution, end]))
    return result


def write_source(numbers: Iterable[str | int] | None, folder: Path | str) -> list[Path]:
    """Write the instructor's version of each lesson below `folder/source`."""
    written = []
    for lesson in select(numbers):
        path = Path(folder) / "source" / lesson.name / f"{lesson.name}.ipynb"
        write(path, instructor_version(read_source(lesson.source)))
        written.append(path)
    return written


def nbgrader_command(numbers: Iterable[str], folder: str) -> int:
    """`build --nbgrader DIR` for the command line. Exit code."""
    paths = write_source(list(numbers) or None, folder)
    for path in paths:
        print(f"written: {path}")
    print(f"next: cd {folder} && nbgrader generate_assignment {paths[0].stem}")
    return 0
