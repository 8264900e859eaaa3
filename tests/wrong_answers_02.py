"""Wrong answers of lesson 02: each is a misconception, with words of its hint."""

import math

import torch

from course_lib import variational


def std(logvar):
    return torch.exp(0.5 * logvar)


def detached(mu, logvar):
    with torch.no_grad():
        return mu + std(logvar) * torch.randn_like(mu)


def kl(mu, logvar):
    return variational.kl_to_standard_normal(mu, logvar)


def nll(x, y, s, *, power=2, half=0.5, per_pixel=True, constant=True, log=True):
    """-log N with each usual slip as an option."""
    error = half * (x - y).square() / s.exp() ** power
    extra = (s if log else 0) + (0.5 * math.log(2 * math.pi) if constant else 0)
    if per_pixel:
        return (error + extra).flatten(1).sum(1)
    return error.flatten(1).sum(1) + extra


def arc(a, b, t, *, unit=True, divide=True, dim=1):
    """slerp with each usual slip as an option, and 0 / 0 for one direction."""
    product = (a * b).sum() if dim is None else (a * b).sum(1, keepdim=True)
    if unit and dim is None:
        product = product / (a.norm() * b.norm())
    elif unit:
        product = product / (a.norm(dim=1) * b.norm(dim=1))[:, None]
    angle = torch.acos(product.clamp(-1, 1))
    if not unit:
        angle = angle.clamp(1e-3, math.pi - 1e-3)
    way = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    return way / angle.sin() if divide else way


def unit_arc(a, b, t):
    a, b = (torch.nn.functional.normalize(v) for v in (a, b))
    return variational.slerp(a, b, t)


WRONG = {
    "E02.1": {
        "no noise": lambda mu, logvar: mu + 0 * logvar,
        "same noise": lambda mu, logvar: mu + std(logvar) * torch.randn(3),
        "uniform": lambda mu, logvar: mu + std(logvar) * torch.rand_like(mu),
        "around mu": lambda mu, logvar: std(logvar) * torch.randn_like(mu),
        "the variance; it": lambda mu, logvar: mu + logvar.exp() * torch.randn_like(mu),
        "logvar itself": lambda mu, logvar: mu + logvar * torch.randn_like(mu),
        "whatever": lambda mu, logvar: mu + torch.randn_like(mu) + 0 * logvar,
        "no gradient passes": detached,
        "reach logvar": lambda mu, logvar: (
            mu + std(logvar.detach()) * torch.randn_like(mu)
        ),
        "one draw a code": lambda mu, logvar: (mu + std(logvar)).mean(0),
    },
    "E02.2": {
        "sign is the other": lambda mu, logvar: -kl(mu, logvar),
        "factor 1/2": lambda mu, logvar: 2 * kl(mu, logvar),
        "without the - 1": lambda mu, logvar: kl(mu, logvar) + 0.5,
        "standard deviation": lambda mu, logvar: kl(mu, 2 * logvar),
        "squared": lambda mu, logvar: 0.5 * (mu + logvar.exp() - 1 - logvar),
        "not symmetric": lambda mu, logvar: (
            0.5 * (logvar + (1 + mu**2) / logvar.exp() - 1)
        ),
        "right in sum": lambda mu, logvar: kl(mu, logvar).sum(1),
        "one number is left": lambda mu, logvar: kl(mu, logvar).mean(),
        "where q is the prior": lambda mu, logvar: kl(mu, logvar) + 1,
    },
    "E02.3": {
        "most common bug": lambda x, y, s: nll(x, y, s) / 32,
        "32 times": lambda x, y, s: nll(x, y, s).mean() / 32,
        "one number is left": lambda x, y, s: nll(x, y, s).mean(),
        "huge sigma": lambda x, y, s: nll(x, y, s, log=False),
        "once for each pixel": lambda x, y, s: nll(x, y, s, per_pixel=False),
        "the sign": lambda x, y, s: -nll(x, y, s),
        "not by sigma": lambda x, y, s: nll(x, y, s, power=1),
        "the constant 0.5": lambda x, y, s: nll(x, y, s, constant=False),
        "before the square": lambda x, y, s: nll(x, y, s, half=1.0),
        "is a logarithm": lambda x, y, s: (
            nll(x, y, torch.log(s.abs())) + 32 * (s - torch.log(s.abs()))
        ),
        "(3,)": lambda x, y, s: (x - y).square(),
    },
    "E02.4": {
        "straight line": lambda a, b, t: (1 - t) * a + t * b,
        "exchanged": lambda a, b, t: variational.slerp(b, a, t),
        "norm 1": unit_arc,
        "forgot to divide": lambda a, b, t: arc(a, b, t, divide=False),
        "unit vectors": lambda a, b, t: arc(a, b, t, unit=False),
        "whole batch": lambda a, b, t: arc(a, b, t, dim=None),
        "0 / 0": arc,
    },
    "E02.5": {
        "each image": lambda k, floor: k.clamp(min=floor).mean(0).sum(),
        "ceiling": lambda k, floor: k.mean(0).clamp(max=floor).sum(),
        "sum of all": lambda k, floor: k.mean(0).sum().clamp(min=floor),
        "as it was": lambda k, floor: k.mean(0).sum(),
        "mean over the dimensions": lambda k, floor: k.mean(0).clamp(min=floor).mean(),
        "subtract the floor": lambda k, floor: (k.mean(0) - floor).clamp(min=0).sum(),
        "batch was summed": lambda k, floor: k.sum(0).clamp(min=floor).sum(),
        "no gradient": lambda k, floor: k.detach().mean(0).clamp(min=floor).sum(),
        "one number": lambda k, floor: k.mean(0).clamp(min=floor),
    },
    "E02.6": {
        "the ELBO again": lambda w: w.mean(1),
        "subtract log K": lambda w: torch.logsumexp(w, 1),
        "over the images": lambda w: torch.logsumexp(w, 1) - math.log(len(w)),
        "best draw alone": lambda w: w.amax(1),
        "log is missing": lambda w: w.exp().mean(1),
        "exp overflows": lambda w: w.exp().mean(1).log(),
        "one number an image": lambda w: torch.logsumexp(w, 0),
    },
}
