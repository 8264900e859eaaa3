"""What a reader of a study answered: CSV without identity, times, and the result."""

from __future__ import annotations

import csv
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from course_lib.base import write_csv
from course_lib.detection import Estimate, tost

KINDS = ("rating", "2afc")
QUESTIONS = {
    "rating": "How sure are you that this image is generated?",
    "2afc": "Which of the two is generated?",
}
ANSWERS = {
    "rating": {
        1: "surely real",
        2: "rather real",
        3: "cannot tell",
        4: "rather generated",
        5: "surely generated",
    },
    "2afc": {1: "left", 2: "right"},
}
CUT = 3  # a rating above it says "generated"
COLUMNS = ("study", "kind", "reader", "trial", "answer", "seconds")


@dataclass(frozen=True)
class Answers:
    """What one reader said: (trials,) answers and seconds. `reader` is a number."""

    code: str
    kind: str
    given: tuple[int, ...]
    seconds: tuple[float, ...]
    reader: int = 1

    def __post_init__(self) -> None:
        allowed = ANSWERS[self.kind]
        if len(self.given) != len(self.seconds):
            raise ValueError(
                f"{len(self.given)} answers and {len(self.seconds)} response times"
            )
        for trial, (answer, seconds) in enumerate(
            zip(self.given, self.seconds, strict=True), start=1
        ):
            if answer not in allowed:
                raise ValueError(
                    f"trial {trial}: answer {answer!r} is none of "
                    f"{', '.join(map(str, allowed))}"
                )
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"trial {trial}: {seconds} s is no response time")


def write_answers(path: Path | str, answers: Answers) -> None:
    """Write answers as CSV: a reader's number, no name, no date, no truth.

    Atomically: a reader of the file sees all of it or none.
    """
    about = answers.code, answers.kind, answers.reader
    rows = enumerate(zip(answers.given, answers.seconds, strict=True), start=1)
    lines = ([*about, n, given, f"{s:.3f}"] for n, (given, s) in rows)
    write_csv(path, [COLUMNS, *lines])


def read_answers(path: Path | str) -> Answers:
    """The answers that `write_answers` wrote.

    Raises ValueError that names the line: other columns, two readers or studies in one
    file, a trial that is missing or comes twice, an answer or time that cannot be.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != COLUMNS:
        head = ",".join(rows[0]) if rows else "nothing"
        raise ValueError(
            f"{path.name}: the first line is {','.join(COLUMNS)}, not {head}"
        )
    found: list[tuple[str, str, int, int, int, float]] = []
    for line, row in enumerate(rows[1:], start=2):
        try:
            code, kind, reader, trial, answer, seconds = row
            found.append(
                (code, kind, int(reader), int(trial), int(answer), float(seconds))
            )
        except ValueError as error:
            raise ValueError(
                f"{path.name}, line {line}: expected {','.join(COLUMNS)} with whole "
                f"numbers for reader, trial and answer, got {','.join(row)}"
            ) from error
    if not found:
        raise ValueError(f"{path.name} has no answers")
    if len({row[:3] for row in found}) > 1:
        raise ValueError(
            f"{path.name} mixes studies, kinds or readers: one file, one reader"
        )
    trials = [row[3] for row in found]
    if trials != list(range(1, len(found) + 1)):
        raise ValueError(
            f"{path.name}: the trials are 1 to {len(found)}, each once and in order"
        )
    code, kind, reader = found[0][:3]
    if kind not in KINDS:
        raise ValueError(f"{path.name}: kind {kind!r} is none of {', '.join(KINDS)}")
    given, seconds = (tuple(row[i] for row in found) for i in (4, 5))
    try:
        return Answers(code, kind, given, seconds, reader)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


@dataclass(frozen=True)
class ResponseTimes:
    """Median and quartiles in seconds, and the trials (from 1) that took very long."""

    median: float
    low: float
    high: float
    slow: tuple[int, ...]

    def __str__(self) -> str:
        slow = ", ".join(map(str, self.slow)) or "none"
        return (
            f"median {self.median:.1f} s (half of them {self.low:.1f} to "
            f"{self.high:.1f} s); unusually slow trials: {slow}"
        )


def response_times(seconds: Any) -> ResponseTimes:
    """Summary of response times (n,) in seconds.

    They are skewed, so quartiles; slow: more than 1.5 quartile distances above the
    third, on the logarithm (Tukey's fence). Nothing is thrown away.
    """
    seconds = np.asarray(seconds, float)
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    log = np.log(seconds.clip(1e-3))
    first, third = np.quantile(log, (0.25, 0.75))
    slow = np.flatnonzero(log > third + 1.5 * (third - first) + 1e-9) + 1
    return ResponseTimes(float(median), float(low), float(high), tuple(map(int, slow)))


@dataclass(frozen=True)
class Result:
    """What a reader's answers say. `sentence` may be quoted; a table in a notebook."""

    kind: str
    n: int
    right: float  # share of right answers; "cannot tell" counts as "real"
    d: Estimate
    bias: Estimate | None  # criterion of ratings
    area: Estimate | None  # AUC of ratings
    left: float | None  # share of "left" in pairs
    times: ResponseTimes
    margin: float

    @property
    def p_equivalent(self) -> float:
        """p of the equivalence test of d-prime against the margin."""
        return tost(self.d.value, self.d.se, self.margin)

    @property
    def sentence(self) -> str:
        """What may be concluded, and what may not."""
        said = f"d-prime is {self.d}, from {self.n} trials. "
        if self.d.low > 0:
            return said + "This reader told real from generated better than by chance."
        if self.d.high < 0:
            return said + "This reader saw a difference, and named it the wrong way."
        if self.p_equivalent < 0.05:
            return said + (
                f"For this reader the two kinds are equivalent within +/- "
                f"{self.margin:g} (p = {self.p_equivalent:.2g}). That is about what "
                "this reader sees, not about whether the images are true."
            )
        return said + (
            "No difference was shown, and no equivalence either (margin +/- "
            f"{self.margin:g}, p = {self.p_equivalent:.2g}): too few trials to say."
        )

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) pairs for a table."""
        rows = [("right answers", f"{self.right:.0%}"), ("d-prime", str(self.d))]
        if self.area is not None and self.bias is not None:
            rows.append(("criterion, above 0: says real", str(self.bias)))
            rows.append(("AUC of the ratings", str(self.area)))
        else:
            rows.append(("answers 'left'", f"{self.left:.0%}"))
        rows.append(("response times", str(self.times)))
        return rows

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.rows()]
        return "\n".join([*lines, self.sentence])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self.rows()
        )
        return f"<table>{rows}</table><p>{html.escape(self.sentence)}</p>"
