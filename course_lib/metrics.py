"""Metrics as pure functions: images in pairs here, sets in distances and neighbours.

Paired metrics need the true image beside the estimate, (N, C, H, W) each, and answer
per image, (N,). `data_range` is the width of the intensity scale and never guessed: 2
for images in [-1, 1], 1 for [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .distances import (
    Array,
    FrechetStatistics,
    as_tensor,
    check_devices,
    frechet_distance,
    frechet_infinity,
    frechet_statistics,
    frechet_statistics_from_moments,
    inception_score,
    inception_score_splits,
    kid,
    kid_subsets,
)
from .neighbours import (
    density_coverage,
    memorisation_distance,
    mifid,
    precision_recall,
)

__all__ = [
    "FrechetStatistics",
    "density_coverage",
    "diversity",
    "frechet_distance",
    "frechet_infinity",
    "frechet_statistics",
    "frechet_statistics_from_moments",
    "inception_score",
    "inception_score_splits",
    "kid",
    "kid_subsets",
    "mae",
    "memorisation_distance",
    "mifid",
    "ms_ssim",
    "ms_ssim_scales",
    "nmi",
    "precision_recall",
    "psnr",
    "ssim",
]

# Wang, Simoncelli & Bovik 2003: exponents of the five scales, finest first
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_CHUNK = 1 << 20  # pixels filtered at once: bounded temporaries, few kernel starts


def psnr(x: Array, y: Array, data_range: float = 2.0) -> Tensor:
    """PSNR in dB, per image; inf for equal images. (N, C, H, W) x 2 -> (N,).

    Raises ValueError on unequal shapes or devices, integers, NaN, data_range <= 0.
    """
    x, y = _image_pair(x, y, data_range)
    mse = (x - y).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(data_range**2 / mse)


def mae(x: Array, y: Array) -> Tensor:
    """Mean absolute error, per image, in units of the images. (N, C, H, W) x 2 -> (N,).

    Raises ValueError on unequal shapes or devices, integers, NaN.
    """
    x, y = _image_pair(x, y)
    return (x - y).abs().flatten(1).mean(dim=1)


def ssim(
    x: Array,
    y: Array,
    data_range: float = 2.0,
    *,
    window: str = "gaussian",
    window_size: int | None = None,
    sigma: float = 1.5,
    covariance: str = "population",
) -> Tensor:
    """SSIM, per image, averaged over the region where the window fits, then channels.

    (N, C, H, W) x 2 -> (N,), in [-1, 1], 1 for equal images; differentiable. `window`
    "gaussian" (11 taps, sigma 1.5) or "uniform" (7 taps); `covariance` "population" or
    "sample". Raises ValueError as `psnr`, and for images below the window.
    Wang et al. 2004.
    """
    x, y = _image_pair(x, y, data_range)
    taps = _taps(window, window_size, sigma)
    factor = _covariance_factor(covariance, len(taps))
    if min(x.shape[-2:]) < len(taps):
        raise ValueError(
            f"a {len(taps)}-tap window needs images of at least {len(taps)} px, got "
            f"{x.shape[-2]} x {x.shape[-1]}; pass a smaller odd window_size"
        )
    values = []
    for a, b in _chunks(x, y):
        luminance, contrast = _ssim_terms(a, b, taps, data_range, factor)
        values.append((luminance * contrast).mean(dim=(1, 2, 3)))
    return torch.cat(values)


def ms_ssim(
    x: Array, y: Array, data_range: float = 2.0, *, scales: int | None = None
) -> Tensor:
    """Multi-scale SSIM, per image. (N, C, H, W) x 2 -> (N,), in [0, 1]; differentiable.

    `scales` 1 to 5; None takes as many as the image carries (`ms_ssim_scales`), with
    the weights of these scaled to sum 1: compare values of one and the same number.
    Raises ValueError as `psnr`, and for images that cannot carry `scales`.
    Wang et al. 2003.
    """
    x, y = _image_pair(x, y, data_range)
    taps = _taps("gaussian", 11, 1.5)
    carried = ms_ssim_scales(min(x.shape[-2:]))
    if scales is None:
        scales = max(carried, 1)
    if not 1 <= scales <= len(MS_SSIM_WEIGHTS):
        raise ValueError(f"scales must be 1 to {len(MS_SSIM_WEIGHTS)}, got {scales}")
    if scales > carried:
        raise ValueError(
            f"{scales} scales with an 11-tap window need images of at least "
            f"{10 * 2 ** (scales - 1) + 1} px, got {x.shape[-2]} x {x.shape[-1]}; "
            f"these carry {carried}"
        )
    weights = torch.tensor(MS_SSIM_WEIGHTS[:scales], dtype=x.dtype, device=x.device)
    weights = weights / weights.sum()
    values = []
    for a, b in _chunks(x, y):
        product = 1.0
        for scale, weight in enumerate(weights):
            luminance, term = _ssim_terms(a, b, taps, data_range, 1.0)
            if scale == scales - 1:
                term = luminance * term  # the coarsest scale alone has luminance
            # a negative mean has no real power; all implementations stop at 0
            product = product * term.mean(dim=(2, 3)).clamp(min=0) ** weight
            a, b = _halve(a), _halve(b)
        values.append(product.mean(dim=1))
    return torch.cat(values)


def ms_ssim_scales(size: int) -> int:
    """How many scales of MS-SSIM (0 to 5) an image with a shorter side `size` carries.

    Each scale halves the image, rounding up, and must hold the 11-tap window: 28 px
    carry 2, 64 px carry 3, five need 161 px.
    """
    scales = 0
    while size >= 11 and scales < len(MS_SSIM_WEIGHTS):
        size, scales = (size + 1) // 2, scales + 1
    return scales


def nmi(x: Array, y: Array, *, bins: int = 32) -> Tensor:
    """Normalised mutual information (H(x) + H(y)) / H(x, y), per image, in [1, 2].

    (N, C, H, W) x 2 -> (N,); each image is binned over its own range, so that contrasts
    may differ; a constant image tells nothing: 1. Many bins on few pixels inflate it.
    Raises ValueError as `mae`. Studholme et al. 1999.
    """
    x, y = _image_pair(x, y)
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    return torch.cat([_nmi(a, b, bins) for a, b in _chunks(x, y, 1 << 20)])


def diversity(
    images: Array, data_range: float = 2.0, *, pairs: int = 2000, seed: int = 0
) -> float:
    """1 - mean SSIM between different images of one set: 0 when all are equal.

    (N, C, H, W) -> float; all pairs, or `pairs` random ones where there are more. It
    has a meaning beside the value of the real set only. Raises ValueError as `ssim`,
    and for fewer than 2 images.
    """
    images, _ = _image_pair(images, images, data_range)
    n = len(images)
    if n < 2:
        raise ValueError("diversity compares images with each other: pass at least 2")
    if n * (n - 1) // 2 <= pairs:
        first, second = torch.triu_indices(n, n, offset=1)
    else:
        generator = torch.Generator().manual_seed(seed)
        first = torch.randint(n, (pairs,), generator=generator)
        second = (first + torch.randint(1, n, (pairs,), generator=generator)) % n
    total = 0.0
    for a, b in zip(first.split(1024), second.split(1024), strict=True):
        total += ssim(images[a], images[b], data_range).sum().item()
    return 1 - total / len(first)


def _image_pair(x: Array, y: Array, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    x, y = as_tensor(x), as_tensor(y)
    if x.shape != y.shape or x.ndim != 4 or x.numel() == 0:
        raise ValueError(
            f"expected two batches of one shape (N, C, H, W), got {tuple(x.shape)} and "
            f"{tuple(y.shape)}; a grey image alone is image[None, None]"
        )
    check_devices(x, y)
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError(
            f"expected floating point images, got {x.dtype} and {y.dtype}; "
            "x.float() / 127.5 - 1 brings uint8 to [-1, 1]"
        )
    if not 0 < data_range < float("inf"):
        raise ValueError(
            f"data_range must be positive, got {data_range}: it is the width of the "
            "scale, 2 for images in [-1, 1], 1 for [0, 1]"
        )
    dtype = torch.promote_types(x.dtype, y.dtype)
    dtype = torch.promote_types(dtype, torch.float32)  # no sums in half precision
    x, y = x.to(dtype), y.to(dtype)
    for name, images in (("x", x), ("y", y)):
        bad = int((~images.flatten(1).sum(dim=1).isfinite()).sum())  # sums keep NaN
        if bad:
            raise ValueError(
                f"{bad} of {len(images)} images in {name} hold NaN or infinity; a "
                "metric of them means nothing: find out what made them"
            )
    return x, y


def _chunks(x: Tensor, y: Tensor, pixels: int = _CHUNK):
    size = max(1, pixels // x[0].numel())
    return zip(x.split(size), y.split(size), strict=True)


def _taps(window: str, size: int | None, sigma: float) -> Tensor:
    """The window in one dimension, (size,), float64, sum 1: SSIM's are separable."""
    if window not in ("gaussian", "uniform"):
        raise ValueError(f'window must be "gaussian" or "uniform", got {window!r}')
    if size is None:
        size = 11 if window == "gaussian" else 7
    if size < 3 or size % 2 == 0:
        raise ValueError(f"window_size must be odd and at least 3, got {size}")
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    if window == "uniform":
        taps = torch.ones_like(taps)
    return taps / taps.sum()


def _covariance_factor(covariance: str, size: int) -> float:
    if covariance not in ("population", "sample"):
        raise ValueError(
            f'covariance must be "population" or "sample", got {covariance!r}'
        )
    return size**2 / (size**2 - 1) if covariance == "sample" else 1.0


def _band(taps: Tensor, length: int, like: Tensor) -> Tensor:
    """The filter as a matrix, (length - taps + 1, length): a product beats conv2d."""
    free = length - len(taps)
    # each row is the one before, moved by one: so is a vector cut every length + 1
    rows = F.pad(taps, (0, free + 1)).repeat(free + 1)[: (free + 1) * length]
    return rows.view(free + 1, length).to(like)


def _ssim_terms(
    x: Tensor, y: Tensor, taps: Tensor, data_range: float, factor: float
) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps, (N, C, H', W') each."""
    # Sum and difference carry all moments in four filtered maps instead of five:
    # var(s) - var(d) = 4 cov(x, y), var(s) + var(d) = 2 (var x + var y). Equal images
    # have d = 0, so their SSIM is 1 to the last bit. What is done in place spares fresh
    # memory, which costs as much as the sums; autograd copies where it must.
    rows, columns = _band(taps, x.shape[2], x), _band(taps, x.shape[3], x)

    def filtered(maps: Tensor) -> Tensor:
        # one large product an axis for all images; each moves its axis to the front,
        # so no copy turns anything: (N, C, H, W) -> (W', N C H) -> (H', W' N C)
        maps = columns @ maps.reshape(-1, x.shape[3]).T
        return rows @ maps.view(-1, x.shape[2]).T

    def moments(maps: Tensor) -> tuple[Tensor, Tensor]:
        mean = filtered(maps).square_()
        return mean, filtered(maps.square_()).sub_(mean)

    def ratio(s: Tensor, d: Tensor, c: float) -> Tensor:
        value = (s.add_(c) - d).div_(s.add_(d))
        return value.view(len(rows), len(columns), *x.shape[:2]).permute(2, 3, 0, 1)

    (mean_s, var_s), (mean_d, var_d) = moments(x + y), moments(x - y)
    luminance = ratio(mean_s, mean_d, 2 * (0.01 * data_range) ** 2)
    # both variances times the factor: dividing the constant by it is the same
    return luminance, ratio(var_s, var_d, 2 * (0.03 * data_range) ** 2 / factor)


def _halve(x: Tensor) -> Tensor:
    # an odd edge is repeated (Wang's symmetric border), so a size rounds up
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
    return F.avg_pool2d(x, 2)


def _nmi(x: Tensor, y: Tensor, bins: int) -> Tensor:
    n = len(x)
    joint = _bin(x, bins) * bins + _bin(y, bins)
    joint = joint + torch.arange(n, device=x.device)[:, None] * bins**2
    counts = torch.bincount(joint.flatten(), minlength=n * bins**2)
    p = counts.view(n, bins, bins).to(torch.float64) / joint.shape[1]
    h_x, h_y = _entropy(p.sum(dim=2)), _entropy(p.sum(dim=1))
    h_xy = _entropy(p.flatten(1))
    nothing = h_xy == 0  # both constant: 0 / 0, and no information
    return torch.where(nothing, 1.0, (h_x + h_y) / h_xy.where(~nothing, 1.0)).to(x)


def _bin(x: Tensor, bins: int) -> Tensor:
    x = x.flatten(1)
    low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
    width = (high - low).where(high > low, 1.0)
    return ((x - low) / width * bins).long().clamp(max=bins - 1)


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(dim=1)
