"""The autoencoder of lesson 01: network, losses, and the baseline that it must beat.

torch only: this file imports nothing of the course, so you can carry it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


def feature_sizes(image_size: int, width: int) -> tuple[list[int], int]:
    """Channels after each halving of the side, and the last side: 32 -> 16 -> 8 -> 4.

    `width` channels at 16 x 16 (or 14 x 14), twice as many on each quarter of the
    pixels, so that each layer costs the same. Raises ValueError on another size.
    """
    if image_size not in (16, 28, 32, 64, 128, 256):
        raise ValueError(f"image_size {image_size}: choose 28, 32, 64 or 128")
    features, side = [], image_size
    while side > 4 and side % 2 == 0:
        features.append(max(1, width * 2 ** len(features) // max(1, image_size // 32)))
        side //= 2
    return features, side


class Encoder(nn.Module):
    """Image to code. (N, channels, S, S) in [-1, 1] -> (N, latent_dim)."""

    def __init__(
        self,
        latent_dim: int = 32,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
    ) -> None:
        super().__init__()
        features, side = feature_sizes(image_size, width)
        blocks: list[nn.Module] = []
        for c_in, c_out in pairwise([channels, *features]):
            blocks += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False),  # S -> S/2
                nn.BatchNorm2d(c_out),
                nn.SiLU(),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.to_code = nn.Linear(features[-1] * side * side, latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_code(self.blocks(x).flatten(1))  # (N, C, 4, 4) -> (N, latent)


class Decoder(nn.Module):
    """Code to image. (N, latent_dim) -> (N, channels, S, S) in (-1, 1)."""

    def __init__(
        self,
        latent_dim: int = 32,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
    ) -> None:
        super().__init__()
        features, side = feature_sizes(image_size, width)
        self.from_code = nn.Linear(latent_dim, features[-1] * side * side)
        self.unflatten = nn.Unflatten(1, (features[-1], side, side))
        blocks: list[nn.Module] = []
        for c_in, c_out in pairwise([*features[::-1], channels]):
            blocks += [
                nn.BatchNorm2d(c_in),
                nn.SiLU(),
                # kernel 4, stride 2: every pixel is covered equally, no checkerboard
                nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1),  # S/2 -> S
            ]
        self.blocks = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.blocks(self.unflatten(self.from_code(z)))


class Autoencoder(nn.Module):
    """Image to code to image. (N, channels, S, S) in [-1, 1] -> the same shape.

    S: 28, 32, 64 or 128. `encoder` and `decoder` are the halves (Hinton and
    Salakhutdinov 2006, with convolutions).
    """

    def __init__(
        self,
        latent_dim: int = 32,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = Encoder(latent_dim, width, image_size, channels)
        self.decoder = Decoder(latent_dim, width, image_size, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def reconstruction_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared error over all pixels. (N, C, H, W) twice -> (); no unit.

    Raises ValueError on unequal shapes, which would be broadcast in silence.
    """
    if x.shape != x_hat.shape:
        raise ValueError(
            f"x is {tuple(x.shape)} and x_hat {tuple(x_hat.shape)}; they must be equal"
        )
    return (x - x_hat).square().mean()


def sparsity_penalty(z: Tensor) -> Tensor:
    """Mean absolute value of the codes. (N, latent_dim) -> ().

    The L1 term of sparse coding (Olshausen and Field 1996, eq. 2 with S(x) = |x|). It
    also falls if codes shrink while the decoder grows, so decay the decoder's weights.
    """
    return z.abs().mean()


def add_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + sigma * noise, for denoising (Vincent et al. 2008). Same shape, not clamped.

    `sigma` in units of the image, whose range [-1, 1] is 2 wide.
    """
    if sigma < 0:
        raise ValueError(f"sigma must not be negative, got {sigma}")
    noise = torch.randn(x.shape, generator=generator, device=generator.device)
    return x + sigma * noise.to(x)


def denoising_loss(
    model: nn.Module, x: Tensor, sigma: float, generator: torch.Generator
) -> Tensor:
    """The model sees noisy images, and is compared with the clean ones. -> ()."""
    noisy = add_noise(x, sigma, generator)
    return reconstruction_loss(x, model(noisy))


def residual_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """What a reconstruction got wrong, where. (N, C, H, W) twice -> (N, H, W), >= 0."""
    return (x - x_hat).abs().mean(dim=1)


def sample_codes(codes: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n draws from a Gaussian with the codes' mean and covariance. (N, d) -> (n, d)."""
    noise = torch.randn(n, codes.shape[1], generator=generator)
    factor = torch.linalg.cholesky(torch.cov(codes.T))
    return codes.mean(dim=0) + noise @ factor.T


@dataclass(frozen=True)
class PCA:
    """The best linear autoencoder: `mean` (D,), orthonormal `components` (k, D)."""

    mean: Tensor
    components: Tensor
    shape: tuple[int, ...]

    def encode(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, k), the largest variance first."""
        return (x.flatten(1) - self.mean) @ self.components.T

    def decode(self, z: Tensor) -> Tensor:
        """(N, k) -> (N, C, H, W), in [-1, 1]: clamping can only come closer."""
        return (z @ self.components + self.mean).clamp(-1, 1).unflatten(1, self.shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


@torch.no_grad()
def fit_pca(images: Tensor, n_components: int) -> PCA:
    """Fit PCA to images (N, C, H, W) in [-1, 1]. Raises ValueError if k > min(N, D).

    Randomised subspace iteration (Halko et al. 2011): at 64 px ten times as fast as
    the covariance's eigenvectors, and equal to three decimals of PSNR on images (whose
    spectrum falls; it is less exact on white noise).
    """
    x = images.flatten(1)
    largest = min(x.shape)
    if not 1 <= n_components <= largest:
        raise ValueError(f"n_components {n_components}: choose 1 to {largest}")
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # leaves the lesson's numbers alone
        torch.manual_seed(0)
        _, _, v = torch.pca_lowrank(x, q=min(n_components + 16, largest), niter=6)
    return PCA(x.mean(0), v[:, :n_components].T.contiguous(), tuple(images.shape[1:]))
