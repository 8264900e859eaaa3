"""Grids of runs: every combination of some parameters, gathered in one table.

Seeds are repeats: each other combination gets the mean over its seeds, and the 95 %
interval of Student's t.
"""

from __future__ import annotations

import ast
import html
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib.base import atomic_path, write_csv, write_text
from course_lib.jobs import RunError

COUNTED = ("passed", "over budget")  # what finished has numbers; the rest is missing
LEVEL = 0.95
STATISTICS = ("n", "missing", "mean", "sd", "low", "high")
MOST_PANELS = 24


def literal(text: str) -> Any:
    """'1' -> 1, '1e-3' -> 0.001, 'phantom' -> 'phantom': a value as `-p` reads it."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def parse(lines: Sequence[str]) -> dict[str, list[Any]]:
    """['seed=0,1', 'dataset=phantom'] -> {'seed': [0, 1], 'dataset': ['phantom']}.

    Raises RunError for what cannot be read, and for a name or a value given twice.
    """
    grid: dict[str, list[Any]] = {}
    for line in lines:
        name, equals, text = line.partition("=")
        name, parts = name.strip(), text.split(",")
        if not equals or not name.isidentifier() or not all(map(str.strip, parts)):
            raise RunError(f"--grid {line!r}: write it as NAME=VALUE,VALUE,...")
        values = [literal(part) for part in parts]
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice or name in grid:
            raise RunError(
                f"--grid {line!r}: {twice[0] if twice else name} comes twice"
            )
        grid[name] = values
    return grid


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values; one empty combination for an empty grid."""
    return [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]


def label(values: Mapping[str, Any]) -> str:
    """{'dataset': '/data/mine.npz', 'seed': 0} -> 'dataset mine, seed 0'."""
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def file_name(lesson: str, values: Mapping[str, Any]) -> str:
    """'01_autoencoder-dataset_phantom-seed_0': of the files of one job."""
    parts = [f"{name}_{_short(value)}" for name, value in values.items()]
    return re.sub(r"[^\w.+-]+", "_", "-".join([lesson, *parts]))


def _short(value: Any) -> str:
    is_path = isinstance(value, str) and ("/" in value or "\\" in value)
    return Path(value).stem if is_path else str(value)


# ---------------------------------------------------------------- the table


def gather(cards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each lesson, combination without its seed, and headline number.

    A row has lesson, group (the combination), metric, values (one a seed), n, missing
    (seeds that gave no such number), mean, sd, low and high; the last three are None
    for a single value. Numbers that are text, truth or not finite count as missing.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for card in cards:
        group = {name: x for name, x in card["values"].items() if name != "seed"}
        key = card["lesson"], json.dumps(group)
        groups.setdefault(key, []).append(card)
    rows = []
    for (lesson, group), members in groups.items():
        good = [card for card in members if card["status"] in COUNTED]
        for metric in dict.fromkeys(x for card in good for x in card["numbers"]):
            values = [card["numbers"].get(metric) for card in good]
            numbers = [float(x) for x in values if type(x) in (int, float)]
            numbers = [x for x in numbers if math.isfinite(x)]
            if not numbers:
                continue
            rows.append(
                {"lesson": lesson, "group": json.loads(group), "metric": metric}
                | {"values": numbers, "missing": len(members) - len(numbers)}
                | interval(numbers)
            )
    # What is compared stands together: the combinations of one number.
    order = list(dict.fromkeys((row["lesson"], row["metric"]) for row in rows))
    return sorted(rows, key=lambda row: order.index((row["lesson"], row["metric"])))


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard deviation and 95 % interval of the mean, by Student's t.

    mean +- t(0.975; n - 1) * sd / sqrt(n); None for a single value.
    """
    import numpy as np
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"n": n, "mean": mean, "sd": None, "low": None, "high": None}
    sd = float(np.std(values, ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return {"n": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def write(folder: Path, cards: Sequence[Mapping[str, Any]]) -> str:
    """Write grid.csv, grid.json and grid.png into `folder`; HTML for the index page."""
    rows = gather(cards)
    names = list(dict.fromkeys(name for row in rows for name in row["group"]))
    table = [["lesson", *names, "metric", *STATISTICS]]
    for row in rows:
        group = [row["group"].get(name, "") for name in names]
        facts = ["" if row[key] is None else row[key] for key in STATISTICS]
        table.append([row["lesson"], *group, row["metric"], *facts])
    write_csv(folder / "grid.csv", table)
    write_text(folder / "grid.json", json.dumps(rows, indent=1) + "\n")
    if not rows:
        return (
            '<section class="grid"><p>No job of the grid gave a number.</p></section>'
        )
    alt = draw(rows, folder / "grid.png")
    return (
        '<section class="grid">\n<h2>The grid</h2>\n'
        "<p>Mean over the seeds, and the 95&nbsp;% interval of Student's t. "
        '<a href="grid.csv">CSV</a>, <a href="grid.json">JSON</a></p>\n'
        f'<img src="grid.png" alt="{html.escape(alt)}">\n{_html(rows, names)}</section>'
    )


def _html(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    head = ["lesson", *names, "number", "seeds", "mean", "95 % interval"]
    cells = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = []
    for row in rows:
        spread = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
        spread = "the same for each seed" if row["sd"] == 0 else spread
        seeds = str(row["n"])
        if row["missing"]:
            seeds += f" ({row['missing']} missing)"
        line = [row["lesson"], *(_short(row["group"].get(x, "")) for x in names)]
        line += [row["metric"].replace("_", " "), seeds, f"{row['mean']:.4g}", spread]
        body.append("".join(f"<td>{html.escape(text)}</td>" for text in line))
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in body)}</tbody></table></div>"
    )


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    """Draw a panel for each number of each lesson into a PNG; returns its alt text."""
    from matplotlib.figure import Figure

    from course_lib.plotting import COLOURS

    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault((row["lesson"], row["metric"]), []).append(row)
    shown = list(panels.items())[:MOST_PANELS]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    most = max(len(members) for _, members in shown)
    size = (4.2 * columns, lines * (0.9 + 0.32 * most))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, ((lesson, metric), members) in zip(axes, shown, strict=False):
        for place, row in enumerate(members):
            colour = COLOURS[place % len(COLOURS)]
            axis.plot(row["values"], [place] * row["n"], "|", color=colour, alpha=0.6)
            axis.plot(row["mean"], place, "o", color=colour)
            if row["low"] is not None:
                axis.plot([row["low"], row["high"]], [place, place], color=colour)
        names = [_group_name(row["group"]) for row in members]
        axis.set_yticks(range(len(members)), names)
        axis.set_ylim(len(members) - 0.5, -0.5)
        axis.locator_params(axis="x", nbins=4)
        axis.set_title(f"{lesson[:2]} {metric.replace('_', ' ')}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figure.supylabel(", ".join(rows[0]["group"]), fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    first = "; ".join(
        f"{row['lesson']} {row['metric']} {_group_name(row['group'])} {row['mean']:.4g}"
        for row in rows[:6]
    )
    more = "; and so on, as in the table below" if len(rows) > 6 else ""
    return f"Mean and 95 % interval of each headline number: {first}{more}"


def _group_name(group: Mapping[str, Any]) -> str:
    return ", ".join(map(_short, group.values())) or "all seeds"
