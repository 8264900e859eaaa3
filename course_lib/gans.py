"""The DCGAN of lesson 03: networks, losses, the step, and a toy that shows collapse.

torch only: this file imports nothing of the course, so you can carry it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

KINDS = ("saturating", "non-saturating", "least-squares", "hinge")
Augment = Callable[[Tensor], Tensor]
Batch = Tensor | tuple[Tensor, Tensor]


def stage_widths(
    image_size: int, width: int, *, odd: bool = False
) -> tuple[list[int], int]:
    """Channels from the largest map to the smallest, and the last side: 32 -> 4.

    `width` channels at 16 x 16 (14 x 14), twice as many on each quarter of the pixels,
    so that each layer costs the same. 28 px end at 7, or with `odd` at 3: a convolution
    can halve 7, a transposed one cannot come back. Raises ValueError on another size.
    """
    if image_size not in (16, 28, 32, 64, 128, 256):
        raise ValueError(f"image_size {image_size}: choose 28, 32, 64 or 128")
    widths, side = [], image_size
    while side > 4 and (side % 2 == 0 or odd):
        widths.append(max(1, width * 2 ** len(widths) // max(1, image_size // 32)))
        side //= 2
    return widths, side


def up_block(c_in: int, c_out: int) -> nn.Sequential:
    """Batch norm, ReLU, and a transposed convolution that doubles the side."""
    return nn.Sequential(
        nn.BatchNorm2d(c_in),
        nn.ReLU(inplace=True),
        # kernel 4, stride 2: every pixel is covered equally, no checkerboard
        nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
    )


class Generator(nn.Module):
    """Noise to image. (N, latent_dim), labels (N,) or None -> (N, channels, S, S).

    ReLU and batch norm inside, tanh at the output: images in (-1, 1). With
    `num_classes` the label stands beside z, one-hot (Mirza and Osindero 2014): a loud
    embedding would drown z, and each class collapse to one image. S: 28, 32, 64 or 128.
    Radford et al. 2015.
    """

    def __init__(
        self,
        latent_dim: int = 64,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        widths, side = stage_widths(image_size, width)
        inputs = latent_dim + (num_classes or 0)
        self.project = nn.Linear(inputs, widths[-1] * side**2, bias=False)
        self.unflatten = nn.Unflatten(1, (widths[-1], side, side))
        blocks = [up_block(*c) for c in pairwise([*widths[::-1], channels])]
        self.blocks = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.num_classes:
            z = torch.cat([z, F.one_hot(labels, self.num_classes).to(z)], dim=1)
        return self.blocks(self.unflatten(self.project(z)))


class Residual(nn.Module):
    """x plus what one more layer finds in it. (N, C, H, W) -> (N, C, H, W), any H, W.

    x + ReLU(batch norm(3 x 3 convolution of x)): a deeper block whose gradient also
    goes straight through (He et al. 2016).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.conv(x)))


def with_residuals(generator: Generator) -> Generator:
    """The same generator, with a `Residual` before each up-convolution but the last.

    In place, and before `init_weights` and the optimiser; z and images as before. The
    last has the largest map, where a layer more would cost the most.
    """
    *inner, _last, _tanh = generator.blocks
    for block in inner:
        block.insert(2, Residual(block[0].num_features))  # behind batch norm and ReLU
    return generator


def down_block(c_in: int, c_out: int, norm: str = "batch") -> nn.Sequential:
    """A convolution that halves the side, a norm and LeakyReLU.

    `norm`: "batch", "none", "instance", or "spectral", which acts on the weights.
    """
    free = norm in ("none", "spectral")  # the other norms have a bias of their own
    conv = nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=free)
    layers = {"batch": nn.BatchNorm2d(c_out), "none": nn.Identity()}
    layers["instance"] = nn.InstanceNorm2d(c_out, affine=True)
    layers["spectral"] = nn.Identity()
    if norm not in layers:
        raise ValueError(f"norm {norm!r}: choose from {', '.join(layers)}")
    conv = spectral_norm(conv) if norm == "spectral" else conv
    return nn.Sequential(conv, layers[norm], nn.LeakyReLU(0.2, inplace=True))


class Discriminator(nn.Module):
    """Image to one logit. (N, channels, S, S) in [-1, 1], labels or None -> (N,).

    LeakyReLU, strided convolutions, a linear output: no sigmoid, the loss has it.
    `norm` (see `down_block`) spares the first layer, as in the paper, but for
    "spectral", which is on every layer. With `num_classes` each class has an output of
    its own (the projection of Miyato and Koyama 2018, on the last map).
    """

    def __init__(
        self,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths, side = stage_widths(image_size, width, odd=True)
        norms = [norm if norm == "spectral" else "none", *[norm] * len(widths)]
        steps = zip([channels, *widths], widths, norms, strict=False)
        self.blocks = nn.Sequential(*(down_block(*step) for step in steps))
        self.head = nn.Linear(widths[-1] * side**2, num_classes or 1)
        if norm == "spectral":
            self.head = spectral_norm(self.head)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.head(self.blocks(x).flatten(1))  # (N, classes)
        if self.num_classes is None:
            return logits[:, 0]
        return logits.gather(1, labels[:, None])[:, 0]


def init_weights(module: nn.Module) -> None:
    """For `net.apply`: weights N(0, 0.02), batch-norm scales N(1, 0.02), biases 0.

    Radford et al. 2015, section 4. Spectral norm rescales its weights: left alone.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)  # N(0, 0.02) would mute the layer
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)


# --- the two losses -------------------------------------------------------------------


def generator_loss(fake: Tensor, kind: str = "non-saturating") -> Tensor:
    """What G minimises, from D's logits on G's images. (N,) -> ().

    "saturating": log(1 - D), Goodfellow et al. 2014, eq. 1; "non-saturating": -log D,
    their section 3; "least-squares": Mao et al. 2017; "hinge": Lim and Ye 2017.
    """
    if kind == "saturating":
        return F.logsigmoid(-fake).mean()
    if kind == "non-saturating":
        return F.softplus(-fake).mean()
    if kind == "least-squares":
        return (fake - 1).square().mean() / 2
    if kind == "hinge":
        return -fake.mean()
    raise ValueError(f"kind {kind!r}: choose from {', '.join(KINDS)}")


def discriminator_loss(
    real: Tensor,
    fake: Tensor,
    kind: str = "non-saturating",
    real_label: float = 1.0,
) -> Tensor:
    """What D minimises, from its logits. (N,), (M,) -> ().

    Both logistic kinds share it. `real_label` 0.9 is one-sided label smoothing
    (Salimans et al. 2016); the hinge has no label. Kinds as in `generator_loss`.
    """
    if kind in ("saturating", "non-saturating"):
        cross_entropy = F.softplus(real) - real_label * real
        return cross_entropy.mean() + F.softplus(fake).mean()
    if kind == "least-squares":
        return (real - real_label).square().mean() / 2 + fake.square().mean() / 2
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    raise ValueError(f"kind {kind!r}: choose from {', '.join(KINDS)}")


def r1_penalty(
    discriminator: nn.Module, real: Tensor, labels: Tensor | None = None
) -> Tensor:
    """Mean squared norm of D's gradient at real images, () with a graph.

    To be weighted by gamma / 2: Mescheder et al. 2018, eq. 9. `discriminator` must not
    mix images (no batch norm), or this is not the gradient of one image's logit.
    """
    real = real.detach().requires_grad_()
    logits = discriminator(real, labels) if labels is not None else discriminator(real)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def update_discriminator(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None = None,
    *,
    kind: str = "non-saturating",
    real_label: float = 1.0,
    r1: float = 0.0,
    augment: Augment = nn.Identity(),  # noqa: B008 - it has no state
) -> Tensor:
    """One step of D; returns its loss, (), without the penalty.

    `r1` is gamma of the penalty, taken on eight images: an eighth of a batch at each
    step costs what a whole batch at each eighth step would. `augment`: see
    `diff_augment`.
    """
    fake = fake.detach()  # D's step must not move the generator
    real_logits = discriminator(augment(real), labels)
    fake_logits = discriminator(augment(fake), labels)
    loss = discriminator_loss(real_logits, fake_logits, kind, real_label)
    total = loss
    if r1:
        few = None if labels is None else labels[:8]
        total = loss + r1 / 2 * r1_penalty(discriminator, real[:8], few)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return loss.detach()


def update_generator(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: Tensor,
    labels: Tensor | None = None,
    *,
    kind: str = "non-saturating",
    augment: Augment = nn.Identity(),  # noqa: B008
) -> Tensor:
    """One step of G, on fakes with a graph; returns its loss, ()."""
    discriminator.requires_grad_(False)  # D hands a gradient on and needs none itself
    loss = generator_loss(discriminator(augment(fake), labels), kind)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    discriminator.requires_grad_(True)
    return loss.detach()


def make_train_step(
    generator: nn.Module,
    discriminator: nn.Module,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    *,
    kind: str = "non-saturating",
    real_label: float = 1.0,
    r1: float = 0.0,
    augment: Augment = nn.Identity(),  # noqa: B008
) -> Callable[[Batch], dict[str, Tensor]]:
    """`train_step(batch)` for `fit`: one step of D and one of G, on the same fakes.

    A batch is images in [-1, 1], or (images, labels) for conditional networks.
    """
    options_d = {"real_label": real_label, "r1": r1}
    common = {"kind": kind, "augment": augment}

    def train_step(batch: Batch) -> dict[str, Tensor]:
        real, labels = (batch, None) if isinstance(batch, Tensor) else batch
        z = torch.randn(len(real), generator.latent_dim, device=real.device)
        fake = generator(z, labels)
        loss_d = update_discriminator(
            discriminator, opt_d, real, fake, labels, **options_d, **common
        )
        loss_g = update_generator(discriminator, opt_g, fake, labels, **common)
        return {"loss_d": loss_d, "loss_g": loss_g}

    return train_step


def diff_augment(x: Tensor, policy: str = "brightness,translation,cutout") -> Tensor:
    """Random changes that gradients pass through, new ones for each image; same shape.

    Brightness +/- 0.5, shift by up to 1/8 of the side (filled with 0, mid-grey), a
    square of half the side set to 0. Apply to real *and* fake images, in the steps of D
    *and* G: on the reals alone, G would learn the changes. Zhao et al. 2020.
    """
    changes = {"brightness": _brighten, "translation": _translate, "cutout": _cut_out}
    for name in policy.split(","):
        if name not in changes:
            raise ValueError(f"policy {name!r}: choose from {', '.join(changes)}")
        x = changes[name](x)
    return x


def _brighten(x: Tensor) -> Tensor:
    return x + torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) - 0.5


def _translate(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    reach = max(1, height // 8)
    padded = F.pad(x, (reach,) * 4)
    rows, columns = torch.randint(2 * reach + 1, (2, n, 1), device=x.device)
    rows = rows + torch.arange(height, device=x.device)  # (N, H)
    columns = columns + torch.arange(width, device=x.device)  # (N, W)
    image = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _cut_out(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    corner = torch.rand(2, n, 1, device=x.device) - 0.25  # its centre is inside
    y, x0 = corner[0] * height, corner[1] * width
    rows, columns = (torch.arange(s, device=x.device) for s in (height, width))
    in_rows = (rows >= y) & (rows < y + height / 2)  # (N, H)
    in_columns = (columns >= x0) & (columns < x0 + width / 2)  # (N, W)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return x * ~hole


# --- a toy that shows mode collapse ---------------------------------------------------


def ring_of_gaussians(
    n: int, generator: torch.Generator, modes: int = 8, sigma: float = 0.02
) -> Tensor:
    """Points from Gaussians on the unit circle. -> (n, 2). Metz et al. 2017."""
    angle = torch.randint(modes, (n,), generator=generator) * (2 * math.pi / modes)
    centres = torch.stack([angle.cos(), angle.sin()], dim=1)
    return centres + sigma * torch.randn(n, 2, generator=generator)


def ring_coverage(
    points: Tensor, modes: int = 8, sigma: float = 0.02, reach: float = 3.0
) -> tuple[int, float]:
    """(n, 2) -> how many modes are found, and the share of points that lie on one.

    A point lies on a mode within `reach` sigma of its centre; a mode is found if it
    has a fifth of its fair share of the points or more.
    """
    return mode_coverage(points, ring_centres(modes), sigma, reach)


def ring_centres(modes: int = 8) -> Tensor:
    """Where the modes of `ring_of_gaussians` lie, (modes, 2)."""
    angle = torch.arange(modes) * (2 * math.pi / modes)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def mode_coverage(
    points: Tensor, centres: Tensor, sigma: float, reach: float = 3.0
) -> tuple[int, float]:
    """`ring_coverage` for modes anywhere: points (n, 2), centres (modes, 2)."""
    distance, nearest = torch.cdist(points.detach().float(), centres).min(dim=1)
    on_mode = distance <= reach * sigma
    counts = torch.bincount(nearest[on_mode], minlength=len(centres))
    found = int((counts >= len(points) / len(centres) / 5).sum())
    return found, on_mode.float().mean().item()


class PointNet(nn.Module):
    """A network for points, not images. (N, inputs), labels ignored -> (N, outputs).

    With one output, (N,): the logits of a discriminator.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.latent_dim, self.outputs = inputs, outputs
        sizes = [inputs, hidden, hidden]
        layers = [nn.Sequential(nn.Linear(*s), nn.ReLU()) for s in pairwise(sizes)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, outputs))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        return h.squeeze(1) if self.outputs == 1 else h
