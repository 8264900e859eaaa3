"""The CycleGAN of lesson 05: networks, losses, image pool, and the steps of training.

torch only: this file imports nothing of the course, so you can carry it away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + what two convolutions add to it. (N, channels, S, S) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class ResnetGenerator(nn.Module):
    """Image to image of the same size. (N, C, S, S) in [-1, 1] -> (-1, 1).

    `n_downs` convolutions of stride 2, `n_blocks` residual blocks, as many fractionally
    strided convolutions back; S must divide by 2**n_downs. Zhu et al. 2017 at 256 px:
    width 64, n_blocks 9, n_downs 2, kernel_size 7.
    """

    def __init__(
        self,
        width: int = 16,
        n_blocks: int = 3,
        n_downs: int = 1,
        kernel_size: int = 5,
        in_channels: int = 1,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        wide = {"padding": kernel_size // 2, "padding_mode": "reflect"}
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, kernel_size, **wide),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
        ]
        for c in [width * 2**i for i in range(n_downs)]:
            layers += [
                nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),  # S -> S/2
                nn.InstanceNorm2d(2 * c),
                nn.ReLU(),
            ]
        layers += [ResidualBlock(width * 2**n_downs) for _ in range(n_blocks)]
        for c in [width * 2**i for i in reversed(range(n_downs))]:
            layers += [
                nn.ConvTranspose2d(2 * c, c, 3, 2, padding=1, output_padding=1),
                nn.InstanceNorm2d(c),
                nn.ReLU(),
            ]  # S/2 -> S
        layers += [nn.Conv2d(width, out_channels, kernel_size, **wide), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PatchDiscriminator(nn.Module):
    """One logit for each patch. (N, C, S, S) in [-1, 1] -> (N, 1, s, s).

    `n_layers` convolutions of stride 2: with 2 of them a logit sees 22 x 22 pixels. No
    sigmoid: the least-squares loss takes the raw number. Isola et al. 2017.
    """

    def __init__(self, width: int = 32, n_layers: int = 2, channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for c in [width * 2**i for i in range(n_layers - 1)]:
            layers += [
                nn.Conv2d(c, 2 * c, 4, stride=2, padding=1),  # S -> S/2
                nn.InstanceNorm2d(2 * c),
                nn.LeakyReLU(0.2),
            ]
        last = width * 2 ** (n_layers - 1)
        self.layers = nn.Sequential(*layers, nn.Conv2d(last, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CycleGAN(nn.Module):
    """The four networks: `g_ab`, `g_ba` translate, `d_a`, `d_b` judge.

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
        shape = (width, n_blocks, n_downs, 5, channels, channels)
        self.g_ab, self.g_ba = ResnetGenerator(*shape), ResnetGenerator(*shape)
        self.d_a = PatchDiscriminator(d_width, n_layers, channels)
        self.d_b = PatchDiscriminator(d_width, n_layers, channels)

    def generators(self) -> list[nn.Parameter]:
        return [*self.g_ab.parameters(), *self.g_ba.parameters()]

    def discriminators(self) -> list[nn.Parameter]:
        return [*self.d_a.parameters(), *self.d_b.parameters()]


class ImagePool:
    """A store of earlier fakes: half of what the discriminator sees comes from it.

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
            if len(self.images) < self.size:  # fill it first
                self.images.append(fake)
            elif self.size and coin < 0.5:  # an old one out, this one in
                place = int(place * self.size)
                fake, self.images[place] = self.images[place], fake
            shown.append(fake)
        return torch.stack(shown)


# --- losses ---------------------------------------------------------------------------


def least_squares_loss(logits: Tensor, target: float) -> Tensor:
    """Mean of (logit - target)^2, any shape -> (): target 1 real, 0 fake. Mao 2017."""
    return (logits - target).square().mean()


def cycle_loss(real: Tensor, rec: Tensor) -> Tensor:
    """Mean |rec - real| after a way there and back. (N, C, H, W) x 2 -> ()."""
    return (rec - real).abs().mean()


def identity_loss(real: Tensor, same: Tensor) -> Tensor:
    """Mean |same - real|, `same` being what a translator *into* real's domain does."""
    return (same - real).abs().mean()


# --- steps for training.fit -----------------------------------------------------------


def make_cyclegan_step(
    nets: CycleGAN,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    *,
    lambda_cycle: float = 10.0,
    lambda_identity: float = 0.0,
    lambda_adversarial: float = 1.0,
    pool_size: int = 50,
    seed: int = 0,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """`train_step((real_a, real_b))`: one step of both generators, one of both judges.

    The two batches need not belong together. `lambda_identity` is in units of the
    loss, not of `lambda_cycle`. `precision()` is entered around the networks, such as
    autocast on a GPU. Zhu et al. 2017, eq. 3 and section 4.
    """
    pool_a, pool_b = ImagePool(pool_size, seed), ImagePool(pool_size, seed + 1)

    def train_step(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        real_a, real_b = batch
        judges = nets.discriminators()
        for weight in judges:  # G's step needs no gradient of D's weights
            weight.requires_grad_(False)
        with precision():
            fake_b, fake_a = nets.g_ab(real_a), nets.g_ba(real_b)
            rec_a, rec_b = nets.g_ba(fake_b), nets.g_ab(fake_a)
            loss_cycle = cycle_loss(real_a, rec_a) + cycle_loss(real_b, rec_b)
            loss_g = least_squares_loss(nets.d_b(fake_b), 1.0)
            loss_g = loss_g + least_squares_loss(nets.d_a(fake_a), 1.0)
            total = lambda_adversarial * loss_g + lambda_cycle * loss_cycle
            if lambda_identity:
                same_a, same_b = nets.g_ba(real_a), nets.g_ab(real_b)
                loss_identity = identity_loss(real_a, same_a)
                loss_identity = loss_identity + identity_loss(real_b, same_b)
                total = total + lambda_identity * loss_identity
        opt_g.zero_grad()
        total.backward()
        opt_g.step()

        for weight in judges:
            weight.requires_grad_(True)
        with precision():  # the pool detaches: D's step must not reach G
            pairs = (nets.d_a, real_a, pool_a(fake_a)), (nets.d_b, real_b, pool_b(fake_b))
            loss_d = sum(
                0.5 * least_squares_loss(judge(real), 1.0)
                + 0.5 * least_squares_loss(judge(fake), 0.0)
                for judge, real, fake in pairs
            )
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        return {"loss_g": loss_g, "loss_d": loss_d, "cycle": loss_cycle}

    return train_step


def make_paired_step(
    generator: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """`train_step((source, target))` of plain regression: L1 on true pairs."""

    def train_step(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        source, target = batch
        loss = (generator(source) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    return train_step


@torch.no_grad()
def translate(generator: nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Run a translator over many images. (N, C, S, S) -> (N, C, S, S)."""
    return torch.cat([generator(part) for part in images.split(batch_size)])


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """Side in pixels that one output sees, for convolutions [(kernel, stride), ...]."""
    side = 1
    for kernel, stride in reversed(list(layers)):
        side = (side - 1) * stride + kernel
    return side
