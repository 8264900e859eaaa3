"""What the benchmarks measured over several seeds, for the lessons to show.

`benchmarks.json` is written by the scripts in `tests/benchmarks/` when they are called
with `--save`, one entry each. A lesson shows one seed of its own and, beside it, this.
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

from course_lib.plotting import show_table
from course_lib.runtime import atomic_path

BENCHMARKS = Path(__file__).with_name("benchmarks.json")
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
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n", "utf-8")


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
    entry = read_benchmark(name, path)
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
    note = (
        f"{entry['title']}: {entry['centre']} and, in brackets, {entry['values']}. "
        f"Not run here: measured by `{entry['command']}` on {entry['date']} with "
        f"Python {entry['python']} and torch {entry['torch']}."
    )
    show_table(["", *columns], table, note=note)


def _told(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _rounded(cells: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [round(float(x), 4) for x in found] for name, found in cells.items()}
