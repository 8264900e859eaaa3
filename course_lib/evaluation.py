"""`evaluate(real, fake)`: distances between two sets of images, and what they allow.

A report holds N, the extractor and its hash, an interval and a real-against-real
baseline for each number, the reasons for doubt, and a sentence that may be quoted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from course_lib.features import Extractor
from course_lib.metrics import (
    density_coverage,
    frechet_distance,
    kid,
    precision_recall,
)

SPLITS = 5  # random halves of the real set that the baseline is the mean of
_HIGHER = ("precision", "recall", "density", "coverage")
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
        doubts = f" Read the {len(self.warnings)} warning(s)." if self.warnings else ""
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
        rows = [["", "value", "95 % interval", f"real vs real (N = {self.baseline_n})"]]
        if self.baseline_n != self.n:
            rows[0].append(f"value at N = {self.baseline_n}")
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


def evaluate(
    real: Tensor,
    fake: Tensor,
    *,
    extractor: Extractor,
    name: str = "fake",
    train: Tensor | None = None,
    n: int | None = None,
    groups: int = 20,
    permutations: int = 499,
    seed: int = 0,
) -> Report:
    """Distances between real and fake images, (N, C, H, W) each, in one report.

    Both sides are cut to equal N (`n`, or the smaller set), drawn by `seed`; real
    images beyond make the baseline better. Intervals: delete-group jackknife over both
    sides, `groups` each; p: permutation test of the KID (Gretton et al. 2012). Both
    take images as independent: several slices a patient make them too sure. `train`,
    what the model saw, is looked for in the reference. The Frechet distance is left out
    at N <= d. Raises ValueError on colour against grey, unequal sizes, one side in
    another range, NaN, fewer than 50 images. Doubts are warnings in the report.
    """
    start = time.perf_counter()
    n = min(len(real), len(fake)) if n is None else n
    _check_sets(real, fake, n, groups)
    generator = torch.Generator().manual_seed(seed)
    order_real = torch.randperm(len(real), generator=generator)
    order_fake = torch.randperm(len(fake), generator=generator)
    used_real, used_fake = real[order_real[:n]], fake[order_fake[:n]]
    doubts = _doubts(used_real, used_fake, train, extractor, n)
    pool = extractor(real[order_real[: max(n, min(len(real), 4 * n))]]).double()
    features_real, features_fake = pool[:n], extractor(used_fake).double()
    for side, features in (("real", features_real), ("fake", features_fake)):
        if features.std(dim=0).max() < 1e-6:
            raise ValueError(f"all {side} images look the same to {extractor.name}")

    baseline_n = min(n, len(pool) // 2)
    if min(n, baseline_n) <= extractor.dim:
        doubts.append(
            f"{extractor.frechet_name} is left out: a covariance of {extractor.dim} "
            f"features needs more images than {extractor.dim} in each half of the real "
            f"set, here {baseline_n}. KID does not depend on N in this way"
        )
    frechet = baseline_n > extractor.dim
    values = _values(features_real, features_fake, frechet)
    baseline, same_n = _baseline(pool, features_fake, baseline_n, frechet, seed)
    widths, p_value = _intervals(
        features_real, features_fake, frechet, groups, permutations, seed
    )
    kernel = "KID" if extractor.frechet_name == "FID" else f"KID[{extractor.name}]"
    shown = {"frechet": extractor.frechet_name, "kid": kernel}
    scores = {}
    for key, value in values.items():
        low, high = value - widths[key], value + widths[key]
        low = low if key == "kid" else max(0.0, low)  # unbiased: may fall below 0
        high = min(1.0, high) if key in ("precision", "recall", "coverage") else high
        same = same_n.get(key, value)
        scores[shown.get(key, key)] = Score(value, low, high, baseline[key], same)
    return Report(
        name=name,
        n=n,
        n_real=len(real),
        n_fake=len(fake),
        d=extractor.dim,
        extractor=extractor.name,
        sha256=extractor.sha256,
        resize=_resize(real, extractor),
        input_range=tuple(extractor.input_range),
        real_range=_range(used_real),
        fake_range=_range(used_fake),
        reference=_fingerprint(real),
        baseline_n=baseline_n,
        scores=scores,
        p_value=p_value,
        warnings=tuple(doubts),
        seed=seed,
        seconds=time.perf_counter() - start,
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
                f"{s.value:.3g} ({s.low:.3g} to {s.high:.3g})"
                for s in report.scores.values()
            ]
            rows.append([name, *row, f"{report.p_value:.2g}"])
        base = [f"{s.baseline:.3g}" for s in first.scores.values()]
        rows.append([f"real vs real, N = {first.baseline_n}", *base, ""])
        return rows

    def _title(self) -> str:
        first = next(iter(self.reports.values()))
        return (
            f"N = {first.n} a side, extractor {first.extractor} "
            f"({first.sha256[:12]}), reference {first.reference}"
        )

    def __str__(self) -> str:
        return f"{self._title()}\n{text_table(self._rows())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self._rows(), self._title())


# --- what can be wrong with the sets --------------------------------------------------


def _check_sets(real: Tensor, fake: Tensor, n: int, groups: int) -> None:
    for side, images in (("real", real), ("fake", fake)):
        if images.ndim != 4:
            raise ValueError(
                f"expected {side} images (N, C, H, W), got {tuple(images.shape)}"
            )
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"{real.shape[1]} channel(s) against {fake.shape[1]}: colour and grey do "
            "not compare; images.mean(dim=1, keepdim=True) makes both grey"
        )
    if real.shape[2:] != fake.shape[2:]:
        raise ValueError(
            f"{tuple(real.shape[2:])} px against {tuple(fake.shape[2:])} px: a resize "
            "of one side alone moves every distance; load both at one size"
        )
    if not 50 <= n <= min(len(real), len(fake)):
        raise ValueError(
            f"cannot take n = {n} of {len(real)} real and {len(fake)} fake images; "
            "at least 50 a side are needed for an interval"
        )
    if not 5 <= groups <= n // 2:
        raise ValueError(f"groups must be 5 to {n // 2}, got {groups}; 20 is usual")
    (low, high), (fake_low, fake_high) = _range(real), _range(fake)
    if (low < -0.5 and fake_low >= -0.001) or (low >= -0.001 and fake_low < -0.5):
        raise ValueError(
            f"real images lie in [{low:.3g}, {high:.3g}] and fakes in [{fake_low:.3g}, "
            f"{fake_high:.3g}]: [0, 1] against [-1, 1]? Bring both to [-1, 1]"
        )


def _doubts(
    real: Tensor, fake: Tensor, train: Tensor | None, extractor: Extractor, n: int
) -> list[str]:
    """Reasons to read the numbers with care."""
    doubts = []
    for a, b in zip(_range(real), _range(fake), strict=True):
        if abs(a - b) > 0.25:
            doubts.append(
                f"the ranges differ: real {list(_range(real))}, fake "
                f"{list(_range(fake))}; is one side scaled in another way?"
            )
            break
    in_real, in_fake = _digests(real), _digests(fake)
    if copies := sum(digest in set(in_real) for digest in in_fake):
        doubts.append(
            f"{copies} of {n} fakes are bytes of the reference itself: the distances "
            "reward copies"
        )
    if (same := n - len(set(in_fake))) > 0:
        doubts.append(f"{same} of {n} fakes repeat another fake exactly")
    if train is not None:
        seen = set(_digests(train))
        if known := sum(digest in seen for digest in in_real):
            doubts.append(
                f"{known} of {n} real images are training images: a model that "
                "copies them would look perfect; take held-out ones"
            )
        if copied := sum(digest in seen for digest in in_fake):
            doubts.append(f"{copied} of {n} fakes are training images, byte by byte")
    if real.shape[1] < extractor.channels:
        doubts.append(f"{extractor.name} was trained on colour; grey was repeated")
    if real.shape[-1] > 1.5 * extractor.image_size:
        doubts.append(
            f"{extractor.name} sees {extractor.image_size} px: details of these "
            f"{real.shape[-1]} px images are not judged"
        )
    return doubts


def _range(images: Tensor) -> tuple[float, float]:
    """Lowest and highest value on the scale [-1, 1]."""
    low, high = (float(value) for value in images.aminmax())
    if images.dtype == torch.uint8:
        low, high = low / 127.5 - 1, high / 127.5 - 1
    return round(low, 4), round(high, 4)


def _digests(images: Tensor) -> list[bytes]:
    """A hash of each image as 8-bit, so that float and uint8 copies are one."""
    if images.dtype != torch.uint8:
        images = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    images = images.cpu().contiguous().numpy()
    return [hashlib.blake2b(image, digest_size=16).digest() for image in images]


def _fingerprint(images: Tensor) -> str:
    return hashlib.sha256(b"".join(sorted(_digests(images)))).hexdigest()[:12]


def _resize(images: Tensor, extractor: Extractor) -> str:
    side, wanted = images.shape[-1], extractor.image_size
    return "none" if side == wanted else f"{side} to {wanted} px, {extractor.resize}"


# --- numbers --------------------------------------------------------------------------


def _values(real: Tensor, fake: Tensor, frechet: bool) -> dict[str, float]:
    first = {"frechet": frechet_distance(real, fake)} if frechet else {}
    both = (*precision_recall(real, fake), *density_coverage(real, fake))
    return first | {"kid": kid(real, fake)} | dict(zip(_HIGHER, both, strict=True))


def _baseline(
    pool: Tensor, fake: Tensor, n: int, frechet: bool, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Means over random splits of the real pool: n against n others, n against fakes.

    The second only where n is less than the number of fakes.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    against_real, against_fake = [], []
    for _ in range(SPLITS):
        order = torch.randperm(len(pool), generator=generator)
        half, others = pool[order[:n]], pool[order[n : 2 * n]]
        against_real.append(_values(half, others, frechet))
        if n < len(fake):
            some = torch.randperm(len(fake), generator=generator)[:n]
            against_fake.append(_values(half, fake[some], frechet))

    def mean(parts: list[dict[str, float]]) -> dict[str, float]:
        return {k: float(np.mean([p[k] for p in parts])) for k in (parts or [{}])[0]}

    return mean(against_real), mean(against_fake)


def _intervals(
    real: Tensor, fake: Tensor, frechet: bool, groups: int, permutations: int, seed: int
) -> tuple[dict[str, float], float]:
    """Half the width of each 95 % interval, and the p of the permutation test.

    Delete-group jackknife: a group of each side in turn is left out, and the variances
    of the sides add up. A bootstrap would repeat images, and so move a Frechet distance
    by its own bias.
    """
    from scipy.stats import t

    generator = torch.Generator().manual_seed(seed)
    n = len(real)
    folds = [torch.randperm(n, generator=generator) % groups for _ in range(2)]
    kids, p_value = _kid_left_out(real, fake, folds, groups, permutations, generator)
    left = {"kid": kids} | _shares_left_out(real, fake, folds, groups)
    if frechet:
        values = [frechet_distance(real[folds[0] != g], fake) for g in range(groups)]
        values += [frechet_distance(real, fake[folds[1] != g]) for g in range(groups)]
        left["frechet"] = np.array(values)
    quantile = t.ppf(0.975, 2 * (groups - 1))
    widths = {}
    for key, values in left.items():
        variance = (groups - 1) * np.var(values.reshape(2, groups), axis=1).sum()
        widths[key] = float(quantile * variance**0.5)
    return widths, p_value


def _kid_left_out(
    real: Tensor,
    fake: Tensor,
    folds: list[Tensor],
    groups: int,
    permutations: int,
    generator: torch.Generator,
) -> tuple[np.ndarray, float]:
    """KID without each group (2 groups,), and the share of relabellings that reach it.

    One kernel matrix, rows of it at a time, serves both.
    """
    x, n = torch.cat([real, fake]), len(real)
    group = torch.cat([folds[0], folds[1] + groups])
    member = torch.nn.functional.one_hot(group, 2 * groups).T.to(x)
    sides = x.new_ones(permutations + 1, 2 * n)
    sides[0, n:] = -1
    for row in sides[1:]:
        row[torch.randperm(2 * n, generator=generator)[:n]] = -1
    between, total = 0.0, 0.0  # sums of the kernel between groups; s' K s
    for start in range(0, 2 * n, 512):
        rows = slice(start, start + 512)
        kernel = (x[rows] @ x.T / x.shape[1] + 1) ** 3
        kernel.diagonal(start).zero_()
        between = between + member[:, rows] @ kernel @ member.T
        # At equal N the KID grows with s' K s, s = 1 for one side, -1 for the other.
        total = total + ((sides[:, rows] @ kernel) * sides).sum(dim=1)
    p_value = (1 + int((total[1:] >= total[0]).sum())) / (permutations + 1)
    sizes, values = torch.bincount(group, minlength=2 * groups), []
    for g in range(2 * groups):
        kept = torch.arange(2 * groups) != g
        a, b = kept.clone(), kept.clone()
        a[groups:], b[:groups] = False, False
        m, k = sizes[a].sum(), sizes[b].sum()
        value = between[a][:, a].sum() / (m * (m - 1))
        value += between[b][:, b].sum() / (k * (k - 1))
        values.append((value - 2 * between[a][:, b].sum() / (m * k)).item())
    return np.array(values), p_value


def _shares_left_out(
    real: Tensor, fake: Tensor, folds: list[Tensor], groups: int
) -> dict[str, np.ndarray]:
    """Precision, recall, density, coverage without each group, (2 groups,) each.

    As in course_lib.neighbours, on distances that are computed once.
    """
    near_real, near_fake = _neighbours(real), _neighbours(fake)
    d2 = torch.cat([_squared(rows, fake).float() for rows in real.split(512)])
    parts = []
    for g in range(2 * groups):
        kept_real = folds[0] != g
        kept_fake = folds[1] != g - groups
        ball, ball_5 = (_radii(near_real, kept_real, k)[:, None] for k in (3, 5))
        fake_ball = _radii(near_fake, kept_fake, 3)
        in_5 = (d2 < ball_5)[:, kept_fake]
        precision = (d2 <= ball).any(dim=0)[kept_fake].float().mean()
        recall = (d2 <= fake_ball).any(dim=1)[kept_real].float().mean()
        density = in_5.sum() / (5 * kept_fake.sum())
        coverage = in_5.any(dim=1)[kept_real].float().mean()
        parts.append([v.item() for v in (precision, recall, density, coverage)])
    return dict(zip(_HIGHER, np.array(parts).T, strict=True))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    size = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    d2 = size - 2 * a @ b.T
    return d2.masked_fill_(d2 < 1e-12 * size, 0.0)


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances and indices of the nearest 40 of each point, nearest first."""
    found = []
    for start in range(0, len(x), 512):
        d2 = _squared(x[start : start + 512], x)
        d2.diagonal(start).fill_(float("inf"))
        found.append(d2.topk(min(40, len(x) - 1), largest=False))
    return torch.cat([d for d, _ in found]), torch.cat([i for _, i in found])


def _radii(near: tuple[Tensor, Tensor], kept: Tensor, k: int) -> Tensor:
    """Squared distance to the k-th neighbour that is kept; -1 for points that go."""
    distances, indices = near
    place = (kept[indices].cumsum(dim=1) >= k).int().argmax(dim=1)
    radii = distances.gather(1, place[:, None])[:, 0].float()
    return radii.where(kept, torch.tensor(-1.0))


# --- tables ---------------------------------------------------------------------------


def _arrow(name: str) -> str:
    return "↑" if name in _HIGHER else "↓"


def text_table(rows: list[list[str]]) -> str:
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
            cells += f'<{tag}{scope} style="{style}text-align:{align}">'
            cells += f"{html.escape(text)}</{tag}>"
        body += f'<tr style="background:none">{cells}</tr>'
    return (
        '<table style="border-collapse:collapse;color:inherit"><caption style="'
        "caption-side:top;text-align:left;font-weight:bold;padding:.3em .8em;"
        f'color:inherit">{html.escape(caption)}</caption>{body}</table>'
    )
