"""Metrics: closed forms, the well-kept packages on the same arrays, directions."""

import math
import warnings

import numpy as np
import pytest
import references
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from course_lib import distances, metrics, neighbours


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def image_pair(n=4, channels=1, size=24, dtype=torch.float64):
    """Smooth images in [-1, 1] and noisy versions of them."""
    noise = torch.randn(2, n, channels, size, size, generator=rng(), dtype=dtype)
    x = torch.tensor(gaussian_filter(noise[0].numpy(), (0, 0, 2, 2))).to(dtype) * 4
    x = x.clamp(-1, 1)
    return x, (0.9 * x + 0.1 * noise[1]).clamp(-1, 1)


def feature_pair(n, m, d, dtype=torch.float64):
    """Two sets that differ in mean and covariance, non-negative as after a ReLU."""
    real = torch.randn(n, d, generator=rng(1), dtype=torch.float64).relu()
    fake = torch.randn(m, d, generator=rng(2), dtype=torch.float64).relu() * 1.3 + 0.2
    return real.to(dtype), fake.to(dtype)


PAIRED = [metrics.psnr, metrics.ssim, metrics.ms_ssim, metrics.mae, metrics.nmi]
SETS = [
    metrics.frechet_distance,
    metrics.frechet_infinity,
    metrics.kid,
    metrics.kid_subsets,
    metrics.precision_recall,
    metrics.density_coverage,
    metrics.memorisation_distance,
    metrics.mifid,
]


# Images in pairs: closed forms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_images_have_perfect_scores(dtype):
    x, _ = image_pair(dtype=dtype)
    one = torch.ones(4, dtype=dtype)
    assert torch.equal(metrics.ssim(x, x), one)
    assert torch.equal(metrics.ms_ssim(x, x), one)
    assert torch.equal(metrics.mae(x, x), 0 * one)
    assert torch.equal(metrics.psnr(x, x), torch.full_like(one, math.inf))
    torch.testing.assert_close(metrics.nmi(x, x), 2 * one)


def test_a_constant_shift_has_the_closed_forms():
    a, b, data_range = 0.5, 0.2, 2.0
    x = torch.full((1, 1, 16, 16), a, dtype=torch.float64)
    y = torch.full_like(x, b)
    c1 = (0.01 * data_range) ** 2
    luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert metrics.mae(x, y).item() == pytest.approx(0.3)
    assert metrics.psnr(x, y).item() == pytest.approx(20 * math.log10(2 / 0.3))
    assert metrics.ssim(x, y).item() == pytest.approx(luminance, rel=1e-9)
    assert metrics.ms_ssim(x, y, scales=1).item() == pytest.approx(luminance, rel=1e-9)
    assert metrics.nmi(x, y).item() == 1


def test_psnr_counts_the_data_range_it_is_given():
    x, y = image_pair()
    gain = metrics.psnr(x, y, 2.0) - metrics.psnr(x, y, 1.0)
    torch.testing.assert_close(gain, torch.full((4,), 20 * math.log10(2)).double())


def test_a_negated_checkerboard_is_structure_reversed():
    x = 0.5 - (torch.arange(24)[:, None] + torch.arange(24)) % 2
    x = x[None, None].double()  # +- 0.5: variance 0.25, local means near 0
    c2 = (0.03 * 2) ** 2
    expected = (c2 - 0.5) / (c2 + 0.5)
    assert metrics.ssim(x, -x).item() == pytest.approx(expected, abs=1e-4)
    assert metrics.ms_ssim(x, -x).item() == 0  # a power of a negative mean is none


def test_nmi_does_not_mind_an_inverted_contrast():
    x, _ = image_pair()
    x = (x * 20).round() / 20  # values in the middle of their bins, both ways round
    levels = metrics.nmi(x, -x, bins=200)
    torch.testing.assert_close(levels, torch.full((4,), 2.0).double())


# Images in pairs: references


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("covariance", ["population", "sample"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"gaussian_weights": True, "sigma": 1.5}),
        ({"window": "uniform"}, {"win_size": 7}),
        ({"window": "uniform", "window_size": 11}, {"win_size": 11}),
    ],
)
def test_ssim_is_that_of_scikit_image(ours, theirs, covariance, channels):
    x, y = image_pair(channels=channels)
    sample = covariance == "sample"
    expected = references.skimage_ssim(
        x, y, 2.0, use_sample_covariance=sample, **theirs
    )
    values = metrics.ssim(x, y, covariance=covariance, **ours)
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_ssim_in_float32_keeps_six_digits():
    x, y = image_pair(n=32)
    x[:, :, :12] = y[:, :, :12] = -1  # the flat background of a scan
    difference = metrics.ssim(x.float(), y.float()).double() - metrics.ssim(x, y)
    assert difference.abs().max() < 1e-6


def test_ssim_of_an_oblong_image_is_that_of_its_transpose():
    x, y = (image[:, :, :14] for image in image_pair())
    torch.testing.assert_close(metrics.ssim(x, y), metrics.ssim(x.mT, y.mT))


def test_ssim_does_not_depend_on_how_images_are_batched(monkeypatch):
    x, y = image_pair(n=5)
    whole, multi = metrics.ssim(x, y), metrics.ms_ssim(x, y)
    monkeypatch.setattr(metrics, "_CHUNK", 2 * 24 * 24)
    torch.testing.assert_close(metrics.ssim(x, y), whole)
    torch.testing.assert_close(metrics.ms_ssim(x, y), multi)


def test_psnr_is_that_of_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio

    x, y = image_pair()
    pairs = zip(x.numpy(), y.numpy(), strict=True)
    expected = [peak_signal_noise_ratio(a, b, data_range=2.0) for a, b in pairs]
    np.testing.assert_allclose(metrics.psnr(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.psnr(x.float(), y.float()), expected, rtol=1e-6)


@pytest.mark.parametrize("bins", [10, 100])
def test_nmi_is_that_of_scikit_image(bins):
    from skimage.metrics import normalized_mutual_information

    x, y = image_pair()
    pairs = zip(x.numpy(), y.numpy(), strict=True)
    expected = [normalized_mutual_information(a, b, bins=bins) for a, b in pairs]
    np.testing.assert_allclose(metrics.nmi(x, y, bins=bins), expected, rtol=1e-6)


@pytest.mark.parametrize(("size", "scales"), [(24, 2), (45, 3), (161, 5)])
def test_ms_ssim_is_the_product_of_scikit_image_terms(size, scales):
    x, y = image_pair(n=1, size=size)
    options = {"gaussian_weights": True, "use_sample_covariance": False}
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    expected, a, b = 1.0, x, y
    for i, weight in enumerate(weights / weights.sum()):
        # a huge K1 makes the luminance term 1 and leaves contrast and structure
        k1 = 0.01 if i == scales - 1 else 1e6
        expected *= references.skimage_ssim(a, b, 2.0, K1=k1, **options)[0] ** weight
        a, b = (halved(image) for image in (a, b))
    assert metrics.ms_ssim_scales(size) == scales
    assert metrics.ms_ssim(x, y).item() == pytest.approx(expected, rel=1e-9)


def halved(image):
    """Means of 2 x 2 pixels, the last row and column repeated where they are odd."""
    if image.shape[-1] % 2:
        image = torch.cat([image, image[..., -1:]], dim=-1)
        image = torch.cat([image, image[..., -1:, :]], dim=-2)
    a, b = image[..., ::2, :], image[..., 1::2, :]
    return (a[..., ::2] + a[..., 1::2] + b[..., ::2] + b[..., 1::2]) / 4


# Images in pairs: what is refused


def test_ms_ssim_says_which_size_the_scales_need():
    x, y = image_pair(size=28)
    with pytest.raises(ValueError, match="at least 161 px, got 28 x 28"):
        metrics.ms_ssim(x, y, scales=5)
    with pytest.raises(ValueError, match="at least 11 px"):
        metrics.ms_ssim(x[..., :8], y[..., :8])
    assert [metrics.ms_ssim_scales(s) for s in (10, 11, 160, 161)] == [0, 1, 4, 5]


def test_ssim_says_which_size_its_window_needs():
    x, y = image_pair(size=8)
    with pytest.raises(ValueError, match="at least 11 px, got 8 x 8"):
        metrics.ssim(x, y)
    assert metrics.ssim(x, y, window_size=5).shape == (4,)


@pytest.mark.parametrize("metric", PAIRED)
def test_a_paired_metric_refuses_what_it_cannot_judge(metric):
    x, y = image_pair()
    broken = x.clone()
    broken[2, 0, 3, 3] = math.nan
    for bad, reason in [
        (x[:2], "one shape"),
        (x[0, 0], "one shape"),
        ((x * 100).byte(), "floating point"),
        (broken, "1 of 4 images"),
        (x.to("meta"), "one side is on"),
    ]:
        with pytest.raises(ValueError, match=reason):
            metric(bad, y)
        with pytest.raises(ValueError, match=reason):
            metric(x if bad.ndim == 4 else bad, bad)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.ms_ssim])
def test_a_data_range_that_is_no_width_is_refused(metric):
    x, y = image_pair()
    for width in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="data_range"):
            metric(x, y, width)


def test_unknown_windows_and_covariances_are_refused():
    x, y = image_pair()
    for option in (
        {"window": "hann"},
        {"window_size": 4},
        {"sigma": 0.0},
        {"covariance": "none"},
    ):
        with pytest.raises(ValueError, match=next(iter(option))):
            metrics.ssim(x, y, **option)


@pytest.mark.parametrize("metric", PAIRED)
def test_one_image_arrays_and_half_precision_are_taken(metric):
    x, y = image_pair(n=1)
    expected = metric(x, y)
    assert expected.shape == (1,)
    read_only = x.numpy()[:, :, ::-1]
    read_only.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        value = metric(read_only, y.numpy()[:, :, ::-1])
    torch.testing.assert_close(value, expected)
    half = metric(400 * x.half(), 400 * y.half())  # their sum is beyond half precision
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_ssim_can_be_a_loss():
    x, y = image_pair()
    guess = y.clone().requires_grad_()
    (1 - metrics.ssim(guess, x).mean()).backward()
    better = y - 10 * guess.grad
    assert (metrics.ssim(better, x) > metrics.ssim(y, x)).all()


@pytest.mark.parametrize(
    "metric",
    [lambda x, y: metrics.ssim(x, y, covariance="sample"), metrics.ms_ssim],
    ids=["ssim", "ms_ssim"],
)
def test_gradients_are_those_of_the_value(metric):
    x, y = (p[:1, :, :24, :24].double().requires_grad_() for p in image_pair())
    assert torch.autograd.gradcheck(metric, (x, y))


# Sets: closed forms


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    mixes = torch.randn(2, 6, 6, generator=rng(), dtype=torch.float64)
    (a, b), (mean_a, mean_b) = mixes @ mixes.mT, mixes[:, 0]
    expected = (mean_a - mean_b).square().sum() + (a + b).trace()
    expected -= 2 * np.trace(sqrtm((a @ b).numpy()).real)
    real = metrics.frechet_statistics_from_moments(mean_a, a, n=10)
    fake = metrics.frechet_statistics_from_moments(mean_b.numpy(), b.numpy(), n=10)
    value = metrics.frechet_distance(real, fake)
    assert value == pytest.approx(expected.item(), rel=1e-10)
    assert metrics.frechet_distance(fake, real) == pytest.approx(value, rel=1e-10)


def test_large_gaussian_samples_approach_their_closed_form():
    x = torch.randn(20_000, 4, generator=rng(), dtype=torch.float64)
    y = 2 * torch.randn(20_000, 4, generator=rng(1), dtype=torch.float64) + 1
    # |mean difference|^2 + sum (sigma_a - sigma_b)^2, for independent features
    assert metrics.frechet_distance(x, y) == pytest.approx(4 + 4, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(12, 40), (40, 12), (12, 12), (13, 12)])
def test_a_set_with_itself_has_distance_zero(n, d, dtype):
    x, _ = feature_pair(n, 2, d, dtype)
    assert 0 <= metrics.frechet_distance(x, x.clone()) < 1e-12
    assert 0 <= metrics.frechet_distance(metrics.frechet_statistics(x), x) < 1e-12


def test_a_set_with_itself_is_all_precise_covered_and_copied():
    x, _ = feature_pair(50, 2, 8)
    assert metrics.precision_recall(x, x.clone()) == (1, 1)
    assert metrics.density_coverage(x, x.clone()) == (1, 1)
    assert metrics.memorisation_distance(x, x.clone()) < 1e-15


def test_a_far_set_is_neither_precise_nor_covered():
    x, _ = feature_pair(50, 2, 8)
    assert metrics.precision_recall(x, x + 100) == (0, 0)
    assert metrics.density_coverage(x, x + 100) == (0, 0)


def test_kid_of_a_linear_kernel_is_the_distance_of_means():
    real, fake = feature_pair(30, 20, 5)
    means = real.mean(dim=0), fake.mean(dim=0)
    # |mean difference|^2 less what the finite samples add to it on average
    expected = (means[0] - means[1]).square().sum()
    expected -= real.var(dim=0).sum() / 30 + fake.var(dim=0).sum() / 20
    value = metrics.kid(real, fake, degree=1, gamma=1.0, coef=0.0)
    assert value == pytest.approx(expected.item(), rel=1e-10)


def test_inception_score_has_its_bounds():
    one_hot = torch.eye(5).repeat(4, 1)
    assert metrics.inception_score(one_hot) == pytest.approx(5, rel=1e-12)
    assert metrics.inception_score(torch.full((20, 5), 0.2)) == pytest.approx(1)
    assert metrics.inception_score(one_hot[:1]) == pytest.approx(1)


def test_orthogonal_features_are_not_memorised():
    axes = torch.eye(6)
    assert metrics.memorisation_distance(axes[:3], axes[3:]) == 1
    assert metrics.memorisation_distance(axes[:3], -5 * axes[:2]) == 0
    assert metrics.memorisation_distance(axes[:3], 0 * axes[:2]) == 1


def test_diversity_is_zero_for_copies_and_exhaustive_where_few():
    x, _ = image_pair(n=4)
    assert metrics.diversity(x[:1].expand(5, -1, -1, -1)) == 0
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = 1 - np.mean([metrics.ssim(x[i, None], x[j, None]) for i, j in pairs])
    assert metrics.diversity(x) == pytest.approx(expected)
    assert metrics.diversity(x, pairs=5) == metrics.diversity(x, pairs=5)


# Sets: references


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "m", "d"), [(40, 50, 96), (300, 250, 32), (40, 300, 96), (97, 96, 96)]
)
def test_frechet_distance_is_that_of_torchmetrics_and_torch_fidelity(n, m, d, dtype):
    real, fake = feature_pair(n, m, d, dtype)
    value = metrics.frechet_distance(real, fake)
    torchmetrics = references.torchmetrics_frechet(real, fake)
    fidelity = references.fidelity_frechet(references.fidelity_statistics(real), fake)
    assert value == pytest.approx(torchmetrics, rel=1e-5)
    assert value == pytest.approx(fidelity, rel=1e-5)
    cached = metrics.frechet_statistics(real)
    assert metrics.frechet_distance(cached, fake) == value


@pytest.mark.parametrize(("n", "m"), [(20, 23), (20, 70), (70, 20), (70, 81)])
def test_blocks_of_rows_do_not_change_the_frechet_distance(n, m, monkeypatch):
    real, fake = feature_pair(n, m, 30)  # below, beside and above d: triangles
    whole = metrics.frechet_distance(real, fake)
    monkeypatch.setattr(distances, "ROWS", 7)
    monkeypatch.setattr(distances, "_DIRECT", 0)
    assert metrics.frechet_distance(real, fake) == pytest.approx(whole, rel=1e-7)


@pytest.mark.parametrize(("n", "d"), [(20, 40), (40, 20)])
def test_both_ways_to_the_singular_values_agree(n, d, monkeypatch):
    real, fake = feature_pair(n, n + 3, d)
    direct = metrics.frechet_distance(real, fake)
    monkeypatch.setattr(distances, "_DIRECT", 0)
    assert metrics.frechet_distance(real, fake) == pytest.approx(direct, rel=1e-7)
    assert metrics.frechet_distance(real, real.clone()) < 1e-6


@pytest.mark.parametrize("metric", SETS)
def test_blocks_of_rows_do_not_show_in_the_result(metric, monkeypatch):
    real, fake = feature_pair(1010, 1005, 30)
    whole = metric(real, fake)
    monkeypatch.setattr(distances, "_DIRECT", 0)
    monkeypatch.setattr(distances, "ROWS", 25)
    monkeypatch.setattr(neighbours, "ROWS", 25)
    np.testing.assert_allclose(metric(real, fake), whole, rtol=1e-7)


def test_singular_covariances_agree_with_torchmetrics():
    real, fake = feature_pair(200, 150, 12)
    real[:, 3], fake[:, 5] = 0, fake[:, 4]  # a dead unit; two units that are one
    expected = references.torchmetrics_frechet(real, fake)
    assert metrics.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-5)
    assert metrics.frechet_distance(real, real) < 1e-6


def test_a_constant_set_is_at_the_distance_of_means_and_spread():
    constant, (x, _) = torch.full((30, 4), 0.1).double(), feature_pair(20, 2, 4)
    expected = (x.mean(dim=0) - constant[0]).square().sum() + x.var(dim=0).sum()
    value = metrics.frechet_distance(constant, x)
    assert value == pytest.approx(expected.item(), rel=1e-10)
    assert metrics.frechet_distance(constant, constant) == 0


def test_statistics_rebuild_the_sample_covariance():
    for n, d in [(10, 20), (50, 6)]:
        x, _ = feature_pair(n, 2, d)
        statistics = metrics.frechet_statistics(x)
        torch.testing.assert_close(statistics.covariance, torch.cov(x.T))
        moments = (x.mean(dim=0), torch.cov(x.T))
        again = metrics.frechet_statistics_from_moments(*moments, n=n)
        torch.testing.assert_close(again.covariance, statistics.covariance)


def test_moments_that_are_none_are_refused():
    mean, covariance = torch.zeros(2), torch.eye(2)
    for bad, reason in [
        (torch.eye(3), "covariance"),
        (torch.tensor([[1.0, 0.5], [0.1, 1.0]]), "not symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalues"),
        (covariance * math.nan, "NaN"),
    ]:
        with pytest.raises(ValueError, match=reason):
            metrics.frechet_statistics_from_moments(mean, bad, n=9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kid_subsets_are_those_of_torchmetrics(dtype):
    real, fake = feature_pair(600, 550, 24, dtype)
    # torchmetrics draws from the same generator: the very same subsets
    expected = references.torchmetrics_kid(real, fake, 7, 100, seed=3)
    value = metrics.kid_subsets(real, fake, subsets=7, subset_size=100, seed=3)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(60, 100), (600, 20)])
def test_full_kid_is_that_of_torch_fidelity(n, d):
    real, fake = feature_pair(n, n, d)
    expected = references.fidelity_kid(real, fake, 1, n)
    assert metrics.kid(real, fake) == pytest.approx(expected, rel=1e-5)


def test_full_kid_is_one_subset_of_everything():
    real, fake = feature_pair(80, 80, 6)
    mean, std = metrics.kid_subsets(real, fake, subsets=3, subset_size=80)
    assert mean == pytest.approx(metrics.kid(real, fake), rel=1e-10)
    assert std < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inception_score_is_that_of_torch_fidelity(dtype):
    logits = 3 * torch.randn(101, 7, generator=rng(), dtype=dtype)
    p = logits.softmax(dim=1)
    whole, _ = references.fidelity_inception_score(logits, 1)
    assert metrics.inception_score(p) == pytest.approx(whole, rel=1e-5)
    expected = references.fidelity_inception_score(logits, 10)
    values = metrics.inception_score_splits(p, splits=10, seed=None)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(600, 40, 6, 3), (40, 530, 60, 1)])
def test_precision_and_recall_are_those_of_torch_fidelity(n, m, d, k, dtype):
    real, fake = feature_pair(n, m, d, dtype)
    expected = references.fidelity_precision_recall(real, fake, k)
    assert min(expected) < 1  # or the comparison says nothing
    np.testing.assert_allclose(
        metrics.precision_recall(real, fake, k=k), expected, rtol=1e-5
    )


def test_density_and_coverage_are_those_of_the_definition():
    real, fake = feature_pair(600, 40, 6)
    within = torch.cdist(real, real, compute_mode="donot_use_mm_for_euclid_dist")
    radius = within.sort(dim=1).values[:, 4]  # the 4th neighbour: the 0th is itself
    across = torch.cdist(fake, real, compute_mode="donot_use_mm_for_euclid_dist")
    inside = (across < radius).double()
    expected = inside.sum(dim=1).mean() / 4, inside.amax(dim=0).mean()
    assert 0 < expected[1] < 1
    value = metrics.density_coverage(real, fake, k=4)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_memorisation_distance_is_that_of_torchmetrics():
    train, fake = feature_pair(40, 30, 12)
    expected = references.torchmetrics_memorisation(train, fake)
    assert metrics.memorisation_distance(train, fake) == pytest.approx(expected)
    distance = metrics.frechet_distance(train, fake)
    assert metrics.mifid(train, fake, threshold=0) == distance
    assert metrics.mifid(train, fake, threshold=2) == pytest.approx(distance / expected)


def test_equal_points_have_distance_zero_far_from_the_origin():
    x = 1e3 + torch.randn(40, 64, generator=rng(), dtype=torch.float64)
    for _, d2 in neighbours.squared_distances(x, x.flip(0)):
        assert (d2.fliplr().diagonal() == 0).all()
        assert (d2 == 0).sum() == 40
    doubled = x.repeat_interleave(2, dim=0)  # radius 0: only the very same point is in
    assert metrics.precision_recall(doubled, x, k=1) == (1, 1)
    assert metrics.precision_recall(x, doubled, k=1) == (1, 1)


# Sets: estimates in N


def test_frechet_distance_is_biased_in_n_and_kid_is_not():
    real, fake = torch.randn(2, 1000, 64, generator=rng(), dtype=torch.float64)
    few, many = metrics.frechet_distance(real[:100], fake[:100]), None
    many = metrics.frechet_distance(real, fake)
    assert few > 5 * many > 0
    kids = [
        metrics.kid(real[i : i + 100], fake[i : i + 100]) for i in range(0, 1000, 100)
    ]
    assert abs(np.mean(kids)) < 3 * np.std(kids) / 10**0.5
    assert min(kids) < 0 < max(kids)


def test_extrapolation_takes_most_of_the_bias_away():
    real, fake = torch.randn(2, 800, 16, generator=rng(), dtype=torch.float64)
    plain = metrics.frechet_distance(real, fake)
    assert abs(metrics.frechet_infinity(real, fake)) < plain / 3
    shifted = metrics.frechet_infinity(real, fake + 1)
    assert abs(shifted - 16) < abs(metrics.frechet_distance(real, fake + 1) - 16)


# Sets: what is refused


@pytest.mark.parametrize("metric", SETS)
def test_a_set_metric_refuses_what_it_cannot_judge(metric):
    real, fake = feature_pair(1200, 1200, 6)
    broken = fake.clone()
    broken[7, 2] = math.nan
    metric(real, fake)
    for bad, reason in [
        (broken, "1 of 1200"),
        (fake[:, :5], "one extractor"),
        ((fake * 100).int(), "floating point"),
        (fake[0], r"\(N, d\)"),
        (fake[:0], "at least"),
        (fake.to("meta"), "one side is on"),
    ]:
        with pytest.raises(ValueError, match=reason):
            metric(real, bad)
        with pytest.raises(ValueError, match=reason):
            metric(bad, real)


def test_too_few_features_are_refused():
    real, fake = feature_pair(10, 3, 4)
    for call, reason in [
        (lambda: metrics.frechet_distance(real, fake[:1]), "at least 2"),
        (lambda: metrics.kid(real[:1], fake), "at least 2"),
        (lambda: metrics.kid_subsets(real, fake, subset_size=4), "cannot draw"),
        (lambda: metrics.precision_recall(real, fake, k=3), "at least 4"),
        (lambda: metrics.density_coverage(real, fake, k=0), "k must"),
        (lambda: metrics.frechet_infinity(real, fake, smallest=3), "2 sizes"),
        (lambda: metrics.diversity(image_pair(n=1)[0]), "at least 2"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()


def test_logits_are_no_probabilities():
    logits = torch.randn(20, 5, generator=rng())
    for score in (metrics.inception_score, metrics.inception_score_splits):
        with pytest.raises(ValueError, match="softmax"):
            score(logits)
        with pytest.raises(ValueError, match="softmax"):
            score(logits.abs())
    with pytest.raises(ValueError, match="parts"):
        metrics.inception_score_splits(logits.softmax(dim=1), splits=21)


# Directions: what is done to images, and which metric notices

MODES = 4


def blobs(n, seed):
    """(n, 1, 16, 16): a bright blob in one of four corners, and which corner."""
    generator = rng(seed)
    corner = torch.arange(n) % MODES
    centre = 4 + 7 * torch.stack((corner // 2, corner % 2), dim=1).float()
    centre = centre + 0.7 * torch.randn(n, 2, generator=generator)
    width = 1.2 + 0.4 * torch.rand(n, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    distance = (y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2
    return (2 * torch.exp(-distance / (2 * width**2)) - 1)[:, None], corner


def blur(images):
    return torch.tensor(gaussian_filter(images.numpy(), (0, 0, 1.5, 1.5)))


def noisy(images):
    return images + 0.3 * torch.randn(images.shape, generator=rng(9))


def extract(images):
    """A fixed network with random weights: features (N, 36), and it sees place."""
    weights = torch.randn(4, 1, 5, 5, generator=rng(5)) / 5
    hidden = torch.nn.functional.conv2d(images, weights, stride=2).relu()
    return torch.nn.functional.avg_pool2d(hidden, 2).flatten(1)


@pytest.fixture(scope="module")
def sets():
    train, held_out = blobs(400, 0), blobs(400, 1)
    good = blobs(400, 2)[0]
    fakes = {
        "good": good,
        "blur": blur(good),
        "noise": noisy(good),
        "dropped mode": good[held_out[1] != 0].repeat(2, 1, 1, 1)[:400],
        "copies": train[0].flip(0),
    }
    return extract(train[0]), {name: extract(images) for name, images in fakes.items()}


def test_blur_and_noise_lower_the_paired_scores():
    x, _ = blobs(16, 0)
    for worse in (blur(x), noisy(x)):
        assert (metrics.ssim(worse, x) < 0.95).all()
        assert (metrics.psnr(worse, x) < 30).all()
        assert (metrics.nmi(worse, x) < metrics.nmi(x, x)).all()
    twice = noisy(noisy(x))
    for metric in (metrics.ssim, metrics.psnr, metrics.ms_ssim):
        assert (metric(twice, x) < metric(noisy(x), x)).all()
    assert (metrics.mae(twice, x) > metrics.mae(noisy(x), x)).all()


def test_blur_and_noise_and_a_dropped_mode_raise_the_distances(sets):
    real, fakes = sets
    for metric in (metrics.frechet_distance, metrics.kid):
        good = metric(real, fakes["good"])
        for name in ("blur", "noise", "dropped mode"):
            assert metric(real, fakes[name]) > 5 * abs(good), name


def test_blur_and_noise_lower_precision_and_a_dropped_mode_does_not(sets):
    real, fakes = sets
    precision = {k: metrics.precision_recall(real, f)[0] for k, f in fakes.items()}
    density = {k: metrics.density_coverage(real, f)[0] for k, f in fakes.items()}
    for name in ("blur", "noise"):
        assert precision[name] < precision["good"] / 2, name
        assert density[name] < density["good"] / 2, name
    assert abs(precision["dropped mode"] - precision["good"]) < 0.05
    assert abs(density["dropped mode"] - density["good"]) < 0.1


def test_a_dropped_mode_lowers_recall_and_coverage_by_its_share(sets):
    real, fakes = sets
    for metric in (metrics.precision_recall, metrics.density_coverage):
        good, dropped = (
            metric(real, fakes["good"])[1],
            metric(real, fakes["dropped mode"])[1],
        )
        assert good - dropped == pytest.approx(1 / MODES, abs=0.1)


def test_copies_are_rewarded_by_distances_and_noticed_by_memorisation(sets):
    real, fakes = sets
    assert metrics.frechet_distance(real, fakes["copies"]) < 1e-6
    assert metrics.precision_recall(real, fakes["copies"]) == (1, 1)
    assert metrics.memorisation_distance(real, fakes["copies"]) < 1e-6
    honest = metrics.memorisation_distance(real, fakes["good"])
    assert honest > 1e-4
    assert metrics.memorisation_distance(real, fakes["dropped mode"]) > honest / 2
    some = torch.cat((fakes["copies"][:200], fakes["good"][:200]))
    assert metrics.memorisation_distance(real, some) == pytest.approx(
        honest / 2, rel=0.3
    )


def test_a_dropped_mode_lowers_diversity():
    images, corner = blobs(120, 0)
    assert metrics.diversity(images[corner == 0]) < metrics.diversity(images) / 1.3


def test_inception_score_never_sees_real_images():
    wrong_but_sure = torch.eye(MODES).repeat(10, 1)
    unsure = wrong_but_sure * 0.4 + 0.15
    one_class = wrong_but_sure[:1].expand(40, -1)
    best = metrics.inception_score(wrong_but_sure)
    assert best > metrics.inception_score(unsure) > metrics.inception_score(one_class)
