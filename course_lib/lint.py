"""The rules of a lesson that a program can check: parts, tags, parameters, prose.

`lint` reads a source or an executed notebook; with outputs there it knows more.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.exercises import LessonError, exercises
from course_lib.pages import CODE_OR_MATH, formula
from course_lib.sources import read_notebook, read_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

# The parts of a lesson, in order. A lesson without a network has no need of all.
PARTS = ("Goals", "Setup", "Data", "Model", "Loss", "Training", "Look", "Measure")
PARTS += ("Break it", "Claim check", "Exercises", "On a GPU", "Summary", "References")
MODEL_PARTS = ("Model", "Loss", "Training", "Look", "On a GPU")
PARAMETERS = ("budget", "dataset", "image_size", "seed")
CHECKED, IGNORED = "nbval-check-output", "nbval-ignore-output"
MAX_LINES = 25
MIN_CHECKED = 3
LOCAL_PATH = re.compile(
    r"(?<![\w.~:/])/(?:home|root|Users|tmp|work|opt|mnt|var|private)/\w|\b[A-Z]:\\\w"
)
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def _only_imports(tree: ast.Module | None) -> bool:
    """All imports stand in one cell, however many there are."""
    body = tree.body if tree else []
    return bool(body) and all(isinstance(x, ast.Import | ast.ImportFrom) for x in body)


def lint(path: Path) -> list[str]:
    """Findings on a lesson's source (.py) or notebook (.ipynb); empty when it is good.

    Raises LessonError when the file cannot be read.
    """
    path = Path(path)
    notebook = read_source(path) if path.suffix == ".py" else read_notebook(path)
    rules = [_parts, _parameters, _checked, _prose, _formulas, _cells, _tasks]
    if any(cell.get("outputs") for cell in notebook.cells):
        rules.append(_outputs)
    return [f"{path.stem}: {finding}" for rule in rules for finding in rule(notebook)]


def headings(notebook: NotebookNode) -> list[tuple[int, str]]:
    """(cell number from 0, text) of each second-level heading."""
    found = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            text = _without_code(cell.source)
            found += [(i, x) for x in re.findall(r"^## +(.+?) *$", text, re.MULTILINE)]
    return found


def _part(heading: str) -> str | None:
    """'Data: what a pixel means' -> 'Data'."""
    for part in PARTS:
        if re.match(rf"{part}(?!\w| \w)", heading, re.IGNORECASE):
            return part
    return None


def _parts(notebook: NotebookNode) -> Iterator[str]:
    found = [part for _, text in headings(notebook) if (part := _part(text))]
    has_model = "Model" in found or any(
        isinstance(node, ast.ClassDef)
        and any("Module" in ast.unparse(base) for base in node.bases)
        for _, tree in _trees(notebook)
        for node in tree.body
    )
    for part in PARTS:
        if part not in found and (has_model or part not in MODEL_PARTS):
            yield f"the part `## {part}` is missing"
    for part in sorted({part for part in found if found.count(part) > 1}):
        yield f"the part `## {part}` stands twice"
    order = [part for part in PARTS if part in found]
    if len(set(found)) == len(found) and found != order:
        yield f"parts out of order: {', '.join(found)}; write {', '.join(order)}"


def _parameters(notebook: NotebookNode) -> Iterator[str]:
    cells = [c for c in notebook.cells if "parameters" in _tags(c)]
    if len(cells) != 1:
        yield f"{len(cells)} cells have the tag `parameters`; one must"
        return
    names = []
    try:
        body = ast.parse(cells[0].source).body
    except SyntaxError as error:
        yield f"the parameters cell is not Python: {error}"
        return
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        if not isinstance(target, ast.Name) or not _is_literal(node.value):
            yield (
                f"parameters: `{ast.unparse(node)}` is no `name = literal` (papermill "
                "can set nothing else); derive values in the next cell"
            )
            continue
        names.append(target.id)
    for name in PARAMETERS:
        if name not in names:
            yield f"the parameters cell lacks `{name}`"


def _is_literal(node: ast.expr | None) -> bool:
    # nbval cannot set parameters, so the budget may come from the environment.
    if node and ast.unparse(node).startswith("os.environ.get('COURSE_BUDGET', "):
        return True
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True


def _checked(notebook: NotebookNode) -> Iterator[str]:
    checked = [i for i, c in enumerate(notebook.cells) if CHECKED in _tags(c)]
    if len(checked) < MIN_CHECKED:
        yield (
            f"{len(checked)} cells have the tag `{CHECKED}`; at least {MIN_CHECKED} "
            "must print what holds at every budget and on every machine"
        )
    summary = [i for i, text in headings(notebook) if _part(text) == "Summary"]
    if summary and not any(i > summary[0] for i in checked):
        yield f"Summary has no cell with the tag `{CHECKED}` that states computed facts"


def _prose(notebook: NotebookNode) -> Iterator[str]:
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for line in _prose_of(cell.source).split("\n"):
                if "!" in line:
                    yield f"{_where(i, cell)}: exclamation mark in `{line.strip()}`"


def _formulas(notebook: NotebookNode) -> Iterator[str]:
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for match in CODE_OR_MATH.finditer(cell.source):
                try:
                    formula(match["block"] or match["inline"] or "x")
                except ValueError as error:
                    yield f"{_where(i, cell)}: {error}"


def _cells(notebook: NotebookNode) -> Iterator[str]:
    trees = dict(_trees(notebook))
    for i, cell in enumerate(notebook.cells):
        where = _where(i, cell)
        if match := LOCAL_PATH.search(cell.source):
            yield f"{where}: a path of one machine, `{match[0]}`"
        if cell.cell_type != "code":
            continue
        lines = cell.source.count("\n") + 1
        if lines > MAX_LINES and not _only_imports(trees.get(i)):
            yield f"{where}: {lines} lines; split it, {MAX_LINES} is the most"
        if not i or notebook.cells[i - 1].cell_type != "markdown":
            yield f"{where}: no text before it; say what the cell is for"
        tags = {CHECKED, IGNORED} & set(_tags(cell))
        if len(tags) > 1:
            yield f"{where}: both nbval tags; keep one"
        if i not in trees:
            yield f"{where}: not plain Python; use no magics and no shell"
            continue
        last = _last_call(trees[i])
        if CHECKED in tags and last.startswith(("show_", "plot_")):
            yield f"{where}: a checked cell ends in the picture {last}; split it"
        if not tags and _plainly_shows(trees[i]):
            yield f"{where}: shows something; tag it `{CHECKED}` or `{IGNORED}`"


def _last_call(tree: ast.Module) -> str:
    """Name of the function that the last statement calls, or ''."""
    last = tree.body[-1] if tree.body else None
    return _call_name(last.value) if isinstance(last, ast.Expr) else ""


def _plainly_shows(tree: ast.Module) -> bool:
    """Whether a cell surely has output: a print outside functions, or a bare value."""
    if not tree.body:
        return False
    calls = (_call_name(node) for node in _outside_functions(tree))
    if any(re.match(r"(print|display|show_\w+|plot_\w+)$", name) for name in calls):
        return True
    last = tree.body[-1]
    return isinstance(last, ast.Expr) and not isinstance(
        last.value, (ast.Call, ast.Constant, ast.Await)
    )


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        if not isinstance(node, kinds):
            yield node
            yield from _outside_functions(node)


def _call_name(node: ast.AST) -> str:
    return ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""


def _tasks(notebook: NotebookNode) -> Iterator[str]:
    try:
        exercises(notebook)
    except LessonError as error:
        yield str(error)


def _outputs(notebook: NotebookNode) -> Iterator[str]:
    """What only an executed notebook shows."""
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where, tags = _where(i, cell), {CHECKED, IGNORED} & set(_tags(cell))
        if cell.outputs and not tags:
            yield f"{where}: has output; tag it `{CHECKED}` or `{IGNORED}`"
        if tags and not cell.outputs:
            yield (
                f"{where}: has an nbval tag and no output (of a widget nothing is "
                "kept: show its static picture beside it)"
            )
        for output in cell.outputs:
            data, metadata = output.get("data", {}), output.get("metadata", {})
            text = "".join(
                [output.get("text", ""), *(x for x in data.values() if type(x) is str)]
                if "image/png" not in data
                else [data.get("text/plain", "")]
            )
            if output.get("name") == "stderr":
                yield f"{where}: writes to stderr: {text.strip()[:60]}"
            if match := LOCAL_PATH.search(text) or ADDRESS.search(text):
                yield f"{where}: output of one machine only, `{match[0]}`"
            if "image/png" in data and not metadata.get("image/png", {}).get("alt"):
                yield f"{where}: a picture without alt text; use course_lib.plotting"


def _trees(notebook: NotebookNode) -> Iterator[tuple[int, ast.Module]]:
    """(cell number, syntax tree) of each code cell that is plain Python."""
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            try:
                yield i, ast.parse(cell.source)
            except SyntaxError:
                continue


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _where(i: int, cell: NotebookNode) -> str:
    return f"cell {i + 1} (`{cell.source.strip().split(chr(10))[0][:40]}`)"


def _without_code(markdown: str) -> str:
    """Markdown without fenced code, code spans and comments."""
    text = re.sub(r"^ *(```+|~~~+).*?^ *\1", "", markdown, flags=re.DOTALL | re.M)
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def _prose_of(markdown: str) -> str:
    """The words of a markdown text: no code, formulas, image marks or addresses."""
    text = _without_code(markdown)
    text = re.sub(r"(?<!\\)\$\$.*?\$\$|(?<![\\$])\$[^$]+?\$", "", text, flags=re.DOTALL)
    return re.sub(r"!(?=\[)|\]\([^)]*\)|<[^>]+>|\bhttps?://\S+", "", text)
