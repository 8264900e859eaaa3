"""Distances between the distributions of two sets of features, (N, d) and (M, d).

Features come from one extractor on both sides, floating point; sums run in float64.
Callers import these names from `course_lib.metrics`.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray
ROWS = 256  # rows of a distance or kernel matrix that exist at once
_DIRECT = 512  # up to this size singular values are taken directly


@dataclass(frozen=True, eq=False)
class FrechetStatistics:
    """Mean and covariance of `n` features; covariance = factor.T @ factor."""

    n: int
    mean: Tensor  # (d,)
    factor: Tensor  # (k, d): k = n centred features, or d rows once n > d

    @property
    def covariance(self) -> Tensor:
        """(d, d), the sample covariance (divided by n - 1)."""
        return self.factor.T @ self.factor

    @cached_property
    def triangular(self) -> bool:
        """Whether the factor is 0 below its diagonal; asked once of kept statistics."""
        rows, columns = self.factor.shape
        return rows == columns and torch.equal(self.factor, self.factor.triu())


def frechet_distance(
    features_real: Array | FrechetStatistics, features_fake: Array | FrechetStatistics
) -> float:
    """Frechet distance between Gaussians fitted to two sets: >= 0, 0 for one same set.

    (N, d), (M, d) -> float; either side may be its `frechet_statistics`. Biased upwards
    at small N: compare at equal N, beside a real-against-real value. FID is its name
    with Inception features only. Raises ValueError on fewer than 2 rows, unequal d or
    devices, integers, NaN. Heusel et al. 2017, eq. 6.
    """
    if isinstance(features_real, Tensor) and isinstance(features_fake, Tensor):
        check_devices(features_real, features_fake)
    real, fake = _statistics(features_real, "real"), _statistics(features_fake, "fake")
    check_devices(real.mean, fake.mean)  # again: either side may be kept statistics
    _check_extractor(real.mean, fake.mean)
    # With S = F'F, the eigenvalues of S_real S_fake are the squared singular values of
    # F_real F_fake', so tr (S_real S_fake)^(1/2) is their sum: no root of a matrix, no
    # eigenvalues of a product that is not symmetric; N x N, not d x d, where N < d.
    root_trace = _singular_values(_cross(real, fake)).sum()
    traces = real.factor.square().sum() + fake.factor.square().sum()
    shift = (real.mean - fake.mean).square().sum()
    return max(0.0, (shift + traces - 2 * root_trace).item())


def frechet_statistics(features: Array) -> FrechetStatistics:
    """What `frechet_distance` needs of one set, to be kept for many. (N, d), N >= 2.

    Raises ValueError as `frechet_distance`.
    """
    return _statistics(features, "given")


def frechet_statistics_from_moments(
    mean: Array, covariance: Array, n: int
) -> FrechetStatistics:
    """Statistics from a published mean (d,) and covariance (d, d) of n features.

    Raises ValueError on wrong shapes, NaN, or a covariance that is not symmetric and
    positive semidefinite.
    """
    mean, covariance = as_tensor(mean).double(), as_tensor(covariance).double()
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            "expected a mean (d,) and a covariance (d, d), got "
            f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError("the mean or the covariance holds NaN or infinity")
    size = covariance.abs().max().item()
    if not torch.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-9 * size):
        raise ValueError(
            "the covariance is not symmetric: is it a product of two covariances?"
        )
    return FrechetStatistics(n, mean, _factor(covariance))


def frechet_infinity(
    features_real: Array,
    features_fake: Array,
    *,
    sizes: int = 10,
    smallest: int | None = None,
    seed: int = 0,
) -> float:
    """Frechet distance extrapolated to infinitely many images on both sides.

    (N, d), (M, d) -> float: the intercept of a line in 1/n through random subsets of n
    of each side, `sizes` values of n from `smallest` (None: a quarter of the smaller
    set) up, equally spaced in 1/n. May fall below 0. The bias is a line in 1/n only
    where n is well above d. Raises ValueError as `frechet_distance`, and where fewer
    than two sizes fit. Chong & Forsyth 2020, who subsample the fake side alone.
    """
    real, fake = feature_pair(features_real, features_fake, least=2)
    largest = min(len(real), len(fake))
    smallest = max(2, largest // 4) if smallest is None else smallest
    if sizes < 2 or not 2 <= smallest < largest:
        raise ValueError(
            f"a line needs 2 sizes between 2 and {largest} images (the smaller set), "
            f"got sizes={sizes}, smallest={smallest}"
        )
    generator = torch.Generator().manual_seed(seed)
    ns = [round(1 / x) for x in np.linspace(1 / smallest, 1 / largest, sizes)]
    values = []
    for n in ns:
        parts = (s[_draw(len(s), n, generator).to(s.device)] for s in (real, fake))
        values.append(frechet_distance(*parts))
    _slope, intercept = np.polyfit([1 / n for n in ns], values, 1)
    return float(intercept)


def kid(
    features_real: Array,
    features_fake: Array,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
) -> float:
    """KID, the unbiased estimate of the squared MMD over all pairs; may fall below 0.

    (N, d), (M, d) -> float; kernel (gamma x.y + coef)^degree, gamma None is 1 / d.
    Raises ValueError as `frechet_distance`. Binkowski et al. 2018, 1801.01401.
    """
    features_real, features_fake = as_tensor(features_real), as_tensor(features_fake)
    real, fake = feature_pair(features_real, features_fake, least=2)
    work = _product_dtype(features_real, features_fake)
    one_real, one_fake = real.new_ones(1, len(real)), fake.new_ones(1, len(fake))
    return _mmd(real, fake, one_real, one_fake, degree, gamma, coef, work).item()


def kid_subsets(
    features_real: Array,
    features_fake: Array,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
) -> tuple[float, float]:
    """Mean and standard deviation of KID over random subsets, as papers print it.

    (N, d), (M, d) -> (mean, std). The subsets overlap, so the std is no standard error
    of the mean. Raises ValueError as `kid`, and for subset_size above either N.
    """
    features_real, features_fake = as_tensor(features_real), as_tensor(features_fake)
    real, fake = feature_pair(features_real, features_fake, least=2)
    work = _product_dtype(features_real, features_fake)
    if not 2 <= subset_size <= min(len(real), len(fake)) or subsets < 1:
        raise ValueError(
            f"cannot draw {subsets} subsets of {subset_size} from {len(real)} real and "
            f"{len(fake)} fake features; pass a subset_size from 2 to the smaller set"
        )
    generator = torch.Generator().manual_seed(seed)
    in_real = torch.zeros(subsets, len(real), dtype=real.dtype)
    in_fake = torch.zeros(subsets, len(fake), dtype=real.dtype)
    for i in range(subsets):
        in_real[i, _draw(len(real), subset_size, generator)] = 1
        in_fake[i, _draw(len(fake), subset_size, generator)] = 1
    in_real, in_fake = in_real.to(real.device), in_fake.to(real.device)
    values = _mmd(real, fake, in_real, in_fake, degree, gamma, coef, work)
    return values.mean().item(), values.std(correction=0).item()


def inception_score(probabilities: Array) -> float:
    """exp E KL(p(y|x) || p(y)), in [1, K], larger is better. (N, K) -> float.

    It never sees a real image. Raises ValueError on logits (rows that do not sum to 1),
    integers, NaN. Salimans et al. 2016.
    """
    return _score(_probabilities(probabilities)).item()


def inception_score_splits(
    probabilities: Array, *, splits: int = 10, seed: int | None = 0
) -> tuple[float, float]:
    """Mean and standard deviation of the score over `splits` parts. (N, K) -> 2 floats.

    Rows are shuffled by `seed` (None: taken in order). Each part is smaller than the
    set, so the mean lies below `inception_score`. Raises ValueError as that does.
    """
    p = _probabilities(probabilities)
    n = len(p)
    if not 1 <= splits <= n:
        raise ValueError(f"cannot make {splits} parts of {n} rows")
    if seed is not None:
        p = p[_draw(n, n, torch.Generator().manual_seed(seed)).to(p.device)]
    ends = [i * n // splits for i in range(splits + 1)]
    scores = torch.stack([_score(p[start:end]) for start, end in pairwise(ends)])
    return scores.mean().item(), scores.std(correction=0).item()


def as_tensor(x: Array) -> Tensor:
    """A tensor as it is, an array as a copy on the CPU."""
    # a copy: arrays may be read-only or run backwards, which torch does not take
    return x if isinstance(x, Tensor) else torch.from_numpy(np.array(x, order="C"))


def check_devices(x: Tensor, y: Tensor) -> None:
    """Raise ValueError where two tensors do not lie on one device."""
    if x.device != y.device:
        raise ValueError(
            f"one side is on {x.device}, the other on {y.device}; bring both to one: "
            "x.cpu(), y.cpu()"
        )


def _check_extractor(real: Tensor, fake: Tensor) -> None:
    if real.shape[-1] != fake.shape[-1]:
        raise ValueError(
            f"{real.shape[-1]} real features against {fake.shape[-1]} fake ones: take "
            "one extractor for both"
        )


def _features(x: Array, name: str, least: int) -> Tensor:
    x = as_tensor(x).detach()
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"expected {name} features (N, d), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(
            f"expected floating point {name} features, got {x.dtype}: are these images?"
        )
    if len(x) < least:
        raise ValueError(f"needs at least {least} {name} features, got {len(x)}")
    x = (x.cpu() if x.device.type == "mps" else x).double()  # mps has no float64
    bad = int((~x.sum(dim=1).isfinite()).sum())  # a sum keeps NaN and infinity
    if bad:
        raise ValueError(
            f"{bad} of {len(x)} {name} features hold NaN or infinity: find out which "
            "images made them"
        )
    return x


def feature_pair(real: Array, fake: Array, least: int) -> tuple[Tensor, Tensor]:
    """Both sets checked, in float64: one device, one d, `least` rows or more."""
    real, fake = as_tensor(real), as_tensor(fake)
    check_devices(real, fake)
    real, fake = _features(real, "real", least), _features(fake, "fake", least)
    _check_extractor(real, fake)
    return real, fake


def _draw(n: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:size]


def _statistics(features: Array | FrechetStatistics, name: str) -> FrechetStatistics:
    if isinstance(features, FrechetStatistics):
        return features
    x = _features(features, name, least=2)
    n, d = x.shape
    mean = x.mean(dim=0)
    centred = x - mean
    if n <= d:
        return FrechetStatistics(n, mean, centred.div_((n - 1) ** 0.5))
    return FrechetStatistics(n, mean, _factor(_gram(centred.T).div_(n - 1)))


def _gram(a: Tensor) -> Tensor:
    """The lower triangle of a @ a.T, about half the work; nothing reads the upper."""
    out = a.new_zeros(len(a), len(a))
    for i in range(0, len(a), ROWS):
        rows, to = slice(i, i + ROWS), slice(i + ROWS)
        torch.mm(a[rows], a[to].T, out=out[rows, to])
    return out


def _cross(one: FrechetStatistics, other: FrechetStatistics) -> Tensor:
    """F_one @ F_other.T, without the zeros of triangles: of two a third of the work."""
    if not one.triangular and other.triangular:
        return _cross(other, one).T
    a, b, both = one.factor, other.factor, other.triangular
    if not one.triangular:
        return a @ b.T
    out = a.new_empty(len(a), len(b))
    for i in range(0, len(a), ROWS):
        rows, to = slice(i, i + ROWS), i + ROWS if both else len(b)
        torch.mm(a[rows, i:], b[:to, i:].T, out=out[rows, :to])
        if both:
            torch.mm(a[:i, i:], b[rows, i:].T, out=out[:i, rows])
    return out


def _factor(covariance: Tensor) -> Tensor:
    """(k, d) with covariance = factor.T @ factor; k < d where it is singular."""
    lower, failed = torch.linalg.cholesky_ex(covariance)  # reads this triangle
    if not failed:
        return lower.T
    values, vectors = torch.linalg.eigh(covariance)
    if values[0] < -1e-6 * values[-1].abs():
        raise ValueError("the covariance has negative eigenvalues: it is none")
    kept = values > 0
    return values[kept].sqrt()[:, None] * vectors[:, kept].T


def _singular_values(m: Tensor) -> Tensor:
    # The direct way is exact to 1e-16 of the largest. Beyond the cache the eigenvalues
    # of m m' take two thirds of its time and are exact to 1e-8, enough for a distance.
    if max(m.shape) <= _DIRECT:
        if m.device.type != "cpu":
            return torch.linalg.svdvals(m)
        return torch.from_numpy(np.linalg.svd(m.numpy(), compute_uv=False))
    m = m if m.shape[0] <= m.shape[1] else m.T
    gram = _gram(m)
    if m.device.type != "cpu":
        squares = torch.linalg.eigvalsh(gram)
    else:  # numpy's LAPACK: torch's takes four times as long where the CPU is an AMD
        squares = torch.from_numpy(np.linalg.eigvalsh(gram.numpy()))
    return squares.clamp(min=0).sqrt()


def _product_dtype(real: Tensor, fake: Tensor) -> torch.dtype:
    """float32 for features that have no more digits, where its products are exact."""
    if torch.get_float32_matmul_precision() != "highest":  # tf32 or bf16 in disguise
        return torch.float64
    dtype = torch.promote_types(real.dtype, fake.dtype)
    return torch.promote_types(dtype, torch.float32)


def _mmd(
    real: Tensor,
    fake: Tensor,
    in_real: Tensor,
    in_fake: Tensor,
    degree: int,
    gamma: float | None,
    coef: float,
    work: torch.dtype,
) -> Tensor:
    """Unbiased squared MMD of subsets: rows of 0 and 1, (S, N), (S, M) -> (S,).

    Every kernel value is computed once for all subsets.
    """
    gamma = 1 / real.shape[1] if gamma is None else gamma
    # x.y = (x - c).(y - c) + c.x + c.y - c.c: the first term alone takes N^2 d steps,
    # and it is small, so `work` precision will do; the others stay in float64.
    centre = (real.mean(dim=0) + fake.mean(dim=0)) / 2
    half = centre @ centre / 2
    x, y = ((s - centre).to(work) for s in (real, fake))
    tilt_x, tilt_y = real @ centre - half, fake @ centre - half

    def kernel(a: Tensor, tilt_a: Tensor, b: Tensor, tilt_b: Tensor) -> Tensor:
        products = (a @ b.T).double().add_(tilt_a[:, None]).add_(tilt_b)
        return products.mul_(gamma).add_(coef).pow_(degree)

    def within(a: Tensor, tilt: Tensor, chosen: Tensor) -> Tensor:
        total = 0.0
        for i in range(0, len(a), ROWS):  # pairs i < j: the diagonal is left out
            rows = slice(i, i + ROWS)
            k = kernel(a[rows], tilt[rows], a[i:], tilt[i:]).triu_(1)
            total = total + ((chosen[:, rows] @ k) * chosen[:, i:]).sum(dim=1)
        n = chosen.sum(dim=1)
        return 2 * total / (n * (n - 1))

    total = 0.0
    for i in range(0, len(x), ROWS):
        rows = slice(i, i + ROWS)
        k = kernel(x[rows], tilt_x[rows], y, tilt_y)
        total = total + ((in_real[:, rows] @ k) * in_fake).sum(dim=1)
    across = total / (in_real.sum(dim=1) * in_fake.sum(dim=1))
    return within(x, tilt_x, in_real) + within(y, tilt_y, in_fake) - 2 * across


def _probabilities(p: Array) -> Tensor:
    p = _features(p, "probability", least=1)
    sums = p.sum(dim=1)
    if p.min() < 0 or (sums - 1).abs().max() > 1e-3:
        raise ValueError(
            "expected probabilities, rows of values >= 0 that sum to 1, got sums from "
            f"{sums.min():.4g} to {sums.max():.4g}; take logits.softmax(dim=1)"
        )
    return p


def _score(p: Tensor) -> Tensor:
    # xlogy: 0 log 0 = 0, a class that is never given adds nothing
    kl = torch.special.xlogy(p, p) - torch.special.xlogy(p, p.mean(dim=0))
    return kl.sum(dim=1).mean().exp()
