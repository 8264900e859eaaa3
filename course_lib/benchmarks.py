"""What the benchmarks measured over several seeds, for the lessons to show.

`benchmarks.json` is written by the scripts in `tests/benchmarks/` when they are called
with `--save`, one entry each. A lesson shows one seed of its own and, beside it, this;
`docs/benchmarks.md` shows all (`python -m course_lib.benchmarks` writes it anew).
"""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

from course_lib.base import write_text
from course_lib.plotting import markdown_table, show_table

BENCHMARKS = Path(__file__).with_name("benchmarks.json")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
PREFACE = (
    "Each table comes from a script in `tests/benchmarks/`, whose command stands below "
    "it; the lessons show the same tables. Figures of speed belong to the machine."
)
CENTRES = {"mean": mean, "median": median}
Rows = Mapping[str, Mapping[str, Sequence[float]]]


def save_benchmark(
    name: str,
    title: str,
    rows: Rows,
    *,
    command: str,
    values: str,
    centre: str = "mean",
    path: Path = BENCHMARKS,
) -> None:
    """Write or replace one entry; the others stay as they are.

    `rows` is {row: {column: values}}; a row may lack a column. `values` says what
    stands in a list ("seeds 0 1 2"), and `centre` ("mean" or "median") what a reader
    gets first. Date and versions are added. Raises ValueError where nothing was found.
    """
    cells = [found for columns in rows.values() for found in columns.values()]
    if not cells or not all(len(found) for found in cells):
        raise ValueError(f"{name}: each cell needs at least one value, got {rows}")
    if centre not in CENTRES:
        raise ValueError(f"centre {centre!r}: choose from {', '.join(CENTRES)}")
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    known[name] = {
        "title": title,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "values": values,
        "centre": centre,
        "rows": {row: _rounded(cells) for row, cells in rows.items()},
    }
    write_text(path, json.dumps(known, indent=1) + "\n")
    if path == BENCHMARKS:
        write_text(PAGE, benchmarks_page())


def read_benchmark(name: str, path: Path = BENCHMARKS) -> dict[str, Any]:
    """One entry, as `save_benchmark` wrote it. Raises KeyError with the known names."""
    known = json.loads(path.read_text("utf-8"))
    if name not in known:
        raise KeyError(f"no benchmark {name!r}; there are {', '.join(sorted(known))}")
    return known[name]


def benchmark_value(name: str, row: str, column: str, path: Path = BENCHMARKS) -> float:
    """The mean (or median) of one cell, for a sum or the headline of a lesson."""
    entry = read_benchmark(name, path)
    return CENTRES[entry["centre"]](entry["rows"][row][column])


def show_benchmark(name: str, path: Path = BENCHMARKS) -> None:
    """Show one entry as a table: each cell its mean and, in brackets, every value.

    The note below says what was measured, with which command, when and with what.
    """
    head, rows, note = _table(read_benchmark(name, path))
    show_table(head, rows, note=note)


def _table(entry: Mapping[str, Any]) -> tuple[list[str], list[list[str]], str]:
    columns = list(
        dict.fromkeys(name for row in entry["rows"].values() for name in row)
    )
    centre, table = CENTRES[entry["centre"]], []
    for row, cells in entry["rows"].items():
        shown = []
        for column in columns:
            found = cells.get(column, [])
            each = ", ".join(map(_told, found))
            shown.append(f"{_told(centre(found))} ({each})" if found[1:] else each)
        table.append([row, *shown])
    several = any(
        found[1:] for cells in entry["rows"].values() for found in cells.values()
    )
    of = f"{entry['centre']} and, in brackets, " if several else ""
    note = (
        f"{entry['title']}: {of}{entry['values']}. "
        f"Not run here: measured by `{entry['command']}` on {entry['date']} with "
        f"Python {entry['python']} and torch {entry['torch']}."
    )
    return ["", *columns], table, note


def benchmarks_page(path: Path = BENCHMARKS) -> str:
    """All entries as one page of Markdown, in the order of the file."""
    parts = ["# What was measured", PREFACE]
    for name, entry in json.loads(path.read_text("utf-8")).items():
        head, rows, note = _table(entry)
        parts += [f"## {name}", markdown_table(head, rows), note]
        if PAGE.with_name(f"{name}.png").is_file():
            parts.append(f"![Images of the networks of this table]({name}.png)")
    return "\n\n".join(parts) + "\n"


def _told(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _rounded(cells: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [round(float(x), 4) for x in found] for name, found in cells.items()}


if __name__ == "__main__":
    write_text(PAGE, benchmarks_page())
    print(PAGE)
