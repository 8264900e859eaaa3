"""The scoreboard: every shipped generator draws; the shipped table is up to date."""

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from course_lib import scoreboard
from course_lib.checkpoints import WEIGHTS
from course_lib.domains import Domains
from course_lib.features import dataset_stem
from course_lib.metrics import ssim
from course_lib.scoreboard import CONDITIONAL, COPIES, PLAIN, TRANSLATORS, UNTOUCHED

SETS = {
    "phantom": (32, 1, 3),
    "pneumoniamnist": (28, 1, 2),
    "some/folder/mednist_64.npz": (64, 1, 6),
}


def made_up(size, channels, classes, n=80):
    generator = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(n, channels, size, size, generator=generator) - 1
    return images, torch.arange(n) % classes


@pytest.fixture(scope="module")
def board():
    return scoreboard.read_scoreboard()


@pytest.mark.parametrize("dataset", SETS)
def test_every_shipped_generator_draws_images_in_range(dataset):
    images, labels = made_up(*SETS[dataset])
    generators = scoreboard.shipped_generators(
        dataset, images, labels, PLAIN + CONDITIONAL
    )
    assert len(generators) == 10
    for name, draw in generators.items():
        fake, told = draw(6, torch.Generator().manual_seed(1))
        assert fake.shape == (6, *images.shape[1:]) and fake.isfinite().all(), name
        assert fake.min() >= -1 and fake.max() <= 1 and fake.std() > 0.01, name
        assert (told is not None) == (name == COPIES or "conditional" in name)
        again, _ = draw(6, torch.Generator().manual_seed(1))
        assert torch.equal(fake, again), name


def test_classes_are_drawn_as_often_as_they_occur():
    images, _ = made_up(*SETS["phantom"])
    labels = (torch.arange(len(images)) % 10 == 0).long() * 2
    generators = scoreboard.shipped_generators("phantom", images, labels, CONDITIONAL)
    _, told = generators["conditional DCGAN"](500, torch.Generator().manual_seed(0))
    assert set(told.tolist()) == {0, 2}
    assert (told == 2).double().mean() == pytest.approx(0.1, abs=0.05)


def test_a_data_set_without_shipped_models_has_the_two_rows_without_a_network():
    images, labels = made_up(28, 1, 2)
    found = scoreboard.shipped_generators("bloodmnist", images, labels)
    assert list(found) == [COPIES, "PCA-64 Gaussian"]


def test_the_floor_has_the_n_of_the_rows():
    images, labels = made_up(32, 1, 3, n=130)
    table = scoreboard.score_generators(
        "phantom", images, labels, images, kinds=(), groups=5, permutations=9
    )
    for report in table.reports.values():
        assert report.n == report.baseline_n == 65


def two_domains(size, n=130, truth=True):
    images, _ = made_up(size, 1, 2, n=3 * n)
    a, b, other = images.split(n)
    people = np.arange(n) // 2
    known = {"truth": other, "people": people} if truth else {}
    return Domains(a, b, ("a", "b"), **known)


def test_translators_have_a_row_each_and_the_input_one():
    domains = two_domains(32)
    kinds = [k for k in TRANSLATORS if k not in ("cyclegan_ct", "cyclegan_well")]
    found = scoreboard.score_translators(
        "phantom", domains, kinds, groups=5, permutations=9
    )
    rows = {UNTOUCHED, *(TRANSLATORS[kind] for kind in kinds)}
    assert set(found.sets.reports) == set(found.pairs) == rows and len(rows) == 5
    assert {r.n for r in found.sets.reports.values()} == {65}
    mean, low, high = found.pairs[UNTOUCHED]["SSIM"]
    by_hand = ssim(domains.a, domains.truth).view(-1, 2).mean(dim=1)
    assert mean == pytest.approx(by_hand.mean().item())
    student = ttest_1samp(by_hand.double().numpy(), 0.0).confidence_interval()
    assert (low, high) == pytest.approx(tuple(student))


@pytest.mark.parametrize("dataset", SETS)
def test_the_translator_of_each_data_set_is_shipped(dataset):
    domains = two_domains(SETS[dataset][0], truth=False)
    found = scoreboard.score_translators(
        dataset, domains, ["cyclegan_well"], groups=5, permutations=9
    )
    assert set(found.sets.reports) == {UNTOUCHED, "CycleGAN"} and found.pairs == {}


def test_shipped_translators_come_nearer_to_the_target_than_their_input():
    translations = scoreboard.read_translations()
    assert len(translations) == 5
    for title, found in translations.items():
        first = {
            k: next(iter(r.scores.values())) for k, r in found.sets.reports.items()
        }
        assert first["CycleGAN"].high < first[UNTOUCHED].low, title
        if found.pairs:
            assert set(found.pairs) == set(first)
            for scores in found.pairs.values():
                assert all(low <= mean <= high for mean, low, high in scores.values())


def test_the_shipped_tables_rest_on_the_weights_that_are_shipped(board):
    tables, how = board
    translations = scoreboard.read_translations()
    assert {*tables, *translations} == set(how["sources"]) and len(tables) == 4
    for title, source in how["sources"].items():
        stem = dataset_stem(source["dataset"])
        kinds = [name.split(f"_{stem}_")[0] for name in source["weights"]]
        now = scoreboard.weights_used(source["dataset"], source["size"], tuple(kinds))
        assert source["weights"] == now and now, (
            f"{title} was computed with other weights: run {how['command']}"
        )


def test_the_shipped_tables_hold_one_protocol_each_and_say_which(board):
    tables, how = board
    whole = tables | {
        title: found.sets for title, found in scoreboard.read_translations().items()
    }
    for title, table in whole.items():
        facts = {
            (r.n, r.extractor, r.sha256, r.reference) for r in table.reports.values()
        }
        assert len(facts) == 1, title
        ((n, _, sha256, _),) = facts
        name = next(iter(table.reports.values())).extractor
        stem = name.removeprefix("course-").replace("-", "_")
        manifest = (WEIGHTS / f"extractor_{stem}.json").read_text("utf-8")
        assert sha256 in manifest
        if title in tables:
            assert n >= 500
            assert COPIES in table.reports and "PCA-64 Gaussian" in table.reports
        else:
            assert n > 64 and UNTOUCHED in table.reports
        assert all(r.p_value <= 1 for r in table.reports.values())
    assert how["command"].endswith("--data DIR") and len(how["date"]) == 10
