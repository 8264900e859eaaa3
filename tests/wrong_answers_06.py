"""Wrong answers of lesson 06: each is a misconception, with words of its hint."""

import torch

from course_lib import textbook


def psnr(data_range=2.0, power=2, factor=10, log=torch.log10, pool=None, sign=1):
    """PSNR per image with each usual slip as an option."""

    def peak_snr(x, y):
        error = (x - y).flatten(1).square()
        mse = pool(error) if pool else error.mean(dim=1)
        return sign * factor * log(data_range**power / mse)

    return peak_snr


def other_ways(x, y):
    return psnr()(x, y) + 1


def features(layers=slice(None, -1), evaluate=True, after=lambda f: f):
    def penultimate(classifier, images):
        classifier.train(not evaluate)
        with torch.no_grad():
            return after(classifier[layers](images))

    return penultimate


def with_gradient(classifier, images):
    return classifier.eval()[:-1](images)


def cov(centre=lambda x: x - x.mean(dim=0), divide=lambda n: n - 1):
    def covariance(x):
        x_c = centre(x)
        return x_c.T @ x_c / divide(len(x))

    return covariance


def in_place(x):
    x -= x.mean(dim=0)
    return x.T @ x / (len(x) - 1)


def not_clamped(a, b):
    values, vectors = torch.linalg.eigh(a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return torch.linalg.eigvalsh(root_a @ b @ root_a).sub(1e-12).sqrt().sum()


def by_cholesky(a, b):
    lower = torch.linalg.cholesky(a)
    return torch.linalg.eigvalsh(lower.T @ b @ lower).clamp(min=0).sqrt().sum()


def halved(a, b):
    p = a @ b
    return torch.linalg.eigvalsh((p + p.T) / 2).clamp(min=0).sqrt().sum()


def mmd(within, cross=lambda k: 2 * k.mean(), after=lambda v: v):
    return lambda aa, bb, ab: after(within(aa) + within(bb) - cross(ab))


def off_diagonal(k, pairs=None):
    n = len(k)
    return (k.sum() - k.trace()) / (pairs(n) if pairs else n * (n - 1))


def spoils_its_argument(aa, bb, ab):
    return mmd(lambda k: off_diagonal(k.fill_diagonal_(0)))(aa, bb, ab)


def line(x_of=lambda n: 1 / n, read=lambda slope, x, y: y.mean() - slope * x.mean()):
    def at_infinity(sizes, values):
        x, y = x_of(sizes), values
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        return read(slope, x, y)

    return at_infinity


WRONG = [
    ("E06.1", psnr(data_range=1.0), "range of 1"),
    ("E06.1", psnr(data_range=255.0), "255"),
    ("E06.1", psnr(power=1), "goes in squared"),
    ("E06.1", psnr(factor=20), "20 log10"),
    ("E06.1", psnr(log=torch.log), "natural logarithm"),
    ("E06.1", psnr(pool=torch.mean), "one bad image"),
    ("E06.1", psnr(sign=-1), "sign"),
    ("E06.1", psnr(pool=lambda e: e.sum(dim=1)), "sum over pixels"),
    ("E06.1", psnr(pool=lambda e: e.sqrt().mean(dim=1)), "squared before"),
    ("E06.1", psnr(pool=lambda e: e), "one number an image"),
    ("E06.1", other_ways, "differ by 1 everywhere"),
    ("E06.2", features(slice(None)), "logits"),
    ("E06.2", features(slice(None), after=lambda f: f.softmax(dim=1)), "probabilities"),
    ("E06.2", features(evaluate=False), "neighbours"),
    ("E06.2", features(slice(None, -2)), "too early"),
    ("E06.2", lambda c, x: x.flatten(1), "pixels"),
    ("E06.2", with_gradient, "no gradient"),
    ("E06.2", features(slice(None, 2)), "five features"),
    ("E06.2", features(after=lambda f: f + 1), "not what the last layer"),
    ("E06.2", lambda c, x: None, "return a tensor"),
    ("E06.3", cov(centre=lambda x: x), "not centred"),
    ("E06.3", cov(centre=lambda x: x, divide=lambda n: n), "not centred, and"),
    ("E06.3", cov(divide=lambda n: n), "divided by N it"),
    ("E06.3", cov(divide=lambda n: 1), "sums grow"),
    ("E06.3", cov(centre=lambda x: x - x.mean()), "one mean"),
    ("E06.3", lambda x: torch.corrcoef(x.T), "correlation"),
    ("E06.3", lambda x: torch.cov(x), "N x N"),
    ("E06.3", lambda x: x.var(dim=0).diag(), "only the variances"),
    ("E06.3", lambda x: x.var(dim=0), "(d, d)"),
    ("E06.3", in_place, "changed its argument"),
    ("E06.3", lambda x: 2 * torch.cov(x.T), "for two features"),
    (
        "E06.4",
        lambda a, b: torch.linalg.eigvalsh(a @ b).clamp(min=0).sqrt().sum(),
        "one triangle",
    ),
    (
        "E06.4",
        lambda a, b: torch.linalg.eigvalsh(a @ b, UPLO="U").clamp(min=0).sqrt().sum(),
        "upper triangle",
    ),
    ("E06.4", halved, "averaging"),
    ("E06.4", lambda a, b: (a @ b).trace(), "square roots are missing"),
    ("E06.4", lambda a, b: (a @ b).trace().sqrt(), "root of the trace"),
    ("E06.4", lambda a, b: (a @ b).clamp(min=0).sqrt().trace(), "each entry"),
    (
        "E06.4",
        lambda a, b: torch.linalg.eigvals(a @ b).sqrt().sum(),
        "complex",
    ),
    ("E06.4", not_clamped, "NaN"),
    ("E06.4", by_cholesky, "it raised"),
    ("E06.4", lambda a, b: a @ b, "one number"),
    ("E06.4", lambda a, b: 2 * textbook.root_trace(a, b), "it is 12, not 24"),
    ("E06.5", mmd(torch.mean), "diagonal is in"),
    ("E06.5", mmd(lambda k: off_diagonal(k, lambda n: n * n)), "divide by N^2"),
    ("E06.5", mmd(off_diagonal, cross=torch.mean), "counts twice"),
    ("E06.5", mmd(off_diagonal, after=torch.neg), "signs"),
    (
        "E06.5",
        mmd(lambda k: k.sum() - k.trace(), cross=lambda k: 2 * k.sum()),
        "not sums",
    ),
    ("E06.5", mmd(off_diagonal, after=lambda v: v.clamp(min=0).sqrt()), "its square"),
    ("E06.5", mmd(off_diagonal, after=lambda v: v.clamp(min=0)), "no clamp"),
    ("E06.5", spoils_its_argument, "works in place"),
    ("E06.5", lambda aa, bb, ab: ab.mean(dim=0), "one number"),
    ("E06.5", mmd(off_diagonal, cross=lambda k: 1.5 * k.mean()), "must be 0"),
    ("E06.6", lambda n, v: v[-1], "largest N"),
    ("E06.6", lambda n, v: v[0], "smallest N"),
    ("E06.6", lambda n, v: v.mean(), "all too large"),
    ("E06.6", line(read=lambda slope, x, y: slope), "slope"),
    ("E06.6", line(x_of=lambda n: n), "not in N"),
    ("E06.6", line(x_of=lambda n: 1 / n.sqrt()), "root"),
    ("E06.6", lambda n, v: (v / n).sum() / n.pow(-2).sum(), "forced through 0"),
    ("E06.6", lambda n, v: 2 * v[-1] - v[-2], "two of the points"),
    ("E06.6", line(read=lambda s, x, y: y.mean() + s * x.mean()), "sign"),
    ("E06.6", line(read=lambda s, x, y: y), "one number"),
    ("E06.6", line(read=lambda s, x, y: y.mean() - s * x.mean() + 1), "it is 5, not 6"),
]
