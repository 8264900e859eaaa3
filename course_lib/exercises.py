"""Exercises: one solved cell is the source of the solution and of the student's stub.

An exercise is one code cell with one function that holds a line
`# solution E02.1`, indented as the function's body. From that line to the end of the
body the student reads `raise NotImplementedError("E02.1")`; everything above it
(signature, docstring, given lines) stays. The number is lesson 02's first exercise. The
executed and the student cell share the id `exercise-E02-1`. A cell with the tag
`instructor` is left out of the student's notebook.
"""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbformat import NotebookNode

SOLUTION = re.compile(r"([ \t]+)# solution (E\d\d\.\d+)")
_LOOKS_LIKE_SOLUTION = re.compile(r"#\s*solutions?\b", re.IGNORECASE)


class LessonError(ValueError):
    """A lesson that cannot be built, run or adopted; the message says the fix."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: its id, the student's object, the stub, and the lines cut out."""

    id: str
    name: str
    stub: str
    solution: str


def exercise(source: str) -> Exercise | None:
    """The exercise that a code cell's source holds, or None.

    Raises LessonError when the cell has a solution comment that cannot be cut.
    """
    lines = source.split("\n")
    marks = [i for i, line in enumerate(lines) if _LOOKS_LIKE_SOLUTION.search(line)]
    if not marks:
        return None
    if len(marks) > 1:
        raise LessonError("a cell holds one exercise; split this cell")
    mark = marks[0]
    match = SOLUTION.fullmatch(lines[mark].rstrip())
    if not match:
        raise LessonError(
            f"cannot use the line {lines[mark].strip()!r}: write `# solution E02.1` "
            "on a line of its own, indented in a function's body; keep the words "
            "'# solution' for exercises"
        )
    indent, number = match.groups()
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise LessonError(f"{number}: the cell is not plain Python: {error}") from error
    owner, end = _solved_function(tree, mark, len(indent), number)
    for i in range(end, len(lines)):  # comments that end the body belong to it
        if lines[i].strip() and not re.match(rf"{indent}\s*#", lines[i]):
            break
        end = i + 1 if lines[i].strip() else end
    stub = [*lines[:mark], f'{indent}raise NotImplementedError("{number}")']
    return Exercise(
        id=number,
        name=owner,
        stub="\n".join(stub + lines[end:]),
        solution="\n".join(lines[mark + 1 : end]),
    )


def _solved_function(
    tree: ast.Module, mark: int, column: int, number: str
) -> tuple[str, int]:
    """Name of the outermost object around line `mark`, last line of its function."""
    line = mark + 1  # ast counts from 1
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for top in tree.body:
        if not isinstance(top, (*kinds, ast.ClassDef)):
            continue
        for node in (x for x in ast.walk(top) if isinstance(x, kinds)):
            body = node.body
            inside = body[0].col_offset == column and node.lineno < line
            if not inside or line > node.end_lineno:
                continue
            if any(x.lineno <= line <= x.end_lineno for x in body):
                continue  # within a statement or a text
            rest = [x for x in body if x.lineno > line]
            if all(isinstance(x, (ast.Pass, ast.Raise)) for x in rest):
                break
            return top.name, node.end_lineno
    raise LessonError(
        f"{number}: nothing to cut: `# solution` stands in the body of a top-level "
        "function or class method, indented like its statements, before the answer"
    )


def exercises(notebook: NotebookNode) -> list[tuple[int, Exercise]]:
    """All exercises of a lesson with their cell numbers.

    Raises LessonError for a malformed, repeated or wrongly numbered exercise.
    """
    found: list[tuple[int, Exercise]] = []
    source = notebook.metadata.get("course", {}).get("source", "")
    lesson = Path(source).name[:2]
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        try:
            task = exercise(cell.source)
        except LessonError as error:
            raise LessonError(f"{source}, cell {i + 1}: {error}") from error
        if task is None:
            continue
        if task.id in [other.id for _, other in found]:
            raise LessonError(f"{source}, cell {i + 1}: {task.id} is used twice")
        if lesson and task.id[1:3] != lesson:
            raise LessonError(f"{source}: {task.id} is not of lesson {lesson}")
        found.append((i, task))
    return found


def student(notebook: NotebookNode) -> NotebookNode:
    """The student's form of a lesson: solutions and instructor cells cut, no outputs.

    Raises LessonError when an exercise is malformed, or its answer stands elsewhere.
    """
    tasks = dict(exercises(notebook))
    result = copy.deepcopy(notebook)
    for i, cell in enumerate(result.cells):
        if cell.cell_type != "code":
            continue
        cell.source = tasks[i].stub if i in tasks else cell.source
        cell.outputs, cell.execution_count = [], None
    result.cells = [
        cell
        for cell in result.cells
        if "instructor" not in cell.metadata.get("tags", [])
    ]
    for finding in leaks(tasks.values(), result):
        raise LessonError(f"{notebook.metadata.course.source}: {finding}")
    return result


def leaks(tasks: Iterable[Exercise], notebook: NotebookNode) -> list[str]:
    """Findings for exercises whose answer a (student's) notebook still shows.

    An answer counts as shown when more than half of its telling lines are.
    """
    shown = {
        line.strip()
        for cell in notebook.cells
        for line in cell.source.split("\n") + _output_text(cell).split("\n")
    }
    findings = []
    for task in tasks:
        lines = (line.strip() for line in task.solution.split("\n"))
        # Short lines and block openers (`with torch.no_grad():`) give nothing away.
        telling = [x for x in lines if len(x) >= 20 and not x.endswith((":", ","))]
        seen = [line for line in telling if line in shown]
        if 2 * len(seen) > len(telling):
            findings.append(
                f"the answer of {task.id} stands outside its cell (`{seen[0]}`): "
                "reword it there, or tag that cell `instructor`"
            )
    return findings


def _output_text(cell: NotebookNode) -> str:
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", ""))
        parts += [x for x in output.get("data", {}).values() if isinstance(x, str)]
    return "\n".join(parts)
