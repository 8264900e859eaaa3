import dataclasses
import hashlib
import json
import runpy
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import cards, datasets, npz
from course_lib.datasets import batches, find_duplicates, load_images, load_pairs
from course_lib.fetch import medmnist_records
from course_lib.phantoms import Phantom, make_phantom
from course_lib.pixels import resize, resize_volumes

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Data and cache folders of this test alone; nothing is fetched."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data" / "medmnist").mkdir(parents=True)

    def no_network(url, path, md5):
        raise ConnectionError(f"asked for {url}")

    monkeypatch.setattr(datasets, "fetch", no_network)
    datasets._has_md5.cache_clear()
    return tmp_path


def write_set(path: Path, shape=(8, 8), n=6, labels=None, seed=0) -> dict:
    """A .npz in MedMNIST's format: three splits of n images, classes 0 and 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n)[:, None] % 2 if labels is None else labels
    arrays = {}
    for split in SPLITS:
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.fixture
def tiny_record(monkeypatch):
    """MedMNIST's own records, but with six images in each split."""
    records = {
        flag: record | {"n_samples": dict.fromkeys(SPLITS, 6)}
        for flag, record in medmnist_records().items()
    }
    monkeypatch.setattr(datasets, "medmnist_records", lambda: records)


@pytest.fixture
def toy_phantom(monkeypatch):
    """Stands for make_phantom: four slices a subject, each image tells which it is."""

    def make(split, size, n=None, seed=0):
        index = np.arange(n or 32)
        images = {
            contrast: np.broadcast_to(
                (index + 100 * shift).astype(np.uint8)[:, None, None],
                (len(index), size, size),
            ).copy()
            for shift, contrast in enumerate(("T1", "T2"))
        }
        zeros = np.zeros((len(index), size, size))
        return Phantom(
            images, zeros, zeros > 0, index // 4 % 3, index // 4, index * np.float32(1)
        )

    monkeypatch.setattr(datasets, "make_phantom", make)


def test_records_equal_the_table_of_the_medmnist_package(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # its source makes a folder there
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    source = Path(find_spec("medmnist").origin).with_name("info.py")
    assert medmnist_records() == runpy.run_path(str(source))["INFO"]


def test_npz_values_map_to_minus_one_to_one(tmp_path):
    arrays = write_set(tmp_path / "own.npz")
    images, labels, card = load_images(tmp_path / "own.npz", "val", 8)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    expected = arrays["val_images"][:, None] / 127.5 - 1
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert card.counts == {"0": 3, "1": 3} and card.shape == (6, 1, 8, 8)


def test_uint8_is_the_stored_bytes_and_colour_comes_first(tmp_path):
    arrays = write_set(tmp_path / "own.npz", (8, 8, 3))
    images, _, _ = load_images(tmp_path / "own.npz", size=None, dtype=torch.uint8)
    assert images.is_contiguous()
    np.testing.assert_array_equal(images, arrays["train_images"].transpose(0, 3, 1, 2))


def test_colour_pictures_of_a_folder_stay_in_colour(tmp_path):
    (tmp_path / "own" / "train" / "a").mkdir(parents=True)
    picture = Image.new("RGB", (8, 8), (255, 0, 51))
    picture.save(tmp_path / "own" / "train" / "a" / "one.png")
    images, _, card = load_images(tmp_path / "own", size=16)
    assert card.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(images[0, :, 5, 5], [1, -1, -0.6], atol=1e-6)


def test_volumes_come_whole_or_as_slices_with_their_labels(tmp_path):
    arrays = write_set(tmp_path / "own.npz", (4, 8, 8))
    path = tmp_path / "own.npz"
    slices, labels, _ = load_images(path, size=8, dtype=torch.uint8)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    np.testing.assert_array_equal(slices, arrays["train_images"].reshape(24, 1, 8, 8))
    volumes, _, _ = load_images(path, size=None, volumes=True, dtype=torch.uint8)
    np.testing.assert_array_equal(volumes, arrays["train_images"][:, None])
    cubes, _, _ = load_images(path, size=16, volumes=True)
    assert cubes.shape == (6, 1, 16, 16, 16)


def test_several_labels_an_image_stay_a_matrix(tmp_path, tiny_record):
    labels = np.eye(6, 14, dtype=np.uint8)
    write_set(tmp_path / "chestmnist.npz", (28, 28), labels=labels)
    with pytest.warns(UserWarning, match="MD5"):
        _, found, card = load_images("chestmnist", size=28, root=tmp_path)
    np.testing.assert_array_equal(found, labels)
    assert card.counts["atelectasis"] == 1 and card.counts["hernia"] == 0


def test_n_is_a_seeded_prefix_and_not_the_head_of_a_sorted_file(tmp_path):
    labels = np.repeat([0, 1], 20)[:, None]
    write_set(tmp_path / "own.npz", n=40, labels=labels)
    path = tmp_path / "own.npz"
    ten, labels_ten, _ = load_images(path, size=8, n=10)
    five, _, _ = load_images(path, size=8, n=5)
    assert torch.equal(ten[:5], five)
    assert set(labels_ten.tolist()) == {0, 1}
    assert len(load_images(path, size=8, n=1000)[0]) == 40


def test_medmnist_file_with_another_md5_is_used_with_one_warning(folders, tiny_record):
    write_set(folders / "data" / "medmnist" / "pneumoniamnist.npz", (28, 28))
    with pytest.warns(UserWarning, match="MD5 differs") as caught:
        _, _, card = load_images("pneumoniamnist", size=28)
    assert len(caught) == 1 and "MD5 is not the published one" in card.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, card = load_images("PneumoniaMNIST", "test", size=28)
    assert "MD5" in card.note and card.counts == {"normal": 3, "pneumonia": 3}


def test_medmnist_file_with_the_published_md5_gives_no_warning(folders, tiny_record):
    path = folders / "data" / "pneumoniamnist.npz"
    write_set(path, (28, 28))
    record = datasets.medmnist_records()["pneumoniamnist"]
    record["MD5"] = hashlib.md5(path.read_bytes()).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, card = load_images("pneumoniamnist", size=28)
    assert "MD5" not in card.note and card.licence == "CC BY 4.0"


@pytest.mark.parametrize(
    ("size", "file"),
    [(28, ""), (32, ""), (33, "_64"), (64, "_64"), (128, "_128"), (256, "_224")],
)
def test_stored_size_is_the_one_that_is_hardly_enlarged(size, file):
    with pytest.raises(ConnectionError, match=f"/pneumoniamnist{file}.npz"):
        load_images("pneumoniamnist", size=size)


def test_root_is_searched_before_the_data_folder(folders, tiny_record):
    first = write_set(folders / "pneumoniamnist.npz", (28, 28), seed=1)
    write_set(folders / "data" / "medmnist" / "pneumoniamnist.npz", (28, 28), seed=2)
    with pytest.warns(UserWarning):
        images, _, _ = load_images(
            "pneumoniamnist", size=28, root=folders, dtype=torch.uint8
        )
    np.testing.assert_array_equal(images[:, 0], first["train_images"])


def test_medmnist_file_with_other_counts_or_labels_is_refused(folders, tiny_record):
    path = folders / "data" / "pneumoniamnist.npz"
    write_set(path, (28, 28), n=5)
    with pytest.raises(ValueError, match=r"has \(6, 28, 28\)\. Move the file away"):
        load_images("pneumoniamnist", size=28)
    write_set(path, (28, 28), labels=np.full((6, 1), 2))
    with pytest.raises(ValueError, match="label 2, pneumoniamnist has 2 classes"):
        load_images("pneumoniamnist", size=28)


def test_missing_set_without_download_names_the_ways_out():
    with pytest.raises(FileNotFoundError, match=r'download=True.*or use.*"phantom"'):
        load_images("bloodmnist", size=28, download=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "pneumonamnist"}, "Did you mean 'pneumoniamnist'"),
        ({"split": "valid"}, "choose from train, val, test"),
        ({"size": 4}, "choose from 8 to 1024"),
        ({"n": 0}, "choose n >= 1"),
        ({"dtype": torch.float64}, "float32 or torch.uint8"),
        ({"contrast": "T3"}, "choose from T1, T2"),
        ({"size": None}, "choose one, such as 32"),
    ],
)
def test_wrong_arguments_are_told_with_the_choices(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_images(**arguments)


def test_empty_class_is_an_error_in_the_training_split(tmp_path):
    write_set(tmp_path / "own.npz", labels=np.array([0, 0, 0, 2, 2, 2])[:, None])
    with pytest.raises(ValueError, match=r"class 1 of own\.npz is empty"):
        load_images(tmp_path / "own.npz", size=8)


def test_large_split_is_memory_mapped_and_unpacked_once(folders, monkeypatch):
    arrays = write_set(folders / "own.npz")
    monkeypatch.setattr(npz, "IN_MEMORY_BYTES", 400)

    def load():
        return load_images(folders / "own.npz", size=8, dtype=torch.uint8)[0]

    images = load()
    np.testing.assert_array_equal(images[:, 0], arrays["train_images"])
    (unpacked,) = (folders / "cache" / "unpacked").glob("*.npy")
    before = unpacked.stat().st_mtime_ns
    assert torch.equal(load(), images) and unpacked.stat().st_mtime_ns == before
    # It is the file itself: a byte changed on disk is seen by the tensor.
    with unpacked.open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([255 - arrays["train_images"][-1, -1, -1]]))
    assert images[-1, 0, -1, -1] == 255 - arrays["train_images"][-1, -1, -1]
    (batch,) = batches(images, batch_size=6, shuffle=False)
    assert batch.dtype == torch.float32 and batch.min() >= -1
    with pytest.raises(ValueError, match=r"dtype=torch\.uint8"):
        load_images(folders / "own.npz", size=8)


def test_resize_averages_instead_of_picking_pixels():
    stripes = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    stripes[..., ::4] = 200  # one column of four: picking would find 0
    small = resize(stripes, 8)[..., 2:-2]
    assert (small.float() - 50).abs().max() <= 15
    flat = torch.full((2, 3, 20, 20), 77, dtype=torch.uint8)
    assert (resize(flat, 32) == 77).all() and resize(flat, 32).shape == (2, 3, 32, 32)


def test_resize_keeps_the_proportions_by_black_bars():
    wide = torch.full((1, 1, 16, 32), 255, dtype=torch.uint8)
    square = resize(wide, 32)
    assert (square[..., 8:24, :] == 255).all()
    assert square[..., :8, :].sum() == 0 and square[..., 24:, :].sum() == 0


def test_volumes_are_resized_along_each_axis():
    depth = torch.arange(8).mul(30).to(torch.uint8)
    volume = depth[None, None, :, None, None].expand(2, 1, 8, 8, 8)
    half = resize_volumes(volume, 4)
    assert half.shape == (2, 1, 4, 4, 4)
    inside = half[:, 0, 1:3].float()  # a linear ramp keeps its values inside
    expected = torch.tensor([75.0, 135.0])[None, :, None, None].expand_as(inside)
    assert (inside - expected).abs().max() <= 1


def test_phantom_images_are_the_simulators_bytes(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_CACHE")
    make_phantom(n=1, cache=False)  # the template, once a machine
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    images, labels, card = load_images("phantom", "val", 28, contrast="FLAIR", n=8)
    truth = make_phantom("val", 28, 8)
    np.testing.assert_array_equal(
        images[:, 0].add(1).mul(127.5).round(), truth.images["FLAIR"]
    )
    assert labels.tolist() == truth.labels.tolist()
    assert "not patient data" in card.note and "McConnell" in card.licence


def test_pairs_show_the_same_slice(toy_phantom):
    source, target, _ = load_pairs(size=8, n=5)
    assert source.shape == target.shape == (5, 1, 8, 8)
    np.testing.assert_allclose((target - source) * 127.5, 100, atol=1e-3)


@pytest.mark.parametrize("n", [None, 1, 5])
def test_unpaired_domains_share_no_subject(toy_phantom, n):
    source, target, card = load_pairs(size=8, n=n, paired=False)
    assert len(source) == len(target) == (n or 16)
    of_source = ((source[:, 0, 0, 0] + 1) * 127.5).round().long() // 4
    of_target = (((target[:, 0, 0, 0] + 1) * 127.5).round().long() - 100) // 4
    assert not set(of_source.tolist()) & set(of_target.tolist())
    assert "no subject in common" in card.name


def test_sets_without_pairs_are_refused():
    with pytest.raises(ValueError, match="pneumoniamnist has no pairs"):
        load_pairs("pneumoniamnist")
    with pytest.raises(ValueError, match="choose two contrasts"):
        load_pairs(source="T1", target="T1")


def test_an_epoch_hands_out_each_image_once_in_a_new_order():
    images = torch.arange(24, dtype=torch.uint8).reshape(12, 2, 1, 1)
    labels = torch.arange(12)
    loader = batches(images, labels, batch_size=4)
    first = list(loader)
    second = list(loader)
    assert len(first) == len(loader) == 3
    x, y = (torch.cat(part) for part in zip(*first, strict=True))
    assert sorted(y.tolist()) == list(range(12))
    np.testing.assert_allclose(x, images[y].float() / 127.5 - 1, atol=1e-6)
    assert not torch.equal(y, torch.cat([label for _, label in second]))
    again = torch.cat([label for _, label in batches(images, labels, batch_size=4)])
    assert torch.equal(y, again)


def test_batches_draw_from_their_own_generator():
    before = torch.random.get_rng_state()
    next(iter(batches(torch.zeros(8, 3), batch_size=4)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_only_images_are_scaled():
    masks = torch.full((4, 3), 7, dtype=torch.uint8)
    (batch,) = batches(masks, batch_size=4)
    assert batch.dtype == torch.uint8 and (batch == 7).all()
    floats = torch.rand(4, 1, 2, 2)
    (batch,) = batches(floats, batch_size=4, shuffle=False)
    assert torch.equal(batch, floats)


@pytest.mark.parametrize("drop_last", [True, False])
def test_drop_last_decides_about_the_rest(drop_last):
    loader = batches(torch.arange(10), batch_size=4, drop_last=drop_last)
    lengths = [len(batch) for batch in loader]
    assert lengths == ([4, 4] if drop_last else [4, 4, 2])
    assert len(loader) == len(lengths)


@pytest.mark.parametrize("stop", [0, 2, 5, 6, 9])
def test_a_resumed_loader_gives_the_batch_that_would_have_come(stop):
    def endless(loader):
        while True:
            yield from loader

    data = torch.arange(13)
    one = batches(data, batch_size=2, seed=3)  # 6 batches an epoch
    running = endless(one)
    for _ in range(stop):
        next(running)
    state = one.state_dict()
    expected = [next(running).tolist() for _ in range(9)]
    two = batches(data, batch_size=2, seed=99)
    two.load_state_dict(state)
    resumed = endless(two)
    assert [next(resumed).tolist() for _ in range(9)] == expected


def test_a_loader_resumed_at_the_end_of_an_epoch_begins_a_whole_one():
    one = batches(torch.arange(13), batch_size=2)
    list(one)
    two = batches(torch.arange(13), batch_size=2)
    two.load_state_dict(one.state_dict())
    assert torch.equal(torch.cat(list(two)), torch.cat(list(one)))


def test_batches_that_cannot_be_are_told():
    with pytest.raises(ValueError, match="drop_last=False"):
        batches(torch.zeros(8, 1), batch_size=64)
    with pytest.raises(ValueError, match="one length"):
        batches(torch.zeros(8), torch.zeros(7))
    with pytest.raises(ValueError, match="needs a tensor"):
        batches()


def smooth_images(n: int, seed: int) -> torch.Tensor:
    coarse = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")
    return (40 + 150 * fine).to(torch.uint8)


def test_planted_copies_are_found_across_splits():
    train, test = smooth_images(60, 0), smooth_images(20, 1)
    noise = torch.randn(28, 28, generator=torch.Generator().manual_seed(2))
    test[3] = train[41]
    test[7] = (train[5].float() + 25 + 3 * noise).to(torch.uint8)
    test[9] = train[8].flip(-1)  # a flip is another image
    pairs = find_duplicates(train, test)
    assert [(pair.a, pair.b, pair.exact) for pair in pairs] == [
        (41, 3, True),
        (5, 7, False),
    ]
    assert pairs[0].distance == 0 < pairs[1].distance < 0.01
    exact = find_duplicates(train, test, near=None)
    assert [(pair.a, pair.b) for pair in exact] == [(41, 3)]


def test_copies_inside_one_set_are_named_once_with_the_first():
    images = smooth_images(30, 0)
    images[12] = images[20] = images[4]
    images[25] = images[9] + 10
    pairs = find_duplicates(images)
    assert [(pair.a, pair.b) for pair in pairs] == [(4, 12), (4, 20), (9, 25)]
    assert find_duplicates(smooth_images(30, 3)) == []


def test_sets_of_another_type_are_not_compared():
    with pytest.raises(ValueError, match="compare like with like"):
        find_duplicates(smooth_images(2, 0), smooth_images(2, 0).float())


def test_card_escapes_what_a_file_name_says(tmp_path):
    write_set(tmp_path / "own.npz")
    _, _, card = load_images(tmp_path / "own.npz", size=8)
    page = dataclasses.replace(card, name="a<b>&", counts={"<i>": 1})._repr_html_()
    assert "a&lt;b&gt;&amp;" in page and "&lt;i&gt; 1" in page
    assert "<b>" not in page and "<i>" not in page
    assert "Not for clinical use." in page and "Not for clinical use." in str(card)


def test_card_becomes_json_and_its_fingerprint_follows_the_bytes(tmp_path):
    write_set(tmp_path / "own.npz", seed=1)
    _, _, one = load_images(tmp_path / "own.npz", size=8)
    write_set(tmp_path / "own.npz", seed=2)
    _, _, two = load_images(tmp_path / "own.npz", size=8)
    assert json.loads(json.dumps(one.to_dict()))["counts"] == {"0": 3, "1": 3}
    assert one.fingerprint != two.fingerprint


def test_every_medmnist_set_has_a_card():
    facts = {
        flag: cards.medmnist_facts(flag, record)
        for flag, record in medmnist_records().items()
    }
    assert len(facts) == 18
    assert all(fact["modality"] != "see source" for fact in facts.values())
    assert "2401.14497" in facts["dermamnist"]["note"]
    assert facts["dermamnist"]["licence"] == "CC BY-NC 4.0"
    assert "(N, L)" in facts["chestmnist"]["note"]
