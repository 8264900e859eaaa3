"""Checks of lesson 04: exact W1, the critic's loss, interpolates, slopes, stretch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks import exercise, is_near, seeded, which_mistake


@exercise(
    "E04.1",
    "right: on a line, carrying the k-th smallest to the k-th smallest is cheapest.",
)
def check_wasserstein_1d(student: Callable[..., Tensor]) -> str | None:
    x = torch.randn(50, generator=seeded(1))
    y = 0.3 + 2 * torch.randn(50, generator=seeded(2))
    a, b = x.sort().values, y.sort().values
    kept = x.clone(), y.clone()
    answer = student(x, y)
    if not (torch.equal(x, kept[0]) and torch.equal(y, kept[1])):
        return "it changed its arguments; x.sort() makes a new tensor, x.sort_() not."
    if not isinstance(answer, Tensor) or answer.shape != ():
        return "return one number, a tensor of shape (): the mean over the pairs."
    gaps = (a - b).abs()
    wrong = {
        "these are pairs as they happen to stand; sort both sets first.": (
            (x - y).abs().mean()
        ),
        "a difference of means: two sets with equal means and unequal spread would "
        "be at distance 0. Take the absolute value of each way before the mean.": (
            (x.mean() - y.mean()).abs()
        ),
        "ways forth and back cancel here; take the absolute value of each.": (
            (a - b).mean()
        ),
        "W1 takes the mean of the ways, not of their squares (that is W2 squared).": (
            (a - b).square().mean()
        ),
        "the mean of the ways, not their sum: each point has mass 1/N.": gaps.sum(),
        "sort both sets, not one.": (a - y).abs().mean(),
        "the longest way alone is another distance; take the mean.": gaps.max(),
    }
    if hint := which_mistake(answer, wrong) or which_mistake(-answer, wrong):
        return hint
    if is_near(answer, (x - b).abs().mean()):
        return "sort both sets, not one."
    if not is_near(answer, gaps.mean()):
        return (
            f"a set and itself plus 3 are at distance 3, not {student(x, x + 3):.3g}."
        )
    return None


@exercise(
    "E04.2",
    "right: to make this small is to score real images high and generated ones low.",
)
def check_critic_loss(student: Callable[..., Tensor]) -> str | None:
    real = torch.randn(6, generator=seeded(1)) + 0.5
    fake = torch.randn(9, generator=seeded(2))  # the two batches may differ in size
    answer = student(real, fake)
    if not isinstance(answer, Tensor) or answer.shape != ():
        return "return one number, a tensor of shape (): a difference of two means."
    right = fake.mean() - real.mean()
    if is_near(answer, right.abs()) and is_near(answer, student(fake, real)):
        return "an absolute value lets the critic score fakes higher as well."
    logistic = F.softplus(-real).mean() + F.softplus(fake).mean()
    hinge = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    wrong = {
        "the sign: this is what the critic maximises, and an optimiser minimises. "
        "Real scores must rise.": -right,
        "this is the discriminator's loss; a score has no sigmoid and no logarithm.": (
            logistic
        ),
        "this is the hinge loss, another method: beyond its margin it is flat, and "
        "no distance comes out of it.": hinge,
        "means, not sums: the value must not depend on the batch size.": (
            fake.sum() - real.sum()
        ),
        "this is the generator's loss; the critic needs the real scores too.": (
            -fake.mean()
        ),
        "a difference: subtract the mean real score.": fake.mean() + real.mean(),
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not is_near(answer, right):
        return f"for real scores 1 and fake scores 0 it is -1, not {_at(student)}."
    return None


def _at(student: Callable[..., Tensor]) -> str:
    return f"{student(torch.ones(4), torch.zeros(4)).item():.3g}"


@exercise(
    "E04.3",
    "right: one place on the line between each real image and its partner.",
)
def check_interpolate(student: Callable[..., Tensor]) -> str | None:
    n = 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixed = student(torch.ones(n, 2, 3, 3), torch.zeros(n, 2, 3, 3))
        flat = student(torch.ones(n, 2), torch.zeros(n, 2))
        again = student(torch.ones(n, 2, 3, 3), torch.zeros(n, 2, 3, 3))
        apart = student(torch.full((n, 2, 3, 3), 5.0), torch.full((n, 2, 3, 3), 3.0))
    if mixed.shape != (n, 2, 3, 3):
        return f"expected the shape of the images, got {tuple(mixed.shape)}."
    if flat.shape != (n, 2):
        return (
            f"points (N, 2) gave {tuple(flat.shape)}: epsilon needs as many axes as "
            "the data, (N, 1) here and (N, 1, 1, 1) for images."
        )
    share = mixed.flatten(1)
    if share.std(dim=1).max() > 1e-6:
        return (
            "every pixel got an epsilon of its own: the point then lies in a box, not "
            "on the line between the two images. One epsilon an image."
        )
    share = share[:, 0]
    if share.std() < 1e-6:
        if is_near(share, again.flatten(1)[:, 0]):
            return "this is always the same point; draw epsilon by torch.rand."
        return "one epsilon for the whole batch: draw one for each image."
    if share.min() < 0 or share.max() > 1:
        return (
            "some points lie outside the two images: epsilon is uniform in [0, 1] "
            "(torch.rand), not normal (torch.randn)."
        )
    if apart.min() < 3 or apart.max() > 5:
        return "the two weights must add up to 1: epsilon and 1 - epsilon."
    if not 0.15 < share.std() < 0.45 or not 0.3 < share.mean() < 0.7:
        return "epsilon should be uniform in [0, 1]: torch.rand."
    return None


class _Bowl(nn.Module):
    """f(x) = a |x|^2 / 2, whose slope is a |x|; with labels, the sum times them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            return labels * x.flatten(1).sum(dim=1)
        return self.a * x.square().flatten(1).sum(dim=1) / 2


@exercise(
    "E04.4",
    "right: one slope an image, and the optimiser can differentiate it.",
)
def check_gradient_norm(student: Callable[..., Tensor]) -> str | None:
    critic, x = _Bowl(), torch.randn(5, 2, 3, 3, generator=seeded(1))
    n = len(x)
    norm = student(critic, x)
    slopes = 1.5 * x.flatten(1).norm(dim=1)
    if not isinstance(norm, Tensor) or norm.shape != (n,):
        shape = tuple(norm.shape) if isinstance(norm, Tensor) else type(norm).__name__
        return (
            f"expected one slope an image, ({n},), got {shape}: flatten each image "
            "and take the norm over its pixels (dim=1)."
        )
    wrong = {
        "this is the squared norm; the penalty compares the norm itself with 1.": (
            slopes.square()
        ),
        "the gradient of the mean score is N times too small; of the sum.": slopes / n,
        "the sum of absolute values is another norm; take the Euclidean one.": (
            1.5 * x.flatten(1).abs().sum(dim=1)
        ),
        "a mean over pixels hides how steep the critic is; the norm adds them up.": (
            1.5 * x.flatten(1).square().mean(dim=1).sqrt()
        ),
        "this is the length of the image, not of the critic's gradient there.": (
            x.flatten(1).norm(dim=1)
        ),
    }
    if hint := which_mistake(norm.detach(), wrong, 1e-3):
        return hint
    if not is_near(norm.detach(), slopes, 1e-3):
        return "for a critic a|x|^2 / 2 the slope at x is a|x|; yours differs."
    graph = norm.grad_fn is not None
    if graph:
        (at_a,) = torch.autograd.grad(norm.sum(), critic.a, allow_unused=True)
        graph = at_a is not None and is_near(at_a, slopes.sum() / 1.5, 1e-3)
    if not graph:
        return (
            "the slope has no graph back to the critic's weights, so the penalty "
            "would teach nothing: create_graph=True, and no detach() after it."
        )
    labels = torch.arange(1.0, n + 1)
    if not is_near(student(critic, x, labels).detach(), labels * 18**0.5, 1e-3):
        return "with labels, give them to the critic: critic(x, *given)."
    return None


@exercise(
    "E04.5",
    "right: going to and fro turns any vector towards the one that is stretched most.",
)
def check_power_iteration(student: Callable[..., Tensor]) -> str | None:
    weight = torch.randn(5, 8, generator=seeded(3))
    top = torch.linalg.matrix_norm(weight, 2)
    answer = student(weight, 200)
    if not isinstance(answer, Tensor) or answer.shape != ():
        return "return one number, a tensor of shape ()."
    wrong = {
        "this is the square of it; u and v each take one turn: u @ weight @ v.": top**2,
        "this is the Frobenius norm, which counts all directions; the spectral norm "
        "is the stretch in the worst one.": weight.norm(),
        "the largest entry is not the largest stretch; iterate.": weight.abs().max(),
        "the largest row sum bounds another norm; iterate with weight and weight.T.": (
            weight.abs().sum(dim=1).max()
        ),
    }
    if hint := which_mistake(answer, wrong):
        return hint
    if not answer.isfinite() or answer > 1.001 * top:
        return "it grows without end or too large: normalise u and v in every turn."
    if not is_near(answer, top, 1e-3):
        return (
            f"after 200 turns it should be the largest singular value, {top:.3f}, and "
            f"is {answer:.3f}: use each new u for v, each new v for u, every turn."
        )
    if is_near(student(weight, 1), top, 1e-3):
        return "it ignores `steps`: one turn cannot be enough for this matrix."
    square = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    if not is_near(student(square, 50), 3.0, 1e-3):
        return "a singular value is no eigenvalue: go forth by weight, back by its T."
    return None
