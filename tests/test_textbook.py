"""The textbook forms of lesson 06 give what the library gives."""

import pytest
import torch

from course_lib import metrics, textbook


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator, dtype=torch.double)
    a, b = torch.randn(2, 40, 6, generator=generator, dtype=torch.double) @ mix
    return a, b + 0.3


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(5, 3, 16, 20, generator=generator, dtype=torch.double) - 1
    return x, x + 0.2 * torch.randn(x.shape, generator=generator, dtype=torch.double)


def test_psnr_and_ssim_are_the_librarys(pairs):
    assert torch.allclose(textbook.peak_snr(*pairs), metrics.psnr(*pairs))
    for data_range in (2.0, 1.0):
        expected = metrics.ssim(*pairs, data_range)
        assert torch.allclose(textbook.gaussian_ssim(*pairs, data_range), expected)


def test_frechet_distance_and_kid_are_the_librarys(features):
    a, b = features
    expected = metrics.frechet_distance(a, b)
    assert textbook.frechet_of_gaussians(a, b).item() == pytest.approx(expected)
    kernels = [textbook.cubic_kernel(u, v) for u, v in ((a, a), (b, b), (a, b))]
    assert textbook.unbiased_mmd(*kernels).item() == pytest.approx(metrics.kid(a, b))


def test_the_frechet_distance_of_fewer_images_than_features_is_a_number():
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 4, 9, generator=generator, dtype=torch.double)
    found = textbook.frechet_of_gaussians(a, b).item()
    assert found == pytest.approx(metrics.frechet_distance(a, b), abs=1e-6)


def test_covariance_is_torchs(features):
    assert torch.allclose(textbook.covariance(features[0]), torch.cov(features[0].T))


def test_features_are_what_the_last_layer_is_given_without_gradient():
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    x = torch.randn(3, 1, 2, 2)
    found = textbook.penultimate(net, x)
    assert torch.allclose(net[2](found), net.eval()(x)) and not found.requires_grad


def test_the_line_finds_the_value_at_infinity():
    sizes = torch.tensor([50, 100, 400])
    assert textbook.at_infinity(sizes, 2 + 30 / sizes).item() == pytest.approx(2)
