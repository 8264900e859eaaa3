"""What lessons and the command line share: folders, names, files written whole.

The standard library alone, so that a command does not wait for torch. Lessons find the
functions in `course_lib.runtime`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = ("smoke", "lab", "full")
REPORT_MIME = "application/vnd.course.report+json"
LIVE_MIME = "application/vnd.course.live+html"  # what Jupyter does not show


class LessonError(ValueError):
    """A lesson that cannot be built, run or adopted; the message says the fix."""


def data_dir() -> Path:
    """Where a person keeps real data sets: `COURSE_DATA`, else `data/`."""
    return Path(os.environ.get("COURSE_DATA") or ROOT / "data").expanduser()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path`; what is written there is moved if the block succeeds.

    A reader sees the old file or the whole new one, never a part. The temporary file
    keeps the ending of `path`, since writers such as `numpy.savez` add a missing one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: its files are for their owner alone.
    temporary = path.with_name(f".{path.stem}-{os.urandom(6).hex()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically, line ends as they are in `text`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def write_csv(path: Path | str, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of cells as CSV, atomically, in the form that spreadsheets write."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
