"""autoencoders: shapes, losses against their formulas, PCA against NumPy's SVD."""

import numpy as np
import pytest
import torch

from course_lib.autoencoders import (
    Autoencoder,
    Decoder,
    add_noise,
    denoising_loss,
    feature_sizes,
    fit_pca,
    reconstruction_loss,
    residual_map,
    sample_codes,
    sparsity_penalty,
)


def pictures(n=8, size=16):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 1, size, size, generator=generator) * 2 - 1


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 1), (128, 1)])
def test_an_image_comes_back_in_its_shape_and_range(size, channels):
    model = Autoencoder(latent_dim=5, width=8, image_size=size, channels=channels)
    x = torch.rand(2, channels, size, size) * 2 - 1
    x_hat = model(x)
    assert model.encoder(x).shape == (2, 5)
    assert x_hat.shape == x.shape
    assert x_hat.abs().max() <= 1


def test_each_halving_doubles_the_channels():
    assert feature_sizes(28, 32) == ([32, 64], 7)
    assert feature_sizes(32, 32) == ([32, 64, 128], 4)
    assert feature_sizes(64, 32) == ([16, 32, 64, 128], 4)


@pytest.mark.parametrize("size", [0, 27, 30, 224])
def test_a_size_that_the_network_cannot_halve_is_refused(size):
    with pytest.raises(ValueError, match="choose 28, 32, 64 or 128"):
        Autoencoder(image_size=size)


def test_the_decoder_covers_every_inner_pixel_equally():
    decoder = Decoder(latent_dim=2, width=1, image_size=32)
    last = [m for m in decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)][-1]
    torch.nn.init.ones_(last.weight)
    torch.nn.init.zeros_(last.bias)
    inner = last(torch.ones(1, 1, 16, 16))[0, 0, 1:-1, 1:-1]
    assert inner.unique().numel() == 1  # a checkerboard would have several values


def test_the_gradient_reaches_every_parameter():
    model = Autoencoder(latent_dim=3, width=4, image_size=16)
    x = pictures()
    reconstruction_loss(x, model(x)).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in model.parameters()
    )


def test_reconstruction_loss_is_the_mean_square_and_zero_on_itself():
    x = pictures()
    assert reconstruction_loss(x, x) == 0
    assert reconstruction_loss(x, x + 0.5).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="must be equal"):
        reconstruction_loss(x, x[:1])


def test_sparsity_penalty_is_the_mean_absolute_code():
    assert sparsity_penalty(torch.tensor([[1.0, -3.0], [0.0, 0.0]])).item() == 1


def test_noise_has_the_asked_strength_and_comes_from_the_generator():
    x = torch.zeros(64, 1, 16, 16)
    noisy = [add_noise(x, 0.2, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert noisy[0].std().item() == pytest.approx(0.2, rel=0.03)
    assert torch.equal(add_noise(x, 0, torch.Generator()), x)
    with pytest.raises(ValueError, match="negative"):
        add_noise(x, -1, torch.Generator())


def test_denoising_compares_the_output_with_the_clean_image():
    x = torch.zeros(64, 1, 16, 16)
    model = torch.nn.Identity()
    loss = denoising_loss(model, x, 0.5, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.25, rel=0.05)  # the noise's own variance
    silent = torch.nn.Threshold(float("inf"), 0.0)  # always answers 0
    assert denoising_loss(silent, x, 0.5, torch.Generator()) == 0


def test_residual_map_is_the_mean_absolute_error_over_channels():
    x = torch.zeros(2, 3, 4, 4)
    x_hat = x.clone()
    x_hat[1, :, 2, 3] = torch.tensor([0.3, -0.6, 0.0])
    residual = residual_map(x, x_hat)
    assert residual.shape == (2, 4, 4)
    assert residual.sum().item() == pytest.approx(0.3)
    assert residual[1, 2, 3].item() == pytest.approx(0.3)


def test_sampled_codes_have_the_mean_and_covariance_of_the_codes():
    rng = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    codes = torch.randn(500, 2, generator=rng) @ mixing.T + torch.tensor([3.0, -1.0])
    drawn = sample_codes(codes, 50_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), codes.T.cov(), atol=0.1, rtol=0)
    again = sample_codes(codes, 5, torch.Generator().manual_seed(1))
    assert torch.equal(again, sample_codes(codes, 5, torch.Generator().manual_seed(1)))


def test_pca_equals_the_singular_value_decomposition():
    x = pictures(40).cumsum(2).cumsum(3)  # a falling spectrum, as images have
    x = x / x.abs().amax()
    pca = fit_pca(x, 5)
    flat = x.flatten(1).double().numpy()
    centred = flat - flat.mean(0)
    _, _, vt = np.linalg.svd(centred, full_matrices=False)
    best = centred @ vt[:5].T @ vt[:5] + flat.mean(0)
    ours = pca.encode(x) @ pca.components + pca.mean  # before clamping
    np.testing.assert_allclose(ours.numpy(), best, atol=1e-5)
    variance = pca.encode(x).var(0)
    assert (variance.diff() <= 0).all()
    torch.testing.assert_close(pca.components @ pca.components.T, torch.eye(5))


def test_pca_with_all_components_returns_its_training_images():
    x = pictures(6)
    pca = fit_pca(x, 6)
    torch.testing.assert_close(pca(x), x, atol=1e-4, rtol=0)
    assert pca.encode(x).shape == (6, 6)
    assert pca.decode(100 * pca.encode(x)).abs().max() == 1  # stays an image


def test_pca_leaves_the_random_state_alone_and_is_repeatable():
    x = pictures(20)
    torch.manual_seed(4)
    first = fit_pca(x, 3)
    drawn = torch.rand(2)
    torch.manual_seed(4)
    assert torch.equal(drawn, torch.rand(2))
    assert torch.equal(first.components, fit_pca(x, 3).components)


@pytest.mark.parametrize("count", [0, 9])
def test_pca_refuses_more_components_than_there_are(count):
    with pytest.raises(ValueError, match="choose 1 to 8"):
        fit_pca(pictures(8), count)
