"""Copies in a data set or across its splits: exact by hash, near by thumbnail."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Duplicate(NamedTuple):
    """Image `a` of the first set and `b` of the second; distance 0 to 2."""

    a: int
    b: int
    distance: float
    exact: bool


def find_duplicates(
    images_a: torch.Tensor,
    images_b: torch.Tensor | None = None,
    *,
    near: float | None = 0.01,
) -> list[Duplicate]:
    """For each image of b its copy in a, exact or near; with one set, copies inside it.

    (N, C, H, W), (M, C, H, W) of one dtype. Exact: equal bytes. Near: 1 - correlation
    of 16 x 16 grey thumbnails below `near`, so noise, brightness and contrast do not
    hide a copy; a flip or a shift does. `near=None` looks for exact copies only. Near
    pairs are candidates: look at them. Sorted by distance, exact first.
    """
    same = images_b is None
    others = images_a if same else images_b
    if images_a.dtype != others.dtype or images_a.shape[1] != others.shape[1]:
        raise ValueError(
            f"compare like with like: {images_a.dtype} {tuple(images_a.shape)} and "
            f"{others.dtype} {tuple(others.shape)}; load both with the same arguments"
        )
    first: dict[bytes, int] = {}
    for index, image in enumerate(images_a):
        first.setdefault(_digest(image), index)
    pairs = {}
    for index, image in enumerate(others):
        match = first.get(_digest(image))
        if match is not None and not (same and match == index):
            pairs[index] = Duplicate(match, index, 0.0, True)
    if near is not None:
        thumbs_a = _thumbnails(images_a)
        thumbs_b = thumbs_a if same else _thumbnails(others)
        for start in range(0, len(others), 1024):
            distance = 1 - thumbs_b[start : start + 1024] @ thumbs_a.T
            if same:  # each pair once: a before b
                row = torch.arange(start, start + len(distance))
                earlier = torch.arange(len(thumbs_a)) < row[:, None]
                distance = distance.where(earlier, torch.tensor(2.0))
            closest, match = distance.min(dim=1)
            for row in torch.nonzero(closest < near).flatten().tolist():
                found = max(closest[row].item(), 0.0)
                pair = Duplicate(match[row].item(), start + row, found, False)
                pairs.setdefault(start + row, pair)
    return sorted(pairs.values(), key=lambda pair: (not pair.exact, pair.distance))


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().numpy(), digest_size=16).digest()


def _thumbnails(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, 256): grey 16 x 16, mean 0, length 1; flat images all 0."""
    thumbs = []
    for chunk in images.split(1024):
        grey = chunk.float().mean(dim=1, keepdim=True)
        small = F.adaptive_avg_pool2d(grey, 16).flatten(1)
        thumbs.append(F.normalize(small - small.mean(dim=1, keepdim=True), eps=1e-3))
    return torch.cat(thumbs)
