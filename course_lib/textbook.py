"""The metrics of lesson 06 as their formulas stand in a textbook: plain and slow.

torch only: this file imports nothing of the course, so you can carry it away. What you
use is `course_lib.metrics`, which is faster, checks its input, and gives these numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def peak_snr(x: Tensor, y: Tensor) -> Tensor:
    """PSNR in dB, per image, of images in [-1, 1]. (N, C, H, W) twice -> (N,)."""
    mse = (x - y).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(2**2 / mse)


def gaussian_ssim(x: Tensor, y: Tensor, data_range: float = 2.0) -> Tensor:
    """SSIM per image where an 11 x 11 window fits. (N, C, H, W) twice -> (N,).

    Wang et al. 2004, eq. 13.
    """
    taps = torch.exp(-0.5 * ((torch.arange(11) - 5) / 1.5) ** 2)
    taps = taps / taps.sum()
    window = (taps[:, None] * taps).to(x)[None, None]  # (1, 1, 11, 11), sum 1

    def local_mean(images: Tensor) -> Tensor:
        return F.conv2d(images.flatten(0, 1)[:, None], window)

    mu_x, mu_y = local_mean(x), local_mean(y)
    var_x = local_mean(x * x) - mu_x**2
    var_y = local_mean(y * y) - mu_y**2
    cov = local_mean(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    contrast = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * contrast).view(len(x), -1).mean(dim=1)


def covariance(features: Tensor) -> Tensor:
    """Sample covariance of features. (N, d) -> (d, d)."""
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def root_trace(cov_a: Tensor, cov_b: Tensor) -> Tensor:
    """tr (A B)^(1/2) of two covariances, by symmetric matrices alone. -> ()."""
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    values = torch.linalg.eigvalsh(root_a @ cov_b @ root_a)
    return values.clamp(min=0).sqrt().sum()  # rounding leaves values below 0


def frechet_of_gaussians(a: Tensor, b: Tensor) -> Tensor:
    """Distance between Gaussians fitted to features (N, d) and (M, d). -> ().

    Heusel et al. 2017, eq. 6.
    """
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    cov_a, cov_b = covariance(a), covariance(b)
    return shift + cov_a.trace() + cov_b.trace() - 2 * root_trace(cov_a, cov_b)


def unbiased_mmd(k_aa: Tensor, k_bb: Tensor, k_ab: Tensor) -> Tensor:
    """Squared MMD from kernel values (N, N), (M, M), (N, M). -> (); may be below 0."""
    n, m = k_ab.shape
    within_a = (k_aa.sum() - k_aa.trace()) / (n * (n - 1))
    within_b = (k_bb.sum() - k_bb.trace()) / (m * (m - 1))
    return within_a + within_b - 2 * k_ab.mean()


def cubic_kernel(a: Tensor, b: Tensor) -> Tensor:
    """(x.y / d + 1)^3 of all pairs. (N, d), (M, d) -> (N, M). Binkowski et al. 2018."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def penultimate(classifier: nn.Sequential, images: Tensor) -> Tensor:
    """What the last layer of a classifier is given. (N, C, H, W) -> (N, d)."""
    classifier.eval()  # else batch norm mixes the images of a batch
    with torch.no_grad():
        return classifier[:-1](images)


def at_infinity(sizes: Tensor, values: Tensor) -> Tensor:
    """Intercept of the line in 1/N through values at several N. (K,), (K,) -> ().

    Chong and Forsyth 2020.
    """
    x = 1 / sizes
    slope = ((x - x.mean()) * (values - values.mean())).sum()
    slope = slope / (x - x.mean()).square().sum()
    return values.mean() - slope * x.mean()
