"""Tissue maps of the head, prepared once from a template, and the cache of arrays.

Anatomy: ICBM 2009a nonlinear symmetric template (tissue probabilities, 1 mm), as
shipped in the nilearn wheel; copyright Louis Collins, McConnell Brain Imaging Centre,
Montreal Neurological Institute, McGill University.
"""

import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from course_lib.runtime import atomic_path, cache_dir

LEVELS = (0.0, 36.0)  # mm above the anterior commissure: slices through the ventricles
_STEP = 1.5  # mm, grid of the prepared maps
_ORIGIN = (-96.0, -132.0, -12.0)  # mm (x, y, z) of its first voxel
_SHAPE = (46, 153, 129)  # (z, y, x)


def sample(x, y, z) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey matter, white matter and hull distance at template points, trilinear."""
    volume = _template()[0]
    index, weight = 0, []
    for value, origin, extent in zip((z, y, x), _ORIGIN[::-1], _SHAPE, strict=True):
        value = np.clip((value - origin) / _STEP, 0, extent - 1.001)
        whole = value.astype(np.int32)
        weight.append(value - whole)
        index = index * extent + whole
    shape = index.shape
    index = index.ravel()
    wz, wy, wx = (value.reshape(-1, 1) for value in weight)
    _, rows, columns = _SHAPE

    def at(offset):  # four int16 travel as one int64: half the time of the function
        return volume.take(index + offset).view(np.int16).reshape(-1, 4)

    def along_x(offset):
        first = at(offset)
        return first + wx * np.subtract(at(offset + 1), first, dtype=np.int32)

    def along_y(offset):
        first = along_x(offset)
        return first + wy * (along_x(offset + columns) - first)

    low = along_y(0)
    out = low + wz * (along_y(rows * columns) - low)
    grey, white, hull, _ = np.ascontiguousarray(out.T).reshape(4, *shape)
    return grey / 4000, white / 4000, hull / 100


def candidates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres for lesions, (K, 3) mm each: beside ventricles, deep white, tumour."""
    return _template()[1:]


@cache
def _template():
    """Prepared maps, and centres for lesions: three arrays (K, 3) in mm.

    The maps are int64 (voxels,): each holds four int16, grey and white matter in
    1/4000, distance from the hull in 1/100 mm, and nothing. Small integers hide
    last-digit differences of filters between machines. Kept in the cache folder.
    """
    path = cache_dir() / "phantom" / f"template-{version('template')}.npz"
    names = ("volume", "near", "deep", "tumour")

    def valid(arrays):
        return (
            set(arrays) == set(names)
            and arrays["volume"].shape == (np.prod(_SHAPE), 4)
            and all(arrays[name].shape[1:] == (3,) for name in names[1:])
        )

    arrays = read_cache(path, valid)
    if arrays is None:
        arrays = dict(zip(names, _prepare(), strict=True))
        write_cache(path, arrays)
    volume = np.ascontiguousarray(arrays["volume"]).view(np.int64).ravel()
    return volume, *(arrays[name].astype(np.float64) for name in names[1:])


def _prepare() -> tuple[np.ndarray, ...]:
    from scipy import ndimage

    low, high = 44, 146  # z voxels: the levels and a margin, half of the template
    t1, grey, white = (
        _read_template(name)[:, :, low:high] for name in ("t1", "gm", "wm")
    )
    brain = t1 > 0
    # The hull: sulci closed, smoothed, then the signed distance in mm. It is smooth, so
    # every second voxel is enough, at an eighth of the time.
    coarse = brain[::2, ::2, ::2]
    closed = ndimage.distance_transform_edt(~coarse, sampling=2) < 9
    closed = ndimage.distance_transform_edt(closed, sampling=2) > 9
    hull = ndimage.gaussian_filter((closed | coarse).astype(np.float64), 1.5) > 0.5
    distance = ndimage.distance_transform_edt(~hull, sampling=2)
    distance -= ndimage.distance_transform_edt(hull, sampling=2)
    distance = ndimage.gaussian_filter(distance, 1.5)
    # An average of 152 heads is blurred; one head is not.
    csf = np.clip(1 - grey - white, 0, 1)
    power = [value**2.5 for value in (csf, grey, white)]
    total = np.maximum(power[0] + power[1] + power[2], 1e-9)
    csf, grey, white = (np.where(brain, value / total, 0) for value in power)
    # Ventricles: CSF far from the hull. Their wall is a blend of CSF and white matter,
    # which the template calls grey: thin grey there is given back.
    deep = np.repeat(np.repeat(np.repeat(distance < -24, 2, 0), 2, 1), 2, 2)
    shape = csf.shape
    labels, _ = ndimage.label((csf > 0.5) & deep[: shape[0], : shape[1], : shape[2]])
    sizes = np.bincount(labels.ravel())
    ventricles = np.isin(labels, np.flatnonzero(sizes > 400)[1:])
    to_ventricle = np.full(shape, 99.0)
    box = tuple(
        slice(max(0, part.start - 26), part.stop + 26)
        for part in ndimage.find_objects(ventricles.astype(np.int8))[0]
    )
    to_ventricle[box] = ndimage.distance_transform_edt(~ventricles[box])
    thin = grey[box] - ndimage.grey_opening(grey[box], size=(5, 5, 5))
    thin = np.where(to_ventricle[box] < 4, thin, 0)
    grey[box] -= thin
    white[box] += 0.5 * thin
    # Grid of the prepared maps, in (z, y, x) order.
    axes = [
        origin + _STEP * np.arange(extent)
        for origin, extent in zip(_ORIGIN[::-1], _SHAPE, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    # The template's first voxel lies at (-98, -134, -72) mm.
    points = np.stack([x + 98, y + 134, z + 72 - low])

    def at_grid(image, voxel=1):
        at = points / voxel
        return ndimage.map_coordinates(image, at, order=1, mode="nearest").ravel()

    grey, white = (
        at_grid(ndimage.gaussian_filter(part, 0.5)) for part in (grey, white)
    )
    distance, to_ventricle = at_grid(distance, voxel=2), at_grid(to_ventricle)
    maps = [4000 * grey, 4000 * white, 100 * np.clip(distance, -60, 60), 0 * grey]
    volume = np.rint(np.stack(maps, 1)).astype(np.int16)
    x, y, z = x.ravel(), y.ravel(), z.ravel()
    here = (white > 0.75) & (z > LEVELS[0] - 8) & (z < LEVELS[1] + 8)
    near = here & (to_ventricle > 2) & (to_ventricle < 9)
    deep = here & (to_ventricle > 9) & (to_ventricle < 25) & (distance < -12)
    tumour = (white > 0.5) & (distance < -15) & (np.abs(x) > 16) & (to_ventricle > 5)
    tumour &= (z > LEVELS[0] + 3) & (z < LEVELS[1] - 3)
    centres = np.stack([x, y, z], 1).astype(np.float32)
    return volume, centres[near], centres[deep], centres[tumour]


def _read_template(name: str) -> np.ndarray:
    """One template map, float64 0..1, (x, y, z) at 1 mm."""
    import nibabel

    spec = importlib.util.find_spec("nilearn")  # its import would cost two seconds
    if spec is None or spec.origin is None:
        raise ImportError("the phantom reads nilearn's template; pip install nilearn")
    folder = Path(spec.origin).parent / "datasets" / "data"
    path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in nilearn; pip install nilearn==0.14")
    return np.asarray(nibabel.load(path).dataobj, dtype=np.float64) / 255


# --- the cache -----------------------------------------------------------------------


@cache
def version(*modules: str) -> str:
    """Hash of these modules and of NumPy's version: an edit never meets stale data."""
    state = hashlib.sha256(np.__version__.encode())
    for name in modules:
        state.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return state.hexdigest()[:10]


def read_cache(
    path: Path, valid: Callable[[dict[str, np.ndarray]], bool]
) -> dict[str, np.ndarray] | None:
    """Arrays of a cache file, or None where it is absent, damaged or of other form."""
    try:
        with np.load(path, allow_pickle=False) as file:  # zip checks each CRC
            arrays = dict(file)
    except FileNotFoundError:
        return None
    except Exception as error:  # damage can raise anything, up to MemoryError
        warnings.warn(f"{path} cannot be read ({error}); made anew", stacklevel=3)
        return None
    return arrays if valid(arrays) else None


def write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep the arrays, uncompressed; a warning where the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        warnings.warn(
            f"cannot keep the phantom in {path.parent} ({error}); it is made again "
            "each time; set COURSE_CACHE to a folder that you may write",
            stacklevel=3,
        )
