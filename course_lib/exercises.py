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
import html
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.base import LessonError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbformat import NotebookNode

SOLUTION = re.compile(r"([ \t]+)# solution (E\d\d\.\d+)")
_LOOKS_LIKE_SOLUTION = re.compile(r"#\s*solutions?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Exercise:
    """One exercise: its id, the student's object, the stub, and the lines cut out."""

    id: str
    name: str
    stub: str
    solution: str


def cell_id(number: str) -> str:
    """'E02.1' -> 'exercise-E02-1', in the executed and in the student's notebook."""
    return f"exercise-{number.replace('.', '-')}"


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
    mark_for_nbgrader(result, tasks)
    result.cells = [cell for cell in result.cells if not for_instructor(cell)]
    for finding in leaks(tasks.values(), result):
        raise LessonError(f"{notebook.metadata.course.source}: {finding}")
    return result


def for_instructor(cell: NotebookNode) -> bool:
    """Whether a cell has the tag that keeps it from students."""
    return "instructor" in cell.metadata.get("tags", [])


def mark_for_nbgrader(notebook: NotebookNode, tasks: dict[int, Exercise]) -> None:
    """Mark exercise cells (solution) and their checks (1 point) for nbgrader.

    `tasks` are by cell number. A check's cell gets the id `check-E02-1`; the grade ids
    are the cells' ids. In nbgrader a check raises where the exercise is not solved.
    """
    kind = {"schema_version": 3, "task": False}
    for i, task in tasks.items():
        cell = notebook.cells[i]
        answer = {"grade": False, "solution": True, "locked": False}
        cell.metadata["nbgrader"] = kind | answer | {"grade_id": cell.id}
        call = re.compile(rf"\bcheck_\w+\({task.name}\b")
        for later in notebook.cells[i + 1 :]:
            if later.cell_type == "code" and call.search(later.source):
                later["id"] = cell.id.replace("exercise", "check")
                test = {"grade": True, "solution": False, "locked": True, "points": 1}
                later.metadata["nbgrader"] = kind | test | {"grade_id": later.id}
                break


def leaks(tasks: Iterable[Exercise], notebook: NotebookNode) -> list[str]:
    """Findings for exercises whose answer a (student's) notebook still shows.

    Looks at cells, outputs, attachments and all metadata. An answer counts as shown
    when more than half of its telling lines are, or 60 % of its tokens stand in
    runs of 14 that differ in spaces and names alone.
    """
    texts = list(_texts(notebook))
    lines = {line.strip() for text in texts for line in text.split("\n")}
    runs = {run for text in texts for _, run in _runs(text)}
    findings = []
    for task in tasks:
        seen = _shown_lines(task.solution, lines) or _shown_runs(task.solution, runs)
        if seen:
            findings.append(
                f"the answer of {task.id} stands outside its cell (`{seen}`): "
                "reword it there, or tag that cell `instructor`"
            )
    return findings


def _shown_lines(solution: str, shown: set[str]) -> str | None:
    lines = (line.strip() for line in solution.split("\n"))
    # Short lines and block openers (`with torch.no_grad():`) give nothing away.
    telling = [x for x in lines if len(x) >= 20 and not x.endswith((":", ","))]
    seen = [line for line in telling if line in shown]
    return seen[0] if 2 * len(seen) > len(telling) else None


RUN = 14  # tokens; lessons repeat shorter ones by chance
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d+\.?\d*(?:e-?\d+)?|[^\s\w]")


def _shown_runs(solution: str, shown: set[tuple[str | int, ...]]) -> str | None:
    tokens, found = _tokens(solution), set()
    for start, run in _runs(solution):
        if run in shown:
            found.update(range(start, start + RUN))
    if len(found) <= 0.6 * len(tokens):
        return None
    return " ".join(tokens[i] for i in sorted(found)[:RUN])


def _tokens(text: str) -> list[str]:
    text = html.unescape(re.sub(r"<[^<>\n]*>", " ", text))  # of a page
    return _TOKEN.findall(re.sub(r"#.*", "", text))


def _runs(text: str) -> Iterator[tuple[int, tuple[str | int, ...]]]:
    """(start, RUN tokens) of each run; names but attributes are numbered in order."""
    tokens = _tokens(text)
    free = [
        (token[0].isalpha() or token[0] == "_")
        and not keyword.iskeyword(token)
        and tokens[max(i - 1, 0)] != "."
        for i, token in enumerate(tokens)
    ]
    for start in range(len(tokens) - RUN + 1):
        names: dict[str, int] = {}
        part = range(start, start + RUN)
        run = [
            names.setdefault(tokens[i], len(names)) if free[i] else tokens[i]
            for i in part
        ]
        yield start, tuple(run)


def _texts(value: object) -> Iterator[str]:
    """Every text in a notebook but pictures; neighbouring lines stay together."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inside in value.items():
            if not str(key).startswith("image/"):
                yield from _texts(inside)
    elif isinstance(value, (list, tuple)):
        if value and all(isinstance(x, str) for x in value):
            yield "\n".join(value)
        else:
            for inside in value:
                yield from _texts(inside)
