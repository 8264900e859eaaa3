"""variational: losses against torch.distributions, the linear case exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Independent, Normal, kl_divergence

from course_lib.autoencoders import Decoder, Encoder
from course_lib.variational import (
    VAE,
    ConditionalVAE,
    elbo_parts,
    free_bits,
    gaussian_nll,
    importance_weighted_bound,
    kl_to_standard_normal,
    linear_rate_distortion,
    log_normal,
    mlp_vae,
    ppca_log_evidence,
    reparameterise,
    slerp,
)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(n=8, size=16):
    return draw(n, 1, size, size).clamp(-1, 1)


def conv_vae(latent_dim=3, classes=0):
    encoder = Encoder(2 * latent_dim, 4, 16, 1 + classes)
    decoder = Decoder(latent_dim + classes, 4, 16)
    if classes:
        return ConditionalVAE(encoder, decoder, latent_dim, classes)
    return VAE(encoder, decoder, latent_dim)


def test_kl_equals_torch_distributions_and_is_zero_at_the_prior():
    mu, logvar = draw(5, 3), draw(5, 3, seed=1)
    q = Normal(mu, (0.5 * logvar).exp())
    torch.testing.assert_close(
        kl_to_standard_normal(mu, logvar), kl_divergence(q, Normal(0.0, 1.0))
    )
    zero = torch.zeros(2, 3)
    assert torch.equal(kl_to_standard_normal(zero, zero), zero)


def test_nll_equals_torch_distributions():
    x, x_hat, log_sigma = pictures(), pictures() * 0.5, torch.tensor(-1.3)
    p = Independent(Normal(x_hat, log_sigma.exp()), 3)
    torch.testing.assert_close(gaussian_nll(x, x_hat, log_sigma), -p.log_prob(x))


def test_the_noise_that_explains_best_is_the_root_mean_square_error():
    x, x_hat = pictures(), pictures() * 0.5
    log_sigma = (x - x_hat).square().mean().sqrt().log().requires_grad_()
    gaussian_nll(x, x_hat, log_sigma).mean().backward()
    assert abs(log_sigma.grad.item()) < 1e-3


def test_log_normal_equals_torch_distributions():
    z, mu, logvar = draw(2, 4, 3), draw(2, 4, 3, seed=1), draw(2, 4, 3, seed=2)
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    torch.testing.assert_close(log_normal(z, mu, logvar), q.log_prob(z))


def test_a_draw_has_the_asked_mean_and_spread_and_passes_gradients():
    mu = torch.tensor([[1.0, -2.0]]).expand(20000, 2).clone().requires_grad_()
    logvar = torch.tensor([[0.0, -2.0]]).expand(20000, 2).clone().requires_grad_()
    torch.manual_seed(0)
    z = reparameterise(mu, logvar)
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(0), (0.5 * logvar[0]).exp(), atol=0.03, rtol=0)
    z.sum().backward()
    assert torch.equal(mu.grad, torch.ones_like(mu))
    assert logvar.grad.abs().sum() > 0


def test_images_of_unequal_shape_are_refused():
    mu = torch.zeros(8, 2)
    with pytest.raises(ValueError, match="must be equal"):
        elbo_parts(pictures(), pictures()[:1], mu, mu, torch.tensor(0.0))


def test_free_bits_leave_what_costs_more_alone_and_stop_the_gradient_below():
    kl = torch.tensor([[1.0, 0.1], [3.0, 0.1]], requires_grad=True)
    total = free_bits(kl, 0.5)
    assert total.item() == 2.5
    total.backward()
    assert torch.equal(kl.grad, torch.tensor([[0.5, 0.0], [0.5, 0.0]]))


def test_the_importance_weighted_bound_averages_weights_and_grows_with_draws():
    w = draw(4, 64) * 3
    torch.testing.assert_close(importance_weighted_bound(w), w.exp().mean(1).log())
    assert torch.equal(importance_weighted_bound(w[:, :1]), w[:, 0])
    assert (importance_weighted_bound(w) > w.mean(1)).all()


def linear_vae(spectrum, sigma, dim):
    """The best linear VAE of axis-aligned data: its posterior is known exactly."""
    gain = (spectrum[:dim] - sigma**2).clamp(min=0).sqrt()
    shrink = gain / (gain**2 + sigma**2)
    posterior = sigma**2 / (gain**2 + sigma**2)
    return gain, shrink, posterior


def test_ppca_evidence_equals_the_multivariate_normal_and_the_elbo_has_no_gap():
    spectrum, k = torch.tensor([4.0, 2.0, 0.3, 0.3, 0.3]).double(), 2
    x = (draw(6, 5).double() * spectrum.sqrt()).view(6, 1, 1, 5)
    components = torch.eye(5).double()[:k]
    exact = ppca_log_evidence(
        x, torch.zeros(5).double(), components, spectrum[:k], 0.3
    ).numpy()
    wanted = multivariate_normal(np.zeros(5), np.diag(spectrum)).logpdf(x.view(6, 5))
    np.testing.assert_allclose(exact, wanted)

    gain, shrink, posterior = linear_vae(spectrum, math.sqrt(0.3), k)
    mu = shrink * x.view(6, 5)[:, :k]
    kl = kl_to_standard_normal(mu, posterior.log().expand(6, k)).sum(1)
    x_hat = torch.zeros_like(x)
    x_hat[..., :k] = (gain * mu)[:, None, None]
    expected = gaussian_nll(x, x_hat, torch.tensor(0.3).double().sqrt().log())
    expected = expected + 0.5 * (gain**2 * posterior).sum() / 0.3  # spread of the draw
    np.testing.assert_allclose((-expected - kl).numpy(), wanted)


def test_linear_rate_and_distortion_are_those_of_the_best_linear_vae():
    spectrum, sigma = torch.tensor([4.0, 1.0, 0.2, 0.1]).double(), 0.6
    gain, shrink, posterior = linear_vae(spectrum, sigma, 2)
    # mean KL over codes: E[mu^2] is the variance of shrink * x
    mean_square = shrink**2 * spectrum[:2]
    rate = 0.5 * (mean_square + posterior - 1 - posterior.log()).sum()
    error = ((1 - gain * shrink) ** 2 * spectrum[:2] + gain**2 * posterior).sum()
    found = linear_rate_distortion(spectrum, sigma, 2)
    assert found == pytest.approx((rate.item(), error.item() + 0.3, 2))
    assert linear_rate_distortion(spectrum, 3.0, 2) == pytest.approx((0, 5.3, 0))


def test_slerp_meets_its_ends_and_keeps_the_norm():
    a = torch.nn.functional.normalize(draw(5, 16)) * 4
    b = torch.nn.functional.normalize(draw(5, 16, seed=1)) * 4
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, b, 0.3).norm(dim=1), torch.full((5,), 4.0))
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)  # and no 0 / 0


@pytest.mark.parametrize("model", [conv_vae(), mlp_vae(3, 8, 16)])
def test_a_vae_draws_images_and_its_loss_reaches_every_parameter(model):
    x = pictures()
    x_hat, mu, logvar = model(x)
    assert x_hat.shape == x.shape and mu.shape == logvar.shape == (8, 3)
    nll, kl = elbo_parts(x, x_hat, mu, logvar, model.log_sigma)
    assert nll.shape == (8,) and kl.shape == (8, 3) and (kl >= 0).all()
    (nll + kl.sum(1)).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    drawn = [model.sample(4, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert drawn[0].shape == (4, 1, 16, 16) and drawn[0].abs().max() <= 1
    assert not torch.equal(drawn[0], drawn[2])


def test_an_image_unlike_all_others_costs_no_millions_of_nats():
    model = mlp_vae(3, 8, 16)
    torch.nn.init.constant_(model.encoder[-1].bias, 30.0)
    _, logvar = model.encode(pictures())
    assert (logvar == 2).all()
    assert kl_to_standard_normal(torch.zeros(8, 3), logvar).max() < 3


def test_a_conditional_vae_is_told_the_class_on_both_sides():
    model = conv_vae(classes=2).eval()
    x, zeros, ones = pictures(), torch.zeros(8).long(), torch.ones(8).long()
    x_hat, mu, logvar = model(x, zeros)
    assert x_hat.shape == x.shape and mu.shape == logvar.shape == (8, 3)
    assert not torch.allclose(model.encode(x, ones)[0], mu)
    assert not torch.allclose(model.decode(mu, ones), model.decode(mu, zeros))
    same = [model.sample(8, torch.Generator().manual_seed(3), ones) for _ in "ab"]
    assert torch.equal(*same)


def test_training_finds_the_evidence_of_linear_data():
    """A linear VAE, trained, comes up to the exact log p(x) that it cannot exceed."""
    torch.manual_seed(0)
    basis = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    x = (draw(512, 1) @ basis * 2 + 0.3 * draw(512, 4, seed=1)).view(-1, 1, 2, 2)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    decoder = torch.nn.Sequential(
        torch.nn.Linear(1, 4), torch.nn.Unflatten(1, (1, 2, 2))
    )
    model = VAE(encoder, decoder, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(400):
        nll, kl = elbo_parts(x, *model(x), model.log_sigma)
        loss = (nll + kl.sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows = x.flatten(1) - x.flatten(1).mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    exact = ppca_log_evidence(
        x, x.flatten(1).mean(0), vectors[:, -1:].T, values[-1:], values[:-1].mean()
    ).mean()
    assert exact.item() - 0.1 < -loss.item() < exact.item() + 0.1
