import errno
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib import npz, readers
from course_lib.datasets import load_images
from course_lib.npz import read_npz
from course_lib.pixels import to_uint8
from course_lib.readers import read_file, read_files


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


def write_npz(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (6, 8, 8), dtype=np.uint8),
        "train_labels": np.array([[0, 1, 0, 1, 0, 1]], dtype=np.uint8).T,
    }
    arrays |= changes
    kept = {key: array for key, array in arrays.items() if array is not None}
    np.savez_compressed(path, **kept)
    return path


def write_pictures(folder: Path, counts: dict[str, int], shape=(8, 8)) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03}.png")
    return folder


def write_dicom(path: Path, stored: np.ndarray, **fields) -> Path:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    header = pydicom.Dataset()
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.Rows, header.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        header.NumberOfFrames = len(stored)
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8 * stored.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    header.PixelData = stored.tobytes()
    for key, value in fields.items():
        setattr(header, key, value)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return path


def write_nifti(path: Path, values: np.ndarray, affine=None) -> Path:
    import nibabel

    nibabel.save(
        nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path
    )
    return path


# --- .npz ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "no array 'train_images'; it has train_labels"),
        ({"train_images": np.zeros((6, 8, 8))}, "float64.*astype.np.uint8"),
        ({"train_images": np.full((6, 8, 8), np.nan)}, "float64"),
        ({"train_images": np.zeros((6, 8, 8), np.uint16)}, "uint16.*Window it"),
        ({"train_images": np.array([{}] * 6)}, "pickled Python objects"),
        ({"train_labels": np.array([{}] * 6)}, "pickled Python objects"),
        ({"train_images": np.zeros((6, 64), np.uint8)}, r"shape \(6, 64\); expected"),
        ({"train_images": np.zeros((0, 8, 8), np.uint8)}, r"\(0, 8, 8\); expected"),
        ({"train_images": np.zeros((5, 8, 8), np.uint8)}, "5 images and 6 labels"),
        ({"train_labels": np.full((6, 1), 0.5)}, "float64.*expected integers"),
        ({"train_labels": np.full((6, 1), np.nan)}, "expected integers"),
        ({"train_labels": np.full((6, 1), -1)}, "number the classes from 0"),
    ],
)
def test_wrong_arrays_are_refused_with_the_fix(tmp_path, changes, message):
    path = write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read_npz(path, "train")


@pytest.mark.parametrize("part", [0, 0.3, 0.99])
def test_a_truncated_file_is_told_to_be_fetched_again(tmp_path, part):
    path = write_npz(tmp_path / "own.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_npz(path, "train")


def test_damaged_bytes_inside_are_noticed(tmp_path):
    path = write_npz(tmp_path / "own.npz")
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_npz(path, "train")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (2**27 - 128,), "fortran_order": False, "descr": "|u1"}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("train_images.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(127):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**18
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # nothing may be read
    with pytest.raises(ValueError, match="zip bomb"):
        read_npz(path, "train")


def test_a_header_that_declares_more_than_there_is_allocates_nothing(tmp_path):
    path = tmp_path / "own.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (2**40, 2**20), "fortran_order": False, "descr": "|u1"}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", header.getvalue() + bytes(64))
    with pytest.raises(ValueError, match=r"declares .* bytes and holds 64"):
        read_npz(path, "train")


def test_missing_file_and_missing_permission_are_told(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no data set, file or folder"):
        load_images(tmp_path / "none.npz")
    path = write_npz(tmp_path / "own.npz")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(npz.zipfile, "ZipFile", refuse)
    with pytest.raises(PermissionError, match="may not be read; change its"):
        read_npz(path, "train")


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, when):
    path = write_npz(tmp_path / "own.npz")
    monkeypatch.setattr(npz, "IN_MEMORY_BYTES", 100)

    def full(packed, out, length):
        out.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "before":
        usage = shutil.disk_usage(tmp_path)._replace(free=10)
        monkeypatch.setattr(npz.shutil, "disk_usage", lambda _: usage)
    else:
        monkeypatch.setattr(npz.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="set COURSE_CACHE") as caught:
        read_npz(path, "train")
    assert caught.value.errno == errno.ENOSPC
    left = [p.name for p in (tmp_path / "cache" / "unpacked").iterdir()]
    assert all(name.endswith(".lock") for name in left)


# --- folders -------------------------------------------------------------------------


def test_a_folder_is_split_by_class_with_no_file_in_two_splits(tmp_path):
    folder = write_pictures(tmp_path / "own", {"benign": 20, "malignant": 10})
    counts, seen = {}, []
    for split in ("train", "val", "test"):
        images, labels, names, _ = read_files(folder, split)
        counts[split] = np.bincount(labels).tolist()
        seen += [image.tobytes() for image in images]
        assert names == ("benign", "malignant") and images.shape[1:] == (1, 8, 8)
        np.testing.assert_array_equal(images, read_files(folder, split)[0])
    assert counts == {"train": [14, 6], "val": [3, 2], "test": [3, 2]}
    assert len(set(seen)) == 30


def test_folders_train_val_test_are_taken_as_they_are(tmp_path):
    for split, count in {"train": 3, "test": 1}.items():
        write_pictures(tmp_path / split, {"a": count, "b": 2})
    assert len(read_files(tmp_path, "train")[0]) == 5
    assert len(read_files(tmp_path, "test")[0]) == 3
    with pytest.raises(ValueError, match="no folder 'val'"):
        read_files(tmp_path, "val")


def test_load_images_reads_a_folder_and_says_how_it_was_split(tmp_path):
    folder = write_pictures(tmp_path / "own", {"a": 5, "b": 5})
    images, labels, card = load_images(folder, "train", 16)
    assert images.shape == (6, 1, 16, 16) and labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert -1 <= images.min() < images.max() <= 1
    assert "Split by file" in card.note and card.counts == {"a": 3, "b": 3}


def test_unequal_sizes_need_a_size_and_then_are_padded(tmp_path):
    folder = write_pictures(tmp_path / "own", {"a": 4})
    Image.new("L", (20, 10), 255).save(folder / "a" / "wide.png")
    Image.new("L", (10, 20), 255).save(folder / "a" / "z.png")
    with pytest.raises(ValueError, match="unequal size"):
        [read_files(folder, split) for split in ("train", "val", "test")]
    parts = [load_images(folder, split, 16)[0] for split in ("train", "val", "test")]
    assert sorted(len(part) for part in parts) == [1, 1, 4]


@pytest.mark.parametrize(
    ("count", "message"), [(0, "is empty"), (2, "three are needed")]
)
def test_a_class_without_images_is_told(tmp_path, count, message):
    folder = write_pictures(tmp_path / "own", {"a": 5, "b": count})
    (folder / "b" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"class 'b'.*{message}"):
        read_files(folder, "train")


def test_a_folder_of_arrays_is_told_to_name_one(tmp_path):
    np.savez(tmp_path / "own_64.npz", x=np.zeros(1))
    with pytest.raises(ValueError, match=r"Name its .*own_64\.npz"):
        read_files(tmp_path, "train")


def test_colour_and_grey_together_become_colour(tmp_path):
    folder = write_pictures(tmp_path / "train", {"a": 1})
    Image.new("RGB", (8, 8), (255, 128, 0)).save(folder / "a" / "z.png")
    images, *_ = read_files(tmp_path, "train")
    assert images.shape == (2, 3, 8, 8)
    assert images[1, :, 0, 0].tolist() == [255, 128, 0]
    assert (images[0, 0] == images[0, 2]).all()


def test_sixteen_bit_png_needs_a_window(tmp_path):
    values = np.linspace(0, 4000, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"window=\(0, 4000\)"):
        read_file(tmp_path / "deep.png")
    (image,) = read_file(tmp_path / "deep.png", (0, 4000))
    assert image[0, 0] == 0 and image[-1, -1] == 255


def test_a_damaged_picture_is_named(tmp_path):
    folder = write_pictures(tmp_path / "own", {"a": 3})
    damaged = folder / "a" / "001.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"001\.png is truncated or damaged"):
        read_file(damaged)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(readers, "_read_picture", refuse)
    with pytest.raises(PermissionError, match=r"a\.png may not be read"):
        read_file(tmp_path / "a.png")


# --- DICOM ---------------------------------------------------------------------------

STORED = np.array([[0, 1000], [1040, 4000]], dtype=np.uint16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1000}


def test_dicom_is_rescaled_and_windowed(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED, **CT)
    (image,) = read_file(path, (0, 80))  # Hounsfield units
    assert image.tolist() == [[0, 0], [128, 255]]


def test_dicom_window_of_the_file_equals_pydicoms(tmp_path):
    import pydicom

    rng = np.random.default_rng(0)
    stored = rng.integers(0, 3000, (16, 16)).astype(np.int16)
    fields = CT | {"WindowCenter": [40, 500], "WindowWidth": [400, 2000]}
    path = write_dicom(tmp_path / "a.dcm", stored, **fields)
    header = pydicom.dcmread(path)
    values = pydicom.pixels.apply_modality_lut(header.pixel_array, header)
    truth = pydicom.pixels.apply_windowing(values, header)
    truth = 255 * (truth - truth.min()) / np.ptp(truth)
    (image,) = read_file(path)
    assert np.abs(image - truth).max() <= 0.51


def test_monochrome1_is_inverted(tmp_path):
    normal = write_dicom(tmp_path / "a.dcm", STORED, **CT)
    negative = write_dicom(
        tmp_path / "b.dcm", STORED, **CT, PhotometricInterpretation="MONOCHROME1"
    )
    window = (-1000, 3000)
    np.testing.assert_array_equal(
        255 - read_file(normal, window)[0], read_file(negative, window)[0]
    )


def test_dicom_frames_are_slices_and_a_folder_is_split_by_patient(tmp_path):
    for patient in range(4):
        for index in range(2):
            stored = np.full((2, 4, 4), 10 * patient + index, dtype=np.uint8)
            name = f"{index}-{patient}"  # without an ending, as many archives have them
            write_dicom(tmp_path / "own" / name, stored, PatientID=f"P{patient}")
    patients = []
    for split in ("train", "val", "test"):
        images, _, names, _ = read_files(tmp_path / "own", split, window=(0, 255))
        assert names == ("all",) and images.shape[1:] == (1, 4, 4)
        patients.append(set((images[:, 0, 0, 0] // 10).tolist()))
    assert sorted(map(len, patients)) == [1, 1, 2]
    assert set.union(*patients) == {0, 1, 2, 3}


def test_damaged_dicom_is_named(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"a\.dcm: no pixels that can be read"):
        read_file(path)
    path.write_bytes(b"no DICOM")
    with pytest.raises(ValueError, match="copy it again"):
        read_file(path)


# --- NIfTI ---------------------------------------------------------------------------


def test_nifti_slices_are_axial_with_anterior_up(tmp_path):
    values = np.zeros((4, 5, 3), dtype=np.float32)  # x: right, y: anterior, z: superior
    values[3, 4, 2] = 100  # right, anterior, top
    path = write_nifti(tmp_path / "a.nii", values)
    slices = read_file(path, (0, 100))
    assert len(slices) == 3 and slices[0].shape == (5, 4)
    assert slices[2][0, 3] == 255 and np.sum(slices) == 255


def test_nifti_orientation_does_not_depend_on_how_it_was_stored(tmp_path):
    values = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    ras = read_file(write_nifti(tmp_path / "a.nii.gz", values), (0, 1))
    flipped = values[::-1].transpose(1, 2, 0)  # stored as (anterior, superior, left)
    affine = np.array([[0, 0, -1, 3], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    stored = write_nifti(tmp_path / "b.nii.gz", flipped, affine)
    np.testing.assert_array_equal(ras, read_file(stored, (0, 1)))


def test_one_volume_is_a_training_split_of_slices(tmp_path):
    values = np.random.default_rng(0).random((8, 6, 5)).astype(np.float32)
    path = write_nifti(tmp_path / "a.nii.gz", values)
    images, labels, card = load_images(path, size=8)
    assert images.shape == (5, 1, 8, 8) and labels.tolist() == [0] * 5
    assert card.class_names == ("all",)
    with pytest.raises(ValueError, match="too few to split"):
        load_images(path, "test")


def test_bad_nifti_is_told(tmp_path):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, np.full((4, 4, 4), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match=r"a\.nii\.gz: the image has NaN"):
        read_file(path)
    write_nifti(path, np.zeros((4, 4, 4, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="expected one 3-D volume"):
        read_file(path)
    noise = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    path.write_bytes(write_nifti(tmp_path / "b.nii.gz", noise).read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_file(path)
    path.write_bytes(b"no NIfTI")
    with pytest.raises(ValueError, match=r"a\.nii\.gz"):
        read_file(path)


def test_window_maps_its_ends_and_clips():
    values = np.array([-50.0, 0, 40, 80, 900])
    assert to_uint8(values, (0, 80)).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(np.zeros((4, 4)), None).max() == 0
    with pytest.raises(ValueError, match="low < high"):
        to_uint8(values, (80, 0))


# --- Damaged bytes -------------------------------------------------------------------


def read_train(path: Path):
    return read_npz(path, "train")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "read", "flips", "at"),
    [
        ("a.dcm", read_file, 255, range(540, 618)),
        (
            "a.nii",
            read_file,
            255,
            [*range(40, 48), *range(108, 112), *range(287, 320, 4)],
        ),
        ("a.npz", read_train, 4, range(-620, 0, 4)),
    ],
)
def test_a_damaged_byte_gives_images_or_a_value_error(tmp_path, name, read, flips, at):
    path = tmp_path / name
    if name == "a.dcm":
        write_dicom(path, STORED, **CT, WindowCenter=40, WindowWidth=80)
    elif name == "a.nii":
        write_nifti(path, np.ones((2, 3, 2), dtype=np.float32))
    else:
        write_npz(path)
    whole = path.read_bytes()
    refused = 0
    for place in at:
        damaged = bytearray(whole)
        damaged[place] ^= flips
        path.write_bytes(damaged)
        try:
            read(path)
        except ValueError:
            refused += 1
    assert refused > 5


def test_a_dicom_cut_at_any_place_is_refused_or_read(tmp_path):
    for patient in range(4):
        write_dicom(tmp_path / f"{patient}.dcm", STORED, PatientID=f"P{patient}")
    cut = tmp_path / "0.dcm"
    whole = cut.read_bytes()
    for length in (143, 154, 566, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"0\.dcm"):
            for split in ("train", "val", "test"):
                read_files(tmp_path, split)
