"""Pairs of domains to translate between: two piles of images that share nobody.

What lesson 05 trains on and what the scoreboard's translators are asked, so that both
mean the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from course_lib.datasets import load_images
from course_lib.features import dataset_stem, for_models
from course_lib.phantoms import Phantom, make_phantom, subject_maps, windowed_ct

SKULL_WINDOW = (-500.0, 1500.0)  # HU: skulls are planned in it; brain is a few greys
HEAD_CT = 5  # MedNIST's class


@dataclass(frozen=True)
class Domains:
    """Images of A (N, C, S, S) and of B (M, C, S, S) in [-1, 1], of different people.

    `names` of the two; `class_b`: B's class for an extractor of the data set, or None.
    `truth`: the people of A as B would show them, (N, C, S, S), and `people`: who each
    image of A is, (N,); both None where nobody can know.
    """

    a: Tensor
    b: Tensor
    names: tuple[str, str]
    class_b: int | None = None
    truth: Tensor | None = None
    people: np.ndarray | None = None


def two_clinics(split: str, size: int = 32, *, target: str = "T2") -> Domains:
    """T1 of every second head of the phantom, and `target` of the others.

    `target`: a contrast, or "skull CT" (`skull_ct`).
    """
    data = make_phantom(split, size)
    in_a = np.isin(data.subjects, np.unique(data.subjects)[::2])
    if target == "skull CT":
        images = skull_ct(data, np.arange(len(in_a)))
    else:
        images = _scaled(data.images[target])
    return Domains(
        _scaled(data.images["T1"])[in_a],
        images[~in_a],
        ("T1", target),
        truth=images[in_a],
        people=data.subjects[in_a],
    )


def skull_ct(data: Phantom, chosen: np.ndarray) -> Tensor:
    """CT of some slices in a wide window, SKULL_WINDOW. -> (n, 1, S, S) in [-1, 1]"""
    size = data.tissue.shape[-1]
    images = [
        windowed_ct(subject_maps(data.subjects[i], size, data.level[i]), *SKULL_WINDOW)
        for i in chosen
    ]
    return torch.tensor(np.stack(images), dtype=torch.float32)[:, None] * 2 - 1


def sick_and_well(
    dataset: str | Path,
    split: str,
    size: int,
    *,
    n: int | None = None,
    n_simulated: int = 400,
) -> Domains:
    """From the sick to the well of a data set, both of its split `split`.

    "phantom": FLAIR with a tumour, and without a lesion. MedNIST's file: the phantom's
    CT and real head CT, `heads_alike`. Any other: class 1 and class 0. `n` as in
    load_images, `n_simulated` heads of the phantom. Of a training split, images that
    belong to the data set's extractor are left out.
    """
    images, labels, card = load_images(dataset, split, size, contrast="FLAIR", n=n)
    if split == "train":
        own = for_models(dataset, images)
        images, labels = images[own], labels[own]
    labels = labels.amax(dim=1) if labels.ndim == 2 else labels
    stem = dataset_stem(dataset)
    if stem == "mednist":
        real = brain_slices(images[labels == HEAD_CT])
        simulated = _scaled(make_phantom(split, size, n=n_simulated).images["CT"])
        air = real.median()
        piles = heads_alike(simulated, air), heads_alike(real, air)
        return Domains(*piles, ("simulated CT", "real CT"), HEAD_CT)
    a = 2 if stem == "phantom" else 1
    names = (card.class_names[a], card.class_names[0])
    return Domains(images[labels == a], images[labels == 0], names, 0)


def brain_slices(real: Tensor) -> Tensor:
    """Of real head CT (N, 1, S, S): soft tissue in the middle, and bone around it.

    The archive goes from the chin to the crown; the phantom shows the brain.
    """
    third = real.shape[-1] // 3
    middle = real[:, 0, third:-third, third:-third]
    soft = (middle > real.median() + 0.1) & (middle < 0.9)
    skull = (real[:, 0] > 0.9).float().mean(dim=(1, 2))
    return real[(soft.float().mean(dim=(1, 2)) > 0.95) & (skull > 0.03)]


def heads_alike(images: Tensor, air: Tensor | float, share: float = 0.8) -> Tensor:
    """Each head alone, in the middle, its longer side `share` of the frame.

    (N, 1, S, S) -> the same shape; everything else (the table) becomes `air`.
    """
    size = images.shape[-1]
    done = []
    for image in images.clamp(min=float(air)):
        head = _largest_part((image[0] > air + 0.15).numpy())
        rows, columns = np.flatnonzero(head.any(1)), np.flatnonzero(head.any(0))
        (top, bottom), (left, right) = rows[[0, -1]], columns[[0, -1]]
        zoom = max(bottom - top + 1, right - left + 1) / (share * size)
        x, y = (left + right + 1) / size - 1, (top + bottom + 1) / size - 1
        alone = (image - air) * torch.from_numpy(ndimage.binary_dilation(head))
        move = torch.tensor([[[zoom, 0, x], [0, zoom, y]]], dtype=torch.float32)
        grid = F.affine_grid(move, (1, 1, size, size), align_corners=False)
        done.append(F.grid_sample(alone[None], grid, align_corners=False)[0] + air)
    return torch.stack(done).clamp(float(air), 1.0)  # rounding went a bit beyond


def _largest_part(solid: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask (H, W), whole: cracks and holes filled."""
    solid = ndimage.binary_closing(solid, iterations=2)
    solid = ndimage.binary_opening(solid, iterations=2)
    parts, found = ndimage.label(solid)
    if not found:
        raise ValueError("this image shows no head: nothing in it is brighter than air")
    sizes = np.bincount(parts.flat)[1:]
    return ndimage.binary_fill_holes(parts == 1 + sizes.argmax())


def _scaled(pixels: np.ndarray) -> Tensor:
    """uint8 (N, S, S) -> (N, 1, S, S) in [-1, 1]."""
    return torch.from_numpy(pixels)[:, None] / 127.5 - 1
