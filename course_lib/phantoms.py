"""Brain MR and CT slices simulated from real anatomy, with known truth.

Physics and data set; the heads come from course_lib.anatomy. Not patient data, and not
for clinical use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from course_lib.anatomy import (
    BACKGROUND,
    BONE,
    CLASS_NAMES,
    FAT,
    MS,
    OEDEMA,
    SLICES_PER_SUBJECT,
    TISSUE_PROPERTIES,
    TISSUES,
    TUMOUR,
    Tissue,
    draw_subject,
    tissue_maps,
)
from course_lib.runtime import cache_dir
from course_lib.template import LEVELS, read_cache, version, write_cache

CONTRASTS = ("T1", "T2", "PD", "FLAIR", "CT")
PROTOCOLS: dict[str, tuple[float, float, float | None]] = {  # TR, TE, TI in ms
    "T1": (500.0, 12.0, None),
    "T2": (4500.0, 100.0, None),
    "PD": (2500.0, 20.0, None),
    "FLAIR": (9000.0, 140.0, 1704.0),  # TI nulls CSF at this TR
}
WINDOWS = {  # shown as black and as white: signal, and HU for CT
    "T1": (0.06, 0.46),
    "T2": (0.03, 0.57),
    "PD": (0.14, 0.74),
    "FLAIR": (0.02, 0.25),
    "CT": (0.0, 80.0),  # the brain window
}
SIZES = (28, 128)
SPLITS = {"train": (0, 6000), "val": (1_000_000, 750), "test": (2_000_000, 750)}


@dataclass(frozen=True)
class Phantom:
    """N slices in every contrast; index i is the same slice in each field."""

    images: dict[str, np.ndarray]  # contrast -> uint8 (N, S, S)
    tissue: np.ndarray  # uint8 (N, S, S), index into TISSUES
    lesion_mask: np.ndarray  # bool (N, S, S), at least half of the pixel is lesion
    labels: np.ndarray  # int64 (N,), index into CLASS_NAMES
    subjects: np.ndarray  # int64 (N,)
    level: np.ndarray  # float32 (N,), mm above the anterior commissure


# --- physics -------------------------------------------------------------------------


def spin_echo(pd, t1, t2, *, tr, te, ti=None):
    """Spin-echo magnitude, or inversion recovery with `ti`. Times in ms; broadcasts.

    S = PD (1 - exp(-TR/T1)) exp(-TE/T2);
    with TI: S = PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2).
    """
    pd, t1, t2 = (np.asarray(value, dtype=np.float64) for value in (pd, t1, t2))
    if ti is None:
        recovery = 1 - np.exp(-tr / t1)
    else:
        recovery = np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1))
    return pd * recovery * np.exp(-te / t2)


def window(image, low: float, high: float) -> np.ndarray:
    """`low`..`high` to 0..1, clipped. Any shape; HU for CT, signal for MR."""
    if not high > low:
        raise ValueError(f"expected low < high, got {low} and {high}; swap them")
    return np.clip((np.asarray(image, dtype=np.float64) - low) / (high - low), 0, 1)


def render(
    maps: np.ndarray,
    *,
    tr: float,
    te: float,
    ti: float | None = None,
    noise: float = 0.0,
    bias: np.ndarray | None = None,
    fat_suppression: float = 0.65,
    tissues: Mapping[str, Tissue] = TISSUE_PROPERTIES,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """MR image of tissue maps. (T, ..., H, W) -> float64 (..., H, W), signal >= 0.

    Partial volume: the sum over tissues of fraction times signal. `noise`: standard
    deviation of the complex Gaussian noise (Rician magnitude), in signal units.
    `bias`: factor that broadcasts to the image. `fat_suppression`: share of the fat
    signal that a saturation pulse removes, 0 for none. `rng=None` seeds with 0.
    """
    rows = [tissues[name] for name in TISSUES]
    signal = spin_echo(
        [row.pd for row in rows],
        [row.t1 for row in rows],
        [row.t2 for row in rows],
        tr=tr,
        te=te,
        ti=ti,
    )
    signal[FAT] *= 1 - fat_suppression
    image = _mix(maps, signal)
    if bias is not None:
        image = image * bias
    if noise:
        rng = np.random.default_rng(0) if rng is None else rng
        real, imaginary = noise * rng.standard_normal((2, *image.shape))
        image = np.sqrt((image + real) ** 2 + imaginary**2)
    return image


def render_ct(
    maps: np.ndarray,
    *,
    noise: float = 0.0,
    tissues: Mapping[str, Tissue] = TISSUE_PROPERTIES,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """CT image of tissue maps, in HU. (T, ..., H, W) -> float64 (..., H, W)."""
    image = _mix(maps, np.array([tissues[name].hu for name in TISSUES]))
    if noise:
        rng = np.random.default_rng(0) if rng is None else rng
        image = image + noise * rng.standard_normal(image.shape)
    return image


def bias_field(size: int, a=0.06, b=0.06, c=0.05, d=0.05, e=0.04) -> np.ndarray:
    """Smooth coil sensitivity 1 + a x + b y + c x^2 + d y^2 + e x y, float64 (S, S)."""
    x = np.linspace(-1, 1, size)
    y = x[:, None]
    return 1 + a * x + b * y + c * x**2 + d * y**2 + e * x * y


def windowed_ct(
    maps: np.ndarray,
    low: float = WINDOWS["CT"][0],
    high: float = WINDOWS["CT"][1],
    *,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """CT windowed, then reduced. (T, ..., H, W) -> float64 (..., H, W), 0..1.

    Sets of small images are made so, and this one. The other order,
    window(render_ct(maps), low, high), turns each pixel with a little bone white, and
    the skull into stairs. `noise` in HU. `rng=None` seeds with 0.
    """
    hounsfield = np.array([TISSUE_PROPERTIES[name].hu for name in TISSUES])
    image = _mix(maps, window(hounsfield, low, high))
    if noise:
        rng = np.random.default_rng(0) if rng is None else rng
        soft = 1 - maps[BACKGROUND] - maps[FAT] - maps[BONE]  # those lie out of window
        scale = noise / (high - low)
        image = image + soft * scale * rng.standard_normal(image.shape)
    return np.clip(image, 0, 1)


def _mix(maps: np.ndarray, values: np.ndarray) -> np.ndarray:
    maps = np.asarray(maps)
    if maps.ndim < 3 or len(maps) != len(TISSUES):
        raise ValueError(
            f"expected maps ({len(TISSUES)}, ..., H, W), got {maps.shape}; "
            "use phantoms.subject_maps"
        )
    image = np.zeros(maps.shape[1:])
    for value, fraction in zip(values, maps, strict=True):
        # In a fixed order and without BLAS: equal bytes.
        image += value * fraction.astype(np.float64)
    return image


# --- the data set --------------------------------------------------------------------


def subject_maps(
    subject: int,
    size: int = 64,
    level: float | None = None,
    lesion: int | str | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Tissue fractions of one slice, float32 (T, size, size), sum 1; order TISSUES.

    The very maps behind make_phantom: give its `subjects[i]` and `level[i]` (mm).
    `level=None` is the subject's second slice; `lesion` (class index or name) replaces
    the subject's own class. Raises ValueError on a bad size, level or class.
    """
    _check_size(size)
    if isinstance(lesion, str):
        if lesion not in CLASS_NAMES:
            raise ValueError(f"unknown lesion {lesion!r}; choose from {CLASS_NAMES}")
        lesion = CLASS_NAMES.index(lesion)
    if lesion is not None and not 0 <= lesion < len(CLASS_NAMES):
        raise ValueError(f"lesion {lesion} is not a class; choose 0, 1 or 2")
    head = draw_subject(int(subject), seed, lesion)
    level = float(head.levels[1] if level is None else level)
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise ValueError(f"level {level} mm is outside {LEVELS}; choose one inside")
    return tissue_maps(head, np.array([level]), size)[:, 0]


def make_phantom(
    split: str = "train",
    size: int = 32,
    n: int | None = None,
    seed: int = 0,
    cache: bool = True,
) -> Phantom:
    """`n` slices of size x size in all contrasts; 4 slices a subject.

    Default n: 6000 (train), 750 (val), 750 (test); no subject is in two splits. A
    smaller n is a prefix of a larger one. Kept in the cache folder.
    Raises ValueError on an unknown split, a size outside 28..128 or n < 1.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {tuple(SPLITS)}")
    _check_size(size)
    n = SPLITS[split][1] if n is None else n
    if n < 1:
        raise ValueError(f"expected n >= 1, got {n}; leave n out for the default")
    if not cache:
        return _phantom(_generate(split, size, n, seed))
    folder = cache_dir() / "phantom"
    code = version("template", "anatomy", "phantoms")
    stem = f"{split}-{size}-seed{seed}-{code}"
    larger = (_count(path) for path in folder.glob(f"{stem}-n*.npz"))
    for count in sorted(count for count in larger if count >= n):
        valid = partial(_valid, n=count, size=size)
        arrays = read_cache(folder / f"{stem}-n{count}.npz", valid)
        if arrays is not None:
            if count > n:  # a copy, so that the larger set can be freed
                arrays = {name: array[:n].copy() for name, array in arrays.items()}
            return _phantom(arrays)
    arrays = _generate(split, size, n, seed)
    write_cache(folder / f"{stem}-n{n}.npz", arrays)
    return _phantom(arrays)


def _generate(split: str, size: int, n: int, seed: int) -> dict[str, np.ndarray]:
    arrays = {
        name: np.empty((n, *shape), dtype)
        for name, (shape, dtype) in _spec(size).items()
    }
    first = SPLITS[split][0]
    for start in range(0, n, SLICES_PER_SUBJECT):
        subject = first + start // SLICES_PER_SUBJECT
        for name, values in _subject_slices(subject, size, seed).items():
            arrays[name][start : start + SLICES_PER_SUBJECT] = values[: n - start]
    return arrays


def _subject_slices(subject: int, size: int, seed: int) -> dict[str, np.ndarray]:
    head = draw_subject(subject, seed, None)
    maps = tissue_maps(head, head.levels, size)
    rng = np.random.default_rng([seed, subject, 3])
    bias = bias_field(size, *head.bias)
    out = {}
    for name, (tr, te, ti) in PROTOCOLS.items():
        image = render(
            maps,
            tr=tr,
            te=te,
            ti=ti,
            noise=0.02 * (WINDOWS[name][1] - WINDOWS[name][0]),
            bias=bias,
            tissues=head.tissues,
            rng=rng,
        )
        out[name] = window(image, *WINDOWS[name])
    out["CT"] = windowed_ct(maps, noise=2.0, rng=rng)
    # float64 up to here, one rounding. Another processor's exp may differ in its last
    # bit and move a pixel that lies on a rounding border by 1; a NumPy release may
    # change its random streams (NEP 19).
    out = {name: np.rint(255 * image).astype(np.uint8) for name, image in out.items()}
    out["tissue"] = maps.argmax(0).astype(np.uint8)
    out["lesion_mask"] = maps[MS] + maps[OEDEMA] + maps[TUMOUR] >= 0.5
    out["labels"] = np.full(len(head.levels), head.label)
    out["subjects"] = np.full(len(head.levels), subject)
    out["level"] = head.levels
    return out


def _spec(size: int) -> dict[str, tuple[tuple[int, ...], type]]:
    spec = {name: ((size, size), np.uint8) for name in (*CONTRASTS, "tissue")}
    spec["lesion_mask"] = ((size, size), np.bool_)
    return spec | {
        "labels": ((), np.int64),
        "subjects": ((), np.int64),
        "level": ((), np.float32),
    }


def _phantom(arrays: dict[str, np.ndarray]) -> Phantom:
    images = {name: arrays[name] for name in CONTRASTS}
    rest = {name: array for name, array in arrays.items() if name not in CONTRASTS}
    return Phantom(images, **rest)


def _check_size(size: int) -> None:
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(
            f"size {size} is outside {SIZES[0]}..{SIZES[1]}; make the phantom at a "
            "size inside and resize the images"
        )


def _count(path: Path) -> int:
    text = path.stem.rpartition("-n")[2]
    return int(text) if text.isdigit() else 0


def _valid(arrays: dict[str, np.ndarray], n: int, size: int) -> bool:
    spec = _spec(size)
    return set(arrays) == set(spec) and all(
        arrays[name].shape == (n, *shape) and arrays[name].dtype == dtype
        for name, (shape, dtype) in spec.items()
    )
