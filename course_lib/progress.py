"""What you have solved: kept in a small file of your own, shown, exported.

The file holds exercise numbers, whether each is solved, and after how many tries; no
name, no date, no code. It is written only where a person sees the answer of a check.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

from course_lib.base import write_csv, write_text
from course_lib.plotting import COLOURS
from course_lib.runtime import cache_dir, has_front_end

WAIT_S = 2.0  # for another lesson that keeps its progress
Record = dict[str, dict[str, int | bool]]


def progress_file() -> Path:
    """`.progress.json` among the copies that `lab` made; elsewhere in the cache."""
    here = Path.cwd()
    if (here / ".course.json").exists():  # the mark of `lab`
        return here / ".progress.json"
    return cache_dir() / "progress.json"


def read_progress(path: Path | None = None) -> Record:
    """{"E01.2": {"solved": True, "tries": 3}, ...}; empty if nothing is kept."""
    try:
        record = json.loads((path or progress_file()).read_text("utf-8"))
        return {
            str(name): {"solved": bool(x["solved"]), "tries": int(x["tries"])}
            for name, x in record.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        warnings.warn(
            f"the file of your progress cannot be read: {problem}", stacklevel=2
        )
        return {}


def keep(exercise: str, solved: bool) -> None:
    """Count one try; what is solved stays solved, and is no longer counted.

    Nothing is kept where nobody looks (tests, `run`, `build`), and a check never fails
    because its answer could not be kept.
    """
    if not has_front_end():
        return
    from filelock import FileLock, Timeout

    path = progress_file()
    try:
        with FileLock(f"{path}.lock", timeout=WAIT_S):  # two lessons may be open
            record = read_progress(path)
            now = record.get(exercise, {"solved": False, "tries": 0})
            if not now["solved"]:
                tries = int(now["tries"]) + 1
                record[exercise] = {"solved": solved, "tries": tries}
                write_text(path, json.dumps(dict(sorted(record.items())), indent=1))
    except (OSError, Timeout) as problem:
        warnings.warn(f"your progress could not be kept: {problem}", stacklevel=2)


def solved_in_lesson(exercise: str) -> tuple[int, int]:
    """(solved, all) exercises of the lesson that `exercise` belongs to."""
    from course_lib.checks import all_checks

    mine = all_checks(exercise[1:3])
    record = read_progress()
    return sum(bool(record.get(x, {}).get("solved")) for x in mine), len(mine)


def show_progress() -> None:
    """Show all lessons: what is solved, after how many tries, and what is open.

    Where nobody looks (`run`, `build`) all is open: others read such a notebook.
    """
    from IPython.display import display

    from course_lib.checks import all_checks

    headless = os.environ.get("COURSE_HEADLESS") == "1"
    record = {} if headless else read_progress()
    lessons: dict[str, list[str]] = {}
    for number in sorted(all_checks(), key=_order):
        lessons.setdefault(number[1:3], []).append(number)
    rows, lines = [], []
    for lesson, numbers in lessons.items():
        open_ = {"solved": False, "tries": 0}
        states = {number: record.get(number, open_) for number in numbers}
        solved = sum(bool(state["solved"]) for state in states.values())
        count = f"{solved} of {len(numbers)}"
        rows.append(_row(f"lesson {lesson}", count, solved / len(numbers), states))
        told = [
            f"{_MARKS[bool(state['solved'])]} {_told(number, state)}"
            for number, state in states.items()
        ]
        lines.append(f"lesson {lesson}: {count} solved: {', '.join(told)}")
    table = _TABLE.format(rows="".join(rows))
    display({"text/html": table, "text/plain": "\n".join(lines)}, raw=True)


def export_progress(path: Path | str = "progress.csv") -> Path:
    """Write the record as CSV: exercise, solved, tries. Returns where it is."""
    path, record = Path(path), read_progress()
    rows = [
        (number, int(record[number]["solved"]), record[number]["tries"])
        for number in sorted(record, key=_order)
    ]
    write_csv(path, [("exercise", "solved", "tries"), *rows])
    return path


def _order(number: str) -> tuple[str, int]:
    """E01.10 comes after E01.2."""
    lesson, _, place = number.partition(".")
    return lesson, int(place) if place.isdigit() else 0


_MARKS = {True: "✓", False: "○"}
_TABLE = """<table style="border-collapse:collapse;color:inherit">
<caption style="text-align:left;color:inherit">What you have solved: ✓ solved, ○ open,
in brackets the tries. Only you have this record; <code>export_progress()</code> writes
it as a table.</caption>
<thead><tr><th scope="col">lesson</th><th scope="col">solved</th>
<th scope="col" style="text-align:left">exercises</th></tr></thead>
<tbody>{rows}</tbody></table>"""


def _row(
    lesson: str, count: str, share: float, states: dict[str, dict[str, int | bool]]
) -> str:
    """One lesson: a head, a count, a bar, and each exercise with a named mark."""
    marks = []
    for number, state in states.items():
        name = "solved" if state["solved"] else "open"
        mark = f'<span role="img" aria-label="{name}">{_MARKS[bool(state["solved"])]}'
        told = _told(number, state)
        marks.append(f'<span style="white-space:nowrap">{mark}</span> {told}</span>')
    return (
        f'<tr><th scope="row" style="white-space:nowrap">{lesson}</th>'
        f'<td style="white-space:nowrap">{count} <progress value="{share:.3f}" '
        f'aria-label="{lesson}, share solved" '
        f'style="width:70px;accent-color:{COLOURS[0]}"></progress></td>'
        f'<td style="text-align:left">{" &ensp;".join(marks)}</td></tr>'
    )


def _told(number: str, state: dict[str, int | bool]) -> str:
    return number + (f" ({state['tries']})" if state["tries"] else "")
