"""How a game of `course_lib.gan_lab` looks: the plane as pixels, the curves as SVG."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from course_lib.gan_lab import HALF, Game, Look
from course_lib.gan_lab_presets import PRESETS, play
from course_lib.plotting import COLOURS, figure_image, small_png

SIZE = 420  # pixels of the plane
ARROW, DATA, SAMPLE = (110, 110, 110), (0, 0, 0), (196, 62, 0)
# What D takes for generated is orange, what it takes for real blue.
_ENDS = ((240, 190, 90), (255, 255, 255), (120, 190, 235))


@cache
def palette() -> np.ndarray:
    """255 colours from "generated" over "cannot tell" to "real", uint8 (255, 3)."""
    at = np.linspace(-1, 1, 255)
    parts = [np.interp(at, (-1, 0, 1), ends) for ends in zip(*_ENDS, strict=True)]
    return np.stack(parts, axis=1).round().astype(np.uint8)


def to_pixels(points: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Places in the plane (n, 2) -> (column, row) of a picture, floats (n, 2)."""
    x, y = np.asarray(points).T
    return np.stack([(x / HALF + 1) / 2 * size, (1 - y / HALF) / 2 * size], axis=1)


def paint(look: Look, size: int = SIZE, bands: int = 127) -> np.ndarray:
    """The plane as uint8 (size, size, 3): D's map, its pull, data and samples.

    Blue: D says real; orange: generated. A line goes from its dot where a generated
    point is pushed. Both scales are square roots, so that what is faint can be seen:
    a gradient of size g is sqrt(g / (g + 1)) of a square long. `bands` shades on each
    side of white: few make a small PNG.
    """
    heat = np.clip(look.heat[::-1], -1, 1).astype(np.float32)
    heat = Image.fromarray(np.sign(heat) * np.sqrt(np.abs(heat)))
    heat = np.asarray(heat.resize((size, size), Image.Resampling.BILINEAR))
    shade = np.rint(np.rint(heat * bands) / bands * 127).astype(int)
    picture = Image.fromarray(palette()[shade + 127])
    pen = ImageDraw.Draw(picture)
    step = size / np.sqrt(len(look.places))
    force = np.linalg.norm(look.pull, axis=1, keepdims=True)
    length = step * np.sqrt(force / (force + 1))
    way = look.pull / np.maximum(force, 1e-12) * length
    tails = to_pixels(look.places, size)
    heads = tails + way * (1, -1)
    for (x0, y0), (x1, y1) in zip(tails.tolist(), heads.tolist(), strict=True):
        pen.line((x0, y0, x1, y1), fill=ARROW)
        pen.ellipse((x0 - 1, y0 - 1, x0 + 1, y0 + 1), fill=ARROW)
    pixels = np.asarray(picture).copy()
    _stamp(pixels, look.real, _CROSS, DATA)
    if look.seen is not None:
        _stamp(pixels, look.seen, _CIRCLE, DATA)
    _stamp(pixels, look.samples, _DISC + _RIM, (255, 255, 255))
    _stamp(pixels, look.samples, _DISC, SAMPLE)
    return pixels


_CROSS = [(0, 0), (1, 0), (2, 0), (-1, 0), (-2, 0), (0, 1), (0, 2), (0, -1), (0, -2)]
_SQUARE = [(x, y) for x in range(-3, 4) for y in range(-3, 4)]
_CIRCLE = [
    (x, y) for x in range(-8, 9) for y in range(-8, 9) if 36 <= x * x + y * y <= 64
]
_DISC = [(x, y) for x, y in _SQUARE if x * x + y * y <= 4]
_RIM = [(x, y) for x, y in _SQUARE if 4 < x * x + y * y <= 9]


def _stamp(
    pixels: np.ndarray, points: np.ndarray, shape: Sequence, colour: Sequence[int]
) -> None:
    """Draw a mark of whole pixels at each point that lies inside."""
    size = len(pixels)
    points = points[np.isfinite(points).all(axis=1)]
    places = np.rint(to_pixels(points, size)).clip(-9, size + 9).astype(int)
    at = (places[:, None, :] + np.array(shape)[None]).reshape(-1, 2)
    x, y = at[((at >= 0) & (at < size)).all(axis=1)].T
    pixels[y, x] = colour


def blank() -> np.ndarray:
    """A plane with nothing on it."""
    return np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)


def to_png(pixels: np.ndarray) -> bytes:
    """PNG of uint8 (H, W, 3), written fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def describe(game: Game, numbers: Mapping[str, float]) -> str:
    """Alt text: what D's map, the samples and the measurements say now."""
    text = (
        f"GAN in the plane, loss {game.loss}, step {numbers['step']:.0f}. "
        f"W1 from samples to data {numbers['W1']:.2f}, data to data {game.floor:.2f}. "
    )
    if game.data.centres is not None:
        text += (
            f"{numbers['modes']:.0f} of {len(game.data.centres)} modes covered, "
            f"{numbers['on a mode']:.0%} of the samples on one. "
        )
    return text + (
        f"D gives the data {numbers['D on data']:.2f} and the samples "
        f"{numbers['D on samples']:.2f}."
    )


# --- the curves beside it -------------------------------------------------------------


def curves(game: Game) -> str:
    """The measurements so far as HTML: one small SVG plot each, and the last value."""
    steps = [row["step"] for row in game.history]

    def over(name: str) -> list[float]:
        return [row[name] for row in game.history]

    plots = [
        _plot("W1 to the data", steps, {"W1": over("W1")}, low=0, floor=game.floor)
    ]
    if game.data.centres is not None:
        most = len(game.data.centres)
        plots.append(
            _plot(
                f"modes covered, of {most}",
                steps,
                {"modes": over("modes")},
                low=0,
                high=most,
            )
        )
    if game.data.seen is not None:
        told = {"prefers what it saw": over("prefers what it saw")}
        plots.append(
            _plot("D prefers what it saw", steps, told, low=0, high=1, floor=0.5)
        )
    says = {"data": over("D on data"), "samples": over("D on samples")}
    plots.append(_plot("D says", steps, says))
    sizes = {"at G": over("gradient at G"), "of D": over("slope of D")}
    plots.append(_plot("gradient", steps, sizes, log=True))
    row = "display:flex;flex-wrap:wrap;gap:4px 10px;line-height:1.3"
    return f'<div style="{row}">{"".join(plots)}</div>'


def _plot(
    title: str,
    steps: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    low: float | None = None,
    high: float | None = None,
    floor: float | None = None,
    log: bool = False,
) -> str:
    width, height = 200, 60
    colours = dict(zip(lines, (COLOURS[0], COLOURS[1]), strict=False))
    every = np.concatenate(
        [np.asarray(values, dtype=float) for values in lines.values()]
    )
    place = (lambda v: np.log10(np.maximum(v, 1e-12))) if log else np.asarray
    known = place(every[np.isfinite(every)])
    low = (known.min() if known.size else 0.0) if low is None else low
    high = (known.max() if known.size else 1.0) if high is None else high
    if floor is not None:
        low, high = min(low, floor), max(high, floor)
    room = max(high - low, 1e-9)
    last = max(steps[-1], 1)
    keep = np.unique(np.linspace(0, len(steps) - 1, 120).round().astype(int))
    drawn = ""
    for index, (name, values) in enumerate(lines.items()):
        up = np.nan_to_num(place(np.asarray(values, dtype=float)[keep]), posinf=high)
        xs = np.asarray(steps)[keep] / last * (width - 8) + 4
        ys = height - 4 - (up - low) / room * (height - 8)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        dash = ' stroke-dasharray="6 3"' if index else ""
        drawn += (
            f'<polyline points="{path}" fill="none" stroke="{colours[name]}" '
            f'stroke-width="2"{dash}/>'
        )
    if floor is not None:
        y = height - 4 - (floor - low) / room * (height - 8)
        drawn += (
            f'<path d="M4 {y:.1f}H{width - 4}" stroke="currentColor" '
            'stroke-dasharray="2 3"/>'
        )
    told = ", ".join(
        f'<span style="border-bottom:2px {"dashed" if k else "solid"} {colours[name]}">'
        + (f"{html.escape(name)} " if len(lines) > 1 else "")
        + f"{_short(values[-1])}</span>"
        for k, (name, values) in enumerate(lines.items())
    )
    label = ", ".join(f"{name} {values[-1]:.3g}" for name, values in lines.items())
    return (
        f'<div style="width:{width}px;font-size:11px;white-space:nowrap">'
        f'{html.escape(title)}: {told}<svg style="display:block" role="img" '
        f'aria-label="{html.escape(title)} against the step; now '
        f'{html.escape(label)}" width="{width}" height="{height}">'
        f'<path d="M4 0V{height - 4}H{width - 4}" fill="none" stroke="currentColor" '
        f'opacity=".5"/>{drawn}</svg></div>'
    )


def _short(value: float) -> str:
    """Few characters, for a caption: 8, -0.01, 6e-05."""
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.2f}" if 0.005 <= abs(value) < 1000 else f"{value:.0e}"


def legend() -> str:
    """What the colours and marks of the plane mean, as HTML."""
    orange, _, blue = (f"rgb{colour}" for colour in _ENDS)
    box = '<span style="display:inline-block;width:12px;height:12px;background:{}">'
    return (
        '<div style="font-size:12px;line-height:1.6">'
        '<b>+</b> data &ensp; <b style="color:#D55E00">&#9679;</b> samples of G &ensp; '
        f"{box.format(blue)}</span> D says real &ensp; "
        f"{box.format(orange)}</span> D says generated<br>"
        "from each dot a line: where D pushes a sample that lies there</div>"
    )


# --- the static twin -----------------------------------------------------------------


def twin(names: Sequence[str]) -> tuple[bytes, str]:
    """Presets played to their end, side by side: (PNG, alt text)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(names), figsize=(2.8 * len(names), 3.2), layout="constrained"
    )
    told = []
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        game, look = play(name)
        axis.imshow(paint(look, 208, bands=4), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        now = look.numbers
        axis.set_title(
            f"{name}\n{now['modes']:.0f} of 8 modes, $W_1$ {now['W1']:.2f} "
            f"(data to data {game.floor:.2f})",
            fontsize=9,
        )
        told.append(f"{name}: {PRESETS[name].found(game.history)}")
    picture = small_png(figure_image(figure), colours=48)
    return picture, "GANs on a ring of eight Gaussians. " + " ".join(told)
