"""The WGAN of lesson 04: the critic's game, three ways to bound it, and the exact W1.

torch only: this file imports nothing of the course, so you can carry it away. The
networks are those of lesson 03; a critic is a discriminator without batch norm whose
output is read as a score, not as a logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# --- the distance itself --------------------------------------------------------------


def wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    """Exact W1 between two sets of numbers, (N,) and (N,) -> ().

    On a line the cheapest plan moves the smallest to the smallest, and so on. Raises
    ValueError on unequal lengths. Peyre and Cuturi 2019, section 2.6.
    """
    if x.ndim != 1 or x.shape != y.shape:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"expected (N,) and (N,), equally many, got {shapes}")
    return (x.sort().values - y.sort().values).abs().mean()


# --- the game -------------------------------------------------------------------------


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What the critic minimises, from its scores. (N,), (M,) -> ().

    Its negative is the difference of means that bounds W1 from below if the critic is
    1-Lipschitz. Arjovsky et al. 2017, eq. 2.
    """
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor) -> Tensor:
    """What G minimises, from the critic's scores of its images. (N,) -> ()."""
    return -fake.mean()


# --- three ways to bound the critic's slope -------------------------------------------


@torch.no_grad()
def clip_weights(critic: nn.Module, c: float) -> None:
    """Move every weight into [-c, c], in place. Arjovsky et al. 2017, algorithm 1."""
    for weight in critic.parameters():
        weight.clamp_(-c, c)


def interpolate(real: Tensor, fake: Tensor) -> Tensor:
    """A random point between each real and its fake image. (N, ...) x 2 -> (N, ...)."""
    epsilon = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    return epsilon * real + (1 - epsilon) * fake


def gradient_norm(critic: nn.Module, x: Tensor, labels: Tensor | None = None) -> Tensor:
    """How steep the critic is at each image, (N, ...) -> (N,), with a graph.

    The critic must not mix images: with batch norm it has no slope at one image.
    """
    x = x.detach().requires_grad_()
    given = () if labels is None else (labels,)
    # create_graph: the penalty is itself differentiated, by the critic's weights
    (gradient,) = torch.autograd.grad(critic(x, *given).sum(), x, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


class LinearPieces(TorchFunctionMode):
    """Within it, autograd knows that a leaky ReLU has no curvature.

    The penalty differentiates a gradient, and autograd would carry the second
    derivative of each leaky ReLU, which is 0, back through the network: zeros times
    weights. As a product with a constant it has none. Same numbers, a fifth less time.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.leaky_relu:
            return func(*args, **kwargs)
        x, slope = args[0], kwargs.get("negative_slope", 0.01)
        return x * torch.where(x.detach() > 0, 1.0, slope).to(x.dtype)


def gradient_penalty(
    critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Penalty () and the slopes (N,) that it is made of. Gulrajani et al. 2017, eq. 3.

    On interpolates, two-sided: slopes below 1 are punished too. Weight it by lambda 10.
    """
    with LinearPieces():
        norm = gradient_norm(critic, interpolate(real, fake), labels)
    return (norm - 1).square().mean(), norm


def power_iteration(weight: Tensor, steps: int = 20) -> Tensor:
    """Spectral norm of a matrix (m, n) -> (): the most that it can stretch a vector.

    Spectral norm as a layer divides by it: `torch.nn.utils.parametrizations` has that.
    Miyato et al. 2018, algorithm 1.
    """
    v = torch.ones(weight.shape[1], device=weight.device) / weight.shape[1] ** 0.5
    for _ in range(steps):
        u = F.normalize(weight @ v, dim=0)
        v = F.normalize(weight.T @ u, dim=0)
    return u @ weight @ v


# --- a step ---------------------------------------------------------------------------


def critic_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    labels: Tensor | None = None,
    lambda_gp: float = 10.0,
    gp_images: int | None = None,
) -> dict[str, Tensor]:
    """One step of the critic on real images (N, C, S, S) in [-1, 1]; what it found.

    "estimate" is the difference of mean scores; "slope", with a penalty only, the mean
    gradient norm on the interpolates. The penalty is a mean over pairs, and `gp_images`
    pairs of a batch estimate it: 16 of 64 save a third of the step.
    """
    given = () if labels is None else (labels,)
    z = torch.randn(len(real), generator.latent_dim, device=real.device)
    with torch.no_grad():  # the critic's step must not move the generator
        fake = generator(z, *given)
    loss = critic_loss(critic(real, *given), critic(fake, *given))
    found = {"estimate": -loss.detach()}
    if lambda_gp:
        few = [part[:gp_images] for part in (real, fake, *given)]
        penalty, norm = gradient_penalty(critic, *few)
        loss = loss + lambda_gp * penalty
        found["slope"] = norm.detach().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return found


def generator_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    n: int,
    labels: Tensor | None = None,
) -> Tensor:
    """One step of G on `n` new images; returns its loss."""
    given = () if labels is None else (labels,)
    device = next(generator.parameters()).device
    z = torch.randn(n, generator.latent_dim, device=device)
    critic.requires_grad_(False)  # G's step needs no gradient of the critic's weights
    loss = generator_loss(critic(generator(z, *given), *given))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    critic.requires_grad_(True)
    return loss.detach()


def split_batch(batch: Any, n: int) -> list[tuple[Tensor, Tensor | None]]:
    """Images, or (images, labels), in n equal parts: [(images, labels or None), ...].

    Raises ValueError on a batch that n does not divide.
    """
    images, labels = (batch, None) if isinstance(batch, Tensor) else batch
    if len(images) % n:
        raise ValueError(
            f"a batch of {len(images)} cannot feed {n} equal critic steps; use "
            f"batch_size={n} * images a step"
        )
    classes = [None] * n if labels is None else labels.chunk(n)
    return list(zip(images.chunk(n), classes, strict=True))


def make_train_step(
    generator: nn.Module,
    critic: nn.Module,
    opt_g: torch.optim.Optimizer,
    opt_c: torch.optim.Optimizer,
    *,
    n_critic: int = 5,
    lambda_gp: float = 10.0,
    gp_images: int | None = None,
    clip: float | None = None,
) -> Callable[[Any], dict[str, Tensor]]:
    """`train_step(batch)` for `fit`: `n_critic` steps of the critic, then one of G.

    A batch holds the images of all critic steps, n_critic * N of them, or a pair of
    images and labels for conditional networks. `clip=0.01, lambda_gp=0` is the first
    WGAN; `lambda_gp=0` alone is for a critic that is bounded by its layers.
    """

    def train_step(batch: Any) -> dict[str, Tensor]:
        for real, labels in split_batch(batch, n_critic):
            found = critic_step(
                generator, critic, opt_c, real, labels, lambda_gp, gp_images
            )
            if clip:
                clip_weights(critic, clip)
        loss_g = generator_step(generator, critic, opt_g, len(real), labels)
        return found | {"loss_g": loss_g}

    return train_step
