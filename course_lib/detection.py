"""Signal detection: d-prime, ROC, agreement, equivalence, and how many images it takes.

Plain functions on counts and ratings. The signal is "generated": a hit calls a
generated image generated, a false alarm calls a real one generated. d-prime 0: nobody
could tell. Macmillan and Creelman 2005, Green and Swets 1966.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm, t

# What a planner assumes where you say nothing else
BETWEEN = 0.3  # standard deviation of d-prime between readers
SHARED = 0.3  # share of an estimate's variance that readers of the same images share


@dataclass(frozen=True)
class Estimate:
    """A number, its interval (low, high) at `level`, its standard error, the method."""

    value: float
    low: float
    high: float
    se: float
    method: str
    level: float = 0.95

    def holds(self, truth: float) -> bool:
        """Whether the interval holds `truth`."""
        return self.low <= truth <= self.high

    def __str__(self) -> str:
        value, low, high = (
            round(x, 2) + 0.0 for x in (self.value, self.low, self.high)
        )
        level = f"{100 * self.level:.0f} %"
        return f"{value:.2f} ({level} interval {low:.2f} to {high:.2f})"


# --- sensitivity and bias -------------------------------------------------------------


def corrected_rate(count: Any, n: Any) -> Any:
    """(count + 1/2) / (n + 1): a rate that is never 0 or 1 (log-linear, Hautus 1995).

    Raises ValueError where count is not in 0 to n.
    """
    count, n = np.asarray(count), np.asarray(n)
    if (n < 1).any() or (count < 0).any() or (count > n).any():
        raise ValueError(f"a count lies in 0 to n, n at least 1; got {count} of {n}")
    return (count + 0.5) / (n + 1)


def d_prime(hit_rate: Any, false_alarm_rate: Any) -> Any:
    """z(H) - z(F): how far apart the two kinds look, in standard deviations."""
    return norm.ppf(hit_rate) - norm.ppf(false_alarm_rate)


def criterion(hit_rate: Any, false_alarm_rate: Any) -> Any:
    """-(z(H) + z(F)) / 2: above 0 the reader says "real" too readily, below 0 rarely.

    Measured from the point half-way between the two kinds, in standard deviations.
    """
    return -(norm.ppf(hit_rate) + norm.ppf(false_alarm_rate)) / 2


def d_prime_se(
    hit_rate: Any, false_alarm_rate: Any, n_generated: Any, n_real: Any
) -> Any:
    """Standard error of d-prime (Gourevitch and Galanter 1967); that of c is half."""
    variance = 0.0
    for rate, n in ((hit_rate, n_generated), (false_alarm_rate, n_real)):
        density = norm.pdf(norm.ppf(rate))
        variance = variance + rate * (1 - rate) / (n * density**2)
    return variance**0.5


def yes_no(
    hits: int, n_generated: int, false_alarms: int, n_real: int, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """d-prime and criterion with intervals, from counts with the log-linear correction.

    At 10 or more images a side and d-prime up to 2.5 the interval holds the truth in at
    least 94 % of studies (enumerated in the tests). Raises ValueError on such counts as
    do not fit.
    """
    rates = corrected_rate(hits, n_generated), corrected_rate(false_alarms, n_real)
    se = float(d_prime_se(*rates, n_generated + 1, n_real + 1))
    method = "log-linear correction, variance of Gourevitch and Galanter"
    return (
        _symmetric(float(d_prime(*rates)), se, method, level),
        _symmetric(float(criterion(*rates)), se / 2, method, level),
    )


def two_afc(correct: int, n: int, level: float = 0.95) -> Estimate:
    """d-prime of a reader who picked the generated one of n pairs. sqrt(2) z(correct).

    The ends are those of the exact binomial interval (Clopper and Pearson 1934): with
    every answer right there is no upper end. Raises ValueError as `corrected_rate`.
    """
    rate = float(corrected_rate(correct, n))
    z = norm.ppf(rate)
    se = (2 * rate * (1 - rate) / (n + 1)) ** 0.5 / norm.pdf(z)
    ends = binomtest(correct, n).proportion_ci(level, method="exact")
    low, high = (2**0.5 * float(norm.ppf(end)) for end in ends)
    method = "log-linear correction, exact binomial interval"
    return Estimate(2**0.5 * float(z), low, high, float(se), method, level)


def _symmetric(value: float, se: float, method: str, level: float) -> Estimate:
    reach = float(norm.ppf(0.5 + level / 2)) * se
    return Estimate(value, value - reach, value + reach, se, method, level)


# --- ROC ------------------------------------------------------------------------------


def roc_auc(real: Any, generated: Any, level: float = 0.95) -> Estimate:
    """Area under the ROC curve of ratings or scores, (M,) and (N,); ties count half.

    The chance that a generated image is rated above a real one. The interval inverts
    the variance of Hanley and McNeil 1982 (Newcombe 2006, method 5), so it keeps its
    width where the two kinds do not overlap at all. Raises ValueError on empty or NaN.
    """
    m, n, area = *_sizes(real, generated), _area(real, generated)
    z = float(norm.ppf(0.5 + level / 2))
    grid = np.linspace(0, 1, 4001)
    inside = grid[np.abs(grid - area) <= z * _area_se(grid, m, n)]
    low, high = min(inside.min(initial=area), area), max(inside.max(initial=area), area)
    se = float(_area_se(np.array(np.clip(area, 0.5 / m / n, 1 - 0.5 / m / n)), m, n))
    method = "Mann-Whitney, variance of Hanley and McNeil, Newcombe's method 5"
    return Estimate(area, float(low), float(high), se, method, level)


def auc_difference(
    real_a: Any, generated_a: Any, real_b: Any, generated_b: Any, level: float = 0.95
) -> Estimate:
    """AUC of reader a minus that of reader b, who saw the same images in one order.

    DeLong, DeLong and Clarke-Pearson 1988: what both found hard cancels. Raises
    ValueError on unequal lengths, fewer than 2 images a side, NaN.
    """
    sizes = _sizes(real_a, generated_a)
    if sizes != _sizes(real_b, generated_b) or min(sizes) < 2:
        raise ValueError("both readers rate the same images, at least 2 of each kind")
    wins = _wins(real_a, generated_a) - _wins(real_b, generated_b)  # (N, M)
    variance = sum(
        wins.mean(axis=axis).var(ddof=1) / wins.shape[1 - axis] for axis in (0, 1)
    )
    return _symmetric(float(wins.mean()), float(variance) ** 0.5, "DeLong", level)


def _sizes(real: Any, generated: Any) -> tuple[int, int]:
    for name, values in (("real", real), ("generated", generated)):
        values = np.asarray(values, float)
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise ValueError(
                f"ratings of {name} images are (N,) numbers without NaN, at least one; "
                f"got shape {values.shape}"
            )
    return len(real), len(generated)


def _wins(real: Any, generated: Any) -> np.ndarray:
    """(N, M): 1 where generated image i is rated above real image j, 1/2 for a tie."""
    a, b = np.asarray(generated, float)[:, None], np.asarray(real, float)
    return (a > b) + 0.5 * (a == b)


def _area(real: Any, generated: Any) -> float:
    return float(_wins(real, generated).mean())


def _area_se(area: np.ndarray, m: int, n: int) -> np.ndarray:
    """Hanley and McNeil 1982, both group sizes replaced by their mean."""
    more = ((m + n) / 2 - 1) * ((1 - area) / (2 - area) + area / (1 + area))
    return np.sqrt(area * (1 - area) * (1 + more) / (m * n))


# --- agreement ------------------------------------------------------------------------


def cohen_kappa(
    a: Any, b: Any, weights: str | None = None, level: float = 0.95
) -> Estimate:
    """Agreement of two readers beyond chance, (N,) answers each. 1 all, 0 chance.

    `weights` None for categories, "quadratic" for ratings. The value is scikit-learn's,
    the interval a jackknife over images with t. NaN where both gave one answer only.
    Raises ValueError on unequal lengths, fewer than 3 images. Cohen 1960, 1968.
    """
    from sklearn.metrics import cohen_kappa_score

    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 3:
        raise ValueError("two readers answer on the same images, at least 3")
    labels = np.unique(np.concatenate([a, b]))
    if len(labels) == 1:
        return Estimate(*[float("nan")] * 4, "one answer only", level)

    def value(rows: np.ndarray) -> float:
        one, other = rows.T
        if len(np.unique(rows)) == 1:
            return 1.0  # all that is left agrees
        return float(cohen_kappa_score(one, other, labels=labels, weights=weights))

    return _jackknife(value, np.stack([a, b], axis=1), level)


def fleiss_kappa(answers: Any, level: float = 0.95) -> Estimate:
    """Agreement of R readers on N images, (N, R) answers. 1 all, 0 chance. Fleiss 1971.

    The interval is a jackknife over images with t. Raises ValueError on another shape,
    fewer than 2 readers or 3 images.
    """
    answers = np.asarray(answers)
    if answers.ndim != 2 or answers.shape[1] < 2 or len(answers) < 3:
        raise ValueError(
            f"expected (images, readers), at least 3 x 2; got {answers.shape}"
        )
    kinds, index = np.unique(answers, return_inverse=True)
    if len(kinds) == 1:
        return Estimate(*[float("nan")] * 4, "one answer only", level)
    counts = np.eye(len(kinds))[index.reshape(answers.shape)].sum(axis=1)  # (N, kinds)
    readers = answers.shape[1]

    def value(rows: np.ndarray) -> float:
        by_chance = ((rows.sum(axis=0) / rows.sum()) ** 2).sum()
        pairs = (rows * (rows - 1)).sum(axis=1) / (readers * (readers - 1))
        return (pairs.mean() - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0

    return _jackknife(value, counts, level)


def _jackknife(
    value: Callable[[np.ndarray], float], rows: np.ndarray, level: float
) -> Estimate:
    """A statistic of rows with its delete-one jackknife interval (t, N - 1).

    Equal rows leave equal statistics behind, so each kind of row is left out once.
    """
    n = len(rows)
    _, first, times = np.unique(rows, axis=0, return_index=True, return_counts=True)
    left = np.array([value(np.delete(rows, i, axis=0)) for i in first])
    spread = (times * (left - np.average(left, weights=times)) ** 2).sum()
    se = ((n - 1) / n * spread) ** 0.5
    whole, reach = float(value(rows)), float(t.ppf(0.5 + level / 2, n - 1) * se)
    low, high = whole - reach, min(1.0, whole + reach)
    return Estimate(whole, low, high, float(se), "jackknife over images", level)


# --- equivalence, and how many it takes -----------------------------------------------


def tost(value: float, se: float, margin: float) -> float:
    """p of two one-sided tests that the truth is inside (-margin, margin).

    The larger of the two p's. Below 0.05 exactly where the 90 % interval value +/-
    1.645 se lies inside the margins (Schuirmann 1987, Lakens 2017). The margin is
    chosen before the data are seen. Raises ValueError unless margin and se are > 0.
    """
    if not (margin > 0 and se > 0):
        raise ValueError(f"margin and se are above 0, got {margin} and {se}")
    return float(max(norm.sf((value + margin) / se), norm.cdf((value - margin) / se)))


def planned_se(
    n: int,
    readers: int = 1,
    *,
    d: float = 0.0,
    between: float = BETWEEN,
    shared: float = SHARED,
) -> float:
    """Expected standard error of the readers' mean d-prime.

    Each reads n real and n generated images, the same for all, without bias. `between`
    is the spread of d-prime between readers: more images do not lower it. After the
    variance of Obuchowski and Rockette 1995. n pairs of two-alternative forced choice
    give the same at d = 0, with half the answers. One reader speaks for this reader
    alone: no spread is added then.
    """
    rate = norm.cdf(d / 2)
    own = d_prime_se(rate, 1 - rate, n, n) ** 2
    if readers == 1:
        return float(own**0.5)
    variance = between**2 / readers + own * (shared + (1 - shared) / readers)
    return float(variance**0.5)


def equivalence_power(margin: float, se: float, d: float = 0.0, alpha: float = 0.05):
    """The chance that `tost` at `alpha` succeeds when the true d-prime is `d`."""
    reach = margin / se - norm.ppf(1 - alpha)
    inside = norm.cdf(reach - d / se) - norm.cdf(-reach - d / se)
    return float(max(0.0, inside))


def difference_power(d: float, se: float, alpha: float = 0.05) -> float:
    """The chance that a two-sided test finds a true d-prime of `d`."""
    z = norm.ppf(1 - alpha / 2)
    return float(norm.sf(z - d / se) + norm.cdf(-z - d / se))


def images_needed(
    margin: float,
    readers: int = 1,
    *,
    power: float = 0.8,
    between: float = BETWEEN,
    shared: float = SHARED,
    most: int = 10_000,
) -> int:
    """Real images (and as many generated) so that `tost` succeeds if d-prime is 0.

    Raises ValueError where `most` are not enough: the spread between readers is a floor
    that only more readers lower.
    """

    def enough(n: int) -> bool:
        se = planned_se(n, readers, between=between, shared=shared)
        return equivalence_power(margin, se) >= power

    if not (margin > 0 and 0 < power < 1 and readers >= 1):
        raise ValueError("needs margin > 0, 0 < power < 1 and at least 1 reader")
    if not enough(most):
        raise ValueError(
            f"{readers} readers cannot show a margin of {margin} with power {power}, "
            f"however many images they see (tried {most:,}): readers differ by "
            f"{between}. Take more readers, or a wider margin"
        )
    few, many = 0, most
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many
