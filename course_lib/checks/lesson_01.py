"""Checks of lesson 01: sides, explained variance, denoising, PCA, residuals, codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checks import exercise, is_near, seeded, which_mistake


def _images(n: int, channels: int = 1, seed: int = 0) -> Tensor:
    """Made-up images inside [-1, 1], darker than the middle as most scans are."""
    return torch.rand(n, channels, 8, 8, generator=seeded(seed)) - 0.9


@exercise(
    "E01.1",
    "right: with kernel 4, stride 2 and padding 1 every even side is halved.",
)
def check_conv_side(student: Callable[..., int]) -> str | None:
    cases = [(32, 4, 2, 1), (7, 4, 2, 1), (33, 5, 2, 0), (8, 3, 1, 1), (28, 3, 3, 2)]
    answers = [student(*case) for case in cases]
    layers = [nn.Conv2d(1, 1, k, stride=s, padding=p) for _, k, s, p in cases]
    sides = [case[0] for case in cases]
    right = [
        layer(torch.zeros(1, 1, n, n)).shape[-1]
        for layer, n in zip(layers, sides, strict=True)
    ]
    wrong = {
        "count the window's first place too: + 1 after the division.": [
            side - 1 for side in right
        ],
        "both sides of the image are padded: 2 * padding.": [
            (n + p - k) // s + 1 for n, k, s, p in cases
        ],
        "a window that only partly fits is left out: round down, with //.": [
            -(-(n + 2 * p - k) // s) + 1 for n, k, s, p in cases
        ],
        "this is the side after a transposed convolution, which runs backwards.": [
            (n - 1) * s - 2 * p + k for n, k, s, p in cases
        ],
    }
    for hint, sides in wrong.items():
        if answers == sides:
            return hint
    if answers != right:
        return f"side 32, kernel 4, stride 2, padding 1 gives 16, not {answers[0]}."
    if any(isinstance(answer, float) for answer in answers):
        return "a side is a whole number: divide with //, not with /."
    return None


@exercise(
    "E01.2",
    "right: the mean image explains nothing by definition, a perfect copy everything.",
)
def check_explained_variance(student: Callable[..., Any]) -> str | None:
    # Images that share a strong pattern: the mean image already says most of them.
    x = 0.2 * _images(40) + 0.6 * _images(1, seed=1)
    x_hat = x + 0.05 * torch.randn(x.shape, generator=seeded(2))
    answer = student(x, x_hat)
    if torch.as_tensor(answer).ndim:
        shape = tuple(torch.as_tensor(answer).shape)
        return f"return one number for the whole set, not shape {shape}."
    error, spread = (x - x_hat).square().sum(), (x - x.mean(0)).square().sum()
    wrong = {
        "this is the share left unexplained; subtract it from 1.": error / spread,
        "you measured the spread around one grey value, x.mean(). That counts the "
        "mean image as explained: take it pixel by pixel, x.mean(dim=0).": 1
        - error / (x - x.mean()).square().sum(),
        "you measured the spread inside each image. It is the spread between images "
        "that a code must explain: the mean runs over dim 0.": 1
        - error / (x - x.mean(dim=(1, 2, 3), keepdim=True)).square().sum(),
        "a reconstruction can vary as much as x and still be wrong: compare the error "
        "(x - x_hat)**2 with the spread, not two spreads.": (x_hat - x_hat.mean(0))
        .square()
        .sum()
        / spread,
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not is_near(student(x, x), 1.0):
        return "a perfect copy explains everything: the answer must be 1."
    if not is_near(student(x, x.mean(0).expand_as(x)), 0.0):
        return "the mean image for everybody explains nothing: the answer must be 0."
    right = 1 - error / spread
    return (
        None if is_near(answer, right) else f"expected {right:.4f}, got {answer:.4f}."
    )


class _Spy(nn.Module):
    """Dims its input, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.scale * x


@exercise(
    "E01.3",
    "right: noise goes in, the clean image is the target, so copying the input "
    "no longer pays.",
)
def check_denoising_loss(student: Callable[..., Tensor]) -> str | None:
    x, sigma = _images(200), 0.5
    clean = x.clone()

    def ask(seed: int) -> tuple[Tensor, Tensor]:
        spy = _Spy()
        loss = student(spy, x, sigma, seeded(seed))
        if not spy.seen:
            raise ValueError("the model was never called")
        return loss, spy.seen[-1]

    loss, seen = ask(0)
    if not torch.equal(x, clean):
        return "you changed the clean images in place; they are still needed."
    noise = seen - x
    if float(noise.abs().max()) == 0:
        return "the network saw the clean images: give it the noisy ones."
    if seen.min() == -1 or seen.max() == 1:
        return (
            "you clamped the noisy images to [-1, 1]: on a dark background half of "
            "the noise is gone, and the rest has a mean."
        )
    if is_near(noise[0], noise[1]):
        return "all images got the same noise; draw it in the shape of the batch."
    if abs(float(noise.mean())) > 0.1 * sigma:
        return "the noise has a mean: torch.rand is uniform, torch.randn is Gaussian."
    if abs(float(noise.std()) - sigma) > 0.1 * sigma:
        return (
            f"the noise has a standard deviation of {noise.std():.2f}, not {sigma}: "
            "multiply torch.randn by sigma itself."
        )
    if not torch.equal(ask(0)[1], seen) or torch.equal(ask(1)[1], seen):
        return "draw the noise from the generator that you were given."
    output = 0.7 * seen
    wrong = {
        "the target is the noisy image, so the network learns to copy noise; compare "
        "with the clean one.": (output - seen).square().mean(),
        "the target is the noise. That is another method (it returns in diffusion "
        "models); compare with the clean image.": (output - noise).square().mean(),
        "you summed over the pixels: the loss would grow with the image; take "
        "the mean.": (output - x).square().sum(),
    }
    if hint := which_mistake(loss, wrong):
        return hint
    if not is_near(loss, (output - x).square().mean()):
        return "return the mean squared error between the output and the clean image."
    if not loss.requires_grad:
        return "the loss has no gradient: leave out detach(), item() and no_grad()."
    return None


@exercise(
    "E01.4",
    "right: centre with the training mean, project, come back. PCA is an "
    "autoencoder with one linear layer each way.",
)
def check_pca_reconstruct(student: Callable[..., Tensor]) -> str | None:
    k, rng = 3, seeded(3)
    patterns = torch.linalg.qr(torch.randn(64, k, generator=rng)).Q.T
    mean = _images(1, seed=4).flatten(1)

    def draw(n: int, shift: float) -> Tensor:
        codes = torch.randn(n, k, generator=rng) * torch.tensor([0.9, 0.6, 0.4]) + shift
        rest = 0.02 * torch.randn(n, 64, generator=rng)
        return (0.5 * mean + codes @ patterns + rest).view(n, 2, 4, 8) * 0.3

    train, x = draw(200, 0.0), draw(12, 1.0)
    train_mean, x_mean = train.flatten(1).mean(0), x.flatten(1).mean(0)

    def project(fit: Tensor, centre: Tensor, back: Tensor, first: int = 0) -> Tensor:
        v = torch.linalg.svd(fit.flatten(1) - centre, full_matrices=False).Vh
        v = v[first : first + k]
        return ((x.flatten(1) - back) @ v.T @ v + back).view_as(x)

    zero = torch.zeros(64)
    right = project(train, train_mean, train_mean)
    answer = student(train, x, k)
    if answer.shape != x.shape:
        return f"return images of shape {tuple(x.shape)}, not {tuple(answer.shape)}."
    wrong = {
        "you did not subtract the mean: the first component is then spent on the "
        "mean image.": project(train, zero, zero),
        "you did not add the mean image back after the projection.": right
        - train_mean.view(1, 2, 4, 8),
        "you centred x with its own mean: at test time one image must be enough. Use "
        "the training mean.": project(train, train_mean, x_mean),
        "you fitted the components to x itself, so the test images chose their own "
        "code: fit to train.": project(x, x_mean, x_mean),
        "these are the components of least variance: torch.linalg.eigh sorts upwards, "
        "take the last k.": project(train, train_mean, train_mean, 64 - k),
    }
    if hint := which_mistake(answer, wrong, 3e-3):
        return hint
    if is_near(answer, right, 3e-3):
        return None
    return "keep the k components of most variance of the centred training images."


@exercise(
    "E01.5",
    "right: one non-negative map an image, on a scale that all images share.",
)
def check_residual_map(student: Callable[..., Tensor]) -> str | None:
    x = _images(6, channels=3)
    x_hat = x + 0.2 * torch.randn(x.shape, generator=seeded(5))
    x_hat[0] = x[0] + 0.001 * torch.randn(
        x[0].shape, generator=seeded(6)
    )  # all but right
    difference = x - x_hat
    right = difference.abs().mean(dim=1)
    answer = student(x, x_hat)
    if answer.shape != right.shape:
        return (
            f"return one map an image, {tuple(right.shape)}: average over the channels "
            f"(dim 1) alone, not to {tuple(answer.shape)}."
        )
    wrong = {
        "the sign is still in it: a lesion darker than expected would score below "
        "healthy tissue. Take the absolute value.": difference.mean(dim=1),
        "you took the absolute value after the mean over channels: opposite errors "
        "cancel. First abs, then mean.": difference.mean(dim=1).abs(),
        "you kept what is brighter than expected only: dark lesions vanish. Take the "
        "absolute value.": difference.clamp(min=0).mean(dim=1),
        "you scaled each map to its own maximum: an image without a lesion then "
        "shows one, too. Keep one scale for all.": right
        / right.amax(dim=(1, 2), keepdim=True),
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not is_near(answer, right):
        return "expected the mean over channels of |x - x_hat|."
    return None


@exercise(
    "E01.6",
    "right: mean and covariance of the codes, nothing else. That is as far as a "
    "Gaussian goes.",
)
def check_sample_codes(student: Callable[..., Tensor]) -> str | None:
    mean = torch.tensor([4.0, -3.0, 2.0])
    factor = torch.tensor([[1.5, 0.0, 0.0], [1.2, 0.7, 0.0], [-0.9, 0.8, 0.4]])
    noise = torch.randn(4000, 3, generator=seeded(7))
    codes = mean + noise @ factor.T
    n = 20_000
    drawn = student(codes, n, seeded(8))
    if drawn.shape != (n, 3):
        return f"return (n, latent_dim) = {(n, 3)}, not {tuple(drawn.shape)}."
    if float(torch.cdist(drawn[:200], codes).min(dim=1).values.median()) < 1e-6:
        return (
            "these are codes of training images: you would decode copies of patients."
        )
    if not torch.equal(student(codes, 50, seeded(8)), student(codes, 50, seeded(8))):
        return "draw from the generator that you were given: one seed, one answer."
    centre, covariance = drawn.mean(0), torch.cov(drawn.T)
    if is_near(centre, torch.zeros(3), 0.1):
        return "the codes do not lie around 0: add their mean, codes.mean(dim=0)."
    if not is_near(centre, mean, 0.1):
        return f"the mean is {centre.tolist()}, that of the codes {mean.tolist()}."
    right = torch.cov(codes.T)
    lower = torch.linalg.cholesky(right)
    wrong = {
        "the spread is that of N(0, 1): the codes have a covariance of their own.": (
            torch.eye(3)
        ),
        "each entry has the right spread, but the entries are independent: the codes' "
        "are correlated. Use the covariance matrix.": torch.diag(right.diag()),
        "you multiplied by the covariance, which is a variance; the noise needs its "
        "root, torch.linalg.cholesky(covariance).": right @ right,
        "the factor stands the wrong way round: noise @ L.T has the covariance L L.T, "
        "noise @ L has not.": lower.T @ lower,
    }
    if hint := which_mistake(covariance, wrong, 0.12):
        return hint
    if not is_near(covariance, right, 0.12):
        return "the covariance of the drawn codes is not that of the codes."
    return None
