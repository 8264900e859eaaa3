"""Checks of lesson 06: PSNR, features, covariance, root of a product, MMD, the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import textbook
from course_lib.checks import exercise, is_near, seeded, which_mistake


def _shape(answer: Any) -> str:
    return (
        str(tuple(answer.shape)) if isinstance(answer, Tensor) else repr(type(answer))
    )


@exercise(
    "E06.1",
    "right: one number an image, and half the error is 6 dB more.",
)
def check_peak_snr(student: Callable[..., Tensor]) -> str | None:
    x = 2 * torch.rand(4, 1, 6, 6, generator=seeded(1)) - 1
    errors = 0.2 * torch.randn(x.shape, generator=seeded(2))
    y = x + errors * torch.tensor([0.3, 1, 2, 4]).view(4, 1, 1, 1)
    answer = student(x, y)
    error = (x - y).flatten(1)
    mse = error.square().mean(dim=1)
    if is_near(answer, 10 * torch.log10(4 / mse.mean())):
        return (
            "this is the PSNR of the mean error of the batch: one bad image drags all "
            "along. One number an image: flatten(1), then the mean over dim=1."
        )
    if not isinstance(answer, Tensor) or answer.shape != (4,):
        return f"expected one number an image, (4,), got {_shape(answer)}."
    right = 10 * torch.log10(4 / mse)
    wrong = {
        "a range of 1 belongs to images in [0, 1]; these lie in [-1, 1], 2 wide, "
        "which is 6.02 dB.": 10 * torch.log10(1 / mse),
        "255 belongs to 8-bit images; these lie in [-1, 1], 2 wide.": (
            10 * torch.log10(255**2 / mse)
        ),
        "the range goes in squared, as the error does.": 10 * torch.log10(2 / mse),
        "20 log10 is for amplitudes; the mean squared error is a power: 10 log10.": (
            20 * torch.log10(4 / mse)
        ),
        "that is the natural logarithm; dB are 10 times the one to base 10.": (
            10 * torch.log(4 / mse)
        ),
        "the sign: a smaller error is a larger PSNR.": -right,
        "the error is squared before the mean, not after it.": (
            10 * torch.log10(4 / error.abs().mean(dim=1))
        ),
        "a sum over pixels grows with the image; take the mean.": (
            10 * torch.log10(4 / error.square().sum(dim=1))
        ),
    }
    if hint := which_mistake(answer, wrong, 1e-3):
        return hint
    if not is_near(answer, right, 1e-3):
        flat = student(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        return f"for images that differ by 1 everywhere it is 6.02, not {flat[0]:.3g}."
    return None


def _classifier() -> nn.Sequential:
    """Images (N, 1, 6, 6) -> 3 logits from 5 features, with a batch norm inside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 5),
            nn.Linear(5, 3),
        )
    with torch.no_grad():
        net[2].running_mean.uniform_(-0.5, 0.5, generator=seeded(4))
        net[2].running_var.uniform_(0.5, 2, generator=seeded(5))
    return net.train()


@exercise(
    "E06.2",
    "right: what the last layer is given, whatever else is in the batch.",
)
def check_penultimate(student: Callable[..., Tensor]) -> str | None:
    net, images = _classifier(), torch.randn(6, 1, 6, 6, generator=seeded(1))
    answer = student(net, images)
    if not isinstance(answer, Tensor):
        return f"return a tensor (N, d), not {_shape(answer)}."
    alone = student(_classifier(), torch.cat([images[:1], images[1:3] * 3]))
    told = _classifier().eval()
    with torch.no_grad():
        logits, right = told(images), told[:-1](images)
        early = told[:-2](images)
    wrong = {
        "these are the logits: a distance on them sees what separates the classes "
        "and little else. Leave the last layer out: classifier[:-1].": logits,
        "these are probabilities, which drop even more than logits do. Leave the "
        "last layer out: classifier[:-1].": logits.softmax(dim=1),
        "that is one layer too early: only the last layer is left out.": early,
        "these are the pixels; let the classifier see them.": images.flatten(1),
    }
    if hint := which_mistake(answer.detach(), wrong):
        return hint
    if answer.shape == right.shape and not is_near(answer[:1].detach(), alone[:1]):
        return (
            "the features of an image changed with its neighbours: batch norm is in "
            "training mode. classifier.eval() first."
        )
    if answer.shape == logits.shape:
        return "these are logits of a network in training mode; leave its last layer."
    if answer.shape != right.shape:
        return (
            f"expected (6, 5), five features an image, got {_shape(answer)}: all "
            "layers but the last."
        )
    if not is_near(answer.detach(), right):
        return "these are not what the last layer is given: classifier[:-1](images)."
    if answer.requires_grad:
        return "a metric needs no gradient, and keeping it costs memory: no_grad()."
    return None


@exercise(
    "E06.3",
    "right: centred, and divided by N - 1, since the mean was estimated too.",
)
def check_covariance(student: Callable[..., Tensor]) -> str | None:
    x = torch.randn(7, 3, generator=seeded(1)) + torch.tensor([2.0, -1.0, 0.5])
    kept = x.clone()
    answer = student(x)
    if not torch.equal(x, kept):
        return "it changed its argument; x - x.mean(dim=0) makes a new tensor."
    right, n = torch.cov(x.T), len(x)
    if isinstance(answer, Tensor) and answer.shape == (n, n):
        return "that is N x N, between images; features belong together: X.T @ X."
    if not isinstance(answer, Tensor) or answer.shape != (3, 3):
        return f"expected (d, d) = (3, 3), got {_shape(answer)}."
    wrong = {
        "it is not centred: subtract the mean of each feature first. As it is, a "
        "shift of all features would count as spread.": x.T @ x / (n - 1),
        "not centred, and divided by N: subtract the mean of each feature, divide by "
        "N - 1.": x.T @ x / n,
        "divided by N it is too small by 1 / N, which a sum over many features does "
        "not forgive; divide by N - 1.": right * (n - 1) / n,
        "divide by N - 1; sums grow with the number of images.": right * (n - 1),
        "that is the correlation: how large a spread is got lost.": (
            torch.corrcoef(x.T)
        ),
        "one mean for all features? Each has its own: mean(dim=0).": (
            (x - x.mean()).T @ (x - x.mean()) / (n - 1)
        ),
        "only the variances; how features go together counts too.": (
            torch.diag(right.diagonal())
        ),
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not is_near(answer, right):
        return "for two features x and -x it is [[v, -v], [-v, v]]; yours differs."
    return None


@exercise(
    "E06.4",
    "right: a symmetric matrix with the same eigenvalues, and their roots summed.",
)
def check_root_trace(student: Callable[..., Tensor]) -> str | None:
    a, b = (
        torch.cov(torch.randn(3, 9, generator=seeded(i), dtype=torch.double))
        + i * torch.diag(torch.tensor([1.0, 0.1, 3.0], dtype=torch.double))
        for i in (1, 2)
    )
    product = a @ b
    answer = student(a, b)
    if not isinstance(answer, Tensor) or answer.shape != ():
        return f"return one number, a tensor of shape (), not {_shape(answer)}."
    if answer.is_complex():
        return "a complex number; a symmetric matrix has real eigenvalues: use those."
    right = textbook.root_trace(a, b)
    lower = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
    upper = torch.linalg.eigvalsh(product, UPLO="U").clamp(min=0).sqrt().sum()
    half = torch.linalg.eigvalsh((product + product.T) / 2)
    wrong = {
        "eigvalsh reads one triangle of A @ B, which is not symmetric. Put A's root "
        "on both sides of B.": lower,
        "eigvalsh reads the upper triangle of A @ B, which is not symmetric. Put A's "
        "root on both sides of B.": upper,
        "making A @ B symmetric by averaging changes its eigenvalues. Put A's root "
        "on both sides of B.": half.clamp(min=0).sqrt().sum(),
        "the root of each entry is not the root of a matrix; take the eigenvalues.": (
            product.clamp(min=0).sqrt().trace()
        ),
        "the root of the trace is not the trace of the root: roots of eigenvalues "
        "first, then their sum.": product.trace().sqrt(),
        "the eigenvalues themselves; their square roots are missing.": product.trace(),
        "roots of A and of B apart commute only if A and B do.": (
            torch.linalg.eigvalsh(a).sqrt() * torch.linalg.eigvalsh(b).sqrt()
        ).sum(),
    }
    if hint := which_mistake(answer, wrong, 1e-6):
        return hint
    if answer.isfinite() and not is_near(answer, right, 1e-6):
        eye = torch.eye(2, dtype=torch.double)
        value = student(4 * eye, 9 * eye).item()
        return f"for A = 4 I and B = 9 I in two dimensions it is 12, not {value:.3g}."
    flat = torch.randn(30, 3, generator=seeded(3), dtype=torch.double)
    singular = torch.cov(flat)  # 30 features of 3 images
    value = student(singular, singular)
    if not (answer.isfinite() and value.isfinite()):
        return (
            "NaN: rounding leaves eigenvalues slightly below 0, as where images are "
            "fewer than features; clamp(min=0) before each root."
        )
    if not is_near(value / singular.trace(), 1.0, 1e-3):
        return "with a singular A it is off: for B = A it is the trace of A."
    return None


@exercise(
    "E06.5",
    "right: no image is compared with itself, so real against real is 0 on average.",
)
def check_unbiased_mmd(student: Callable[..., Tensor]) -> str | None:
    a = torch.randn(5, 3, generator=seeded(1), dtype=torch.double)
    b = torch.randn(8, 3, generator=seeded(2), dtype=torch.double) + 0.5
    kernels = [textbook.cubic_kernel(u, v) for u, v in ((a, a), (b, b), (a, b))]
    kept = [k.clone() for k in kernels]
    answer = student(*kernels)
    if not all(map(torch.equal, kernels, kept)):
        return "it changed a kernel matrix; fill_diagonal_ works in place, so clone()."
    if not isinstance(answer, Tensor) or answer.shape != ():
        return f"return one number, a tensor of shape (), not {_shape(answer)}."
    k_aa, k_bb, k_ab = kernels
    right = textbook.unbiased_mmd(*kernels)
    within = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (k_aa, k_bb)]
    by_n2 = [(k.sum() - k.trace()) / len(k) ** 2 for k in (k_aa, k_bb)]
    cross = 2 * k_ab.mean()
    wrong = {
        "the diagonal is in: there each image is compared with itself, which is "
        "always most alike. That is the biased estimate; x and x' must differ.": (
            k_aa.mean() + k_bb.mean() - cross
        ),
        "the diagonal is out, so N (N - 1) values are left; you divide by N^2.": (
            by_n2[0] + by_n2[1] - cross
        ),
        "the cross term counts twice: (a - b)^2 has 2ab in it.": (
            sum(within) - k_ab.mean()
        ),
        "the signs: within minus across, so that apart is positive.": -right,
        "means, not sums: the value must not grow with N.": (
            k_aa.sum() - k_aa.trace() + k_bb.sum() - k_bb.trace() - 2 * k_ab.sum()
        ),
        "this is the MMD; KID is its square, and a root of it has no unbiased "
        "estimate.": right.clamp(min=0).sqrt(),
        "the cross term has no images compared with themselves: keep its diagonal.": (
            sum(within) - 2 * (k_ab.sum() - k_ab.diagonal().sum()) / (k_ab.numel() - 5)
        ),
    }
    if hint := which_mistake(answer, wrong, 1e-9):
        return hint
    ones = [torch.ones(s, s, dtype=torch.double) for s in (4, 6)]
    if not is_near(student(*ones, torch.ones(4, 6, dtype=torch.double)), 0.0, 1e-9):
        return "if all kernel values are equal there is no difference: it must be 0."
    if not is_near(answer, right, 1e-9):
        few, many = k_aa[:2, :2], k_ab[:2]
        if is_near(student(few, k_bb, many), textbook.unbiased_mmd(few, k_bb, many)):
            return "it depends on N in another way than by the number of pairs."
        return "mean within a, plus mean within b, minus twice the mean across."
    near = a + 0.01  # alike, image by image: the estimate is below 0
    pair = [textbook.cubic_kernel(u, v) for u, v in ((a, a), (near, near), (a, near))]
    if not is_near(student(*pair), textbook.unbiased_mmd(*pair), 1e-9):
        return "an unbiased estimate of 0 falls below 0 half of the time; no clamp."
    return None


@exercise(
    "E06.6",
    "right: a straight line in 1/N, read off where N is infinite.",
)
def check_at_infinity(student: Callable[..., Tensor]) -> str | None:
    sizes = torch.tensor([50.0, 100.0, 200.0, 400.0])
    values = 3 + 200 / sizes + torch.tensor([0.0, 0.1, -0.1, 0.05])
    answer = student(sizes, values)
    if not isinstance(answer, Tensor) or answer.shape != ():
        return f"return one number, a tensor of shape (), not {_shape(answer)}."
    right = textbook.at_infinity(sizes, values)
    x = 1 / sizes
    slope = ((x - x.mean()) * (values - values.mean())).sum()
    slope = slope / (x - x.mean()).square().sum()
    through_0 = (x * values).sum() / x.square().sum()
    wrong = {
        "few samples: this is the value at the largest N, which still has its bias. "
        "Follow the line on to 1/N = 0.": values[-1],
        "few samples: this is the value at the smallest N, where the bias is largest. "
        "Follow the line to 1/N = 0.": values[0],
        "the mean of values that are all too large is too large; fit the line.": (
            values.mean()
        ),
        "this is the slope, how strong the bias is; the intercept is wanted.": slope,
        "the line must not be forced through 0: its intercept is what you look for.": (
            through_0
        ),
        "the bias is a line in 1/N, not in N: x = 1 / sizes.": (
            textbook.at_infinity(1 / sizes, values)
        ),
        "the bias of a covariance falls as 1/N, not as the root of it.": (
            textbook.at_infinity(sizes.sqrt(), values)
        ),
        "a line through two of the points trusts their noise; fit all of them.": (
            2 * values[-1] - values[-2]
        ),
        "the sign of the slope: at 1/N = 0 you are left of all points.": (
            values.mean() + slope * x.mean()
        ),
    }
    if hint := which_mistake(answer, wrong, 1e-3):
        return hint
    if not is_near(answer, right, 1e-3):
        exact = student(sizes, 5 + 100 / sizes).item()
        return f"for values 5 + 100 / N it is 5, not {exact:.4g}."
    whole = student(sizes.long(), 5 + 100 / sizes)
    if not is_near(whole, 5.0, 1e-3):
        return "sizes may be whole numbers; 1 / sizes works, sizes // 1 does not."
    return None
