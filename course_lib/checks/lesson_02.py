"""Checks of lesson 02: reparameterise, KL, likelihood, slerp, free bits, the bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import exercise, is_near, seeded, which_mistake


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


@exercise(
    "E02.1",
    "right: the noise depends on nothing, and the gradient reaches mean and variance.",
)
def check_reparameterise(student: Callable[..., Tensor]) -> str | None:
    n = 20_000
    mu = torch.tensor([1.0, -2.0, 0.5]).repeat(n, 1).requires_grad_()
    logvar = torch.tensor([0.8, -1.2, 2.0]).repeat(n, 1).requires_grad_()
    with torch.random.fork_rng(devices=[]):  # leaves the lesson's numbers alone
        torch.manual_seed(0)
        z = student(mu, logvar)
    if z.shape != mu.shape:
        return f"return one draw a code, {tuple(mu.shape)}, not {tuple(z.shape)}."
    variance, spread = logvar[0].detach().exp(), z.detach().var(dim=0)
    centre = z.detach().mean(dim=0)
    if is_near(spread, torch.zeros(3), 1e-6):
        if is_near(centre, mu[0].detach(), 1e-4):
            return "there is no noise in it: this is the mean, an autoencoder."
        return "all codes got the same noise: draw it in the shape of the batch."
    if is_near(centre, mu[0].detach() + 0.5 * variance.sqrt(), 0.05):
        return "torch.rand is uniform on [0, 1]; the noise is Gaussian: torch.randn."
    if not is_near(centre, mu[0].detach(), 0.08):
        return "the draws do not lie around mu: add it."
    wrong = {
        "you multiplied the noise by exp(logvar), the variance; it needs the "
        "standard deviation, exp(0.5 * logvar).": variance.square(),
        "you multiplied the noise by logvar itself: take exp(0.5 * logvar).": logvar[0]
        .detach()
        .square(),
        "the spread is 1 whatever the variance is: scale the noise.": torch.ones(3),
    }
    for hint, value in wrong.items():
        if torch.allclose(spread, value, rtol=0.08):
            return hint
    if not torch.allclose(spread, variance, rtol=0.08):
        return f"a variance of {variance[0]:.2f} was asked, and {spread[0]:.2f} came."
    if not z.requires_grad:
        return "no gradient passes: leave out no_grad(), detach() and .sample()."
    grads = torch.autograd.grad(z.sum(), (mu, logvar), allow_unused=True)
    if grads[0] is None or not is_near(grads[0], torch.ones_like(mu)):
        return "the gradient does not reach mu."
    if grads[1] is None:
        return "the gradient does not reach logvar: the std must not be detached."
    return None


@exercise(
    "E02.2",
    "right: zero at the prior, positive elsewhere, and equal to the average of "
    "log q - log p over draws.",
)
def check_kl_to_standard_normal(student: Callable[..., Tensor]) -> str | None:
    mu = torch.tensor([[0.0, 1.5, -0.5], [2.0, 0.0, 0.3]])
    logvar = torch.tensor([[0.0, -1.0, 0.7], [0.4, -2.0, -0.3]])
    answer = student(mu, logvar)
    right = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
    if is_near(answer, right):
        return None
    if answer.shape == (2,) and is_near(answer, right.sum(1)):
        return "right in sum, but keep the dimensions apart: (N, L), not (N,)."
    if answer.shape == ():
        return "one number is left of a batch: return (N, L), nothing summed."
    if answer.shape != right.shape:
        return f"return shape {tuple(right.shape)}, not {tuple(answer.shape)}."
    v = logvar.exp()
    wrong = {
        "the sign is the other way round: a KL is never negative.": -right,
        "the factor 1/2 is missing.": 2 * right,
        "without the - 1 the KL is not zero at the prior.": right + 0.5,
        "you took logvar for the log of the standard deviation: the variance is "
        "exp(logvar), not exp(2 * logvar).": 0.5
        * (mu.square() + (2 * logvar).exp() - 1 - 2 * logvar),
        "mu must be squared: a mean of -2 is as far from 0 as one of 2.": 0.5
        * (mu + v - 1 - logvar),
        "logvar stands where the variance belongs: take its exp.": 0.5
        * (mu.square() + logvar - 1 - v.log().abs().log1p()),
        "this is the KL from the prior to q; it is not symmetric, and we need q "
        "first.": 0.5 * (logvar + (1 + mu.square()) / v - 1),
    }
    if hint := which_mistake(answer, wrong):
        return hint
    zero = torch.zeros(1, 3)
    if not is_near(student(zero, zero), zero):
        return "where q is the prior (mu = 0, logvar = 0) the KL must be 0."
    if bool((answer < -1e-6).any()):
        return "a KL is never negative, and yours is: look at the signs."
    return "it disagrees with the average of log q(z) - log p(z) over draws of q."


@exercise(
    "E02.3",
    "right: in nats, summed over pixels, and least where sigma is the root mean "
    "square error.",
)
def check_gaussian_nll(student: Callable[..., Tensor]) -> str | None:
    x = _draw(3, 2, 4, 4).clamp(-1, 1)
    x_hat, log_sigma = 0.5 * x + 0.1 * _draw(3, 2, 4, 4, seed=1), torch.tensor(-0.7)
    answer = student(x, x_hat, log_sigma)
    square, sigma = (x - x_hat).square(), log_sigma.exp()
    constant = 0.5 * math.log(2 * math.pi)
    terms = 0.5 * square / sigma**2 + log_sigma + constant
    right = terms.flatten(1).sum(1)
    if is_near(answer, right, 1e-3):
        return None
    if answer.shape == () and is_near(answer, terms.mean()):
        return "a mean over the pixels is 32 times too small against a KL that is a sum"
    if answer.shape == ():
        return "one number is left of the batch: sum over the pixels of each image."
    if answer.shape != right.shape:
        return f"return one number an image, (3,), not {tuple(answer.shape)}."
    scaled = 0.5 * square / sigma**2
    wrong = {
        "you took the mean over the pixels: log probabilities of independent pixels "
        "add up. Beside a summed KL, a mean is the most common bug of all.": (
            terms.flatten(1).mean(1)
        ),
        "the term log sigma is missing: without it a huge sigma would cost nothing.": (
            scaled + constant
        )
        .flatten(1)
        .sum(1),
        "log sigma and the constant count once for each pixel, not once an image.": (
            scaled.flatten(1).sum(1) + log_sigma + constant
        ),
        "the sign: this is log p, and the loss is - log p.": -right,
        "divide by sigma squared, not by sigma.": (
            0.5 * square / sigma + log_sigma + constant
        )
        .flatten(1)
        .sum(1),
        "the constant 0.5 * log(2 pi) is missing: it moves nothing in training, and "
        "all comparisons of models.": (scaled + log_sigma).flatten(1).sum(1),
        "the factor 1/2 before the square is missing.": (
            2 * scaled + log_sigma + constant
        )
        .flatten(1)
        .sum(1),
        "log_sigma is a logarithm: sigma is log_sigma.exp().": (
            0.5 * square / log_sigma**2 + log_sigma + constant
        )
        .flatten(1)
        .sum(1),
    }
    if hint := which_mistake(answer, wrong, 1e-3):
        return hint
    return "it is not -log N(x; x_hat, sigma^2) summed over the pixels of an image."


@exercise(
    "E02.4",
    "right: the arc keeps the norm that draws have, and a line cuts through the "
    "middle.",
)
def check_slerp(student: Callable[..., Tensor]) -> str | None:
    a, b = (3 * torch.nn.functional.normalize(_draw(4, 8, seed=s)) for s in (0, 1))
    answer = student(a, b, 0.25)
    if answer.shape != a.shape:
        return f"return codes of shape {tuple(a.shape)}, not {tuple(answer.shape)}."
    if is_near(answer, 0.75 * a + 0.25 * b):
        return "this is the straight line: its middle is too short."
    if is_near(student(a, b, 0.0), b) and is_near(student(a, b, 1.0), a):
        return "start and end are exchanged: t = 0 must give a."
    norm = answer.norm(dim=1)
    if is_near(norm, torch.ones(4), 1e-3):
        return "the codes came back with norm 1: normalise for the angle alone."
    cosine = (a * b).sum(1) / 9
    angle = torch.acos(cosine)[:, None]
    arc = (torch.sin(0.75 * angle) * a + torch.sin(0.25 * angle) * b) / angle.sin()
    raw = (a * b).sum(1).clamp(-1, 1)
    raw_angle = torch.acos(raw)[:, None].clamp(1e-3, math.pi - 1e-3)
    unscaled = torch.sin(0.75 * raw_angle) * a + torch.sin(0.25 * raw_angle) * b
    whole = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    one = (torch.sin(0.75 * whole) * a + torch.sin(0.25 * whole) * b) / whole.sin()
    wrong = {
        "you forgot to divide by sin(omega).": arc * angle.sin(),
        "the angle needs unit vectors: divide the product by both norms.": unscaled
        / raw_angle.sin(),
        "one angle for the whole batch: each pair has its own (dim=1).": one,
    }
    if hint := which_mistake(answer, wrong, 1e-3):
        return hint
    if not is_near(answer, arc, 1e-3):
        return "the way from a to b is not the arc of the formula."
    same = student(a, 2 * a, 0.5)
    if not bool(same.isfinite().all()):
        return "a and b of one direction give 0 / 0: join them by the line there."
    if not is_near(same, 1.5 * a, 1e-2):
        return "half-way from a to 2 a lies 1.5 a."
    return None


@exercise(
    "E02.5",
    "right: below the floor a dimension costs the same and gets no gradient, so "
    "nothing pushes it to zero.",
)
def check_free_bits(student: Callable[..., Tensor]) -> str | None:
    # Means over the batch: 1.0 and 0.2. The first has one image below the floor.
    kl, floor = torch.tensor([[1.8, 0.1], [0.2, 0.3]], requires_grad=True), 0.5
    answer = student(kl, floor)
    if answer.ndim:
        return f"return one number, not shape {tuple(answer.shape)}."
    wrong = {
        "you set the floor for each image. Then an image that needs a dimension "
        "little pays for it nevertheless: mean over the batch first.": (
            kl.clamp(min=floor).mean(0).sum()
        ),
        "clamp(max=...) puts a ceiling on the KL: dimensions must not carry *more*.": (
            kl.mean(0).clamp(max=floor).sum()
        ),
        "the floor is for each dimension, not for the sum of all.": torch.tensor(1.2),
        "this is the KL as it was: dimensions below the floor still pay less.": (
            torch.tensor(1.2)
        ),
        "you took the mean over the dimensions; a code's KL is their sum.": (
            kl.mean(0).clamp(min=floor).mean()
        ),
        "you subtract the floor from what lies above it. That has the right gradient; "
        "here the loss should keep its unit: clamp(min=floor).": (
            (kl.mean(0) - floor).clamp(min=0).sum()
        ),
        "the batch was summed: the floor then depends on its size. Take the mean.": (
            kl.sum(0).clamp(min=floor).sum()
        ),
    }
    if is_near(answer, kl.mean(0).clamp(min=floor).sum()):
        if not answer.requires_grad:
            return "the loss has no gradient: leave out detach() and item()."
        (gradient,) = torch.autograd.grad(answer, kl)
        if not is_near(gradient, torch.tensor([[0.5, 0.0], [0.5, 0.0]])):
            return "below the floor the gradient must vanish, above it stay."
        return None
    if is_near(answer, 1.2):
        low = student(torch.full((4, 2), 0.1), floor)
        hints = list(wrong)[2:4]
        return hints[0] if is_near(low, floor) else hints[1]
    if hint := which_mistake(answer, wrong):
        return hint
    return "expected kl averaged over the batch, at least floor each, and summed."


@exercise(
    "E02.6",
    "right: the log of the mean weight. With one draw it is the ELBO, with many it "
    "comes closer to log p(x).",
)
def check_importance_weighted_bound(student: Callable[..., Tensor]) -> str | None:
    small = 2 * _draw(5, 16)
    right = small.exp().mean(1).log()
    answer = student(small)
    if answer.shape != (5,):
        return f"return one number an image, (5,), not {tuple(answer.shape)}."
    wrong = {
        "you averaged the logs: that is the ELBO again, with more draws. The mean "
        "belongs inside the log.": small.mean(1),
        "you took the sum of the weights; subtract log K for their mean.": (
            torch.logsumexp(small, 1)
        ),
        "you averaged over the images instead of the draws.": (
            torch.logsumexp(small, 1) - math.log(5)
        ),
        "this is the best draw alone, which is no bound.": small.amax(1),
        "the log is missing at the end.": small.exp().mean(1),
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not is_near(answer, right):
        return "expected log(mean(exp(log_weights))) over dim 1."
    large = student(small + 900)
    if not is_near(large, right + 900, 1e-2):
        return (
            f"for log weights near 900 it answers {large[0]:.0f}: exp overflows. "
            "torch.logsumexp takes the largest out first."
        )
    return None
