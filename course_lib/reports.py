"""What `evaluate` found: a report, and several of them in one table."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass

HIGHER = ("precision", "recall", "density", "coverage")  # where more is better
_ENDING = (
    "This holds for this extractor, N and reference only, and says nothing about "
    "copies of training images (see course_lib.audit) or clinical use."
)


@dataclass(frozen=True)
class Score:
    """One number: its 95 % interval (low, high), and real against real beside it.

    `baseline` is at `Report.baseline_n` images; `same_n` is this number at that N.
    """

    value: float
    low: float
    high: float
    baseline: float
    same_n: float


@dataclass(frozen=True)
class Report:
    """What `evaluate` found. `json()`, `str()`, or a table in a notebook."""

    name: str
    n: int
    n_real: int  # as given, before both sides were cut to n
    n_fake: int
    d: int
    extractor: str
    sha256: str
    resize: str
    input_range: tuple[float, float]
    real_range: tuple[float, float]
    fake_range: tuple[float, float]
    reference: str  # hash of the real images
    baseline_n: int
    scores: dict[str, Score]
    p_value: float
    warnings: tuple[str, ...]
    seed: int
    seconds: float

    @property
    def conclusion(self) -> str:
        """What may be concluded, in two or three sentences."""
        name, score = next(iter(self.scores.items()))
        measured = (
            f"{name} = {score.value:.3g} (95 % interval {score.low:.3g} to "
            f"{score.high:.3g}, N = {self.n}; real against real {score.baseline:.3g}"
        )
        if self.baseline_n != self.n:
            measured += f" at N = {self.baseline_n}, where this set has "
            measured += f"{score.same_n:.3g}"
        measured += ")"
        if self.p_value > 0.05:
            said = (
                f"No difference between {self.name} and the real images was found "
                f"(p = {self.p_value:.2g}): {measured}. That is no proof that there is "
                "none: a distance up to the upper end would have looked the same."
            )
        else:
            said = (
                f"{self.name} differs from the real images by more than chance "
                f"(p = {self.p_value:.2g}): {measured}."
            )
            if not name.startswith("KID") and score.same_n > score.baseline > 0:
                times = score.same_n / score.baseline
                said += f" That is {times:.2g} times real against real."
        doubts = " Read the warnings." if self.warnings else ""
        return f"{said} {_ENDING}{doubts}"

    def to_dict(self) -> dict:
        """Plain types for JSON, the conclusion with them."""
        return dataclasses.asdict(self) | {"conclusion": self.conclusion}

    def json(self) -> str:
        """The report as JSON; `Report.from_dict(json.loads(text))` reads it again."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping) -> Report:
        """The report that `to_dict` wrote."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        fields["scores"] = {k: Score(**dict(v)) for k, v in fields["scores"].items()}
        for name in ("input_range", "real_range", "fake_range", "warnings"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def _rows(self) -> list[list[str]]:
        rows = [
            ["", "value", "95 % interval", f"real vs real\n(N = {self.baseline_n})"]
        ]
        if self.baseline_n != self.n:
            rows[0].append(f"value at\nN = {self.baseline_n}")
        for name, s in self.scores.items():
            interval = f"{s.low:.3g} to {s.high:.3g}"
            row = [f"{name} {_arrow(name)}", f"{s.value:.3g}", interval]
            row.append(f"{s.baseline:.3g}")
            rows.append(row if self.baseline_n == self.n else [*row, f"{s.same_n:.3g}"])
        return rows

    def _facts(self) -> str:
        return (
            f"N = {self.n} of {self.n_real} real and {self.n_fake} fake, d = {self.d}; "
            f"extractor {self.extractor} ({self.sha256[:12]}), resize {self.resize}, "
            f"range {list(self.input_range)}; seed {self.seed}, {self.seconds:.1f} s"
        )

    def __str__(self) -> str:
        notes = [f"warning: {text}" for text in self.warnings]
        lines = [self.name, text_table(self._rows()), self._facts(), *notes]
        return "\n".join([*lines, self.conclusion])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(text)}</li>" for text in self.warnings)
        notes = f"<p><b>Warnings</b></p><ul>{notes}</ul>" if notes else ""
        return (
            f'<div style="max-width:46em">{html_table(self._rows(), self.name)}'
            f"<p>{html.escape(self.conclusion)}</p>{notes}"
            f"<p><small>{html.escape(self._facts())}</small></p></div>"
        )


def compare(reports: Mapping[str, Report] | list[Report]) -> Comparison:
    """Several reports in one table, best first by the first score they share.

    Raises ValueError where they cannot be compared: other extractor, N or real images.
    """
    if not isinstance(reports, Mapping):
        reports = {report.name: report for report in reports}
    if len(reports) < 1:
        raise ValueError("there are no reports to compare")
    for what in ("extractor", "sha256", "n", "resize", "reference"):
        found = {getattr(report, what) for report in reports.values()}
        if len(found) > 1:
            raise ValueError(
                f"these reports differ in {what} ({', '.join(map(str, found))}), so "
                "their numbers do not compare; evaluate all under one protocol"
            )
    key = next(iter(next(iter(reports.values())).scores))
    order = sorted(reports.items(), key=lambda item: item[1].scores[key].value)
    return Comparison(dict(order))


@dataclass(frozen=True)
class Comparison:
    """Reports under one protocol, with a table in a notebook; made by `compare`."""

    reports: dict[str, Report]

    def to_dict(self) -> dict:
        """{name: report} in plain types."""
        return {name: report.to_dict() for name, report in self.reports.items()}

    def _rows(self) -> list[list[str]]:
        first = next(iter(self.reports.values()))
        rows = [["", *(f"{key} {_arrow(key)}" for key in first.scores), "p"]]
        for name, report in self.reports.items():
            row = [
                f"{s.value:.3g}\n({s.low:.3g} to {s.high:.3g})"
                for s in report.scores.values()
            ]
            rows.append([name, *row, f"{report.p_value:.2g}"])
        base = [f"{s.baseline:.3g}" for s in first.scores.values()]
        rows.append([f"real vs real, N = {first.baseline_n}", *base, ""])
        return rows

    @property
    def title(self) -> str:
        """The protocol: N, extractor, hash and reference."""
        first = next(iter(self.reports.values()))
        return (
            f"N = {first.n} a side, extractor {first.extractor} "
            f"({first.sha256[:12]}), reference {first.reference}"
        )

    def __str__(self) -> str:
        return f"{self.title}\n{text_table(self._rows())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self._rows(), self.title)


# --- tables ---------------------------------------------------------------------------


def _arrow(name: str) -> str:
    return "↑" if name in HIGHER else "↓"


def text_table(rows: list[list[str]]) -> str:
    rows = [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def html_table(rows: list[list[str]], caption: str) -> str:
    # Grey lines and no background: readable on a light and on a dark page.
    style = (
        "border-top:1px solid rgba(128,128,128,.35);padding:.3em .8em;color:inherit;"
    )
    body = ""
    for number, row in enumerate(rows):
        cells = ""
        for column, text in enumerate(row):
            align = "left" if column == 0 else "right"
            tag, scope = "td", ""
            if number == 0 or column == 0:
                tag, scope = "th", f' scope="{"col" if number == 0 else "row"}"'
            wrap = "normal" if number == 0 else "nowrap"
            cells += f'<{tag}{scope} style="{style}text-align:{align};'
            cells += f'white-space:{wrap}">'
            cells += html.escape(text).replace("\n", "<br>") + f"</{tag}>"
        body += f'<tr style="background:none">{cells}</tr>'
    return (
        '<table style="border-collapse:collapse;color:inherit"><caption style="'
        "caption-side:top;text-align:left;font-weight:bold;padding:.3em .8em;"
        f'color:inherit">{html.escape(caption)}</caption>{body}</table>'
    )
