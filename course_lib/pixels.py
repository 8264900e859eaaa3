"""Pixels of one image into those of another: value range, and size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 in [-1, 1], a new tensor; other dtypes are only cast."""
    if images.dtype != torch.uint8:
        return images.float()
    return images.to(torch.float32).sub_(127.5).mul_(1 / 127.5)  # exactly -1 and 1


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Floats in [-1, 1] -> uint8 0..255, rounded and clipped; uint8 stays as it is."""
    if images.dtype == torch.uint8:
        return images
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_uint8(values: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Map [low, high] to 0..255, clipped; without a window the 0.5 and 99.5 percentile.

    Raises ValueError on NaN, infinity, or a window with low >= high.
    """
    values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "the image has NaN or infinite values; replace them first, for example "
            "by np.nan_to_num(image, nan=0, posinf=0, neginf=0)"
        )
    if window is None:
        low, high = np.percentile(values, (0.5, 99.5))
        if low == high:  # nearly all background
            low, high = values.min(), max(values.max(), values.min() + 1)
    else:
        low, high = window
        if low >= high:
            raise ValueError(f"window=(low, high) needs low < high, got {window}")
    scaled = np.clip((values - low) / (high - low), 0, 1)
    return np.round(255 * scaled).astype(np.uint8)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, C, H, W) -> (N, C, size, size): black bars to a square, then bilinear.

    With antialiasing, so that a smaller image is an average and not a pick of pixels.
    """
    height, width = images.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    bars = (left, side - width - left, top, side - height - top)
    return _interpolate(images, bars, size)


def resize_volumes(volumes: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, 1, D, H, W) -> (N, 1, size, size, size), antialiased."""
    planes = _interpolate(volumes[:, 0], (0, 0, 0, 0), size)  # (N, D, size, size)
    planes = _interpolate(planes.transpose(1, 2), (0, 0, 0, 0), size)
    return planes.transpose(1, 2)[:, None].contiguous()


def _interpolate(
    images: torch.Tensor, bars: tuple[int, int, int, int], size: int
) -> torch.Tensor:
    done = torch.empty((*images.shape[:2], size, size), dtype=torch.uint8)
    pixels = images.shape[1] * (max(images.shape[-2:]) ** 2 + size**2)
    step = max(1, 2**23 // pixels)  # images at once: 32 MB of floats
    for start in range(0, len(images), step):
        chunk = F.pad(images[start : start + step].float(), bars)
        chunk = F.interpolate(chunk, (size, size), mode="bilinear", antialias=True)
        done[start : start + step] = chunk.round_().clamp_(0, 255).to(torch.uint8)
    return done
