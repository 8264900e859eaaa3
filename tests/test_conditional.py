import pytest
import torch

from course_lib import conditional
from course_lib.conditional import class_distances, usefulness
from course_lib.features import course_extractor


def stripes(n, seed, flip=False):
    """Noise with bright rows (class 0) or bright columns (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = 0.3 * torch.randn(n, 1, 16, 16, generator=generator)
    images[labels == 0, :, ::4] += 0.8
    images[labels == 1, :, :, ::4] += 0.8
    return images.clamp(-1, 1), 1 - labels if flip else labels


@pytest.fixture(scope="module")
def extractor():
    return course_extractor("phantom", 32)


def test_each_class_is_compared_with_its_own_at_equal_n(extractor):
    real, labels = stripes(60, seed=0)
    found = class_distances(real, labels, *stripes(40, seed=1), extractor=extractor)
    crossed = class_distances(
        real, labels, *stripes(40, seed=1, flip=True), extractor=extractor
    )
    assert [found[k].n for k in (0, 1)] == [20, 20]
    assert found[0].frechet is None  # 20 images cannot fill 64 features
    assert all(crossed[k].kid > 10 * abs(found[k].kid) for k in (0, 1))


def test_a_class_distance_to_itself_is_zero_where_frechet_is_given(extractor):
    real, labels = stripes(140, seed=0)
    found = class_distances(real, labels, real, labels, extractor=extractor)
    assert found[0].n == 70 and found[0].frechet == pytest.approx(0, abs=1e-6)


def test_a_class_that_was_not_drawn_is_said(extractor):
    real, labels = stripes(20, seed=0)
    with pytest.raises(ValueError, match="class 1 has 0"):
        class_distances(real, labels, real, 0 * labels, extractor=extractor)


def test_useful_fakes_teach_what_real_ones_teach_and_swapped_labels_do_not():
    real, test = stripes(64, seed=0), stripes(64, seed=2)
    good = usefulness(*real, *stripes(64, seed=1), *test, steps=20)
    bad = usefulness(*real, *stripes(64, seed=1, flip=True), *test, steps=20)
    assert min(good.real, good.fake, good.on_fake) > 0.9
    assert bad.real == good.real and max(bad.fake, bad.on_fake) < 0.1


def test_usefulness_is_seeded_and_leaves_the_callers_seed_alone(monkeypatch):
    first_weights = []

    def spy(network, *_):
        first_weights.append(network.classifier.weight.detach().clone())
        network.eval()

    monkeypatch.setattr(conditional, "train_classifier", spy)
    sets = (*stripes(8, seed=0), *stripes(8, seed=1), *stripes(8, seed=2))
    for state in (1, 2):
        torch.manual_seed(state)
        expected = torch.rand(1)
        torch.manual_seed(state)
        usefulness(*sets)
        assert torch.equal(torch.rand(1), expected)
    assert len(first_weights) == 4
    assert all(torch.equal(w, first_weights[0]) for w in first_weights)


def test_a_class_that_the_real_images_lack_is_refused():
    real, labels = stripes(64, seed=0)
    with pytest.raises(ValueError, match="lack class 1"):
        usefulness(real, 0 * labels, real, labels, real, labels)
