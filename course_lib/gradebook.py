"""What `grade` writes: a gradebook, and a page for each student.

A row is {student, file, lesson, points, of, results, notes}; each of its results is
{id, name, passed, message}. Names and messages come from students: a spreadsheet must
not run them, nor a browser.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib.base import write_csv, write_text
from course_lib.checks import Verdict


def write_gradebook(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each notebook: points, 1 or 0 for each exercise, notes."""
    ids = sorted({x["id"] for row in rows for x in row["results"]})
    table = [["student", "lesson", "points", "of", *ids, "notes", "file"]]
    for row in rows:
        solved = {x["id"]: int(x["passed"]) for x in row["results"]}
        line = [row["student"], row["lesson"], row["points"], row["of"]]
        line += [solved.get(x, "") for x in ids]
        line += [" ".join(row["notes"]), row["file"]]
        table.append([_harmless(x) for x in line])
    write_csv(path, table)


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet runs as a formula, and that is text."""
    if not isinstance(value, str):
        return value
    value = value.encode("utf-8", "replace").decode("utf-8")
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto;
padding: 0 1rem }} div {{ margin: .5rem 0; overflow-wrap: anywhere }}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""


def write_feedback(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One page for each student with the verdict on each exercise."""
    of_student: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        of_student.setdefault(row["student"], []).append(row)
    names: set[str] = set()
    for student, theirs in of_student.items():
        parts = []
        for row in theirs:
            parts.append(
                f"<h2>Lesson {html.escape(row['lesson'])}: {row['points']} of "
                f"{row['of']} ({html.escape(_harmless(row['file']))})</h2>"
            )
            for x in row["results"]:
                parts.append(f"<h3>{html.escape(x['name'])}</h3>")
                verdict = Verdict(x["id"], x["passed"], x["message"])
                parts.append(verdict._repr_html_())
            notes = "".join(f"<li>{html.escape(note)}</li>" for note in row["notes"])
            parts.append(f"<p>Notes:</p><ul>{notes}</ul>" if notes else "")
        name = re.sub(r"[^\w.-]", "_", _harmless(student).lstrip("'."))[:80] or "_"
        while name.lower() in names:
            name += "_"
        names.add(name.lower())
        title = html.escape(f"Feedback for {_harmless(student)}")
        page = _PAGE.format(title=title, body="\n".join(filter(None, parts)))
        write_text(folder / f"{name}.html", page.encode("utf-8", "replace").decode())


def print_summary(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """How many solved each exercise, and where the rest stands."""
    ids = sorted({x["id"] for row in rows for x in row["results"]})
    for number in ids:
        marks = [x["passed"] for r in rows for x in r["results"] if x["id"] == number]
        print(f"  {number}: {sum(marks)} of {len(marks)} solved")
    noted = sum(bool(row["notes"]) for row in rows)
    print(f"{len(rows)} notebook(s), {noted} with notes; see {out / 'gradebook.csv'}")
