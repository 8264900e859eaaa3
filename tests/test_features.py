import hashlib
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib import feature_training, features, pretrained
from course_lib.checkpoints import WEIGHTS
from course_lib.features import (
    Extractor,
    course_extractor,
    for_models,
    reserved_split,
)


def random_images(n=8, channels=1, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, channels, size, size, generator=generator) - 1


@pytest.fixture(scope="module")
def extractor():
    return course_extractor("phantom", 32)


@pytest.mark.parametrize("kind", ["classifier", "self-supervised"])
@pytest.mark.parametrize(
    ("dataset", "size"), [("phantom", 32), ("pneumoniamnist", 28), ("mednist", 64)]
)
def test_shipped_extractors_are_small_and_say_what_they_are(dataset, size, kind):
    extractor = course_extractor(dataset, size, kind=kind)
    name = f"{features.KINDS[kind]}_{dataset}_{size}"
    weights = WEIGHTS / f"{name}.safetensors"
    assert weights.stat().st_size < 250_000
    assert extractor.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert extractor.image_size == size
    assert (
        f"--size {size}"
        in json.loads(weights.with_suffix(".json").read_text())["command"]
    )
    found = extractor(random_images(size=size))
    assert found.shape == (8, extractor.dim) and found.dtype == torch.float32
    assert found.isfinite().all() and found.std(dim=0).mean() > 0.1


def test_features_depend_on_no_batch_no_order_and_no_run(extractor):
    images = random_images()
    whole = extractor(images)
    assert torch.equal(whole, extractor(images))
    torch.testing.assert_close(extractor(images, batch_size=3), whole)
    torch.testing.assert_close(extractor(images.flip(0)), whole.flip(0))


def test_features_carry_no_gradient_but_can_be_trained_on(extractor):
    found = extractor(random_images().requires_grad_())
    assert not found.requires_grad
    layer = torch.nn.Linear(extractor.dim, 2)
    layer(found).sum().backward()  # raises for tensors of inference mode


def test_uint8_images_give_the_features_of_their_scaled_floats(extractor):
    pixels = torch.arange(4 * 32 * 32).reshape(4, 1, 32, 32).remainder(256)
    scaled = pixels.float() / 127.5 - 1
    found = extractor(pixels.to(torch.uint8))
    torch.testing.assert_close(found, extractor(scaled))


def test_other_sizes_are_resized_with_antialiasing(extractor):
    images = random_images(size=64)
    small = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(extractor(images), extractor(small))
    assert "antialiased" in extractor.resize


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (127.5 * (random_images() + 1), "load_images"),
        (random_images() * float("nan"), "-1, 1"),
        (random_images(channels=3), "grey"),
        (random_images()[..., :20], "square"),
        (random_images()[0], "square"),
        (random_images().long(), "int64"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_a_fix(extractor, images, word):
    with pytest.raises(ValueError, match=word):
        extractor(images)


def test_probabilities_are_of_the_named_classes_and_sum_to_one(extractor):
    p = extractor.probabilities(random_images())
    assert p.shape == (8, len(extractor.classes)) and p.min() >= 0
    torch.testing.assert_close(p.sum(dim=1), torch.ones(8))
    with pytest.raises(ValueError, match="no classifier"):
        course_extractor(kind="self-supervised").probabilities(random_images())


def test_grey_is_repeated_where_the_network_wants_colour():
    class MeanColour(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(1))

        def features(self, images):
            return images.mean(dim=(2, 3))

    extractor = Extractor("colours", "0", 3, 32, 3, MeanColour())
    found = extractor(random_images())
    assert torch.equal(found[:, 0], found[:, 2])


def test_only_inception_with_the_fid_weights_is_called_fid(extractor):
    assert extractor.frechet_name == "FD[course-phantom-32]"
    named = Extractor(features.INCEPTION, "0", 3, 299, 3, torch.nn.Identity())
    assert named.frechet_name == "FID"


# Who sees which images


def test_a_quarter_is_reserved_and_the_rest_is_for_models():
    images = random_images(n=800, size=4)
    mine, models = reserved_split(images)
    assert torch.equal(torch.cat([mine, models]).sort().values, torch.arange(800))
    assert 150 < len(mine) < 250


def test_the_split_knows_an_image_by_its_pixels_in_any_file_order():
    images = random_images(n=100, size=4)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    mine, _ = reserved_split(pixels)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    moved, _ = reserved_split(pixels[order])
    assert set(order[moved].tolist()) == set(mine.tolist())
    assert torch.equal(reserved_split(pixels.float() / 127.5 - 1)[0], mine)
    assert not torch.equal(reserved_split(pixels, seed=1)[0], mine)


def test_copies_stay_on_one_side_of_the_split():
    images = random_images(n=40, size=4)
    mine, _ = reserved_split(torch.cat([images, images]))
    assert {i % 40 for i in mine.tolist()} == {i for i in mine.tolist() if i < 40}


def test_models_may_use_the_whole_phantom_and_no_reserved_image_elsewhere():
    images = random_images(n=40, size=4)
    assert len(for_models("phantom", images)) == 40
    kept = for_models("folder/mednist_64.npz", images)
    assert torch.equal(kept, reserved_split(images)[1])


# Training one


@pytest.fixture
def own_set(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 400), ("val", 40), ("test", 40)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 16, 16), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n)[:, None] % 2
    np.savez(tmp_path / "mine.npz", **arrays)
    return tmp_path / "mine.npz"


@pytest.mark.parametrize("kind", ["classifier", "self-supervised"])
def test_an_own_set_gets_an_extractor_that_is_then_found(own_set, tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=r"python -m course_lib\.features"):
        course_extractor(own_set, 16, kind=kind)
    train = feature_training.train_extractor
    path = train(own_set, 16, kind=kind, steps=2)
    again = train(own_set, 16, kind=kind, steps=2, out=tmp_path)
    assert path.read_bytes() == again.read_bytes()
    extractor = course_extractor(own_set, 16, kind=kind)
    assert extractor.name.endswith("mine-16")
    assert extractor(random_images(size=16)).shape == (8, extractor.dim)


def test_the_extractor_learns_from_reserved_images_alone(own_set, monkeypatch):
    seen = []

    def spy(network, images, *_):
        seen.append(images)

    monkeypatch.setattr(feature_training, "train_classifier", spy)
    feature_training.train_extractor(own_set, 16, steps=1)
    (images,) = seen
    assert 0 < len(images) < 200
    assert len(reserved_split(images)[1]) == 0  # each of them is reserved


# Networks with published weights


def test_absent_published_weights_are_said_with_where_to_get_them(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"course_extractor\(\)"):
        pretrained.inception_extractor()
    with pytest.raises(FileNotFoundError, match="alexnet"):
        pretrained.lpips(random_images(), random_images(seed=1))
    with pytest.raises(ValueError, match="not 'inception'"):
        pretrained.lpips(random_images(), random_images(), net="inception")


def test_a_file_with_other_weights_is_not_called_fid(tmp_path):
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="would not be FID"):
        pretrained.inception_extractor(tmp_path / "other.pth")
