"""Wrong answers of lesson 01: each is a misconception, with words of its hint."""

import torch


def mse(a, b):
    return (a - b).square().mean()


def noisy(x, sigma, generator):
    return x + sigma * torch.randn(x.shape, generator=generator)


def in_place(model, x, sigma, generator):
    x += sigma * torch.randn(x.shape, generator=generator)
    return mse(model(x), x)


def clamped(model, x, sigma, generator):
    return mse(model(noisy(x, sigma, generator).clamp(-1, 1)), x)


def one_noise(model, x, sigma, generator):
    return mse(model(x + sigma * torch.randn(x.shape[1:], generator=generator)), x)


def uniform(model, x, sigma, generator):
    return mse(model(x + sigma * torch.rand(x.shape, generator=generator)), x)


def noisy_target(model, x, sigma, generator):
    seen = noisy(x, sigma, generator)
    return mse(model(seen), seen)


def noise_target(model, x, sigma, generator):
    seen = noisy(x, sigma, generator)
    return mse(model(seen), seen - x)


def pca(train, x, k, *, fit=None, centre=None, back=None, add=True, largest=True):
    """PCA with each usual slip as an option."""
    mean = train.flatten(1).mean(0)
    fit = train if fit is None else fit
    centre = mean if centre is None else centre
    back = mean if back is None else back
    rows = fit.flatten(1) - centre
    v = torch.linalg.eigh(rows.T @ rows).eigenvectors
    v = v[:, -k:] if largest else v[:, :k]
    flat = (x.flatten(1) - back) @ v @ v.T
    return (flat + back if add else flat).view_as(x)


def gaussian(codes, n, generator, factor=lambda c: torch.linalg.cholesky(c).T):
    noise = torch.randn(n, codes.shape[1], generator=generator)
    return codes.mean(0) + noise @ factor(torch.cov(codes.T))


WRONG = {
    "E01.1": {
        "first place": lambda n, k, s, p: (n + 2 * p - k) // s,
        "both sides": lambda n, k, s, p: (n + p - k) // s + 1,
        "partly fits": lambda n, k, s, p: -(-(n + 2 * p - k) // s) + 1,
        "transposed": lambda n, k, s, p: (n - 1) * s - 2 * p + k,
        "whole number": lambda n, k, s, p: (n + 2 * p - k) // s + 1.0,
        "gives 16": lambda n, k, s, p: n // s,
    },
    "E01.2": {
        "left unexplained": lambda x, y: (
            (x - y).square().sum() / (x - x.mean(0)).square().sum()
        ),
        "one grey value": lambda x, y: (
            1 - (x - y).square().sum() / (x - x.mean()).square().sum()
        ),
        "inside each image": lambda x, y: (
            1
            - (x - y).square().sum()
            / (x - x.mean((1, 2, 3), keepdim=True)).square().sum()
        ),
        "not two spreads": lambda x, y: y.var(0).sum() / x.var(0).sum(),
        "shape (40,)": lambda x, y: (
            1 - (x - y).square().flatten(1).sum(1) / (x - x.mean(0)).square().sum()
        ),
        "perfect copy": lambda x, y: -(x - y).square().mean(),
    },
    "E01.3": {
        "never called": lambda model, x, sigma, generator: mse(x, x),
        "in place": in_place,
        "saw the clean": lambda model, x, sigma, generator: mse(model(x), x),
        "clamped": clamped,
        "same noise": one_noise,
        "uniform": uniform,
        "multiply torch.randn": lambda model, x, sigma, generator: mse(
            model(noisy(x, sigma**2, generator)), x
        ),
        "generator": lambda model, x, sigma, generator: mse(
            model(noisy(x, sigma, None)), x
        ),
        "copy noise": noisy_target,
        "target is the noise": noise_target,
        "summed": lambda model, x, sigma, generator: (
            (model(noisy(x, sigma, generator)) - x).square().sum()
        ),
        "no gradient": lambda model, x, sigma, generator: mse(
            model(noisy(x, sigma, generator)), x
        ).detach(),
    },
    "E01.4": {
        "subtract the mean": lambda t, x, k: pca(t, x, k, centre=0.0, back=0.0),
        "add the mean": lambda t, x, k: pca(t, x, k, add=False),
        "own mean": lambda t, x, k: pca(t, x, k, back=x.flatten(1).mean(0)),
        "fit to train": lambda t, x, k: pca(
            t, x, k, fit=x, centre=x.flatten(1).mean(0), back=x.flatten(1).mean(0)
        ),
        "sorts upwards": lambda t, x, k: pca(t, x, k, largest=False),
        "most variance": lambda t, x, k: pca(t, x, k - 1),
    },
    "E01.5": {
        "sign": lambda x, y: (x - y).mean(1),
        "opposite errors": lambda x, y: (x - y).mean(1).abs(),
        "dark lesions": lambda x, y: (x - y).clamp(min=0).mean(1),
        "own maximum": lambda x, y: (
            (x - y).abs().mean(1) / (x - y).abs().mean(1).amax((1, 2), keepdim=True)
        ),
        "one map an image": lambda x, y: (x - y).abs().mean((1, 2, 3)),
        "expected the mean": lambda x, y: (x - y).square().mean(1),
    },
    "E01.6": {
        "around 0": lambda c, n, g: torch.randn(n, 3, generator=g),
        "N(0, 1)": lambda c, n, g: c.mean(0) + torch.randn(n, 3, generator=g),
        "independent": lambda c, n, g: gaussian(
            c, n, g, lambda v: v.diag().sqrt().diag()
        ),
        "cholesky": lambda c, n, g: gaussian(c, n, g, lambda v: v),
        "wrong way round": lambda c, n, g: gaussian(c, n, g, torch.linalg.cholesky),
        "copies of patients": lambda c, n, g: c[
            torch.randint(len(c), (n,), generator=g)
        ],
        "one seed": lambda c, n, g: gaussian(c, n, None),
        "(n, latent_dim)": lambda c, n, g: gaussian(c, n, g).mean(0),
    },
}
