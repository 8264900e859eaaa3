import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib import evaluation
from course_lib.evaluation import Report, compare, evaluate
from course_lib.features import INCEPTION, Extractor
from course_lib.metrics import (
    density_coverage,
    frechet_distance,
    kid,
    precision_recall,
)


class Patches(torch.nn.Module):
    """Features that a test can follow: the mean and spread of each quarter."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1))

    def features(self, x):
        mean = F.avg_pool2d(x, 4)
        spread = (F.avg_pool2d(x * x, 4) - mean**2).clamp(min=0).sqrt()
        return torch.cat([mean.flatten(1), spread.flatten(1)], dim=1)


EXTRACTOR = Extractor("patches", "abc123", 8, 8, 1, Patches())


def images(n=80, seed=0, scale=0.3, shift=0.0, channels=1, size=8):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, size, size, generator=generator)
    level = torch.randn(n, 1, 1, 1, generator=generator)
    return (scale * x + 0.2 * level + shift).clamp(-1, 1)


def report(real=None, fake=None, **options):
    real = images(seed=1) if real is None else real
    fake = images(seed=2) if fake is None else fake
    options = {"extractor": EXTRACTOR, "permutations": 99} | options
    return evaluate(real, fake, **options)


@pytest.fixture(scope="module")
def equal():
    return report(name="equal", real=images(240, seed=1))


@pytest.fixture(scope="module")
def shifted():
    return report(name="shifted", real=images(240, seed=1), fake=images(shift=0.3))


# Values


def test_values_are_those_of_the_metrics_on_the_extractors_features():
    real, fake = images(seed=1), images(seed=2)
    found = {name: s.value for name, s in report(real, fake).scores.items()}
    a, b = EXTRACTOR(real), EXTRACTOR(fake)
    expected = {
        "FD[patches]": frechet_distance(a, b),
        "KID[patches]": kid(a, b),
    }
    shares = (*precision_recall(a, b), *density_coverage(a, b))
    names = ("precision", "recall", "density", "coverage")
    expected |= dict(zip(names, shares, strict=True))
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_only_inception_gives_the_names_fid_and_kid():
    named = Extractor(INCEPTION, "0", 8, 8, 1, Patches())
    assert list(report(extractor=named).scores)[:2] == ["FID", "KID"]


def test_intervals_are_the_jackknife_written_out():
    real, fake = images(seed=1), images(seed=2, shift=0.1)
    a, b = EXTRACTOR(real).double(), EXTRACTOR(fake).double()
    widths, _ = evaluation.jackknife_widths(
        a, b, True, groups=5, permutations=9, seed=3
    )
    generator = torch.Generator().manual_seed(3)
    folds = [torch.randperm(len(a), generator=generator) % 5 for _ in range(2)]
    left = [evaluation.feature_scores(a[folds[0] != g], b, True) for g in range(5)]
    left += [evaluation.feature_scores(a, b[folds[1] != g], True) for g in range(5)]
    quantile = 2.306004135204166  # of Student's t with 8 degrees of freedom, 97.5 %
    for key, width in widths.items():
        values = np.array([part[key] for part in left]).reshape(2, 5)
        expected = quantile * (4 * values.var(axis=1).sum()) ** 0.5
        assert width == pytest.approx(expected, rel=1e-6, abs=1e-9), key


def test_intervals_hold_the_mean_of_other_draws_about_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    values, widths = [], []
    for seed in range(60):
        a, b = torch.randn(2, 60, 4, generator=generator).double()
        b = b + 0.5
        values.append(evaluation.feature_scores(a, b, True))
        width, _ = evaluation.jackknife_widths(a, b, True, 10, 9, seed)
        widths.append(width)
    for key in ("frechet", "kid"):
        value = np.array([v[key] for v in values])
        held = abs(value - value.mean()) < [w[key] for w in widths]
        assert held.mean() >= 0.85, key


def test_p_is_spread_evenly_where_both_sides_are_one_distribution():
    generator = torch.Generator().manual_seed(0)
    p = []
    for seed in range(200):
        a, b = torch.randn(2, 40, 4, generator=generator).double()
        folds = [torch.arange(40) % 5] * 2
        own = torch.Generator().manual_seed(10_000 + seed)
        p.append(evaluation._kid_left_out(a, b, folds, 5, 99, own)[1])
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.10
    assert 0.40 <= np.mean(np.array(p) <= 0.5) <= 0.60


def test_a_shifted_set_differs_and_an_equal_one_is_not_said_to(equal, shifted):
    assert shifted.p_value == 0.01 and equal.p_value > 0.05
    assert "differs from the real images" in shifted.conclusion
    assert "times real against real" in shifted.conclusion
    assert "No difference" in equal.conclusion
    assert "no proof" in equal.conclusion
    for found in (equal, shifted):
        assert "copies" in found.conclusion and "clinical" in found.conclusion


def test_every_number_has_its_interval_and_a_baseline_of_its_size(equal, shifted):
    for found in (equal, shifted):
        assert found.baseline_n == found.n == 80
        for score in found.scores.values():
            assert score.low <= score.value <= score.high
            assert score.same_n == score.value
    key = "FD[patches]"
    assert shifted.scores[key].value > 3 * shifted.scores[key].baseline
    assert shifted.scores[key].low > shifted.scores[key].baseline
    assert equal.scores[key].value < 2 * equal.scores[key].baseline


def test_without_more_real_images_the_baseline_and_the_value_are_at_half_n():
    found = report()
    assert (found.n, found.baseline_n) == (80, 40)
    score = found.scores["FD[patches]"]
    assert score.same_n > score.value  # fewer images, more bias
    assert "N = 40" in found.conclusion


def test_both_sides_are_cut_to_one_n():
    found = report(fake=images(60, seed=2))
    assert (found.n, found.n_real, found.n_fake) == (60, 80, 60)
    assert report(n=50).n == 50


def test_same_seed_gives_the_same_report_but_for_the_seconds():
    first, second = (report().to_dict() | {"seconds": 0} for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("change", "worse", "same"),
    [
        (lambda x: F.avg_pool2d(x, 3, 1, 1), {"FD[patches]", "precision"}, set()),
        (lambda x: (x + images(80, seed=9)).clamp(-1, 1), {"FD[patches]"}, set()),
        (
            lambda x: x[x.mean(dim=(1, 2, 3)) > 0].repeat(4, 1, 1, 1)[:80],
            {"recall"},
            {"precision"},
        ),
    ],
    ids=["blur", "noise", "a dropped mode"],
)
def test_what_a_generator_does_wrong_moves_the_score_that_should_move(
    change, worse, same
):
    real = images(240, seed=1)
    good = report(real, images(seed=2)).scores
    bad = report(real, change(images(seed=2))).scores
    for key in worse:
        sign = -1 if key in ("precision", "recall") else 1
        assert sign * (bad[key].value - good[key].value) > 0
        assert not good[key].low <= bad[key].value <= good[key].high
    for key in same:
        assert good[key].low - 0.1 <= bad[key].value


# Refusals and warnings


@pytest.mark.parametrize(
    ("real", "fake", "word"),
    [
        (images(), images(channels=3), "colour"),
        (images(), images(size=12), "one size"),
        (images(), images().abs(), r"\[0, 1\] against \[-1, 1\]"),
        (images(), images() * 100, "load_images"),
        (images(), images() * float("nan"), "-1, 1"),
        (images(40), images(), "at least 50"),
        (images(), torch.zeros(80, 1, 8, 8) - 0.6, "look the same"),
        (images()[0], images(), "N, C, H, W"),
    ],
)
def test_sets_that_do_not_compare_are_refused_with_the_reason(real, fake, word):
    with pytest.raises(ValueError, match=word):
        report(real, fake)


def test_frechet_is_left_out_where_n_is_not_above_d():
    wide = Extractor("wide", "0", 64, 8, 1, Pixels())
    found = report(extractor=wide, n=60)
    assert next(iter(found.scores)) == "KID[wide]"
    assert any("FD[wide] is left out" in text for text in found.warnings)
    assert "KID[wide]" in found.conclusion


class Pixels(Patches):
    def features(self, x):
        return x.flatten(1)


def test_training_images_in_the_reference_are_warned_of():
    real = images(seed=1)
    train = torch.cat([images(seed=5), real[:7]])
    assert any("7 of 80 real" in text for text in report(real, train=train).warnings)
    assert not report(real, train=images(seed=5)).warnings


def test_copies_of_the_reference_and_repeated_fakes_are_warned_of():
    real, fake = images(seed=1), images(seed=2)
    fake[:5], fake[70:] = real[:5], fake[60:70]
    notes = " ".join(report(real, fake).warnings)
    assert "5 of 80 fakes are bytes of the reference" in notes
    assert "10 of 80 fakes repeat" in notes


def test_bytes_and_floats_of_one_image_are_one_image():
    pixels = (127.5 * (images(seed=1) + 1)).round().to(torch.uint8)
    found = report(pixels, pixels.float() / 127.5 - 1)
    assert found.scores["FD[patches]"].value == pytest.approx(0, abs=1e-6)
    assert any("80 of 80 fakes" in text for text in found.warnings)


def test_a_narrower_range_is_warned_of():
    notes = " ".join(report(fake=images(scale=0.05)).warnings)
    assert "ranges differ" in notes


# What is shown and kept


def test_json_brings_the_report_back_and_has_no_nan(equal):
    text = equal.json()
    again = json.loads(text, parse_constant=pytest.fail)
    assert Report.from_dict(again) == equal
    assert again["conclusion"] == equal.conclusion


def test_the_report_shows_all_that_a_number_needs(shifted):
    for shown in (str(shifted), shifted._repr_html_()):
        for part in ("FD[patches]", "95 %", "real vs real", "N = 80", "d = 8"):
            assert part in shown
        for part in ("patches", "abc123", "resize none", "range", "differs"):
            assert part in shown


def test_names_are_escaped_in_html():
    found = report(name="<script>")
    assert "<script>" not in found._repr_html_()


def test_compare_ranks_reports_of_one_protocol(equal, shifted):
    table = compare([shifted, equal])
    assert list(table.reports) == ["equal", "shifted"]
    assert str(table).index("equal") < str(table).index("shifted")
    assert "real vs real" in table._repr_html_() and "patches" in str(table)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"extractor": Extractor("other", "0", 8, 8, 1, Patches())}, "extractor"),
        ({"n": 60}, "in n"),
        ({"real": images(240, seed=7)}, "reference"),
    ],
)
def test_compare_refuses_reports_of_different_protocols(equal, other, word):
    options = {"real": images(240, seed=1)} | other
    with pytest.raises(ValueError, match=word):
        compare([equal, report(name="other", **options)])
