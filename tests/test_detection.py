"""Signal detection: closed forms, other libraries, how often intervals are right."""

import numpy as np
import pytest
from scipy.stats import binom, mannwhitneyu, norm
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from course_lib import detection as dt

# --- d-prime and criterion


@pytest.mark.parametrize("d", [-0.5, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("c", [-0.7, 0.0, 0.4])
def test_d_prime_and_criterion_come_back_from_their_own_model(d, c):
    hit, alarm = norm.sf(c + d / 2 - d), norm.sf(c + d / 2)
    assert dt.d_prime(hit, alarm) == pytest.approx(d)
    assert dt.criterion(hit, alarm) == pytest.approx(c)


def test_a_textbook_pair_of_rates():
    # Macmillan and Creelman's usual example: z(0.84) - z(0.16) is about 2
    assert dt.d_prime(0.8413, 0.1587) == pytest.approx(2.0, abs=1e-3)


def test_the_correction_keeps_perfect_answers_finite_and_a_coin_at_half():
    assert dt.corrected_rate(10, 10) == pytest.approx(10.5 / 11)
    assert dt.corrected_rate(0, 10) == pytest.approx(0.5 / 11)
    assert dt.corrected_rate(5, 10) == 0.5
    d, _ = dt.yes_no(10, 10, 0, 10)
    assert np.isfinite([d.value, d.low, d.high]).all()


@pytest.mark.parametrize("count, n", [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_cannot_be_are_refused(count, n):
    with pytest.raises(ValueError, match="0 to n"):
        dt.corrected_rate(count, n)


def exact_yes_no(n, d, c, held):
    """The chance of `held(estimate)`, summed over all outcomes of n + n images."""
    k = np.arange(n + 1)
    hits = binom.pmf(k, n, norm.cdf(d / 2 - c))
    alarms = binom.pmf(k, n, norm.cdf(-d / 2 - c))
    chance = hits[:, None] * alarms
    likely = np.argwhere(chance > 1e-9)
    return sum(
        chance[h, f] for h, f in likely if held(dt.yes_no(int(h), n, int(f), n)[0])
    )


@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("d, c", [(0, 0), (0, 0.5), (1, 0), (1, -0.5), (2.5, 0)])
def test_the_interval_of_yes_no_holds_the_truth_in_94_percent(n, d, c):
    assert exact_yes_no(n, d, c, lambda e: e.holds(d)) >= 0.94


@pytest.mark.parametrize("n", [10, 20, 30, 100])
@pytest.mark.parametrize("d", [0, 1, 2, 3])
def test_the_interval_of_2afc_is_exact(n, d):
    chance = binom.pmf(np.arange(n + 1), n, norm.cdf(d / 2**0.5))
    held = [dt.two_afc(k, n).holds(d) for k in range(n + 1)]
    assert (chance * held).sum() >= 0.95


def test_2afc_turns_the_share_of_right_answers_into_d_prime():
    many = dt.two_afc(7602, 10_000)  # Phi(1 / sqrt 2) = 0.7602
    assert many.value == pytest.approx(1.0, abs=1e-3)
    assert dt.two_afc(20, 20).high == float("inf")
    assert dt.two_afc(10, 20).value == 0


def test_a_higher_level_is_a_wider_interval():
    narrow, wide = dt.yes_no(15, 20, 5, 20, 0.9)[0], dt.yes_no(15, 20, 5, 20, 0.99)[0]
    assert wide.low < narrow.low < narrow.high < wide.high
    assert "90 % interval" in str(narrow)
    assert str(dt.Estimate(-0.001, -1.0, 1.0, 0.5, "")).startswith("0.00 (")


# --- ROC

RATINGS = np.array([1, 2, 2, 3, 4]), np.array([2, 3, 5, 5, 4, 1])


def test_auc_is_scikit_learns_and_mann_whitneys():
    real, fake = RATINGS
    labels = np.repeat([0, 1], [len(real), len(fake)])
    ours = dt.roc_auc(real, fake).value
    assert ours == pytest.approx(roc_auc_score(labels, np.concatenate(RATINGS)))
    u = mannwhitneyu(fake, real).statistic
    assert ours == pytest.approx(u / len(real) / len(fake))


def test_auc_interval_ends_where_newcombes_equation_holds():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=30), rng.normal(0.8, 1, 20)
    found = dt.roc_auc(real, fake)
    for end in (found.low, found.high):
        more = (25 - 1) * ((1 - end) / (2 - end) + end / (1 + end))
        variance = end * (1 - end) * (1 + more) / 600
        assert abs(end - found.value) == pytest.approx(1.96 * variance**0.5, abs=1e-3)


def test_kinds_that_do_not_overlap_still_have_an_interval():
    found = dt.roc_auc([1, 1, 2, 2], [4, 5, 5, 4])
    assert found.value == found.high == 1 and 0.4 < found.low < 0.9 and found.se > 0


def test_the_auc_interval_holds_the_truth_in_93_percent_of_studies():
    rng = np.random.default_rng(1)
    for d in (0.0, 1.0, 2.0):
        truth = norm.cdf(d / 2**0.5)
        draws = rng.normal(size=(400, 2, 25))
        held = [dt.roc_auc(a, b + d).holds(truth) for a, b in draws]
        assert np.mean(held) >= 0.93, d


def test_delong_knows_that_two_readers_saw_the_same_images():
    rng = np.random.default_rng(2)
    held, widths = [], []
    for _ in range(300):
        hard = rng.normal(size=(2, 40))  # what makes an image hard for both
        a, b = (hard + 0.5 * rng.normal(size=(2, 40)) for _ in range(2))
        found = dt.auc_difference(a[0], a[1] + 1, b[0], b[1] + 1)
        alone = 2**0.5 * dt.roc_auc(a[0], a[1] + 1).se
        held.append(found.holds(0))
        widths.append(found.se / alone)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.mean(widths) < 0.7


def test_delong_of_a_reader_with_itself_is_zero():
    real, fake = RATINGS
    found = dt.auc_difference(real, fake, real, fake)
    assert found.value == found.se == 0


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [[1, 2]]])
def test_ratings_that_cannot_be_ranked_are_refused(bad):
    with pytest.raises(ValueError, match="without NaN"):
        dt.roc_auc(bad, [1, 2])
    with pytest.raises(ValueError, match="same images"):
        dt.auc_difference([1, 2], [1, 2], [1, 2], [1, 2, 3])


# --- agreement


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(3)
    a, b = rng.integers(1, 6, (2, 30))
    for weights in (None, "quadratic"):
        ours = dt.cohen_kappa(a, b, weights)
        assert ours.value == pytest.approx(cohen_kappa_score(a, b, weights=weights))
        assert ours.low < ours.value < ours.high <= 1


def test_fleiss_kappa_of_the_papers_example():
    # Fleiss 1971, table 1 as it is often reprinted: 10 subjects, 14 raters, 0.210
    counts = [
        (0, 0, 0, 0, 14),
        (0, 2, 6, 4, 2),
        (0, 0, 3, 5, 6),
        (0, 3, 9, 2, 0),
        (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0),
        (3, 2, 6, 3, 0),
        (2, 5, 3, 2, 2),
        (6, 5, 2, 1, 0),
        (0, 2, 2, 3, 7),
    ]
    answers = [np.repeat(range(5), row) for row in counts]
    assert dt.fleiss_kappa(answers).value == pytest.approx(0.210, abs=5e-4)


def test_kappa_is_one_for_equal_readers_and_near_zero_for_strangers():
    rng = np.random.default_rng(4)
    a = rng.integers(0, 2, 400)
    assert dt.cohen_kappa(a, a).value == dt.fleiss_kappa(np.c_[a, a, a]).value == 1
    assert abs(dt.cohen_kappa(a, rng.permutation(a)).value) < 0.12
    assert np.isnan(dt.cohen_kappa([1, 1, 1], [1, 1, 1]).value)
    assert np.isnan(dt.fleiss_kappa(np.ones((4, 3))).value)


def test_the_intervals_of_kappa_hold_the_truth_in_93_percent_of_studies():
    # Both say the truth with chance 0.8: of answers in halves kappa is 0.6 ** 2
    rng = np.random.default_rng(5)
    held = {"two": [], "many": []}
    for _ in range(200):
        truth = rng.integers(0, 2, 60)
        answers = truth[:, None] ^ (rng.random((60, 3)) > 0.8)
        held["two"].append(dt.cohen_kappa(answers[:, 0], answers[:, 1]).holds(0.36))
        held["many"].append(dt.fleiss_kappa(answers).holds(0.36))
    assert min(np.mean(x) for x in held.values()) >= 0.93


def test_the_jackknife_leaves_out_each_image_in_turn():
    rng = np.random.default_rng(8)
    a, b = rng.integers(1, 4, (2, 25))
    left = [cohen_kappa_score(np.delete(a, i), np.delete(b, i)) for i in range(25)]
    se = (24 / 25 * ((np.array(left) - np.mean(left)) ** 2).sum()) ** 0.5
    assert dt.cohen_kappa(a, b).se == pytest.approx(se)


def test_readers_of_unequal_length_and_single_readers_are_refused():
    with pytest.raises(ValueError, match="same images"):
        dt.cohen_kappa([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="3 x 2"):
        dt.fleiss_kappa([[1], [2], [3]])


# --- equivalence and planning


def test_equivalence_is_the_90_percent_interval_inside_the_margins():
    for value in np.linspace(-0.6, 0.6, 25):
        low, high = value - 1.645 * 0.15, value + 1.645 * 0.15
        inside = low > -0.5 and high < 0.5
        assert (dt.tost(value, 0.15, 0.5) < 0.05) == inside


def test_no_difference_found_is_not_equivalence():
    assert dt.tost(0.0, 0.6, 0.5) > 0.05
    with pytest.raises(ValueError, match="margin"):
        dt.tost(0.0, 0.1, 0.0)


@pytest.mark.parametrize("n", [20, 50])
def test_equivalence_is_claimed_wrongly_in_at_most_6_percent(n):
    for truth in (0.5, -0.5):
        wrong = exact_yes_no(n, truth, 0, lambda e: dt.tost(e.value, e.se, 0.5) < 0.05)
        assert wrong <= 0.06


def test_the_planned_error_is_that_of_a_reader_at_the_expected_rates():
    d, _ = dt.yes_no(100, 200, 100, 200)
    assert dt.planned_se(200) == pytest.approx(d.se, rel=0.01)
    assert dt.planned_se(200) == pytest.approx((np.pi / 200) ** 0.5)


def test_power_is_what_simulated_studies_reach():
    n, rng = 120, np.random.default_rng(6)
    hits, alarms = rng.binomial(n, 0.5, (2, 1500))
    found = [dt.yes_no(h, n, f, n)[0] for h, f in zip(hits, alarms, strict=True)]
    reached = np.mean([dt.tost(e.value, e.se, 0.5) < 0.05 for e in found])
    assert reached == pytest.approx(
        dt.equivalence_power(0.5, dt.planned_se(n)), abs=0.04
    )
    hits = rng.binomial(30, norm.cdf(0.5), 1500)
    alarms = rng.binomial(30, norm.cdf(-0.5), 1500)
    found = [dt.yes_no(h, 30, f, 30)[0] for h, f in zip(hits, alarms, strict=True)]
    reached = np.mean([not e.holds(0) for e in found])
    planned = dt.difference_power(1.0, dt.planned_se(30, d=1.0))
    assert reached == pytest.approx(planned, abs=0.04)


def test_the_planner_gives_the_smallest_number_that_is_enough():
    n = dt.images_needed(0.5)
    closed = np.pi * ((norm.ppf(0.95) + norm.ppf(0.9)) / 0.5) ** 2
    assert n == int(np.ceil(closed)) == 108
    assert dt.images_needed(0.25) == pytest.approx(4 * n, abs=3)
    few = dt.images_needed(0.5, readers=12)
    se = [dt.planned_se(m, 12) for m in (few - 1, few)]
    powers = [dt.equivalence_power(0.5, x) for x in se]
    assert powers[0] < 0.8 <= powers[1]


def test_more_images_do_not_replace_readers():
    with pytest.raises(ValueError, match="more readers"):
        dt.images_needed(0.5, readers=2)
    assert dt.planned_se(10_000, 2) > 0.9 * dt.BETWEEN / 2**0.5
    assert dt.planned_se(50, 8) < dt.planned_se(50, 4)
    with pytest.raises(ValueError, match="margin > 0"):
        dt.images_needed(0)
