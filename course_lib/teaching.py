"""Notes for who teaches a lesson: minutes, questions to ask, usual wrong answers.

All of it is read from the lesson and its checks, so it cannot fall behind them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.base import ROOT, write_text
from course_lib.exercises import Exercise, exercises, for_instructor
from course_lib.sources import Lesson, read_source, select

if TYPE_CHECKING:
    from nbformat import NotebookNode

# A sentence ends before a capital, a quotation, a formula or code; `1.5 mm` goes on.
_END = re.compile(r"(?<=[.!?])([\"*)]*)\s+(?=[A-Z\"*$`(])")
SHORT = 60  # letters; a shorter question needs the sentence before it


def notes(lesson: Lesson, root: Path = ROOT) -> str:
    """The notes of a lesson as Markdown."""
    notebook = read_source(lesson.source)
    tasks = exercises(notebook)
    hints = hints_of(root / "course_lib" / "checks" / f"lesson_{lesson.number}.py")
    parts = [f"# Teaching {lesson.title}", lesson.summary]
    parts += ["## Minutes", _minutes(lesson, notebook, root)]
    if found := questions(notebook, [task for _, task in tasks]):
        parts += ["## Questions to ask", "\n".join(f"- {x}" for x in found)]
    private = filter(for_instructor, notebook.cells)
    if told := [x.source for x in private if x.cell_type == "markdown"]:
        parts += ["## For you alone", *told]
    parts += ["## Exercises and what goes wrong in them"]
    for i, task in tasks:
        parts += [f"### {task.id} `{task.name}`", _task(notebook, i, task)]
        parts += [f"```python\n{task.solution}\n```"]
        usual = "\n".join(f"- {x}" for x in hints.get(task.id, []))
        parts += [f"What the check says of wrong answers:\n\n{usual}"] if usual else []
    return "\n\n".join(filter(None, parts)) + "\n"


def _minutes(lesson: Lesson, notebook: NotebookNode, root: Path) -> str:
    """What a class needs, each budget may take (`run` enforces it), a run has taken."""
    needs = re.search(r"^You need [^#]+?(?=\n\n|\Z)", notebook.cells[0].source, re.M)
    lines = [f"- in class: {' '.join(needs[0].split())}"] if needs else []
    lines += [f"- {name}: at most {most:g}" for name, most in lesson.minutes.items()]
    try:
        report = json.loads((root / "build" / "report.json").read_text("utf-8"))
        lines += [
            f"- measured, {row['budget']} on {row['device']}: {row['seconds'] / 60:.1f}"
            for row in report["lessons"]
            if row["lesson"] == lesson.name
        ]
    except (OSError, ValueError, KeyError, TypeError):
        lines.append(f"- measured: nothing yet; `run {lesson.number}` measures it")
    return "\n".join(lines)


def questions(notebook: NotebookNode, tasks: Iterable[Exercise]) -> list[str]:
    """The questions that a lesson's text asks before its exercises, in order.

    Each with the section that asks it; a short one with the sentence before it.
    """
    numbers, section = [task.id for task in tasks], ""
    found: dict[str, str] = {}  # question -> how it is told
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        source = re.sub(r"^(#+ .*)$", r"\n\1\n", cell.source, flags=re.MULTILINE)
        for block in re.split(r"\n\s*\n|\n(?=\s*- )", source):
            text = " ".join(block.split())
            if text.startswith("#"):
                section = text.lstrip("# ") if text.startswith("## ") else section
            if text.startswith(("#", "|")) or section == "References":
                continue
            if any(number in cell.source for number in numbers):
                continue
            for question, told in _asked(text.removeprefix("- ")):
                place = f"**{section}** " if section else ""
                found.setdefault(question, place + told)
    return list(found.values())


def _asked(text: str) -> list[tuple[str, str]]:
    """(question, the same with what it needs to be understood) of a paragraph."""
    sentences, found = _END.sub(r"\1\n", text).split("\n"), []
    for before, sentence in zip(["", *sentences], sentences, strict=False):
        if not re.search(r"[^?]{11}\?[\"*)]*$", sentence):
            continue
        lonely = len(sentence) < SHORT and before and "?" not in before
        found.append((sentence, f"{before} {sentence}" if lonely else sentence))
    return found


def _task(notebook: NotebookNode, index: int, task: Exercise) -> str:
    """The task as the cell before the exercise words it."""
    before = notebook.cells[index - 1]
    if before.cell_type != "markdown":
        return ""
    blocks = before.source.split("\n\n")
    start = next((i for i, x in enumerate(blocks) if task.id in x), 0)
    return "\n\n".join(blocks[start:])


def hints_of(path: Path) -> dict[str, list[str]]:
    """{exercise: its hints} from the source of a lesson's checks.

    A hint is what a check returns, or a key of its table of wrong answers.
    """
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for node in tree.body:
        number = _number(node)
        if number is None:
            continue
        said: list[ast.expr | None] = []
        for inside in ast.walk(node):
            if isinstance(inside, ast.Return):
                value = inside.value
                options = (
                    [value.body, value.orelse]
                    if isinstance(value, ast.IfExp)
                    else [value]
                )
                said += options
            elif isinstance(inside, ast.Dict):
                said += inside.keys
        said.sort(key=lambda x: getattr(x, "lineno", 0))
        texts = [_said(x) for x in said]
        found[number] = list(dict.fromkeys(x for x in texts if len(x) > 20))
    return found


def _number(node: ast.stmt) -> str | None:
    """The exercise of a function decorated `@exercise("E02.1", ...)`."""
    for call in getattr(node, "decorator_list", []):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "exercise":
            return call.args[0].value
    return None


def _said(node: ast.expr | None) -> str:
    """The text of a string; what it fills in is shown as `...`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [x.value if isinstance(x, ast.Constant) else "..." for x in node.values]
        return "".join(parts)
    return ""


def notes_command(numbers: Iterable[str], folder: str, root: Path = ROOT) -> int:
    """`build --notes DIR` for the command line. Exit code."""
    for lesson in select(list(numbers) or None, root):
        path = Path(folder) / f"{lesson.name}.md"
        write_text(path, notes(lesson, root))
        print(f"written: {path}")
    return 0
