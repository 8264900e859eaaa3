"""The CycleGAN of lesson 05: networks, losses, image pool, and the steps of training.

torch only: this file imports nothing of the course, so you can carry it away.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count, pairwise

import torch
from torch import Tensor, nn

PAPER_WEIGHTS = {"gan": 1.0, "cycle": 10.0}


def conv_block(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> nn.Module:
    """Convolution, instance norm, ReLU. Reflection: no dark rim from a border of 0."""
    return nn.Sequential(
        nn.Conv2d(
            c_in,
            c_out,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            padding_mode="reflect",
        ),
        nn.InstanceNorm2d(c_out),
        nn.ReLU(),
    )


def up_block(c_in: int, c_out: int) -> nn.Module:
    """Twice the side by a fractionally strided convolution, instance norm, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(c_in, c_out, 3, 2, padding=1, output_padding=1),
        nn.InstanceNorm2d(c_out),
        nn.ReLU(),
    )


class ResidualBlock(nn.Module):
    """x + what two convolutions add to it. (N, channels, S, S) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv_block(channels, channels, 3),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class ResnetGenerator(nn.Module):
    """Image to image of the same size. (N, C, S, S) in [-1, 1] -> (-1, 1).

    `n_downs` convolutions of stride 2, `n_blocks` residual blocks, and as many
    fractionally strided convolutions back; S must divide by 2**n_downs. Zhu et al. 2017
    at 256 px: width 64, n_blocks 9, n_downs 2, kernel_size 7.
    """

    def __init__(
        self,
        width: int = 16,
        n_blocks: int = 3,
        n_downs: int = 1,
        kernel_size: int = 5,
        channels: int = 1,
    ) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(n_downs + 1)]
        layers = [conv_block(channels, width, kernel_size)]
        for c_in, c_out in pairwise(widths):
            layers.append(conv_block(c_in, c_out, 3, stride=2))  # S -> S/2
        layers += [ResidualBlock(widths[-1]) for _ in range(n_blocks)]
        for c_in, c_out in pairwise(widths[::-1]):
            layers.append(up_block(c_in, c_out))  # S/2 -> S
        last = conv_block(width, channels, kernel_size)[0]  # no norm, no ReLU
        self.layers = nn.Sequential(*layers, last, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PatchDiscriminator(nn.Module):
    """One logit for each patch. (N, C, S, S) in [-1, 1] -> (N, 1, s, s).

    `n_layers` convolutions of stride 2: with 2 of them a logit sees 22 x 22 pixels. No
    sigmoid: the least-squares loss takes the raw number. Isola et al. 2017.
    """

    def __init__(self, width: int = 32, n_layers: int = 2, channels: int = 1) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(n_layers)]
        layers = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for c_in, c_out in pairwise(widths):
            layers += [
                nn.Conv2d(c_in, c_out, 4, 2, 1),  # S -> S/2
                nn.InstanceNorm2d(c_out),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CycleGAN(nn.Module):
    """The four networks: `g_ab` and `g_ba` translate, `d_a` and `d_b` judge.

    `width`, `n_blocks`, `n_downs` as in ResnetGenerator, `d_width` and `n_layers` as in
    PatchDiscriminator; both domains have `channels`.
    """

    def __init__(
        self,
        width: int = 16,
        n_blocks: int = 3,
        n_downs: int = 1,
        d_width: int = 32,
        n_layers: int = 2,
        channels: int = 1,
    ) -> None:
        super().__init__()
        shape = (width, n_blocks, n_downs, 5, channels)
        self.g_ab, self.g_ba = ResnetGenerator(*shape), ResnetGenerator(*shape)
        self.d_a = PatchDiscriminator(d_width, n_layers, channels)
        self.d_b = PatchDiscriminator(d_width, n_layers, channels)

    @property
    def translators(self) -> nn.ModuleList:
        return nn.ModuleList([self.g_ab, self.g_ba])

    @property
    def judges(self) -> nn.ModuleList:
        return nn.ModuleList([self.d_a, self.d_b])


class ImagePool:
    """A store of earlier fakes: half of what a discriminator sees comes from it.

    Shrivastava et al. 2017. `size=0` gives back what came in. Draws from a generator of
    its own, seeded with `seed`.
    """

    def __init__(self, size: int = 50, seed: int = 0) -> None:
        self.size, self.images = size, []
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, fakes: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, without gradient."""
        shown = []
        for fake in fakes.detach():
            coin, place = torch.rand(2, generator=self.generator).tolist()
            if len(self.images) < self.size:
                self.images.append(fake)  # fill the pool first
            elif self.size and coin < 0.5:
                i = int(place * self.size)  # an old one out, this one in
                fake, self.images[i] = self.images[i], fake
            shown.append(fake)
        return torch.stack(shown)


# --- losses ---------------------------------------------------------------------------


def least_squares_loss(logits: Tensor, target: float) -> Tensor:
    """Mean of (logit - target)^2, any shape -> (); target 1 real, 0 fake. Mao 2017."""
    return (logits - target).square().mean()


def cycle_loss(real: Tensor, rec: Tensor) -> Tensor:
    """Mean |rec - real|, `rec` being `real` there and back. (N, C, H, W) x 2 -> ()."""
    return (rec - real).abs().mean()


def identity_loss(real: Tensor, same: Tensor) -> Tensor:
    """Mean |same - real|, `same` being `real` through the translator *into* its domain.

    (N, C, H, W) x 2 -> (). Zhu et al. 2017, section 5.2, for paintings to photographs.
    """
    return (same - real).abs().mean()


def translators_loss(
    nets: CycleGAN, reals: tuple[Tensor, Tensor], weights: dict[str, float]
) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor]]:
    """(real_a, real_b) -> the weighted sum, each loss, and (fake_a, fake_b).

    `weights` has "gan" and "cycle", and "identity" where it is wanted. Zhu et al. 2017,
    eq. 3; least squares instead of logarithms, as in their section 4.
    """
    real_a, real_b = reals
    fake_b, fake_a = nets.g_ab(real_a), nets.g_ba(real_b)
    rec_a, rec_b = nets.g_ba(fake_b), nets.g_ab(fake_a)
    on_a, on_b = nets.d_a(fake_a), nets.d_b(fake_b)
    losses = {
        "gan": least_squares_loss(on_a, 1.0) + least_squares_loss(on_b, 1.0),
        "cycle": cycle_loss(real_a, rec_a) + cycle_loss(real_b, rec_b),
    }
    if "identity" in weights:
        same_a, same_b = nets.g_ba(real_a), nets.g_ab(real_b)
        identity = identity_loss(real_a, same_a) + identity_loss(real_b, same_b)
        losses["identity"] = identity
    total = sum(weights[name] * loss for name, loss in losses.items())
    return total, losses, (fake_a, fake_b)


def judges_loss(
    nets: CycleGAN, reals: tuple[Tensor, Tensor], fakes: list[Tensor]
) -> Tensor:
    """What both discriminators minimise; the fakes must come without gradient."""
    total = 0.0
    for judge, real, fake in zip(nets.judges, reals, fakes, strict=True):
        total = total + least_squares_loss(judge(real), 1.0) / 2
        total = total + least_squares_loss(judge(fake), 0.0) / 2
    return total


# --- steps for training.fit -----------------------------------------------------------


def cycle_ramp(step: int, warm_up: int, start: float = 0.02) -> float:
    """Share of the cycle's weight at `step`: a parabola from `start` to 1 at `warm_up`.

    Not in the paper: with the whole weight from the first step, the translators agree
    on some invertible code before the judges can say which one (lesson 05).
    """
    return min(1.0, start + (1 - start) * (step / warm_up) ** 2) if warm_up else 1.0


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step downhill."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def make_cyclegan_step(
    nets: CycleGAN,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    weights: dict[str, float] = PAPER_WEIGHTS,
    warm_up: int = 0,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """`train_step((real_a, real_b))`: one step of both translators, one of both judges.

    The two batches need not belong together. `warm_up` as in `cycle_ramp`.
    `precision()` is entered around the networks: autocast on a GPU.
    """
    pools, steps = (ImagePool(seed=0), ImagePool(seed=1)), count()

    def train_step(reals: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        share = cycle_ramp(next(steps), warm_up)
        now = weights | {"cycle": share * weights["cycle"]}
        nets.judges.requires_grad_(False)  # this step needs no gradient of them
        with precision():
            total, losses, fakes = translators_loss(nets, reals, now)
        descend(opt_g, total)
        nets.judges.requires_grad_(True)
        shown = [pool(fake) for pool, fake in zip(pools, fakes, strict=True)]
        with precision():
            losses["judges"] = judges_loss(nets, reals, shown)
        descend(opt_d, losses["judges"])
        return losses

    return train_step


def make_recorded_step(
    nets: CycleGAN,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    record: Callable[..., Callable],
    weights: dict[str, float] = PAPER_WEIGHTS,
    warm_up: int = 0,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """`make_cyclegan_step` for a GPU: the first batch records it as two CUDA graphs.

    `record` is `training.capture_step`. One graph for the translators, one for the
    judges: the pools, which decide in Python what the judges see, stay between them.
    """
    pools, steps, recorded = (ImagePool(seed=0), ImagePool(seed=1)), count(), {}

    def translators_half(batch: tuple) -> dict[str, Tensor]:
        real_a, real_b, share = batch
        now = weights | {"cycle": share * weights["cycle"]}
        nets.judges.requires_grad_(False)
        with precision():
            total, losses, fakes = translators_loss(nets, (real_a, real_b), now)
        descend(opt_g, total)
        nets.judges.requires_grad_(True)
        return losses | {"fake_a": fakes[0].detach(), "fake_b": fakes[1].detach()}

    def judges_half(batch: tuple) -> dict[str, Tensor]:
        with precision():
            loss = judges_loss(nets, batch[:2], batch[2:])
        descend(opt_d, loss)
        return {"judges": loss}

    def run(half: Callable, batch: tuple, optimizer: torch.optim.Optimizer) -> dict:
        if half not in recorded:
            recorded[half] = record(half, batch, [optimizer])
        return dict(recorded[half](batch))

    def train_step(reals: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        # a tensor, which a graph reads anew; a number it would keep
        share = reals[0].new_full((), cycle_ramp(next(steps), warm_up))
        losses = run(translators_half, (*reals, share), opt_g)
        # copies, since the next replay writes over what this one gave
        fakes = losses.pop("fake_a").clone(), losses.pop("fake_b").clone()
        shown = [pool(fake) for pool, fake in zip(pools, fakes, strict=True)]
        return losses | run(judges_half, (*reals, *shown), opt_d)

    return train_step


@torch.no_grad()
def translate(generator: nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Run a translator over many images. (N, C, S, S) -> (N, C, S, S)."""
    return torch.cat([generator(part) for part in images.split(batch_size)])


# --- what the lesson measures ---------------------------------------------------------


def receptive_field(layers: list[tuple[int, int]]) -> int:
    """Side in pixels that one output sees through [(kernel, stride), ...]."""
    side = 1
    for kernel, stride in reversed(layers):
        side = (side - 1) * stride + kernel
    return side


def lesion_recall(
    images: Tensor,
    lesions: list[tuple[int, Tensor]],
    healthy: float,
    lesion: float,
) -> float:
    """Share of the lesions that are still lesions. (N, 1, H, W) -> 0..1.

    `lesions` are (image number, mask (H, W) bool); one is found if its mean value is
    nearer to that of true lesions than to that of healthy tissue.
    """
    found = 0
    for number, mask in lesions:
        value = images[number, 0][mask].mean()
        found += int(abs(value - lesion) < abs(value - healthy))
    return found / len(lesions)
