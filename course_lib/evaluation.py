"""`evaluate(real, fake)`: distances between two sets of images, and what they allow.

A report holds N, the extractor and its hash, an interval and a real-against-real
baseline for each number, the reasons for doubt, and a sentence that may be quoted.
"""

from __future__ import annotations

import hashlib
import time

import numpy as np
import torch
from torch import Tensor

from course_lib.features import Extractor
from course_lib.metrics import (
    density_coverage,
    frechet_distance,
    frechet_statistics,
    kid,
    precision_recall,
)
from course_lib.neighbours import squared_distances
from course_lib.pixels import to_bytes
from course_lib.plotting import show_bars
from course_lib.reports import HIGHER, Comparison, Report, Score, compare

__all__ = ["Comparison", "Report", "Score", "compare", "evaluate", "show_comparison"]

SPLITS = 5  # random halves of the real set that the baseline is the mean of


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
    pool = extractor(real[order_real[: 4 * n]]).double()
    features_real, features_fake = pool[:n], extractor(used_fake).double()
    for side, features in (("real", features_real), ("fake", features_fake)):
        if features.std(dim=0).max() < 1e-6:
            raise ValueError(f"all {side} images look the same to {extractor.name}")

    baseline_n = min(n, len(pool) // 2)
    frechet = n > extractor.dim
    if not frechet:
        doubts.append(
            f"{extractor.frechet_name} is left out: N = {n} images cannot fill the "
            f"covariance of {extractor.dim} features, and the number would be mostly "
            "bias. KID has no such bias"
        )
    values = feature_scores(features_real, features_fake, frechet)
    baseline, same_n = _baseline(pool, features_fake, baseline_n, frechet, seed)
    widths, p_value = jackknife_widths(
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


def show_comparison(comparison: Comparison, score: str | None = None) -> None:
    """Show one score of each report (the first) as bars with 95 % intervals."""
    first = next(iter(comparison.reports.values()))
    score = next(iter(first.scores)) if score is None else score
    found = {name: report.scores[score] for name, report in comparison.reports.items()}
    baseline = f"real vs real\nN = {first.baseline_n}"
    values = {name: s.value for name, s in found.items()}
    show_bars(
        values | {baseline: first.scores[score].baseline},
        errors={name: s.high - s.value for name, s in found.items()},
        ylabel=score,
        title=comparison.title,
        alt=f"{score} with 95 % intervals: "
        + ", ".join(f"{name} {value:.3g}" for name, value in values.items()),
    )


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
    reference = set(in_real)
    if copies := sum(digest in reference for digest in in_fake):
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
    pixels = to_bytes(images).cpu().contiguous().numpy()
    return [hashlib.blake2b(image, digest_size=16).digest() for image in pixels]


def _fingerprint(images: Tensor) -> str:
    return hashlib.sha256(b"".join(sorted(_digests(images)))).hexdigest()[:12]


def _resize(images: Tensor, extractor: Extractor) -> str:
    side, wanted = images.shape[-1], extractor.image_size
    return "none" if side == wanted else f"{side} to {wanted} px, {extractor.resize}"


# --- numbers --------------------------------------------------------------------------


def feature_scores(real: Tensor, fake: Tensor, frechet: bool) -> dict[str, float]:
    """The numbers of a report from features (N, d), (M, d); `frechet` needs N > d."""
    first = {"frechet": frechet_distance(real, fake)} if frechet else {}
    both = (*precision_recall(real, fake), *density_coverage(real, fake))
    return first | {"kid": kid(real, fake)} | dict(zip(HIGHER, both, strict=True))


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
        against_real.append(feature_scores(half, others, frechet))
        if n < len(fake):
            some = torch.randperm(len(fake), generator=generator)[:n]
            against_fake.append(feature_scores(half, fake[some], frechet))

    def mean(parts: list[dict[str, float]]) -> dict[str, float]:
        return {k: float(np.mean([p[k] for p in parts])) for k in (parts or [{}])[0]}

    return mean(against_real), mean(against_fake)


def jackknife_widths(
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
        whole = frechet_statistics(real), frechet_statistics(fake)
        left_real = [real[folds[0] != g] for g in range(groups)]
        left_fake = [fake[folds[1] != g] for g in range(groups)]
        values = [frechet_distance(part, whole[1]) for part in left_real]
        values += [frechet_distance(whole[0], part) for part in left_fake]
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
    d2 = torch.cat([part.float() for _, part in squared_distances(real, fake)])
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
    return dict(zip(HIGHER, np.array(parts).T, strict=True))


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances and indices of the nearest 40 of each point, nearest first."""
    found = []
    for start, d2 in squared_distances(x, x):
        d2.diagonal(start).fill_(float("inf"))
        found.append(d2.topk(min(40, len(x) - 1), largest=False))
    return torch.cat([d for d, _ in found]), torch.cat([i for _, i in found])


def _radii(near: tuple[Tensor, Tensor], kept: Tensor, k: int) -> Tensor:
    """Squared distance to the k-th neighbour that is kept; -1 for points that go."""
    distances, indices = near
    place = (kept[indices].cumsum(dim=1) >= k).int().argmax(dim=1)
    radii = distances.gather(1, place[:, None])[:, 0].float()
    return radii.where(kept, torch.tensor(-1.0))
