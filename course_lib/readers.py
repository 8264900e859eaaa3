"""A person's own files: folders of PNG/JPEG, DICOM and NIfTI, as 8-bit images."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from course_lib.pixels import resize, to_uint8

SPLITS = ("train", "val", "test")
PICTURES = (".png", ".jpg", ".jpeg")
MAX_VOXELS = 2**30


def read_files(
    path: Path,
    split: str,
    size: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], str]:
    """Images uint8 (N, C, H, W), labels (N,), class names and a note for the card.

    `path` is one file, a folder of files (one class), or a folder with a subfolder a
    class, in turn inside `train`, `val`, `test` if these exist. Without them 70/15/15 %
    of each class are drawn with a fixed seed: by patient for DICOM (PatientID), by file
    for all else. Slices of a volume stay together. Images of unequal size need `size`.
    """
    base, is_split = _split_folder(path, split)
    files, labels, class_names = _list_files(base)
    note = f"Read from {len(files)} files. "
    if not is_split:
        files, labels = _draw_split(files, labels, class_names, split)
        note += "Split by file (DICOM: by patient), seeded, 70/15/15 %. "
    slices, slice_labels = [], []
    for file, label in zip(files, labels, strict=True):
        found = read_file(file, window)
        slices += found
        slice_labels += [label] * len(found)
    images, resized = _stack(slices, size, path)
    return images, np.array(slice_labels, dtype=np.int64), class_names, note + resized


def read_file(
    path: Path, window: tuple[float, float] | None = None
) -> list[np.ndarray]:
    """The slices of one file, uint8 (H, W) or (H, W, 3). ValueError says the fix."""
    readers = {"picture": _read_picture, "dicom": _read_dicom, "nifti": _read_nifti}
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"{path} is no PNG, JPEG, DICOM or NIfTI file")
    try:
        return readers[kind](path, window)
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"{path} may not be read; change its permissions or copy it"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}); copy it again or take it out"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_picture(path: Path, window: tuple[float, float] | None) -> list[np.ndarray]:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            mode = image.mode
            image = ImageOps.exif_transpose(image)
            if mode[0] not in "IF":
                return [np.array(image.convert("L" if mode in ("1", "L") else "RGB"))]
            values = np.array(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels ({error})") from error
    if window is None:
        raise ValueError(
            "16 or 32 bits a pixel; say which range to show, such as "
            f"window=({values.min()}, {values.max()})"
        )
    return [to_uint8(values, window)]


def _read_dicom(path: Path, window: tuple[float, float] | None) -> list[np.ndarray]:
    """Stored values -> rescale slope, intercept -> window -> MONOCHROME1 inverted."""
    import pydicom
    from pydicom.pixels import apply_modality_lut, pixel_array

    try:
        header = pydicom.dcmread(path)
        photometric = header.PhotometricInterpretation
        _check_voxels((header.get("NumberOfFrames") or 1, header.Rows, header.Columns))
        frames = pixel_array(header)
        values = apply_modality_lut(frames, header)
        window = window or _stored_window(header)
    except PermissionError:
        raise
    except Exception as error:  # pydicom raises a dozen types on a damaged file
        raise ValueError(
            f"no pixels that can be read ({error}). If it is compressed, "
            "`dcmdjpeg` or `gdcmconv --raw` unpack it; if not, copy it again"
        ) from error
    if photometric.startswith(("RGB", "YBR")):
        return list(frames.reshape(-1, *frames.shape[-3:]))
    if not photometric.startswith("MONOCHROME"):
        raise ValueError(f"{photometric} is not read; convert it to PNG")
    shown = to_uint8(values, window)
    if photometric == "MONOCHROME1":  # 0 is white
        shown = 255 - shown
    return list(shown.reshape(-1, *shown.shape[-2:]))


def _stored_window(header) -> tuple[float, float] | None:
    """The first window of a DICOM file as (low, high). DICOM PS3.3, C.11.2.1.2."""
    first = {}
    for key in ("WindowCenter", "WindowWidth"):
        value = header.get(key)
        if value is None or value == "":
            return None
        first[key] = float(value[0] if isinstance(value, Iterable) else value)
    centre, width = first["WindowCenter"], first["WindowWidth"]
    if header.get("VOILUTFunction", "LINEAR") == "LINEAR" and width > 1:
        centre, width = centre - 0.5, width - 1  # LINEAR counts pixel values
    return centre - width / 2, centre + width / 2


def _read_nifti(path: Path, window: tuple[float, float] | None) -> list[np.ndarray]:
    """Axial slices, bottom to top; anterior is up, the patient's left is left (RAS)."""
    import nibabel

    try:
        volume = nibabel.as_closest_canonical(nibabel.load(path))
    except OSError:
        raise
    except Exception as error:  # nibabel raises half a dozen types on a damaged file
        raise ValueError(f"no NIfTI file ({error}); copy it again") from error
    shape = tuple(length for length in volume.shape if length > 1)
    if len(shape) != 3 or len(volume.shape) > 4:
        raise ValueError(
            f"shape {volume.shape}, expected one 3-D volume. Take one out "
            "by nibabel.save(image.slicer[..., 0], new_path)"
        )
    _check_voxels(shape)
    values = volume.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape)
    shown = to_uint8(values, window)  # (right, anterior, superior)
    return list(shown[:, ::-1].transpose(2, 1, 0))


def _check_voxels(shape: tuple[int, ...]) -> None:
    """Before anything is allocated: a damaged header can declare any size."""
    if np.prod(shape, dtype=object) > MAX_VOXELS:
        raise ValueError(
            f"{shape} declared, more than {MAX_VOXELS:,} voxels; cut it up"
        )


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    if name.startswith(".") or name == "dicomdir":
        return None
    if name.endswith(PICTURES):
        return "picture"
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if name.endswith((".dcm", ".dicom")):
        return "dicom"
    if path.suffix and not path.suffix[1:].isdigit():  # DICOM often has no ending
        return None
    with path.open("rb") as file:
        return "dicom" if file.read(132)[128:] == b"DICM" else None


def _split_folder(path: Path, split: str) -> tuple[Path, bool]:
    if path.is_dir() and any((path / name).is_dir() for name in SPLITS):
        if not (path / split).is_dir():
            raise ValueError(f"{path} has no folder {split!r}; make it, or ask another")
        return path / split, True
    return path, False


def _list_files(base: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Files, labels and class names; classes are the subfolders in sorted order."""
    if base.is_file():
        return [base], [0], ("all",)
    folders = sorted(p for p in base.iterdir() if p.is_dir() and p.name[0] not in "._")
    names = tuple(folder.name for folder in folders) or ("all",)
    files, labels = [], []
    for label, folder in enumerate(folders or [base]):
        found = sorted(folder.rglob("*"))
        images = [file for file in found if file.is_file() and _kind(file)]
        if not images:
            arrays = [file for file in found if file.suffix == ".npz"]
            fix = f"Name its {arrays[0]}" if arrays else "Fill the folder or delete it"
            raise ValueError(
                f"class {names[label]!r} is empty: {folder} has no PNG, JPEG, DICOM or "
                f"NIfTI file. {fix}"
            )
        files += images
        labels += [label] * len(images)
    return files, labels, names


def _draw_split(
    files: list[Path], labels: list[int], class_names: tuple[str, ...], split: str
) -> tuple[list[Path], list[int]]:
    """The files of `split`: per class a seeded permutation of patients or files."""
    groups = [_group(file) for file in files]
    owner = dict(zip(reversed(groups), reversed(labels), strict=True))  # first wins
    chosen = set()
    rng = np.random.default_rng(0)
    for label, name in enumerate(class_names):
        members = sorted(group for group, first in owner.items() if first == label)
        if len(members) < 3:
            if len(class_names) == 1 and split == "train":
                return files, labels
            raise ValueError(
                f"class {name!r} has {len(members)} file(s) or patient(s), too few to "
                "split: three are needed. Add some, or make the folders train, val "
                "and test yourself"
            )
        members = [members[index] for index in rng.permutation(len(members))]
        held = max(1, round(0.15 * len(members)))
        start, stop = {"val": (0, held), "test": (held, 2 * held)}.get(
            split, (2 * held, len(members))
        )
        chosen.update(members[start:stop])
    kept = [index for index, group in enumerate(groups) if group in chosen]
    return [files[index] for index in kept], [labels[index] for index in kept]


def _group(file: Path) -> str:
    if _kind(file) == "dicom":
        import pydicom

        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            if header.get("PatientID"):
                return f"patient {header.PatientID}"
        except Exception:  # of a dozen types; read_file says what is wrong with it
            pass
    return str(file)


def _stack(
    slices: list[np.ndarray], size: int | None, path: Path
) -> tuple[np.ndarray, str]:
    """Equal shapes -> uint8 (N, C, H, W); colour if any image has colour."""
    colour = any(image.ndim == 3 for image in slices)
    planes = []
    for image in slices:
        if image.ndim == 2:
            image = np.stack([image] * (3 if colour else 1), axis=-1)
        planes.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
    shapes = sorted({tuple(plane.shape[1:]) for plane in planes})
    note = ""
    if len(shapes) > 1:
        if size is None:
            raise ValueError(
                f"{path} has images of unequal size, from {shapes[0]} to {shapes[-1]}; "
                "give size=, and each gets black bars to a square and is resized"
            )
        note = f"{len(shapes)} image sizes brought to {size} x {size}. "
        planes = [resize(plane[None], size)[0] for plane in planes]
    return torch.stack(planes).numpy(), note
