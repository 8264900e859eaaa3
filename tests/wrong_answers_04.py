"""Wrong answers of lesson 04: each is a misconception, with words of its hint."""

import torch
import torch.nn.functional as F


def in_place(x):
    x.sub_(1)
    return x.mean()


def w1(mean=torch.mean, size=torch.abs, sort_x=True, sort_y=True):
    """W1 with each usual slip as an option."""

    def wasserstein_1d(x, y):
        a = x.sort().values if sort_x else x
        b = y.sort().values if sort_y else y
        return mean(size(a - b))

    return wasserstein_1d


def mix(draw, back=lambda e: 1 - e):
    def interpolate(real, fake):
        epsilon = draw(real)
        return epsilon * real + back(epsilon) * fake

    return interpolate


def an_image(real, draw=torch.rand):
    return draw(len(real), *[1] * (real.ndim - 1))


def slope(after, sum_up=torch.sum, graph=True):
    def gradient_norm(critic, x, labels=None):
        x = x.detach().requires_grad_()
        given = () if labels is None else (labels,)
        score = sum_up(critic(x, *given))
        (gradient,) = torch.autograd.grad(score, x, create_graph=graph)
        return after(gradient.flatten(1))

    return gradient_norm


def without_labels(critic, x, labels=None):
    return slope(euclidean)(critic, x)


def euclidean(gradient):
    return gradient.norm(dim=1)


def iterate(normalise=True, transpose=True, last=None, turns=None):
    def power_iteration(weight, steps=20):
        v = torch.ones(weight.shape[1]) / weight.shape[1] ** 0.5
        unit = torch.nn.functional.normalize if normalise else (lambda x, dim: x)
        for _ in range(turns or steps):
            u = unit(weight @ v, dim=0)
            v = unit((weight.T if transpose else weight) @ u, dim=0)
        return last(weight, v) if last else u @ weight @ v

    return power_iteration


WRONG = [
    ("E04.1", w1(sort_x=False, sort_y=False), "as they happen to stand"),
    ("E04.1", lambda x, y: (x.mean() - y.mean()).abs(), "difference of means"),
    ("E04.1", w1(size=torch.square), "squares"),
    ("E04.1", w1(mean=torch.sum), "not their sum"),
    ("E04.1", w1(sort_x=False), "not one"),
    ("E04.1", w1(sort_y=False), "not one"),
    ("E04.1", w1(mean=torch.max), "longest"),
    ("E04.1", lambda x, y: in_place(x), "changed its arguments"),
    ("E04.1", w1(mean=lambda ways: ways), "one number"),
    ("E04.1", lambda x, y: w1()(x, y) * 2, "plus 3"),
    ("E04.2", lambda r, f: r.mean() - f.mean(), "sign"),
    ("E04.2", lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(), "no sigmoid"),
    ("E04.2", lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), "hinge"),
    ("E04.2", lambda r, f: f.sum() - r.sum(), "not sums"),
    ("E04.2", lambda r, f: (f.mean() - r.mean()).abs(), "absolute value"),
    ("E04.2", lambda r, f: -f.mean(), "generator's loss"),
    ("E04.2", lambda r, f: f.mean() + r.mean(), "subtract"),
    ("E04.2", lambda r, f: f.mean() - r, "one number"),
    ("E04.2", lambda r, f: 2 * (f.mean() - r.mean()), "it is -1, not -2"),
    ("E04.3", mix(torch.rand_like), "every pixel"),
    ("E04.3", mix(lambda real: torch.rand(())), "whole batch"),
    ("E04.3", mix(lambda real: torch.tensor(0.5)), "always the same"),
    ("E04.3", mix(lambda real: an_image(real, torch.randn)), "torch.rand"),
    ("E04.3", mix(lambda real: torch.rand(len(real), 1, 1, 1)), "as many axes"),
    ("E04.3", mix(an_image, back=lambda e: 1), "add up to 1"),
    ("E04.3", mix(lambda real: an_image(real) / 10), "uniform"),
    ("E04.3", lambda real, fake: an_image(real), "shape of the images"),
    ("E04.4", slope(euclidean, graph=False), "create_graph"),
    ("E04.4", slope(lambda g: g.norm(dim=1).detach()), "create_graph"),
    ("E04.4", slope(lambda g: g.norm()), "one slope an image"),
    ("E04.4", slope(lambda g: g.norm(dim=0)), "one slope an image"),
    ("E04.4", slope(euclidean, sum_up=torch.mean), "N times too small"),
    ("E04.4", slope(lambda g: g.square().sum(dim=1)), "squared"),
    ("E04.4", slope(lambda g: g.abs().sum(dim=1)), "absolute"),
    ("E04.4", slope(lambda g: g.square().mean(dim=1).sqrt()), "over pixels"),
    ("E04.4", lambda c, x, y=None: x.flatten(1).norm(dim=1), "of the image"),
    ("E04.4", without_labels, "with labels"),
    ("E04.5", lambda w, steps=20: w.norm(), "Frobenius"),
    ("E04.5", lambda w, steps=20: w.abs().max(), "entry"),
    ("E04.5", lambda w, steps=20: w.abs().sum(dim=1).max(), "row sum"),
    ("E04.5", iterate(last=lambda w, v: (w @ v).square().sum()), "square"),
    ("E04.5", iterate(normalise=False), "normalise"),
    ("E04.5", iterate(turns=1), "every turn"),
    ("E04.5", iterate(turns=200), "ignores"),
]
