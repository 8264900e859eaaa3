"""Images in [-1, 1] with labels and a card: the phantom, MedMNIST, your own files."""

from __future__ import annotations

import difflib
import hashlib
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch

from course_lib import cards, npz
from course_lib.batching import Batches, batches
from course_lib.cards import Card
from course_lib.duplicates import find_duplicates
from course_lib.fetch import fetch, medmnist_records
from course_lib.phantoms import (
    CLASS_NAMES,
    CONTRASTS,
    SLICES_PER_SUBJECT,
    make_phantom,
)
from course_lib.pixels import resize, resize_volumes, to_float
from course_lib.readers import SPLITS, read_files
from course_lib.runtime import cache_dir, data_dir, note_use

__all__ = ["Batches", "Card", "batches", "find_duplicates", "load_images", "load_pairs"]


def load_images(
    name: str | Path = "phantom",
    split: str = "train",
    size: int | None = 32,
    *,
    root: str | Path | None = None,
    contrast: str = "T1",
    n: int | None = None,
    download: bool = True,
    dtype: torch.dtype = torch.float32,
    window: tuple[float, float] | None = None,
    volumes: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, Card]:
    """Images (N, C, size, size) in [-1, 1], labels (N,) int64, and the data set's card.

    `name` is "phantom", a MedMNIST flag such as "pneumoniamnist", a .npz in MedMNIST's
    format, a folder with a subfolder a class, or a PNG, JPEG, DICOM or NIfTI file.
    `dtype=torch.uint8` gives 0..255, which `batches` scales; a split of more than 4 GiB
    is then memory-mapped. `size=None` keeps the stored size. `n` takes at most n images
    with a fixed seed. `contrast` is for the phantom, `window` (low, high) for DICOM and
    NIfTI. 3-D sets come as slices, or as (N, 1, D, H, W) with `volumes=True`. Labels of
    ChestMNIST are (N, 14), since an image can show several findings.
    Raises ValueError, OSError or ConnectionError; the message says what to do.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    if dtype not in (torch.float32, torch.uint8):
        raise ValueError(f"dtype is torch.float32 or torch.uint8, not {dtype}")
    if size is not None and not 8 <= size <= 1024:
        raise ValueError(f"size {size} is out of range; choose from 8 to 1024 pixels")
    if n is not None and n < 1:
        raise ValueError(f"n={n} leaves no image; choose n >= 1, or None for all")
    flag = str(name).lower()
    is_npz = flag.endswith(".npz") or flag in medmnist_records()
    if volumes and not is_npz:
        raise ValueError("volumes=True is for MedMNIST's 3-D sets and .npz files")
    if flag == "phantom":
        images, labels, facts = _load_phantom(split, size, contrast, n)
    elif flag in medmnist_records():
        images, labels, facts = _load_medmnist(flag, split, size, root, download)
    else:
        path = _find_path(name, root)
        images, labels, facts = _load_path(path, split, size, window)
    if is_npz:
        images, labels = _as_channels(images, labels, volumes)
    if n is not None and n < len(images):
        chosen = np.random.default_rng(0).permutation(len(images))[:n]
        images, labels = images[chosen], labels[chosen]
    tensor = torch.from_numpy(images)
    if images.nbytes <= npz.IN_MEMORY_BYTES:  # a memory map stays as it lies on disk
        tensor = tensor.contiguous()
    stored = images.shape[2:]
    if size is not None and any(length != size for length in stored):
        tensor = (resize_volumes if volumes else resize)(tensor, size)
        shape = " x ".join(map(str, stored))
        facts["note"] = f"Resized from {shape} to {size} (antialiased). {facts['note']}"
    card = Card(
        split=split,
        shape=tuple(tensor.shape),
        counts=cards.count_classes(labels, facts["class_names"]),
        fingerprint=cards.fingerprint(tensor.numpy(), labels),
        **facts,
    )
    _note(card)
    if dtype == torch.float32:
        if 4 * tensor.numel() > npz.IN_MEMORY_BYTES:
            raise ValueError(
                f"{name} would take {4 * tensor.numel() / 2**30:.1f} GiB as float32. "
                "Load it with dtype=torch.uint8 (batches() scales each batch), or "
                "give a smaller size or n"
            )
        tensor = to_float(tensor)
    return tensor, torch.from_numpy(labels), card


def load_pairs(
    name: str = "phantom",
    split: str = "train",
    size: int = 32,
    *,
    source: str = "T1",
    target: str = "T2",
    paired: bool = True,
    n: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Card]:
    """Two contrasts, each (N, 1, size, size) in [-1, 1], for image translation.

    Paired: image i of both is the same slice. Unpaired: the two share no subject, and
    the order says nothing. Raises ValueError for sets that have one contrast only.
    """
    if name != "phantom":
        raise ValueError(
            f"{name} has no pairs: one image a patient, in one contrast. Use "
            'load_pairs("phantom"), or load_images for each of two domains'
        )
    if source == target:
        raise ValueError(f"source and target are both {source!r}; choose two contrasts")
    if n is not None and n < 1:
        raise ValueError(f"n={n} leaves no image; choose n >= 1, or None for all")
    _check_contrast(source)
    _check_contrast(target)
    needed = n
    if n is not None and not paired:  # whole subjects, for each side
        needed = 2 * SLICES_PER_SUBJECT * -(-n // SLICES_PER_SUBJECT)
    data = make_phantom(split=split, size=size, n=needed)
    first = second = np.arange(len(data.labels))
    if not paired:
        # A subject goes to one side whole, and both sides must be of one length.
        side = np.isin(data.subjects, np.unique(data.subjects)[::2])
        first, second = np.flatnonzero(side), np.flatnonzero(~side)
        length = min(len(first), len(second), n or len(side))
        first, second = first[:length], second[:length]
    images_a = data.images[source][first][:, None]
    images_b = data.images[target][second][:, None]
    facts = cards.phantom_facts()
    kind = "same slices" if paired else "no subject in common"
    card = Card(
        name=f"phantom, {source} and {target} ({kind})",
        split=split,
        shape=images_a.shape,
        class_names=tuple(CLASS_NAMES),
        counts=cards.count_classes(data.labels[first], tuple(CLASS_NAMES)),
        fingerprint=cards.fingerprint(
            np.concatenate([images_a, images_b]), data.labels[first]
        ),
        **facts,
    )
    _note(card)
    a, b = (to_float(torch.from_numpy(x)) for x in (images_a, images_b))
    return a, b, card


def _note(card: Card) -> None:
    """Tell the run card which data were loaded."""
    shape = "x".join(map(str, card.shape))
    note_use("data", f"{card.name}, {card.split}, {shape}", card.fingerprint)


def _load_phantom(
    split: str, size: int | None, contrast: str, n: int | None
) -> tuple[np.ndarray, np.ndarray, dict]:
    _check_contrast(contrast)
    if size is None:
        raise ValueError("the phantom has no stored size; choose one, such as 32")
    data = make_phantom(split=split, size=size, n=n)
    names = {"name": f"phantom, {contrast}", "class_names": tuple(CLASS_NAMES)}
    return data.images[contrast][:, None], data.labels, cards.phantom_facts() | names


def _check_contrast(contrast: str) -> None:
    if contrast not in CONTRASTS:
        raise ValueError(
            f"unknown contrast {contrast!r}; choose from {', '.join(CONTRASTS)}"
        )


def _load_medmnist(
    flag: str, split: str, size: int | None, root: str | Path | None, download: bool
) -> tuple[np.ndarray, np.ndarray, dict]:
    record = medmnist_records()[flag]
    # The smallest stored size that is not enlarged by more than 15 %: 32 takes 28.
    sizes = [28] + [int(key[4:]) for key in record if key.startswith("url_")]
    stored = next((s for s in sizes if s >= 0.85 * (size or 28)), sizes[-1])
    suffix = "" if stored == 28 else f"_{stored}"
    path = _medmnist_file(flag + suffix, record, suffix, root, download)
    images, labels = npz.read_npz(path, split)
    depth = (stored,) if flag.endswith("3d") else ()
    colour = (3,) if record["n_channels"] == 3 else ()
    expected = (record["n_samples"][split], *depth, stored, stored, *colour)
    if images.shape != expected:
        raise ValueError(
            f"{path} has {split} images of shape {images.shape}, {flag} has "
            f"{expected}. Move the file away and load again, or load it by its path"
        )
    class_names = tuple(record["label"].values())
    highest = labels.shape[1] - 1 if labels.ndim == 2 else labels.max()
    if highest >= len(class_names):
        raise ValueError(
            f"{path} has label {highest}, {flag} has {len(class_names)} classes. Move "
            "the file away and load again, or load it by its path"
        )
    facts = cards.medmnist_facts(flag, record)
    if not _has_md5(path, record[f"MD5{suffix}"], path.stat().st_mtime_ns):
        facts["note"] = f"The file's MD5 is not the published one. {facts['note']}"
    return images, labels, facts | {"name": flag, "class_names": class_names}


def _medmnist_file(
    stem: str, record: dict, suffix: str, root: str | Path | None, download: bool
) -> Path:
    for folder in _folders(root):
        if (folder / f"{stem}.npz").is_file():
            return folder / f"{stem}.npz"
    target = cache_dir() / "medmnist" / f"{stem}.npz"
    url = record[f"url{suffix}"]
    if not download:
        raise FileNotFoundError(
            f"{stem}.npz is in none of {', '.join(map(str, _folders(root)))}. Allow "
            f'download=True, put {url} there, or use the data set "phantom"'
        )
    return fetch(url, target, record[f"MD5{suffix}"])


def _folders(root: str | Path | None) -> list[Path]:
    given = [Path(root).expanduser()] if root is not None else []
    return [*given, data_dir(), data_dir() / "medmnist", cache_dir() / "medmnist"]


@cache
def _has_md5(path: Path, md5: str, _modified: int) -> bool:
    """Whether the file is the published one; once a process, and a warning if not."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() == md5:
            return True
    warnings.warn(
        f"{path.name}: its MD5 differs from the published one, but its keys, shapes "
        "and counts are right, so it is used. To have the published one, move the file "
        "away and load again.",
        stacklevel=4,
    )
    return False


def _find_path(name: str | Path, root: str | Path | None) -> Path:
    for path in (Path(name).expanduser(), *(f / Path(name) for f in _folders(root))):
        if path.exists():
            return path
    known = ["phantom", *medmnist_records()]
    close = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise FileNotFoundError(
        f"{str(name)!r} is no data set, file or folder. {hint}Known sets: "
        f"{', '.join(known)}. A path may be relative to {data_dir()}"
    )


def _load_path(
    path: Path, split: str, size: int | None, window: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, dict]:
    if path.suffix.lower() != ".npz":
        images, labels, class_names, note = read_files(path, split, size, window)
        facts = cards.file_facts(f"your files in {path.name}")
        facts["note"] = note + facts["note"]
        return images, labels, facts | {"name": path.name, "class_names": class_names}
    images, labels = npz.read_npz(path, split)
    count = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    facts = cards.file_facts(f"your file {path.name}")
    facts |= {"name": path.name, "class_names": tuple(map(str, range(count)))}
    counts = cards.count_classes(labels, facts["class_names"])
    missing = [key for key, count in counts.items() if count == 0]
    if split == "train" and missing:
        raise ValueError(
            f"class {missing[0]} of {path.name} is empty: no training image has that "
            "label. Number the classes that exist from 0 by "
            "labels = np.unique(labels, return_inverse=True)[1]"
        )
    return images, labels, facts


def _as_channels(
    images: np.ndarray, labels: np.ndarray, volumes: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A .npz's layout -> (N, C, H, W), or (N, 1, D, H, W) where volumes are wanted."""
    is_volume = images.ndim == 4 and images.shape[-1] not in (1, 3)
    if volumes and not is_volume:
        raise ValueError("this set is 2-D; leave volumes=True out")
    if volumes or images.ndim == 3:
        return images[:, None], labels
    if is_volume:  # every slice along the first axis is an image
        labels = labels.repeat(images.shape[1], axis=0)
        return images.reshape(-1, 1, *images.shape[2:]), labels
    return images.transpose(0, 3, 1, 2), labels
