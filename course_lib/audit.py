"""Did the generator copy? Duplicates, nearest neighbours, membership, authenticity.

All of it takes images, (N, C, H, W) in [-1, 1] or uint8, never a model. Finding nothing
is no proof of privacy: these tests see copies, not what else a model may give away.
"""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.datasets import find_duplicates
from course_lib.pixels import to_float
from course_lib.plotting import show_rows
from course_lib.reports import html_table, text_table

SIDE = 64  # larger images are compared at this size
NEAR = 0.3  # a held-out image with this ratio or less is itself a near copy
_BLOCK = 128  # images whose neighbours are searched at once


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest training image of each of N images.

    `distance` is 1 - correlation after the best flip and shift; `ratio` that over the
    mean distance of the next three: 0 for a copy, near 1 for an image like any other.
    """

    match: Tensor  # (N,) int64, index into the training images
    distance: Tensor  # (N,), 0 to 2
    ratio: Tensor  # (N,), 0 to 1


def nearest_training(
    images: Tensor, train: Tensor, *, shift: int = 2, flip: bool = True
) -> Nearest:
    """The training image most like each image, up to a mirror and `shift` pixels.

    Both are reduced to at most 64 px and smoothed a little (sigma 1/32 of the side), so
    that noise does not hide a copy; brightness and contrast do not count. Copies within
    `train` count once, else they would hide each other. Raises ValueError on unequal
    shapes, fewer than 5 different training images. Ratio after Carlini et al. 2023.
    """
    if images.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"compare like with like: {tuple(images.shape)} and {tuple(train.shape)}"
        )
    images, train = images.cpu(), train.cpu()
    repeated = {pair.b for pair in find_duplicates(train, near=None)}
    kept = torch.tensor([i for i in range(len(train)) if i not in repeated])
    if len(kept) < 5:
        raise ValueError(f"needs 5 different training images, got {len(kept)}")
    pixels = _smooth(train[kept])
    side = pixels.shape[-1] - 2 * shift
    if side < 8:
        raise ValueError(f"shift = {shift} leaves {side} px to compare; take a smaller")
    middle = slice(shift, shift + side)
    known = _directions(pixels[..., middle, middle])
    found = []
    for block in _smooth(images).split(_BLOCK):
        best = block.new_full((len(block), len(kept)), -1.0)
        for turned in (block, block.flip(3)) if flip else (block,):
            for dy in range(2 * shift + 1):
                for dx in range(2 * shift + 1):
                    part = turned[..., dy : dy + side, dx : dx + side]
                    best = torch.maximum(best, _directions(part) @ known.T)
        found.append((1 - best).clamp(min=0).topk(4, dim=1, largest=False))
    distances = torch.cat([d for d, _ in found])
    match = kept[torch.cat([i for _, i in found])[:, 0]]
    ratio = distances[:, 0] / distances[:, 1:].mean(dim=1).clamp(min=1e-9)
    return Nearest(match, distances[:, 0], ratio)


@dataclass(frozen=True, eq=False)
class Copies:
    """Fakes that lie nearer to a training image than held-out images do."""

    nearest: Nearest  # of the fakes
    held_out: Nearest
    threshold: float  # a ratio below this is called a copy
    flagged: Tensor  # (N,) bool
    leaked: int  # held-out images that are near copies of training images themselves

    @property
    def rate(self) -> float:
        """Share of fakes that are flagged."""
        return self.flagged.double().mean().item()

    @property
    def held_out_rate(self) -> float:
        """Share of all held-out images that the same threshold flags."""
        return (self.held_out.ratio < self.threshold).double().mean().item()


def find_copies(
    fake: Tensor,
    train: Tensor,
    held_out: Tensor,
    *,
    fpr: float = 0.01,
    shift: int = 2,
    flip: bool = True,
) -> Copies:
    """Flag fakes whose `nearest_training` ratio lies below held-out images' `fpr`.

    Held-out images with a ratio of 0.3 or less are near copies of training images (a
    split that leaks: the same patient on both sides); they are counted in `leaked` and
    do not set the threshold. Raises ValueError where held-out images are too few.
    """
    nearest = nearest_training(fake, train, shift=shift, flip=flip)
    others = nearest_training(held_out, train, shift=shift, flip=flip)
    clean = others.ratio[others.ratio > NEAR]
    if len(clean) * fpr < 1:
        raise ValueError(
            f"fpr = {fpr} needs {round(1 / fpr)} held-out images that are no near "
            f"copies, got {len(clean)} (of {len(held_out)}); give more or a larger fpr"
        )
    threshold = clean.quantile(fpr).item()
    return Copies(
        nearest=nearest,
        held_out=others,
        threshold=threshold,
        flagged=nearest.ratio < threshold,
        leaked=len(held_out) - len(clean),
    )


def plant_copies(
    images: Tensor, kind: str, *, amount: float | None = None, seed: int = 0
) -> Tensor:
    """Disguised copies of float images, to test an audit with; same shape.

    `kind` "flip" (mirror), "shift" (up to `amount` px, 2), "noise" (Gaussian, standard
    deviation `amount`, 0.1), or "all" three.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "flip":
        return images.flip(3)
    if kind == "noise":
        noise = torch.randn(images.shape, generator=generator)
        return (images + (0.1 if amount is None else amount) * noise).clamp(-1, 1)
    if kind == "shift":
        reach = 2 if amount is None else int(amount)
        padded = F.pad(images, (reach,) * 4, mode="replicate")
        moves = torch.randint(2 * reach + 1, (len(images), 2), generator=generator)
        height, width = images.shape[2:]
        parts = [
            image[:, dy : dy + height, dx : dx + width]
            for image, (dy, dx) in zip(padded, moves.tolist(), strict=True)
        ]
        return torch.stack(parts)
    if kind == "all":
        shifted = plant_copies(images.flip(3), "shift", seed=seed)
        return plant_copies(shifted, "noise", amount=amount, seed=seed)
    raise ValueError(f'kind is "flip", "shift", "noise" or "all", not {kind!r}')


@dataclass(frozen=True)
class Membership:
    """AUC of telling training images from others by their distance to the fakes.

    0.5 is chance; (low, high) a 95 % bootstrap interval over both sets of images.
    """

    auc: float
    low: float
    high: float


def membership_auc(
    fake: Tensor,
    members: Tensor,
    non_members: Tensor,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Membership:
    """Membership inference by distance: is a training image nearer to some fake?

    The attacker sees the fakes only (the full black box of Chen et al. 2020, GAN-Leaks,
    without calibration). Members and others must be alike but for membership: another
    hospital in the test set is not chance. Images as in `nearest_training`, not moved.
    """
    directions = _directions(_smooth(fake))
    scores = [
        torch.cat([(part @ directions.T).amax(dim=1) for part in rows.split(512)])
        for rows in (_directions(_smooth(members)), _directions(_smooth(non_members)))
    ]
    inside, outside = scores
    wins = (inside[:, None] > outside).double()
    wins += 0.5 * (inside[:, None] == outside)
    generator = torch.Generator().manual_seed(seed)
    weights = [_bootstrap(len(s), bootstrap, generator) for s in scores]
    drawn = ((weights[0] @ wins) * weights[1]).sum(dim=1)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.double))
    return Membership(wins.mean().item(), low.item(), high.item())


def authenticity(fake: Tensor, train: Tensor) -> float:
    """Share of fakes farther from their nearest training image than its next is.

    (N, C, H, W), (M, C, H, W) -> float in [0, 1], 0 for copies. Read it beside the
    value of held-out images. Smoothed as in `nearest_training`, not moved. Alaa et al.
    2022, 2102.08921.
    """
    known = _directions(_smooth(train))
    own = []
    for start in range(0, len(known), 512):
        similar = known[start : start + 512] @ known.T
        similar.diagonal(start).fill_(-2)
        own.append(similar.amax(dim=1))
    own = torch.cat(own)
    authentic = []
    for rows in _directions(_smooth(fake)).split(512):
        similar, match = (rows @ known.T).max(dim=1)
        authentic.append(similar < own[match])
    return torch.cat(authentic).double().mean().item()


def _smooth(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): grey, 64 px or less, blurred by 1/32 of it."""
    x = to_float(images)
    if x.ndim != 4 or not x.isfinite().all():
        raise ValueError(f"expected finite images (N, C, H, W), got {tuple(x.shape)}")
    x = x.cpu().mean(dim=1, keepdim=True)
    if max(x.shape[2:]) > SIDE:
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    sigma = max(x.shape[2:]) / 32
    reach = round(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    x = F.pad(x, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))


def _directions(x: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, H W), mean 0 and length 1: products are correlations."""
    x = x.flatten(1)
    return F.normalize(x - x.mean(dim=1, keepdim=True), eps=1e-3)


def _bootstrap(n: int, times: int, generator: torch.Generator) -> Tensor:
    """(times, n) weights of resampled means, each row sums to 1."""
    drawn = torch.randint(n, (times, n), generator=generator)
    weights = torch.zeros(times, n, dtype=torch.double)
    return weights.scatter_add_(1, drawn, torch.full_like(weights, 1 / n))


# --- all of it ------------------------------------------------------------------------


@dataclass(frozen=True)
class AuditReport:
    """What `audit` found: `str()`, `to_dict()`, or a table in a notebook."""

    n: int
    n_train: int
    n_held_out: int
    duplicates: int
    near: int  # fakes that are near copies, ratio 0.3 or less
    leaked: int  # held-out images that are
    copies: int  # fakes below the threshold
    held_out_copies: int
    threshold: float
    p_value: float
    membership: Membership
    membership_baseline: Membership
    authenticity: float
    authenticity_baseline: float

    @property
    def conclusion(self) -> str:
        """What may be concluded, in a few sentences."""
        share, usual = self.copies / self.n, self.held_out_copies / self.n_held_out
        counted = (
            f"{share:.1%} of {self.n} fakes lie nearer to a training image than nearly "
            f"all held-out images do, against {usual:.1%} of those "
            f"(p = {self.p_value:.2g})"
        )
        attack, base = self.membership, self.membership_baseline
        auc = f"AUC {attack.auc:.2f} ({attack.low:.2f} to {attack.high:.2f})"
        if self.p_value <= 0.01:
            said = f"The generator copies: {counted}."
        elif self.near:
            said = (
                f"{self.near} of {self.n} fakes are near copies of training images "
                f"(ratio {NEAR} or less): look at them with show_copies. They are no "
                f"proven excess: {counted}."
            )
        elif attack.low > max(0.5, base.high):
            said = (
                f"No copies were found ({counted}), but training images can be told "
                f"from others by the fakes: {auc}."
            )
        else:
            said = (
                f"No copying was found: {counted}; membership {auc}. That is no proof "
                "of privacy."
            )
        if self.leaked:
            said += (
                f" {self.leaked} of {self.n_held_out} held-out images are near copies "
                "of training images: the split leaks."
            )
        return said

    def to_dict(self) -> dict:
        """Plain types for JSON, the conclusion with them."""
        return dataclasses.asdict(self) | {"conclusion": self.conclusion}

    def _rows(self) -> list[list[str]]:
        attack, base = self.membership, self.membership_baseline
        return [
            ["", "fakes", "baseline", "the baseline is"],
            ["repeated training images", f"{self.duplicates}", "", ""],
            [
                f"near copies (ratio {NEAR} or less)",
                f"{self.near / self.n:.1%}",
                f"{self.leaked / self.n_held_out:.1%}",
                "held-out images",
            ],
            [
                f"suspects (ratio below {self.threshold:.2f})",
                f"{self.copies / self.n:.1%}",
                f"{self.held_out_copies / self.n_held_out:.1%}",
                "held-out images",
            ],
            [
                "membership AUC",
                f"{attack.auc:.2f}\n({attack.low:.2f} to {attack.high:.2f})",
                f"{base.auc:.2f}\n({base.low:.2f} to {base.high:.2f})",
                "other training images for fakes",
            ],
            [
                "authenticity",
                f"{self.authenticity:.2f}",
                f"{self.authenticity_baseline:.2f}",
                "held-out images",
            ],
        ]

    def _title(self) -> str:
        return (
            f"Audit of {self.n} fakes against {self.n_train} training and "
            f"{self.n_held_out} held-out images"
        )

    def __str__(self) -> str:
        return "\n".join([self._title(), text_table(self._rows()), self.conclusion])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (
            f'<div style="max-width:46em">{html_table(self._rows(), self._title())}'
            f"<p>{html.escape(self.conclusion)}</p></div>"
        )


def audit(
    fake: Tensor, train: Tensor, held_out: Tensor, *, fpr: float = 0.01, seed: int = 0
) -> AuditReport:
    """Duplicates first, then copies, membership and authenticity, in one report.

    `train` is all that the model saw, `held_out` real images of the same source that it
    did not. p: how often as many of N more held-out images would be flagged (exact, by
    their ranks, since the threshold comes from the held-out images). Several slices a
    patient count as independent, so a p just below 0.01 means little there. Raises
    ValueError as `find_copies`.
    """
    from scipy.stats import nhypergeom

    fake, train, held_out = fake.cpu(), train.cpu(), held_out.cpu()
    duplicates = find_duplicates(train, near=None)
    copies = find_copies(fake, train, held_out, fpr=fpr)
    flagged = int(copies.flagged.sum())
    usual = int((copies.held_out.ratio < copies.threshold).sum())
    # fakes met before held-out image number usual + 1, in the order of their ratios
    total = len(fake) + len(held_out)
    p_value = nhypergeom.sf(flagged - 1, total, len(fake), usual + 1)
    # The baseline's "fakes" are training images themselves, and the members others.
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    count = min(len(held_out), len(train) // 2)
    members, rest = train[order[:count]], train[order[count:]]
    return AuditReport(
        n=len(fake),
        n_train=len(train),
        n_held_out=len(held_out),
        duplicates=len(duplicates),
        near=int((copies.nearest.ratio <= NEAR).sum()),
        leaked=copies.leaked,
        copies=flagged,
        held_out_copies=usual,
        threshold=copies.threshold,
        p_value=float(p_value),
        membership=membership_auc(fake, members, held_out, seed=seed),
        membership_baseline=membership_auc(
            rest[: len(fake)], members, held_out, seed=seed
        ),
        authenticity=authenticity(fake, train),
        authenticity_baseline=authenticity(held_out, train),
    )


def show_copies(copies: Copies, fake: Tensor, train: Tensor, count: int = 8) -> None:
    """Show the fakes with the lowest ratios above their nearest training images."""
    order = copies.nearest.ratio.argsort()[:count]
    lowest = copies.nearest.ratio[order[0]].item()
    show_rows(
        {"fake": fake[order], "training": train[copies.nearest.match[order]]},
        alt=f"The {len(order)} fakes nearest to a training image, each above that "
        f"image; lowest ratio {lowest:.2f}, threshold {copies.threshold:.2f}",
    )
