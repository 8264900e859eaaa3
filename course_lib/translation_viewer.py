"""The translation viewer of lesson 05: what a translator made, beside the truth.

Plain functions, and a thin shell; the browser does the rest
(`translation_viewer.js`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.browser_widget import BrowserWidget
from course_lib.plotting import COLOURS, small_png, to_uint8

if TYPE_CHECKING:
    from torch import Tensor

_STRONGEST = 1.6  # a difference of 1 / 1.6 of half the range has the full colour


def slice_facts(
    made: np.ndarray, truth: np.ndarray, lesions: np.ndarray | None = None
) -> list[dict[str, float | None]]:
    """Of each slice: PSNR in dB, and the mean inside its lesions, made and true.

    made, truth: uint8 (N, H, W); lesions: bool (N, H, W). Means in [-1, 1], None for a
    slice without lesions. Equal slices have 99 dB.
    """
    facts = []
    for i, (a, b) in enumerate(
        zip(made.astype(float), truth.astype(float), strict=True)
    ):
        error = ((a - b) ** 2).mean()
        psnr = 10 * np.log10(255**2 / error) if error else 99.0
        fact: dict[str, float | None] = {"psnr": round(float(psnr), 2)}
        where = None if lesions is None else lesions[i]
        there = where is not None and where.any()
        fact["inside"] = round(float(a[where].mean() / 127.5 - 1), 3) if there else None
        fact["truth_inside"] = (
            round(float(b[where].mean() / 127.5 - 1), 3) if there else None
        )
        facts.append(fact)
    return facts


def difference_picture(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Blue where `made` is too dark, orange where too bright. uint8 (H, W) -> RGB."""
    from PIL import ImageColor

    d = (made.astype(float) - truth.astype(float)) / 128
    part = np.minimum(1, np.abs(d) * _STRONGEST)[..., None]
    dark, bright = (np.array(ImageColor.getrgb(c), float) for c in COLOURS[:2])
    colour = np.where(d[..., None] < 0, dark, bright)
    return (255 - part * (255 - colour)).astype(np.uint8)


def outlined(picture: np.ndarray, mask: np.ndarray, zoom: int, colour: str) -> Any:
    """The picture, `zoom` times as large, with a line around the mask, as an image.

    picture: uint8 (H, W) or (H, W, 3); mask: bool (H, W).
    """
    from PIL import Image, ImageDraw

    high, wide = mask.shape
    image = Image.fromarray(picture).convert("RGB")
    image = image.resize((wide * zoom, high * zoom), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    framed = np.pad(mask, 1).astype(int)
    for y, x in np.argwhere(np.diff(framed[1:-1], axis=1)):
        pen.line((x * zoom, y * zoom, x * zoom, (y + 1) * zoom), fill=colour)
    for y, x in np.argwhere(np.diff(framed[:, 1:-1], axis=0)):
        pen.line((x * zoom, y * zoom, (x + 1) * zoom, y * zoom), fill=colour)
    return image


class TranslationViewer(BrowserWidget):
    """Source, translations and truth under a divider; difference; lesion outlines.

    layers: {name: images (N, 1, H, W) in [-1, 1]}, the source first, the truth last,
    one or more translations between. `lesions`: bool (N, H, W) or (N, 1, H, W).
    `titles`: a name for each of the N slices.
    """

    module = Path(__file__).with_name("translation_viewer.js")
    title = "Translation viewer"
    height = 560

    def __init__(
        self,
        layers: Mapping[str, Tensor | np.ndarray],
        *,
        lesions: Tensor | np.ndarray | None = None,
        titles: Sequence[str] | None = None,
    ):
        if len(layers) < 3:
            raise ValueError(
                "layers are the source, at least one translation, and the truth; got "
                + (", ".join(layers) or "none")
            )
        self.layers = {name: to_uint8(images) for name, images in layers.items()}
        shapes = {images.shape for images in self.layers.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 3:
            told = ", ".join(f"{k} {x.shape}" for k, x in self.layers.items())
            raise ValueError(f"expected grey images of one shape, got {told}")
        (self.shape,) = shapes
        self.lesions = None
        if lesions is not None:
            self.lesions = np.asarray(lesions).reshape(self.shape).astype(bool)
        count = self.shape[0]
        self.titles = list(
            titles or [f"slice {i + 1} of {count}" for i in range(count)]
        )
        if len(self.titles) != count:
            raise ValueError(f"{count} slices, but {len(self.titles)} titles")
        _, *made, truth = self.layers.values()
        self.facts = [slice_facts(images, truth, self.lesions) for images in made]
        pixels = b"".join(images.tobytes() for images in self.layers.values())
        masks = b"" if self.lesions is None else self.lesions.tobytes()
        spec = {
            "names": list(self.layers),
            "titles": self.titles,
            "shape": list(self.shape[1:]),
            "cases": count,
            "facts": self.facts,
        }
        self.start({"spec": spec, "pixels": pixels, "lesions": masks})

    def alt(self) -> str:
        source, *made, truth = self.layers
        told = []
        for name, facts in zip(made, self.facts, strict=True):
            one = f"{name}: PSNR {facts[0]['psnr']:.1f} dB"
            if facts[0]["inside"] is not None:
                one += (
                    f", mean in the lesion {facts[0]['inside']:.2f} "
                    f"(true {facts[0]['truth_inside']:.2f})"
                )
            told.append(one)
        return (
            f"{self.titles[0]}: {source}, {', '.join(made)} and {truth}, below each "
            f"translation its difference to the truth. {'; '.join(told)}."
        )

    def static_png(self) -> bytes:
        """The static twin, of the first slice: all layers, and the differences."""
        from PIL import Image, ImageDraw, ImageFont

        _, high, wide = self.shape
        zoom = max(1, round(128 / wide))
        font = ImageFont.load_default(11)
        step, text = wide * zoom + 6, 16
        sheet = Image.new(
            "RGB", (len(self.layers) * step, 2 * (high * zoom + text) + text), "white"
        )
        pen = ImageDraw.Draw(sheet)
        none = np.zeros((high, wide), bool)
        mask = none if self.lesions is None else self.lesions[0]
        truth = list(self.layers.values())[-1][0]
        for k, (name, images) in enumerate(self.layers.items()):
            grey = images[0] // 16 * 17
            pen.text((k * step, 0), name, "black", font=font)
            sheet.paste(outlined(grey, mask, zoom, COLOURS[4]), (k * step, text))
            if not 0 < k < len(self.layers) - 1:
                continue
            top = 2 * text + high * zoom
            pen.text((k * step, top - text), "minus the truth", "black", font=font)
            # in eighths of the colours, for a small file
            away = difference_picture(images[0] // 16 * 16, truth // 16 * 16)
            sheet.paste(outlined(away, mask, zoom, "black"), (k * step, top))
            fact = self.facts[k - 1][0]
            note = f"PSNR {fact['psnr']:.1f} dB"
            if fact["inside"] is not None:
                note += f", lesion {fact['inside']:.2f}"
            pen.text((k * step, top + high * zoom), note, "black", font=font)
        if mask.any():
            told = f"lesion {self.facts[0][0]['truth_inside']:.2f}"
            x = (len(self.layers) - 1) * step
            pen.text((x, text + high * zoom), told, "black", font=font)
        return small_png(sheet)
