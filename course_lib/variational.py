"""The variational autoencoder of lesson 02: losses, networks, and its linear baseline.

torch only: this file imports nothing of the course, so you can carry it away. All
likelihoods are densities of images in [-1, 1], in nats: an ELBO above 0 is no error.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- the loss ------------------------------------------------------------------------


def reparameterise(mu: Tensor, logvar: Tensor) -> Tensor:
    """A draw from N(mu, exp(logvar)) that gradients pass. (N, L) twice -> (N, L).

    Kingma and Welling 2014, section 2.4.
    """
    std = torch.exp(0.5 * logvar)
    return mu + std * torch.randn_like(std)


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL from N(mu, exp(logvar)) to N(0, 1), per dimension. (N, L) twice -> (N, L).

    In nats, >= 0; sum over dim 1 for a code's whole KL. Kingma and Welling 2014,
    appendix B.
    """
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


def gaussian_nll(x: Tensor, x_hat: Tensor, log_sigma: Tensor) -> Tensor:
    """-log N(x; x_hat, sigma^2), summed over pixels. (N, C, H, W) twice -> (N,).

    In nats. `log_sigma` is one number: the log of the noise's standard deviation.
    """
    error = ((x - x_hat) / log_sigma.exp()) ** 2
    terms = 0.5 * error + log_sigma + 0.5 * math.log(2 * math.pi)
    return terms.flatten(1).sum(1)


def elbo_parts(
    x: Tensor, x_hat: Tensor, mu: Tensor, logvar: Tensor, log_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """The two parts of the negative ELBO, in nats: nll (N,) and KL (N, L).

    ELBO = -(nll + kl.sum(1)); `x_hat` is decoded from one draw of the code. Raises
    ValueError on unequal shapes, which would be broadcast in silence.
    """
    if x.shape != x_hat.shape:
        raise ValueError(
            f"x is {tuple(x.shape)} and x_hat {tuple(x_hat.shape)}; they must be equal"
        )
    kl = kl_to_standard_normal(mu, logvar)
    return gaussian_nll(x, x_hat, log_sigma), kl


def free_bits(kl: Tensor, floor: float) -> Tensor:
    """KL whose dimensions cost at least `floor` nats each. (N, L) -> ().

    The floor holds for the mean over the batch: below it a dimension gets no gradient.
    Kingma et al. 2016, eq. 15.
    """
    return kl.mean(dim=0).clamp(min=floor).sum()


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """A bound on log p(x), tighter than the ELBO. (N, K) -> (N,).

    log_weights[n, k] = log p(x_n | z) + log p(z) - log q(z | x_n) of the k-th draw; for
    K = 1 it is the ELBO's own estimate. Burda et al. 2016, eq. 8.
    """
    total = torch.logsumexp(log_weights, dim=1)
    return total - math.log(log_weights.shape[1])


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(z; mu, exp(logvar)), summed over the last dimension. (..., L) -> (...)."""
    error = (z - mu) ** 2 / logvar.exp()
    return -0.5 * (error + logvar + math.log(2 * math.pi)).sum(dim=-1)


# --- the networks --------------------------------------------------------------------


class VAE(nn.Module):
    """A variational autoencoder of any two networks (Kingma and Welling 2014).

    encoder: images (N, C, H, W) -> (N, 2 * latent_dim), the means and log variances;
    decoder: codes (N, latent_dim) -> images in [-1, 1], the means of the pixels.
    `log_sigma` is the log of the noise's standard deviation, one for all pixels. The
    log variances end at 2: a posterior is on the average no wider than the prior (0),
    and an image unlike all others could else get a KL of millions, or an infinite one.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim = latent_dim
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, dim=1)  # (N, 2L) -> (N, L), (N, L)
        return mu, logvar.clamp(max=2)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decode(reparameterise(mu, logvar)), mu, logvar

    def sample(self, n: int, generator: torch.Generator, *y: Tensor) -> Tensor:
        """n images of random codes; `y` (n,): the labels of a ConditionalVAE."""
        z = torch.randn(n, self.latent_dim, generator=generator)
        return self.decode(z.to(self.log_sigma), *y)


class ConditionalVAE(VAE):
    """A VAE that is told the class, on both sides (Sohn et al. 2015).

    encoder: (N, C + classes, H, W) -> (N, 2 * latent_dim); decoder: (N, latent_dim +
    classes) -> images. The code need not hold the class, so you can choose it.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, latent_dim: int, classes: int
    ) -> None:
        super().__init__(encoder, decoder, latent_dim)
        self.classes = classes

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        planes = F.one_hot(y, self.classes).to(x)[:, :, None, None]
        planes = planes.expand(-1, -1, *x.shape[2:])  # (N, K) -> (N, K, H, W)
        return super().encode(torch.cat([x, planes], dim=1))

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        told = F.one_hot(y, self.classes).to(z)
        return super().decode(torch.cat([z, told], dim=1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x, y)
        return self.decode(reparameterise(mu, logvar), y), mu, logvar


def mlp_vae(
    latent_dim: int = 32, hidden: int = 256, image_size: int = 32, channels: int = 1
) -> VAE:
    """A small VAE for experiments: one hidden layer each way, as in the first paper.

    Images (N, channels, S, S) in [-1, 1]. Five times as fast as a convolutional one.
    """
    pixels = channels * image_size**2
    encoder = nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, hidden),
        nn.SiLU(),
        nn.Linear(hidden, 2 * latent_dim),
    )
    decoder = nn.Sequential(
        nn.Linear(latent_dim, hidden),
        nn.SiLU(),
        nn.Linear(hidden, pixels),
        nn.Tanh(),
        nn.Unflatten(1, (channels, image_size, image_size)),
    )
    return VAE(encoder, decoder, latent_dim)


# --- codes ---------------------------------------------------------------------------


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a (t = 0) to b (t = 1) along an arc. (N, L) twice -> (N, L).

    Keeps the norm where a and b have one norm; a straight line cuts through the middle.
    Shoemake 1985. Codes of one direction are joined by a line.
    """
    cosine = F.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    sine = torch.sin(angle)
    arc = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    return torch.where(sine > 1e-4, arc / sine, (1 - t) * a + t * b)


# --- the linear baseline, where everything is known exactly --------------------------


def ppca_log_evidence(
    x: Tensor, mean: Tensor, components: Tensor, variances: Tensor, noise: float
) -> Tensor:
    """Exact log p(x) of probabilistic PCA, in nats. (N, C, H, W) -> (N,).

    mean (D,), components (k, D), orthonormal, with `variances` (k,) of the training
    codes; `noise`: mean variance of the D - k directions left out. It is the best
    linear VAE with k dimensions, its bound without a gap (Tipping and Bishop 1999).
    """
    rows = x.flatten(1) - mean
    codes = rows @ components.T
    rest = rows.square().sum(1) - codes.square().sum(1)  # outside the k directions
    left = rows.shape[1] - len(variances)
    log_det = variances.log().sum() + left * math.log(noise)
    distance = (codes.square() / variances).sum(1) + rest / noise
    return -0.5 * (rows.shape[1] * math.log(2 * math.pi) + log_det + distance)


def linear_rate_distortion(spectrum: Tensor, sigma: float, k: int) -> tuple[float, ...]:
    """(rate, distortion, active dimensions) of the best linear VAE at a fixed sigma.

    spectrum: (D,) variances of PCA, largest first. Rate in nats an image, distortion as
    the squared error summed over pixels. A direction pays for itself only where its
    variance exceeds sigma^2 (Lucas et al. 2019; reverse water-filling).
    """
    kept, noise = spectrum[:k].double(), sigma**2
    rate = 0.5 * (kept / noise).log().clamp(min=0).sum().item()
    distortion = kept.clamp(max=noise).sum() + spectrum[k:].double().sum()
    return rate, distortion.item(), int((kept > noise).sum())
