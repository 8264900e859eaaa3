"""Heads drawn from the template: the tissue fractions behind course_lib.phantoms."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from course_lib.template import LEVELS, candidates, sample


class Tissue(NamedTuple):
    t1: float  # ms
    t2: float  # ms
    pd: float  # proton density, water = 1
    hu: float  # Hounsfield units


# T1, T2, PD at 1.5 T: Collins et al. 1998 (BrainWeb). Oedema, tumour and all Hounsfield
# units: typical values, chosen here.
TISSUE_PROPERTIES: dict[str, Tissue] = {
    "background": Tissue(1.0, 1.0, 0.0, -1000.0),
    "csf": Tissue(2569.0, 329.0, 1.0, 10.0),
    "grey matter": Tissue(833.0, 83.0, 0.86, 38.0),
    "white matter": Tissue(500.0, 70.0, 0.77, 28.0),
    "fat": Tissue(350.0, 70.0, 1.0, -90.0),
    "muscle/skin": Tissue(900.0, 47.0, 1.0, 50.0),
    "bone": Tissue(1.0, 1.0, 0.0, 1000.0),
    "MS lesion": Tissue(752.0, 237.0, 0.76, 26.0),
    "oedema": Tissue(950.0, 160.0, 0.86, 20.0),
    "tumour": Tissue(1200.0, 160.0, 0.88, 33.0),
}
TISSUES = tuple(TISSUE_PROPERTIES)  # the index is the value in the label map
BACKGROUND, CSF, GM, WM, FAT, MUSCLE, BONE, MS, OEDEMA, TUMOUR = range(len(TISSUES))
CLASS_NAMES = ("no lesion", "MS-like lesions", "tumour")
CLASS_COUNTS = (12, 5, 3)  # of every 20 subjects: 60, 25 and 15 %
SLICES_PER_SUBJECT = 4

_FIELD = 220.0  # mm, the side of the square image
_CENTRE = (0.0, -17.0)  # mm (x, y) in the template, the middle of the field


@dataclass(frozen=True)
class Subject:
    """One seeded head: where to look in the template, and with which tissues."""

    label: int
    levels: np.ndarray  # (SLICES_PER_SUBJECT,) mm
    matrix: np.ndarray  # (2, 2) output mm -> template mm, in the axial plane
    shift: np.ndarray  # (2,) mm
    tilt: np.ndarray  # (2,) slope of the slice along x and y
    coarse: np.ndarray  # (2, z, y, x) displacement of B-spline nodes, mm
    fine: np.ndarray  # the same, inside the brain only
    ventricles: float
    prior: np.ndarray  # (2,) weight of CSF and of white matter
    rims: np.ndarray  # (4,) mm of CSF, bone, fat, skin
    spots: np.ndarray  # (K, 7) centre, radii, edge wobble phase
    tissues: dict[str, Tissue]
    bias: np.ndarray  # (5,)


def draw_subject(subject: int, seed: int, label: int | None) -> Subject:
    """All that is particular to one head; `label=None` draws its class."""
    rng = np.random.default_rng([seed, subject])

    def spread(size, width):
        return rng.uniform(-width, width, size)

    angle = spread(None, 0.12)
    stretch = 1 + spread(2, 0.035) + spread(None, 0.03)
    shear = spread(None, 0.04)
    # Every draw below happens whatever the class, so that one head can be had
    # without and with a lesion.
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin + shear, cos]]) * stretch
    values = {
        "matrix": matrix,
        "shift": spread(2, 3.0),
        "tilt": spread(2, 0.06) * (0.6, 1.0),
        "coarse": spread((2, 5, 7, 7), 0.02 * _FIELD),
        "fine": spread((2, 6, 13, 13), 8.0),
        "ventricles": rng.uniform(-0.2, 0.42),
        "prior": np.exp(spread(2, 1.0) * (0.5, 0.2)),
        "rims": rng.uniform([1.0, 4.5, 2.5, 2.0], [3.5, 8.0, 5.5, 3.5]),
        "bias": spread(5, 1.0) * (0.06, 0.06, 0.05, 0.05, 0.04),
    }
    jitter = 1 + np.clip(rng.standard_normal((len(TISSUES), 3)), -2, 2) * 0.03
    tissues = {
        name: Tissue(row.t1 * j[0], row.t2 * j[1], row.pd * j[2], row.hu)
        for (name, row), j in zip(TISSUE_PROPERTIES.items(), jitter, strict=True)
    }
    where = (np.arange(SLICES_PER_SUBJECT) + rng.random(SLICES_PER_SUBJECT)) / (
        SLICES_PER_SUBJECT
    )
    if label is None:  # every block of 20 subjects has the same class counts
        block = np.random.default_rng([seed, subject // sum(CLASS_COUNTS), 1])
        classes = np.repeat(np.arange(len(CLASS_COUNTS)), CLASS_COUNTS)
        label = int(block.permutation(classes)[subject % sum(CLASS_COUNTS)])
    lesions = np.random.default_rng([seed, subject, 2, label])
    spots = np.zeros((0, 7))
    low, high = LEVELS
    if label == 1:
        spots = _ms_spots(lesions)
    elif label == 2:
        spots = _tumour(lesions)
        middle, reach = spots[0, 2], 0.5 * spots[1, 5]
        low, high = max(low, middle - reach), min(high, middle + reach)
    levels = np.round(4 * (low + (high - low) * where)) / 4  # exact in float32
    return Subject(label, levels, spots=spots, tissues=tissues, **values)


def _ms_spots(rng: np.random.Generator) -> np.ndarray:
    """Ellipsoids in white matter, most of them beside the ventricles."""
    near, deep, _ = candidates()
    count = int(rng.integers(22, 40))
    spots = np.zeros((count, 7))
    for spot in spots:
        pool = near if rng.random() < 0.8 else deep
        spot[:3] = pool[rng.integers(len(pool))] + rng.uniform(-0.7, 0.7, 3)
        spot[3:6] = rng.uniform([3.5, 4.0, 4.5], [6.5, 8.5, 8.0])
        spot[6] = rng.uniform(0, 6.28)
    return spots


def _tumour(rng: np.random.Generator) -> np.ndarray:
    """First row: the whole lesion (oedema), second row: its core."""
    pool = candidates()[2]
    centre = pool[rng.integers(len(pool))]
    core = rng.uniform(9.0, 17.0) * rng.uniform(0.85, 1.15, 3)
    whole = core + rng.uniform(6.0, 13.0)
    phase = rng.uniform(0, 6.28, 2)
    return np.array(
        [
            [*(centre + rng.uniform(-3, 3, 3) * (1, 1, 0)), *whole, phase[0]],
            [*centre, *core, phase[1]],
        ]
    )


def _splines(count: int, points: np.ndarray) -> np.ndarray:
    """Uniform cubic B-spline weights. points in [0, 1] (P,) -> (count, P), sum 1."""
    t = np.abs(np.arange(count)[:, None] - 1 - points * (count - 3))
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, inner, outer)


def _displacement(nodes: np.ndarray, points: np.ndarray, depth: np.ndarray):
    """(2, z, y, x) nodes -> (2, K, P, P); never larger than the largest node."""
    along_z = _splines(nodes.shape[1], depth)
    along_y = _splines(nodes.shape[2], points)
    along_x = _splines(nodes.shape[3], points)
    nodes = np.einsum("czyx,zk->ckyx", nodes, along_z)
    nodes = np.einsum("ckyx,xq->ckyq", nodes, along_x)
    return np.einsum("ckyq,yp->ckpq", nodes, along_y)


def _ellipsoid(x, y, z, spot: np.ndarray, soft: float, ripple: float) -> np.ndarray:
    """Fraction of each point inside a rippled ellipsoid, 0..1."""
    cx, cy, cz, rx, ry, rz, phase = spot
    radius = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
    if ripple:
        k = 3.0 / rx
        wave = np.sin(k * (x - cx) + phase) + np.cos(k * (y - cy) + 0.5 * k * z + phase)
        radius = radius + ripple * wave
    return np.clip((1 - radius) * min(rx, ry) / soft + 0.5, 0, 1)


def tissue_maps(head: Subject, levels: np.ndarray, size: int) -> np.ndarray:
    """Tissue fractions, float32 (T, K, size, size), of K slices of one head."""
    fine = 2 if size <= 80 else 1  # points per pixel and axis
    count = size * fine
    pixel = _FIELD / count
    points = (np.arange(count) + 0.5) / count
    axis = (points - 0.5) * _FIELD
    v, u = -axis[:, None], axis[None, :]  # first row is the front of the head
    depth = (levels - LEVELS[0]) / (LEVELS[1] - LEVELS[0])
    depth = np.clip(depth, 0, 1)
    (a, b), (c, d) = head.matrix
    x = a * u + b * v + head.shift[0]
    y = c * u + d * v + head.shift[1]
    # Free-form deformation (Rueckert et al. 1999): at most 2 % of the field outside,
    # more within the brain.
    inside = np.clip(1 - (x / 72) ** 2 - (y / 92) ** 2, 0, 1)
    dx, dy = _displacement(head.coarse, points, depth)
    fx, fy = _displacement(head.fine, points, depth)
    z = levels[:, None, None] + head.tilt[0] * x + head.tilt[1] * y
    x = x + dx + inside * fx + _CENTRE[0]
    y = y + dy + inside * fy + _CENTRE[1]
    lesion_at = x, y, z
    if head.label == 2:  # mass effect: what lies around is pushed away
        cx, cy, cz, rx, ry, rz, _ = head.spots[1]
        near = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
        push = 0.4 * np.exp(-near / 4)
        x, y = x - push * (x - cx), y - push * (y - cy)
    swell = np.exp(-((x / 26) ** 2) - ((y + 8) / 45) ** 2 - ((z - 16) / 26) ** 2)
    scale = 1 - head.ventricles * swell
    grey, white, hull = sample(x * scale, (y + 8) * scale - 8, z)

    # Rims by distance from the brain's hull, smooth at every size.
    def within(distance):
        return np.clip((distance - hull) / max(pixel, 1.5) + 0.5, 0, 1)

    csf_rim, bone_rim, fat_rim, skin_rim = head.rims
    bone_rim = bone_rim * (1 + 0.3 * np.clip(np.abs(y + 17) / 90, 0, 1))
    temple = np.clip(np.abs(x) / 35 - 1, 0, 1) * np.clip(1 - ((y - 22) / 38) ** 2, 0, 1)
    muscle_rim = 7 * temple * np.clip((34 - z) / 30, 0, 1)
    edge = csf_rim
    skull = within(edge)  # all that lies inside the skull
    edge = edge + bone_rim
    head_1 = within(edge)
    edge = edge + muscle_rim
    head_2 = within(edge)
    edge = edge + fat_rim
    head_3 = within(edge)
    head_4 = within(edge + skin_rim)

    total = np.maximum(grey + white, 1)
    grey, white = skull * grey / total, skull * white / total
    csf = skull - grey - white
    k_csf, k_white = head.prior  # wide or narrow sulci, thick or thin cortex
    norm = skull / np.maximum(grey + k_csf * csf + k_white * white, 1e-9)
    grey, csf, white = grey * norm, k_csf * csf * norm, k_white * white * norm
    base = [1 - head_4, csf, grey, white, head_3 - head_2]
    base += [head_2 - head_1 + head_4 - head_3, head_1 - skull]
    maps = np.zeros((len(TISSUES), len(levels), size, size))
    for index, fraction in enumerate(base):
        maps[index] = _shrink(fraction, fine)
    if head.label == 1:
        _insert_ms(maps, head, lesion_at, white, fine, pixel)
    elif head.label == 2:
        _insert_tumour(maps, head, lesion_at, (csf, grey, white), fine, pixel)
    return maps.astype(np.float32)


def _insert_ms(maps, head, where, white, fine, pixel) -> None:
    for k, (x, y, z, share) in enumerate(zip(*where, white, strict=True)):
        here = share > 0.01
        x, y, z, share = x[here], y[here], z[here], share[here]
        # A lesion of two coarse pixels could not be scored: spots grow until three
        # pixels are at least half lesion.
        for grow in 1.15 ** np.arange(12):
            part = np.zeros_like(x)
            for spot in head.spots * (1, 1, 1, grow, grow, grow, 1):
                if z.min() - spot[5] < spot[2] < z.max() + spot[5]:
                    blob = _ellipsoid(x, y, z, spot, max(pixel, 2.0), 0.06)
                    np.maximum(part, blob, out=part)
            lesion = np.zeros(here.shape)
            lesion[here] = part * share
            lesion = _shrink(lesion, fine)
            if (lesion >= 0.5).sum() >= 3:
                break
        maps[MS, k] = lesion
        maps[WM, k] -= lesion


def _insert_tumour(maps, head, where, tissues, fine, pixel) -> None:
    whole = _ellipsoid(*where, head.spots[0], max(pixel, 3.0), 0.12)
    core = _ellipsoid(*where, head.spots[1], max(pixel, 2.0), 0.08)
    # Oedema spreads in white matter and spares cortex and CSF; the core spares nothing.
    for index, fraction, share in zip((CSF, GM, WM), tissues, (0, 0.6, 1), strict=True):
        tumour = core * fraction
        oedema = whole * share * (fraction - tumour)
        for target, moved in ((TUMOUR, tumour), (OEDEMA, oedema)):
            moved = _shrink(moved, fine)
            maps[target] += moved
            maps[index] -= moved


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean of `factor` x `factor` points."""
    if factor == 1:
        return image
    return 0.25 * (
        image[..., ::2, ::2]
        + image[..., 1::2, ::2]
        + image[..., ::2, 1::2]
        + image[..., 1::2, 1::2]
    )
