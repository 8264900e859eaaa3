"""Read one split of a .npz in MedMNIST's format, trusting nothing that it declares."""

from __future__ import annotations

import errno
import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy

from course_lib.runtime import atomic_path, cache_dir

IN_MEMORY_BYTES = 4 * 1024**3  # larger splits stay on disk, memory-mapped
MAX_BYTES = 16 * 1024**3  # the largest that exists, PathMNIST at 224, has 12.6 GiB
MAX_RATIO = 600  # masks of smooth shapes reach 300, a bomb of zeros 1,030
FORMAT = (
    "np.savez_compressed(path, train_images=..., train_labels=..., val_images=..., "
    "val_labels=..., test_images=..., test_labels=...), images uint8 (N, H, W), "
    "(N, H, W, 3) or (N, D, H, W), labels integers (N, 1)"
)


def read_npz(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as stored, uint8, and labels int64 (N,), or (N, L) for several per image.

    A split of more than IN_MEMORY_BYTES is unpacked once into the cache and
    memory-mapped. Raises ValueError, OSError or FileNotFoundError with what to do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            images = _member(archive, path, f"{split}_images")
            labels = _member(archive, path, f"{split}_labels")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; check the path") from error
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"{path} may not be read; change its permissions or copy it"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise  # the disk's: EINVAL and none are of a damaged offset or stream
        raise ValueError(
            f"{path.name} is truncated or damaged, or no .npz at all ({error}). "
            f"Delete {path} and fetch or copy it again"
        ) from error
    return _checked_images(images, path, split), _checked_labels(labels, images, path)


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> np.ndarray:
    """One array; its declared size is judged before a byte of it is allocated."""
    try:
        info = archive.getinfo(f"{key}.npy")
    except KeyError:
        found = ", ".join(sorted(Path(name).stem for name in archive.namelist()))
        raise ValueError(
            f"{path.name} has no array {key!r}; it has {found or 'none'}. "
            f"Write it by {FORMAT}"
        ) from None
    ratio = info.file_size / max(info.compress_size, 1)
    if info.file_size > MAX_BYTES or (info.file_size > 2**26 and ratio > MAX_RATIO):
        raise ValueError(
            f"{key} in {path.name} would unpack to {info.file_size / 2**30:.1f} GiB, "
            f"{ratio:,.0f} times its stored size: refused as a zip bomb. "
            "Get the file from its publisher again"
        )
    with archive.open(info) as file:
        shape, dtype = _header(file, path, key)
        if dtype.hasobject:
            raise ValueError(
                f"{key} in {path.name} holds pickled Python objects, which could run "
                f"any program and are never loaded. Write plain arrays by {FORMAT}"
            )
        declared = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if declared != info.file_size - file.tell():
            raise ValueError(
                f"{key} in {path.name} declares {declared:,} bytes and holds "
                f"{info.file_size - file.tell():,}. Get the file again"
            )
    if info.file_size > IN_MEMORY_BYTES:
        # Mode "c": torch wants writable memory; what is written never reaches the disk.
        return np.load(_unpacked(archive, info, path), mmap_mode="c")
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)


def _header(file: zipfile.ZipExtFile, path: Path, key: str) -> tuple[tuple, np.dtype]:
    try:
        version = npy.read_magic(file)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{key} in {path.name} is no .npy array ({error}). Write it by {FORMAT}"
        ) from error
    return shape, dtype


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Path:
    """The member as a .npy file in the cache; several processes unpack it once."""
    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {info.CRC}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    target = cache_dir() / "unpacked" / f"{path.stem}-{digest}-{info.filename}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if target.exists():
            return target
        try:
            if shutil.disk_usage(target.parent).free < info.file_size:
                raise OSError(errno.ENOSPC, "disk full")
            with (
                archive.open(info) as packed,
                atomic_path(target) as temporary,
                temporary.open("wb") as out,
            ):
                shutil.copyfileobj(packed, out, 1 << 20)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                errno.ENOSPC,
                f"{path.name} needs {info.file_size / 2**30:.1f} GiB in "
                f"{target.parent} and the disk is full. Free some space, or set "
                "COURSE_CACHE to a folder on another disk",
            ) from error
    return target


def _checked_images(images: np.ndarray, path: Path, split: str) -> np.ndarray:
    key = f"{split}_images in {path.name}"
    if images.dtype != np.uint8:
        raise ValueError(
            f"{key} is {images.dtype}, MedMNIST's format is uint8 (0 to 255). Window "
            "it: low, high = np.percentile(x, (0.5, 99.5)); x = np.clip((x - low) / "
            "(high - low), 0, 1); x = np.round(255 * x).astype(np.uint8)"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{key} has shape {images.shape}; expected (N, H, W), (N, H, W, 3) or "
            "(N, D, H, W), none of them 0"
        )
    return images


def _checked_labels(labels: np.ndarray, images: np.ndarray, path: Path) -> np.ndarray:
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise ValueError(
            f"labels in {path.name} are {labels.dtype} {labels.shape}; expected "
            "integers (N, 1): labels = labels.astype(np.uint8)[:, None]"
        )
    if len(labels) != len(images):
        raise ValueError(
            f"{path.name} has {len(images):,} images and {len(labels):,} labels in "
            "one split; write one label for each image"
        )
    labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.min() < 0:
        raise ValueError(
            f"labels in {path.name} go down to {labels.min()}; number the classes "
            "from 0: labels = np.unique(labels, return_inverse=True)[1]"
        )
    return labels
