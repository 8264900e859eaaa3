"""Pictures: each function draws, shows and returns None; each picture has alt text.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MAX_IMAGES = 64


def as_array(values: Any) -> np.ndarray:
    """A NumPy array from a tensor (any device, with a gradient or not) or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # bfloat16
    return np.asarray(values)


def to_uint8(images: Any) -> np.ndarray:
    """(N, C, H, W) or (N, H, W) in [-1, 1], or uint8 -> uint8 (N, H, W[, 3])."""
    raw = as_array(images)
    if raw.dtype != np.uint8:
        if not np.isfinite(raw).all():
            raise ValueError("the images hold NaN or infinity; nothing to show")
        raw = ((np.clip(raw, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    if raw.ndim == 4:
        raw = raw[:, 0] if raw.shape[1] == 1 else np.moveaxis(raw, 1, -1)
    if raw.ndim not in (3, 4):
        raise ValueError(f"expected (N, C, H, W) or (N, H, W), got shape {raw.shape}")
    return raw


def figure_image(figure: Any, dpi: int = 80, box: Any = None) -> Any:
    """A matplotlib figure, or a `box` of it in inches, as an RGB image; closes it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches=box, facecolor="w")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def small_png(image: Any, colours: int = 64) -> bytes:
    """PNG of an RGB image in few colours: a third of the size in a committed notebook.

    64 are all that grey images and line plots need.
    """
    from PIL import Image

    buffer = io.BytesIO()
    few = image.quantize(colours, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def show_figure(figure: Any, *, alt: str, dpi: int = 80) -> None:
    """Show a matplotlib figure once, as a PNG with alt text, and close it."""
    from IPython.display import display
    from matplotlib.transforms import Bbox

    figure.set_dpi(dpi)
    figure.draw_without_rendering()  # runs the layout
    # What there is to see, from whole pixel to whole pixel: else images would be
    # sampled between their own pixels.
    corners = figure.get_tightbbox().padded(0.08).get_points() * dpi
    corners = np.array([np.floor(corners[0]), np.ceil(corners[1])]) / dpi
    picture = small_png(figure_image(figure, dpi, Bbox(corners)))
    display(
        {"image/png": picture, "text/plain": f"<Figure: {alt}>"},
        metadata={"image/png": {"alt": alt}},
        raw=True,
    )


def _few_greys(pixels: np.ndarray) -> np.ndarray:
    """uint8 -> uint8 in 32 steps: a PNG is 40 % smaller, and nobody measures on it."""
    return ((pixels >> 3) * (255 / 31)).round().astype(np.uint8)


def _grid(
    lines: Sequence[np.ndarray], size: float, caption: str | None, above: int = 0
) -> tuple[Any, list[list[Any]]]:
    """A figure with one axis an image, each drawn pixel for pixel, and the axes.

    The caption stands above; `above` is the room over each row in screen pixels.
    """
    import matplotlib.pyplot as plt

    dpi, gap = 80, 3
    high, wide = lines[0].shape[1:3]
    zoom = max(1, round(size * dpi / wide))
    high, wide = high * zoom, wide * zoom
    columns = max(len(line) for line in lines)
    total = (columns * (wide + gap), len(lines) * (high + gap + above))
    figure = plt.figure(figsize=(total[0] / dpi, total[1] / dpi), dpi=dpi)
    axes: list[list[Any]] = []
    for row, line in enumerate(lines):
        y = total[1] - (row + 1) * (high + gap + above)
        axes.append([])
        for column, image in enumerate(line):
            x = column * (wide + gap)
            place = (x / total[0], y / total[1], wide / total[0], high / total[1])
            axis = figure.add_axes(place, xticks=[], yticks=[], frame_on=False)
            axis.imshow(
                _few_greys(image),
                "gray",
                vmin=0,
                vmax=255,
                aspect="auto",
                interpolation="nearest",
            )
            axes[-1].append(axis)
    if caption:
        middle = (total[0] - gap) / total[0] / 2
        figure.text(
            middle, 1 + 4 / total[1], caption, fontsize=9, ha="center", va="bottom"
        )
    return figure, axes


def show_images(
    images: Any,
    labels: Sequence[Any] | None = None,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    size: float = 1.3,
    alt: str | None = None,
    caption: str | None = None,
) -> None:
    """Show images in a grid. (N, C, H, W) in [-1, 1] or uint8; at most 64 are drawn.

    `titles` (or `labels`) stand above each image, `caption` above the grid (say there
    which data, budget, seed and weights made a picture), `alt` is read to people who
    do not see it; `size` is about the width of one image in inches (a pixel becomes
    a whole number of the screen's, in 32 greys).
    """
    pixels = to_uint8(images)[:_MAX_IMAGES]
    if len(pixels) == 0:
        raise ValueError("there are no images to show")
    names = titles if titles is not None else labels
    lines = [pixels[i : i + columns] for i in range(0, len(pixels), columns)]
    room = 0 if names is None else 16 * (1 + max(str(n).count("\n") for n in names))
    figure, axes = _grid(lines, size, caption, above=room)
    every = [axis for line in axes for axis in line]
    for axis, name in zip(every, () if names is None else names, strict=False):
        name = name.item() if hasattr(name, "item") else name
        axis.set_title(str(name), fontsize=8, pad=3)
    show_figure(figure, alt=alt or caption or f"{len(pixels)} images in a grid")


def show_rows(
    rows: Mapping[str, Any], *, size: float = 1.3, alt: str, caption: str | None = None
) -> None:
    """Show one labelled row of images for each entry: {"input": (N, C, H, W), ...}.

    The rows may have unequal lengths, at most 16 images; values as in `show_images`.
    """
    lines = [to_uint8(images)[:16] for images in rows.values()]
    figure, axes = _grid(lines, size, caption)
    for name, line in zip(rows, axes, strict=True):
        line[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    show_figure(figure, alt=alt)


def show_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], *, note: str = ""
) -> None:
    """Show a table: column heads, rows (columns of numbers to the right), a note."""
    from IPython.display import Markdown, display

    display(Markdown(f"{markdown_table(head, rows)}\n\n{note}".strip()))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as Markdown; columns of numbers stand to the right."""
    cells = [[str(value) for value in row] for row in rows]
    marks = []
    for column in zip(*cells, strict=True):
        numbers = all(value[:1] in "-+0123456789" for value in column)
        marks.append("--:" if numbers else "---")
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, marks, *cells])


def show_curves(
    curves: Mapping[str, Any],
    *,
    x: Any = None,
    xlabel: str,
    ylabel: str,
    alt: str,
    title: str | None = None,
    logx: bool = False,
    logy: bool = False,
    marker: str | None = None,
    height: float = 3.2,
) -> None:
    """Show named curves over `x` (default 0, 1, 2, ...), labelled at the line.

    Each curve is (n,), or a pair (x, y) of its own.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    styles = ("-", "--", "-.", ":")
    figure, axis = plt.subplots(figsize=(6.4, height), layout="constrained")
    for index, (name, values) in enumerate(curves.items()):
        if isinstance(values, tuple):
            across, up = (as_array(part) for part in values)
        else:
            up = as_array(values)
            across = as_array(x) if x is not None else np.arange(len(up))
        axis.plot(
            across,
            up,
            styles[index // len(COLOURS) % len(styles)],
            color=COLOURS[index % len(COLOURS)],
            marker=marker,
            label=name,
            linewidth=1.6,
        )
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.set(xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    for ruler in (axis.xaxis, axis.yaxis):
        low, high = ruler.get_view_interval()
        if ruler.get_scale() == "log" and high < 100 * low:
            # few decades: there matplotlib's own labels overlap
            ruler.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ruler.set_major_formatter("{x:g}")
            ruler.set_minor_formatter(NullFormatter())
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    if len(curves) > 1:
        # many names find no free corner among as many curves: they stand beside them
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axis.legend(frameon=False, fontsize=8, **beside if len(curves) > 4 else {})
    show_figure(figure, alt=alt)


def show_history(history: Any, *names: str, smooth: int = 25, title: str = "") -> None:
    """Show the losses of a `training.History`, as running means over `smooth` values.

    `names` chooses some of them; by default all are drawn.
    """
    names = names or tuple(history)
    curves = {}
    for name in names:
        values = np.asarray(history[name], dtype=float)
        width = max(1, min(smooth, len(values) // 4))
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        curves[name] = (history.steps_of(name)[width - 1 :], mean)
    last = ", ".join(f"{name} {curve[1][-1]:.4g}" for name, curve in curves.items())
    show_curves(
        curves,
        xlabel="training step",
        ylabel="loss" if len(names) > 1 else names[0],
        title=title or None,
        alt=f"Loss against training step; at the end {last}",
    )


def show_bars(
    values: Mapping[str, float],
    *,
    ylabel: str,
    alt: str,
    errors: Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Show one bar a name, its value printed above, with optional error bars."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
    heights = [float(value) for value in values.values()]
    bars = axis.bar(
        list(values),
        heights,
        color=[COLOURS[index % len(COLOURS)] for index in range(len(heights))],
        yerr=[errors.get(name, 0.0) for name in values] if errors else None,
        capsize=3,
        width=0.6,
    )
    axis.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    axis.set(ylabel=ylabel, title=title)
    axis.margins(y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    show_figure(figure, alt=alt)
