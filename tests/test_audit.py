import json

import pytest
import torch

from course_lib.audit import (
    _directions,
    _smooth,
    audit,
    authenticity,
    find_copies,
    membership_auc,
    nearest_training,
    plant_copies,
)
from course_lib.phantoms import make_phantom


def heads(split, n):
    pixels = torch.from_numpy(make_phantom(split, 28, n).images["T1"])
    return pixels[:, None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def phantom():
    """Training, held-out and other held-out slices; no head is in two of them."""
    return heads("train", 240), heads("val", 160), heads("test", 120)


def textures(n, seed, size=16):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 1, size // 4, size // 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").tanh()


# Copies


@pytest.mark.parametrize("kind", ["flip", "shift", "noise", "all"])
def test_planted_copies_are_recovered_at_a_false_positive_rate_of_one_percent(
    phantom, kind
):
    train, held_out, _ = phantom
    found = find_copies(plant_copies(train[:60], kind, seed=1), train, held_out)
    assert found.flagged.float().mean() >= 0.95
    assert (found.nearest.match == torch.arange(60)).float().mean() >= 0.95
    assert found.held_out_rate <= 0.0125


def test_new_images_are_not_taken_for_copies(phantom):
    train, held_out, others = phantom
    found = find_copies(others, train, held_out)
    assert found.rate <= 0.05 and found.leaked == 0
    assert found.flagged.dtype == torch.bool and len(found.flagged) == len(others)


def test_exact_copies_have_distance_and_ratio_zero(phantom):
    train = phantom[0]
    nearest = nearest_training(train[5:9], train)
    assert nearest.match.tolist() == [5, 6, 7, 8]
    assert nearest.distance.max() < 1e-5 and nearest.ratio.max() < 1e-2


def test_brightness_and_contrast_do_not_hide_a_copy(phantom):
    train = phantom[0]
    dull = 0.5 * train[:8] + 0.2
    torch.testing.assert_close(
        nearest_training(dull, train).ratio,
        nearest_training(train[:8], train).ratio,
        atol=1e-3,
        rtol=0,
    )


def test_a_mirror_is_found_only_if_mirrors_are_looked_for():
    train = textures(40, seed=0)
    mirrored = plant_copies(train[:10], "flip")
    assert nearest_training(mirrored, train).ratio.max() < 0.01
    assert nearest_training(mirrored, train, flip=False).ratio.min() > 0.1


def test_repeated_training_images_do_not_hide_their_copies():
    train = textures(40, seed=0)
    repeated = torch.cat([train, train[:1], train[:1], train[:1], train[:1]])
    noisy = plant_copies(train[:1], "noise")
    alone, among = (nearest_training(noisy, t) for t in (train, repeated))
    assert among.ratio.item() == pytest.approx(alone.ratio.item())
    assert among.match.item() == 0


def test_held_out_images_that_are_training_images_set_no_threshold(phantom):
    train, held_out, _ = phantom
    clean = find_copies(train[:5], train, held_out)
    leaky = find_copies(train[:5], train, torch.cat([held_out, train[100:130]]))
    assert (clean.leaked, leaky.leaked) == (0, 30)
    assert leaky.threshold == pytest.approx(clean.threshold)


def test_too_few_held_out_images_for_a_rate_are_refused(phantom):
    train, held_out, _ = phantom
    with pytest.raises(ValueError, match="needs 100 held-out images"):
        find_copies(train[:5], train, held_out[:40])
    assert find_copies(train[:5], train, held_out[:40], fpr=0.05).rate == 1


@pytest.mark.parametrize(
    ("images", "train", "word"),
    [
        (textures(4, 0), textures(40, 0, size=12), "like with like"),
        (textures(4, 0), textures(1, 0).expand(9, -1, -1, -1), "5 different"),
        (textures(4, 0) * float("nan"), textures(40, 0), "finite"),
    ],
)
def test_images_that_do_not_compare_are_refused(images, train, word):
    with pytest.raises(ValueError, match=word):
        nearest_training(images, train)


def test_planted_copies_are_seeded_and_keep_their_shape():
    images = textures(6, seed=0)
    for kind in ("flip", "shift", "noise", "all"):
        planted = plant_copies(images, kind, seed=3)
        assert planted.shape == images.shape
        assert torch.equal(planted, plant_copies(images, kind, seed=3))
        assert not torch.equal(planted, images)
    with pytest.raises(ValueError, match="kind is"):
        plant_copies(images, "turn")


# Membership and authenticity


def test_membership_is_a_coin_toss_for_images_that_nobody_saw():
    sets = (textures(80, seed) for seed in (0, 1, 2))
    found = membership_auc(*sets)
    assert found.low < 0.5 < found.high
    assert found.low < found.auc < found.high


def test_membership_is_certain_where_the_fakes_are_the_members():
    members, others = textures(60, seed=0), textures(60, seed=1)
    assert membership_auc(members, members, others).auc == pytest.approx(1)
    assert membership_auc(members, others, members).auc == pytest.approx(0)


def test_equal_distances_count_half():
    images = textures(20, seed=0)
    assert membership_auc(textures(9, seed=1), images, images).auc == 0.5


def test_the_interval_narrows_with_more_images():
    fakes = textures(50, seed=0)
    few, many = (
        membership_auc(fakes, textures(n, seed=1), textures(n, seed=2))
        for n in (30, 300)
    )
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_the_interval_is_as_wide_as_the_closed_form_of_delong():
    fakes, members, others = (textures(n, seed) for seed, n in enumerate((50, 60, 90)))
    known, *sets = (_directions(_smooth(x)) for x in (fakes, members, others))
    inside, outside = ((x @ known.T).amax(dim=1) for x in sets)
    wins = (inside[:, None] > outside).double()
    error = (wins.mean(dim=1).var() / 60 + wins.mean(dim=0).var() / 90).sqrt()
    found = membership_auc(fakes, members, others)
    assert found.high - found.low == pytest.approx(3.92 * error.item(), rel=0.15)


def test_authenticity_is_zero_for_copies_and_half_or_more_for_new_images():
    train, new = textures(120, seed=0), textures(120, seed=1)
    assert authenticity(train, train) == 0
    assert authenticity(plant_copies(train, "noise", amount=0.01), train) < 0.05
    assert authenticity(new, train) > 0.5


def test_authenticity_is_its_definition_written_out():
    train, fake = textures(20, seed=0), textures(10, seed=1)
    t, f = (_directions(_smooth(x)).double() for x in (train, fake))
    within = torch.cdist(t, t).fill_diagonal_(float("inf")).amin(dim=1)
    distance, match = torch.cdist(f, t).min(dim=1)
    expected = (distance > within[match]).double().mean().item()
    assert authenticity(fake, train) == pytest.approx(expected)


# All of it


def test_the_audit_tells_a_copying_generator_from_one_that_does_not(phantom):
    train, held_out, others = phantom
    honest = audit(others, train, held_out)
    thief = audit(plant_copies(train[:80], "all"), train, held_out)
    assert "No copying was found" in honest.conclusion
    assert "no proof" in honest.conclusion.lower()
    assert "The generator copies: " in thief.conclusion
    assert thief.p_value < 1e-6 < honest.p_value
    assert thief.copies >= 76


def test_few_copies_are_named_even_where_the_test_of_excess_sees_none(phantom):
    train, held_out, others = phantom
    fakes = torch.cat([others[:40], train[:1]])
    found = audit(fakes, train, torch.cat([held_out, train[5:9]]))
    assert found.near == 1 and found.p_value > 0.01
    assert "1 of 41 fakes are near copies" in found.conclusion


def test_the_audit_counts_duplicates_of_the_training_set_first(phantom):
    train, held_out, others = phantom
    found = audit(others[:20], torch.cat([train, train[:3]]), held_out)
    assert found.duplicates == 3
    leaky = audit(others[:20], train, torch.cat([held_out, train[:6]]))
    assert leaky.leaked == 6 and "the split leaks" in leaky.conclusion


def test_the_audit_can_be_kept_and_shown(phantom):
    train, held_out, others = phantom
    found = audit(others[:20], train, held_out)
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["conclusion"] == found.conclusion and kept["n"] == 20
    for shown in (str(found), found._repr_html_()):
        assert "membership AUC" in shown and "authenticity" in shown
        assert "held-out" in shown and "No copying" in shown
