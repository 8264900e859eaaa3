"""From the sources of the lessons to notebooks, and back.

`notebooks/src/NN_name.py` (py:percent) is what people edit. `build` makes the executed
`notebooks/NN_name.ipynb` and, without solutions and outputs,
`notebooks/student/NN_name.ipynb`; `adopt` turns an edited notebook back into source.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.base import LIVE_MIME, ROOT, write_text
from course_lib.exercises import LessonError, student
from course_lib.sources import (
    KERNEL,
    LANGUAGE,
    Lesson,
    bare,
    lessons,
    only_tags,
    parse,
    read_notebook,
    read_source,
    select,
    text_hash,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbformat import NotebookNode

__all__ = [
    "Lesson",
    "LessonError",
    "adopt",
    "build",
    "lessons",
    "read_source",
    "student",
]

WIDGET = "application/vnd.jupyter.widget-view+json"


def build(
    numbers: Iterable[str | int] | None = None,
    *,
    execute: bool = True,
    budget: str = "lab",
    weights: bool = False,
    root: Path = ROOT,
) -> list[Path]:
    """Make the executed and the student notebook of each lesson; returns their paths.

    With execute=False an executed notebook follows changes of text and is left alone
    where code changed. `weights` lets the lessons replace the shipped weights. Raises
    LessonError with the traceback when a cell fails; its notebooks stay as they were.
    """
    chosen = select(numbers, root)
    sources = {lesson.name: read_source(lesson.source) for lesson in chosen}
    students = {name: student(notebook) for name, notebook in sources.items()}
    written = []
    for lesson in chosen:
        notebook, start = sources[lesson.name], time.perf_counter()
        files = [(lesson.notebook, notebook), (lesson.student, students[lesson.name])]
        if execute:
            run(notebook, lesson.notebook.parent, budget, weights=weights, root=root)
            done = f"executed ({budget}, {time.perf_counter() - start:.0f} s)"
        elif not lesson.notebook.exists():
            done = "not executed yet"
        elif _keep_outputs(lesson.notebook, notebook):
            done = "outputs kept"
        else:
            done = "student version only; code changed, so execute it again"
            del files[0]
        for path, content in files:
            write(path, content)
            written.append(path)
        print(f"{lesson.name}: {done}", flush=True)
    return written


def run(
    notebook: NotebookNode,
    folder: Path,
    budget: str,
    *,
    weights: bool = False,
    root: Path = ROOT,
) -> None:
    """Execute a notebook in place, in `folder`, and tidy its outputs.

    Raises LessonError with the traceback of the cell that failed.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from nbconvert.filters import strip_ansi

    # A kernel named python3 in the user's own folder must not shadow this one.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "COURSE_BUDGET": budget,
        "COURSE_HEADLESS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # two torch processes would spin on each other
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    if weights:
        environment["COURSE_KEEP_WEIGHTS"] = "1"
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        # ipykernel warns at each start that loopback TCP is not encrypted
        extra_arguments=["--Application.log_level=40"],
    )
    try:
        client.execute(env=environment)
    except (CellExecutionError, DeadKernelError) as error:
        name = notebook.metadata.get("course", {}).get("source", "the notebook")
        raise LessonError(f"{name}: {strip_ansi(str(error))}") from None
    tidy(notebook)


def tidy(notebook: NotebookNode) -> None:
    """Remove what differs between two builds, or is large: widgets, timings."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = KERNEL
    notebook.metadata["language_info"] = LANGUAGE
    for cell in notebook.cells:
        cell.metadata = only_tags(cell.metadata)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            output.pop("transient", None)
            data = output.get("data", {})
            data.pop(LIVE_MIME, None)  # for the pages of a run; half a megabyte
            if WIDGET in data:
                del data[WIDGET]
                if set(data) <= {"text/plain"}:
                    continue
            kept.append(output)
        cell.outputs = kept


def build_command(
    numbers: Iterable[str], *, execute: bool = True, weights: bool = False
) -> int:
    """`build` for the command line: says what the rules of lessons find. Exit code."""
    from course_lib.lint import lint

    numbers = list(numbers) or None
    build(numbers, execute=execute, weights=weights)
    for lesson in select(numbers):
        for finding in lint(lesson.notebook):
            print(f"  {finding}")
    return 0


def adopt_command(number: str, *, force: bool = False) -> int:
    """`adopt` for the command line. Exit code."""
    path = adopt(number, force=force)
    print(f"written: {path.relative_to(ROOT)}; now build {number}")
    return 0


def adopt(number: str | int, *, force: bool = False, root: Path = ROOT) -> Path:
    """Write an edited `notebooks/NN_name.ipynb` back into its source; returns the path.

    Raises LessonError when nothing changed, or (unless `force`) when the source, too,
    changed since the build. Outputs and all metadata but tags are left behind.
    """
    (lesson,) = select([number], root)
    if not lesson.notebook.is_file():
        raise LessonError(f"{lesson.notebook} is missing; run `build {lesson.number}`")
    edited = read_notebook(lesson.notebook)
    text = lesson.source.read_text(encoding="utf-8")
    cells = [bare(cell) for cell in edited.cells]
    if cells == [bare(cell) for cell in read_source(lesson.source).cells]:
        raise LessonError(f"{lesson.name}: nothing to adopt, source and notebook agree")
    if edited.metadata.get("course", {}).get("sha256") != text_hash(text) and not force:
        raise LessonError(
            f"{lesson.name}: the source changed since the notebook was built; to take "
            f"the notebook and lose the source's changes: adopt {lesson.number} --force"
        )
    new = _to_source(text, cells, lesson.source)
    if [bare(cell) for cell in parse(new, lesson.source).cells] != cells:
        raise LessonError(
            f"{lesson.name}: the notebook cannot be written as py:percent"
        )
    write_text(lesson.source, new)
    # The notebook now comes from the new source: the next adopt starts there.
    edited.metadata.setdefault("course", {})["sha256"] = text_hash(new)
    write(lesson.notebook, edited)
    return lesson.source


def _to_source(old: str, cells: list[tuple], path: Path) -> str:
    """The source text with these cells; unchanged cells keep their exact layout."""
    import jupytext
    import nbformat

    notebook = parse(old, path)
    before = [bare(cell) for cell in notebook.cells]
    makers = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "raw": nbformat.v4.new_raw_cell,
    }
    new = [
        makers[kind](source, metadata={"tags": list(tags)} if tags else {})
        for kind, source, tags in cells
    ]
    matcher = difflib.SequenceMatcher(None, before, cells, autojunk=False)
    for a, b, size in matcher.get_matching_blocks():
        for k in range(size):  # jupytext keeps blank lines and markers in the metadata
            new[b + k].metadata = notebook.cells[a + k].metadata
    notebook.cells = new
    text = jupytext.writes(notebook, fmt="py:percent")
    header, body = _split_header(old)[0], _split_header(text)[1]
    return header + body.rstrip("\n") + "\n"


def _split_header(text: str) -> tuple[str, str]:
    """Everything before the first cell marker, and the rest."""
    match = re.search(r"^# %%", text, re.MULTILINE)
    start = match.start() if match else len(text)
    return text[:start], text[start:]


def _keep_outputs(path: Path, notebook: NotebookNode) -> bool:
    """Copy the outputs of the notebook at `path` if its code is that of `notebook`."""
    old = [x for x in read_notebook(path).cells if x.cell_type == "code"]
    new = [x for x in notebook.cells if x.cell_type == "code"]
    if [x.source for x in old] != [x.source for x in new]:
        return False
    for source, target in zip(old, new, strict=True):
        target.outputs = source.outputs
        target.execution_count = source.execution_count
    return True
