"""The lessons of the course: where they lie, how they are read and written.

A source's header states the minutes that each budget may take; `run` holds the lesson
to them:

    # ---
    # jupyter:
    #   course:
    #     minutes: {smoke: 0.4, lab: 3, full: 12}
    # ---
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.base import ROOT, write_text
from course_lib.exercises import SOLUTION, LessonError, cell_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# Without Python's version: it would change with the machine that builds.
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}


@dataclass(frozen=True)
class Lesson:
    """One lesson and its three files; minutes maps a budget to what it may take."""

    number: str
    name: str
    source: Path
    notebook: Path
    student: Path
    title: str
    summary: str
    minutes: dict[str, float] = field(default_factory=dict)


def lessons(root: Path = ROOT) -> list[Lesson]:
    """All lessons of the course in order, read from `notebooks/src/NN_name.py`."""
    folder = Path(root) / "notebooks"
    found = []
    for source in sorted((folder / "src").glob("[0-9][0-9]_*.py")):
        notebook = read_source(source)
        title, summary = headline(notebook)
        found.append(
            Lesson(
                number=source.stem[:2],
                name=source.stem,
                source=source,
                notebook=folder / f"{source.stem}.ipynb",
                student=folder / "student" / f"{source.stem}.ipynb",
                title=title or source.stem,
                summary=summary,
                minutes=dict(notebook.metadata.course.get("minutes", {})),
            )
        )
    numbers = [lesson.number for lesson in found]
    for number in numbers:
        if numbers.count(number) > 1:
            raise LessonError(f"two lessons have the number {number}; renumber one")
    return found


def select(numbers: Iterable[str | int] | None, root: Path = ROOT) -> list[Lesson]:
    """The lessons named by number ("1", "01", 1) or name; None means all of them."""
    known = lessons(root)
    if not known:
        raise LessonError(f"no lessons (NN_name.py) in {Path(root) / 'notebooks/src'}")
    if numbers is None:
        return known
    chosen = []
    for wanted in map(str, numbers):
        match = [x for x in known if wanted.zfill(2) == x.number or wanted == x.name]
        if not match:
            have = ", ".join(lesson.name for lesson in known)
            raise LessonError(f"no lesson {wanted!r}; the lessons are: {have}")
        chosen += match
    return chosen


def read_source(path: Path) -> NotebookNode:
    """Parse a py:percent file into a clean notebook: tags kept, ids from the content.

    Raises LessonError when the file cannot be read as py:percent.
    """
    text = Path(path).read_text(encoding="utf-8")
    notebook = parse(text, path)
    for cell in notebook.cells:
        cell.metadata = only_tags(cell.metadata)
    _set_ids(notebook.cells)
    course = dict(notebook.metadata.get("course", {}))
    course |= {"source": f"notebooks/src/{Path(path).name}", "sha256": text_hash(text)}
    notebook.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    notebook.metadata["course"] = course
    import nbformat

    return nbformat.from_dict(notebook)


def read_notebook(path: Path) -> NotebookNode:
    """Read an .ipynb file. Raises LessonError when it is not one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise LessonError(f"{path} is not a readable notebook: {error}") from error


def parse(text: str, path: Path) -> NotebookNode:
    """py:percent text to a notebook as jupytext reads it. Raises LessonError."""
    try:
        return copy.deepcopy(_parsed(text.replace("\r\n", "\n")))
    except Exception as error:
        raise LessonError(f"{path} is not py:percent: {error}") from error


@lru_cache(64)  # a copy costs a fortieth of reading it again
def _parsed(text: str) -> NotebookNode:
    import jupytext

    return jupytext.reads(text, fmt="py:percent")


def bare(cell: NotebookNode) -> tuple[str, str, tuple[str, ...]]:
    """What source and notebook share of a cell: its type, source and tags."""
    return cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ()))


def only_tags(metadata: dict) -> dict:
    """Cell metadata without what JupyterLab, jupytext and papermill add."""
    return {"tags": list(metadata["tags"])} if metadata.get("tags") else {}


def _set_ids(cells: list[NotebookNode]) -> None:
    seen: Counter[str] = Counter()
    for cell in cells:
        name = text_hash(f"{cell.cell_type}\n{cell.source}")[:8]
        mark = re.search(SOLUTION.pattern + "$", cell.source, re.MULTILINE)
        if cell.cell_type == "code" and mark:
            name = cell_id(mark[2])
        seen[name] += 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"


def headline(notebook: NotebookNode) -> tuple[str, str]:
    """First heading and the paragraph after it."""
    for cell in notebook.cells:
        match = re.search(r"^# (.+)\n*((?:.+\n?)*)", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and match:
            return match[1].strip(), " ".join(match[2].split())
    return "", ""


def text_hash(text: str) -> str:
    """SHA-256 of a text, the same whatever line ends a checkout gave it."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def write(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook atomically, valid, with a newline at the end."""
    import nbformat

    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook).rstrip("\n") + "\n")
