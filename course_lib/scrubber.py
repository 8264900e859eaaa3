"""A training run that can be replayed: pictures and numbers of some of its steps.

`Scrubber.record` is called on the way; the slider works while training goes on, after
it, and without a kernel in a page.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from course_lib import plotting
from course_lib.browser_widget import BrowserWidget
from course_lib.runtime import has_front_end

MOST_BYTES = 150_000  # of the form that lives without a kernel


def strip_png(images: Any, columns: int = 8) -> bytes:
    """Images side by side as one small PNG of 16 greys, or 16 colours.

    Values as in `plotting.show_images`. Rows of `columns`; the last one is filled up.
    """
    pixels = plotting.to_uint8(images)
    if len(pixels) == 0:
        raise ValueError("there are no images to record")
    columns = min(columns, len(pixels))
    rows = math.ceil(len(pixels) / columns)
    empty = np.zeros((rows * columns - len(pixels), *pixels.shape[1:]), np.uint8)
    pixels = np.concatenate([pixels, empty])
    pixels = pixels.reshape(rows, columns, *pixels.shape[1:])
    pixels = np.concatenate([np.concatenate(list(row), axis=1) for row in pixels])
    if pixels.ndim == 2:
        picture = Image.fromarray(
            ((pixels.astype(int) * 15 + 127) // 255).astype(np.uint8)
        )
        picture.putpalette([grey for i in range(16) for grey in [17 * i] * 3])
    else:
        picture = Image.fromarray(pixels).quantize(16, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", bits=4, optimize=True)
    return buffer.getvalue()


def panels(names: Sequence[str]) -> dict[str, list[str]]:
    """Which curves share a plot: those with one word before the first underscore.

    >>> panels(["loss_d", "loss_g", "coverage"])
    {'loss': ['loss_d', 'loss_g'], 'coverage': ['coverage']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.split("_")[0], []).append(name)
    return {title if len(n) > 1 else n[0]: n for title, n in found.items()}


def gradient_norm(net: nn.Module) -> float:
    """Norm of the gradients that the last backward pass left at a network's weights."""
    norms = [p.grad.norm() for p in net.parameters() if p.grad is not None]
    return torch.stack(norms).norm().item() if norms else 0.0


class Scrubber(BrowserWidget):
    """Frames of a run, and a slider over them.

    At most `most` frames are kept: when there are more, every second one goes. Numbers
    whose names share a first word share a plot (see `panels`).
    """

    module = Path(__file__).with_name("scrubber.js")
    height = 480

    def __init__(self, title: str = "Training", *, most: int = 30, columns: int = 8):
        if most < 3:
            raise ValueError(f"most {most}: keep at least 3 frames, better 30")
        self.title, self.most, self.columns = title, most, columns
        self.steps: list[int] = []
        self.frames: list[bytes] = []
        self.numbers: list[dict[str, float]] = []
        self.count = self.width = 0
        self.start({"state": self.state()})

    def record(self, step: int, images: Any, **numbers: float) -> None:
        """Keep images (N, C, H, W) in [-1, 1] or uint8, and numbers, of a step.

        Steps must grow. A number that is not finite is kept as missing.
        """
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"step {step} does not come after step {self.steps[-1]}")
        self.frames.append(strip_png(images, self.columns))
        self.steps.append(int(step))
        values = {name: float(value) for name, value in numbers.items()}
        self.numbers.append({n: v for n, v in values.items() if math.isfinite(v)})
        self.count, self.width = (
            len(images),
            images.shape[-1] * min(self.columns, len(images)),
        )
        if len(self.steps) > self.most:
            for kept in (self.steps, self.frames, self.numbers):
                del kept[-2:0:-2]  # not the first one, not the last one
        self.view.state = self.state()

    def state(self) -> dict[str, Any]:
        """What the slider shows, as plain values for JSON."""
        names = list(dict.fromkeys(name for row in self.numbers for name in row))
        return {
            "title": self.title,
            "count": self.count,
            "width": self.width * max(1, 800 // max(self.width, 1)),
            "steps": list(self.steps),
            "frames": [base64.b64encode(frame).decode() for frame in self.frames],
            "curves": {
                name: [_rounded(row.get(name)) for row in self.numbers]
                for name in names
            },
            "panels": panels(names),
        }

    def show_live(self) -> None:
        """Show the slider now, before there is a frame, where somebody looks."""
        if has_front_end():
            from IPython.display import display

            display(self.box)

    def alt(self) -> str:
        if not self.steps:
            return f"{self.title}: nothing recorded yet."
        told = "; ".join(
            f"{name.replace('_', ' ')} from {self.numbers[0].get(name, math.nan):.3g} "
            f"to {last:.3g}"
            for name, last in self.numbers[-1].items()
        )
        return (
            f"{self.title}: {self.count} images at steps "
            f"{', '.join(str(self.steps[i]) for i in self._three())}. {told}."
        )

    def _three(self) -> list[int]:
        return sorted({0, len(self.steps) // 2, len(self.steps) - 1})

    def static_png(self) -> bytes:
        """First, middle and last frame, and the curves."""
        import matplotlib.pyplot as plt

        groups = self.view.state["panels"]
        chosen = self._three() if self.steps else []
        figure = plt.figure(figsize=(6.6, 0.5 + 0.75 * len(chosen) + 1.2))
        grid = figure.add_gridspec(
            len(chosen) + 2,
            max(1, len(groups)),
            height_ratios=[1] * len(chosen) + [0.2, 1.5],
            left=0.09,
            right=0.99,
            top=0.99,
            bottom=0.1,
            hspace=0.12,
            wspace=0.3,
        )
        for row, i in enumerate(chosen):
            axis = figure.add_subplot(grid[row, :])
            frame = Image.open(io.BytesIO(self.frames[i])).convert("RGB")
            axis.imshow(frame, interpolation="nearest")
            axis.set(xticks=[], yticks=[], frame_on=False)
            axis.set_ylabel(
                f"step\n{self.steps[i]}",
                fontsize=8,
                rotation=0,
                ha="right",
                va="center",
            )
        for column, (title, names) in enumerate(groups.items()):
            axis = figure.add_subplot(grid[-1, column])
            for k, name in enumerate(names):
                values = [row.get(name, math.nan) for row in self.numbers]
                colour, style = plotting.COLOURS[k], ("-", "--", ":", "-.")[k % 4]
                label = name.split("_", 1)[-1].replace("_", " ")
                axis.plot(self.steps, values, style, color=colour, lw=1.4, label=label)
            axis.set_title(title.replace("_", " "), fontsize=8, pad=3)
            axis.tick_params(labelsize=6)
            axis.spines[["top", "right"]].set_visible(False)
            if len(names) > 1:
                axis.legend(frameon=False, fontsize=6, handlelength=1.5)
        return plotting.small_png(plotting.figure_image(figure), colours=32)

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, metadata = super()._repr_mimebundle_(include, exclude)
        if has_front_end():  # what a person exports lives without a kernel, too
            page = self.live_html()
            if len(page) <= MOST_BYTES:
                data["text/html"] = page
        return data, metadata


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
