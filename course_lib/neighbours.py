"""Nearest neighbours between two sets of features: what is covered, what is copied.

Features (N, d) and (M, d) of one extractor; distances in float64, a block at a time, so
that 10,000 against 10,000 stay within 2 GiB. Callers import these names from
`course_lib.metrics`.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .distances import ROWS, Array, feature_pair, frechet_distance


def precision_recall(
    features_real: Array, features_fake: Array, *, k: int = 3
) -> tuple[float, float]:
    """Improved precision and recall, in [0, 1]. (N, d), (M, d) -> (precision, recall).

    Precision: share of fakes within the k-th-neighbour ball of some real; recall: the
    same with sides exchanged. Raises ValueError as `frechet_distance`, and for sets of
    k or fewer. Kynkaanniemi et al. 2019.
    """
    real, fake = _neighbour_pair(features_real, features_fake, k)
    radius_real, radius_fake = _radii(real, k), _radii(fake, k)
    fake_is_near = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled = 0
    for start, d2 in squared_distances(real, fake):
        fake_is_near |= (d2 <= radius_real[start : start + len(d2), None]).any(dim=0)
        recalled += int((d2 <= radius_fake).any(dim=1).sum())
    return fake_is_near.double().mean().item(), recalled / len(real)


def density_coverage(
    features_real: Array, features_fake: Array, *, k: int = 5
) -> tuple[float, float]:
    """Density (>= 0, 1 is the real set's own) and coverage (in [0, 1]) of the fakes.

    (N, d), (M, d) -> (density, coverage). Density: how many real balls a fake lies in,
    over k; coverage: share of real balls that hold a fake. Raises ValueError as
    `precision_recall`. Naeem et al. 2020.
    """
    real, fake = _neighbour_pair(features_real, features_fake, k)
    radius = _radii(real, k)
    inside, covered = 0, 0
    for start, d2 in squared_distances(real, fake):
        within = d2 < radius[start : start + len(d2), None]
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return inside / (k * len(fake)), covered / len(real)


def memorisation_distance(features_train: Array, features_fake: Array) -> float:
    """Mean over fakes of the cosine distance 1 - |cos| to the nearest training image.

    (N, d), (M, d) -> float in [0, 1]; 0 where all are copies. Compare it with a
    held-out real set in place of the fakes. Raises ValueError as `frechet_distance`.
    Bai et al. 2021.
    """
    train, fake = feature_pair(features_train, features_fake, least=1)
    train = F.normalize(train, dim=1)
    fake = F.normalize(fake, dim=1)
    nearest = [(rows @ train.T).abs().amax(dim=1) for rows in fake.split(ROWS)]
    return (1 - torch.cat(nearest).clamp(max=1)).mean().item()


def mifid(
    features_train: Array, features_fake: Array, *, threshold: float = 0.1
) -> float:
    """Frechet distance over the memorisation distance, where that is below `threshold`.

    (N, d), (M, d) -> float; inf for copies at a distance above 0. Raises ValueError as
    `frechet_distance`. Bai et al. 2021.
    """
    distance = frechet_distance(features_train, features_fake)
    factor = memorisation_distance(features_train, features_fake)
    if factor >= threshold or distance == 0:
        return distance
    return distance / factor if factor > 0 else float("inf")


def _neighbour_pair(real: Array, fake: Array, k: int) -> tuple[Tensor, Tensor]:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    real, fake = feature_pair(real, fake, least=k + 1)
    centre = real.mean(dim=0)  # distances stay, and lose fewer digits
    return real - centre, fake - centre


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, squared distances of some rows of `a` to all of `b`), in order."""
    norm_a, norm_b = a.square().sum(dim=1), b.square().sum(dim=1)
    for start in range(0, len(a), ROWS):
        rows = slice(start, start + ROWS)
        size = norm_a[rows, None] + norm_b
        d2 = torch.addmm(size, a[rows], b.T, alpha=-2)
        # what rounding leaves between equal points must not hide that they are equal
        yield start, d2.masked_fill_(d2 < 1e-12 * size, 0.0)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th neighbour, itself not counted."""
    radii = []
    for start, d2 in squared_distances(x, x):
        d2.diagonal(start).fill_(float("inf"))
        radii.append(d2.kthvalue(k, dim=1).values)
    return torch.cat(radii)
