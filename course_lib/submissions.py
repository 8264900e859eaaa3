"""What is read of a submission: its answers, found by cell id, else by name.

Only the cell that defines an exercise's function counts. Reading runs nothing, yet a
notebook may be made to break a parser, so `grading` calls `read` in the sandbox.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from course_lib.answers import DEFINITIONS, FORBIDDEN, IMPORTS, imported, without_magics
from course_lib.exercises import Exercise, cell_id, exercises, for_instructor
from course_lib.sources import Lesson, read_source

MAX_SOURCE = 20_000  # characters of an answer
_LESSON = re.compile(r"notebooks/src/((\d\d)_\w+)\.py")


# ------------------------------------------------------------------ the course's side


@dataclass(frozen=True)
class Sheet:
    """What grading needs of a lesson: tasks without answers, names that cells know."""

    number: str
    name: str
    tasks: tuple[Exercise, ...]
    names: Mapping[str, Any]
    modules: frozenset[str]


def sheet(lesson: Lesson) -> Sheet:
    """Import what a lesson imports and define its helpers, but no solution."""
    notebook = read_source(lesson.source)
    tasks = dict(exercises(notebook))
    names: dict[str, Any] = {"__name__": "lesson"}
    modules: set[str] = set()
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or i in tasks or for_instructor(cell):
            continue
        for node in ast.parse(cell.source).body:
            if not isinstance(node, (*IMPORTS, *DEFINITIONS)):
                continue
            modules.update(imported(node))
            try:
                exec(compile(ast.Module([node], []), lesson.name, "exec"), names)
            except Exception:  # it needs what only a run of the lesson makes
                continue
    solved = {task.name for task in tasks.values()}  # lessons import them by name too
    names = {
        name: value
        for name, value in names.items()
        if name not in FORBIDDEN | solved and not name.startswith(("_", "check"))
    }
    return Sheet(
        lesson.number,
        lesson.name,
        tuple(replace(task, stub="", solution="") for task in tasks.values()),
        names,
        frozenset(x for x in modules if "checks" not in x),
    )


# ------------------------------------------------------------------ reading


def read(
    data: bytes, sheets: Mapping[str, Sheet], lesson: str | None
) -> dict[str, Any]:
    """{lesson, answers: {exercise: source}, imports, notes} of a notebook's bytes.

    `lesson` is the number where it is known, else the notebook's metadata says it.
    Runs nothing. What cannot be read is told in the notes, in words for the student.
    """
    found: dict[str, Any] = {
        "lesson": lesson,
        "answers": {},
        "imports": [],
        "notes": [],
    }
    note = found["notes"].append
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
        cells = notebook["cells"]
        sources = [
            (cell.get("id"), source)
            for cell in cells
            if cell.get("cell_type") == "code"
            for source in [_text(cell.get("source"))]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        note(f"This is not a notebook that can be read ({type(error).__name__}).")
        return found
    course = notebook.get("metadata")
    course = course.get("course") if isinstance(course, dict) else None
    course = course if isinstance(course, dict) else {}
    told = _LESSON.fullmatch(str(course.get("source")))
    if lesson is None:
        lesson = told[2] if told else None
    if lesson not in sheets:
        note("It does not say which lesson it is: name it as the course does.")
        return found
    found["lesson"], page = lesson, sheets[lesson]
    if not told or told[1] != page.name:
        note("Its metadata name another lesson; they were not used.")
    _find_answers(page, sources, found)
    return found


def _text(source: Any) -> str:
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


def _find_answers(
    page: Sheet, sources: list[tuple[Any, str]], found: dict[str, Any]
) -> None:
    note = found["notes"].append
    parsed = [(name, source, _parse(source)) for name, source in sources]
    for task in page.tasks:
        ours = [x for x in parsed if x[0] == cell_id(task.id)]
        if len(ours) > 1:
            note(f"{task.id}: {len(ours)} cells have its id; the last one was used.")
        defining = [x for x in ours or parsed if _defines(x[2], task.name)]
        if not defining and ours and ours[-1][2] is None:
            defining = ours[-1:]  # judged, so that the student reads where it breaks
        if not defining:
            defining = [x for x in parsed if _defines(x[2], task.name)]
        if not defining:
            note(f"{task.id}: no cell defines {task.name}.")
            continue
        source = defining[-1][1]
        if not ours:
            note(f"{task.id}: found by the name {task.name}; its cell lost its id.")
        if len(source) > MAX_SOURCE:
            note(f"{task.id}: its cell has over {MAX_SOURCE} characters; not run.")
            continue
        found["answers"][task.id] = source
    for _, _, tree in parsed:
        for node in tree.body if tree else []:
            bound = {getattr(node, "name", "")} | {
                x.id
                for x in ast.walk(node)
                if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)
            }
            if any(x.startswith("check_") for x in bound):
                note("It defines a check of its own; the course's was used.")
            if isinstance(node, IMPORTS) and len(statement := ast.unparse(node)) < 2000:
                found["imports"].append(statement)
    del found["imports"][100:]
    found["notes"][:] = list(dict.fromkeys(found["notes"]))[:20]


def _defines(tree: ast.Module | None, name: str) -> bool:
    return tree is not None and any(
        isinstance(node, DEFINITIONS) and node.name == name for node in tree.body
    )


def _parse(source: str) -> ast.Module | None:
    """The tree of a cell, or None where it is no Python."""
    try:
        return ast.parse(without_magics(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
