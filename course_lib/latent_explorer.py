"""The latent explorer of lessons 01 to 03: a map of codes that can be walked.

Plain functions, and a thin shell over them. The decoder runs in the browser
(`browser_model.py`, `explorer.js`), so that a picture follows the hand at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib import browser_model
from course_lib.browser_widget import BrowserWidget
from course_lib.plotting import COLOURS, as_array, figure_image, to_uint8

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_CODES = 200  # on the map; more would hide each other
MOST_IMAGES = 400_000  # bytes of real images in a page
DIRECTIONS = 6
_SPAN = 3.2  # of the map, in standard deviations to each side
_MARKS = ("o", "s", "^", "D")


def principal_axes(codes: np.ndarray) -> dict[str, np.ndarray]:
    """PCA of codes (N, d): mean (d,), components (k <= 6, d), scale and share (k,).

    `scale` is the standard deviation along each component, `share` its part of the
    variance. Each component's largest entry is positive, so that signs stay put. Two
    dimensions keep their own axes.
    """
    if codes.ndim != 2 or len(codes) < 3 or codes.shape[1] < 2:
        raise ValueError(
            f"expected codes (N, d) with N >= 3 and d >= 2, got {codes.shape}"
        )
    codes = np.asarray(codes, dtype=np.float64)
    mean = codes.mean(axis=0)
    if codes.shape[1] == 2:
        components = np.eye(2)
    else:
        _, _, rows = np.linalg.svd(codes - mean, full_matrices=False)
        components = rows[:DIRECTIONS]
        largest = np.abs(components).argmax(axis=1)
        signs = np.sign(components[np.arange(len(components)), largest])
        components = components * signs[:, None]
    scale = np.maximum(((codes - mean) @ components.T).std(axis=0), 1e-6)
    share = scale**2 / max(codes.var(axis=0).sum(), 1e-12)
    return {"mean": mean, "components": components, "scale": scale, "share": share}


def lerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """From a (t = 0) to b (t = 1) in a straight line. (d,) twice -> (d,)."""
    return (1 - t) * a + t * b


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """From a to b along an arc, as `variational.slerp`. (d,) twice -> (d,)."""
    length = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip(a @ b / (length or 1), -1, 1))
    if np.sin(angle) < 1e-4:
        return lerp(a, b, t)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def far_pair(codes: np.ndarray) -> tuple[int, int]:
    """The two codes that are furthest apart. (N, d) -> (i, j) with i < j."""
    squares = (codes**2).sum(axis=1)
    apart = squares[:, None] + squares - 2 * codes @ codes.T
    i, j = divmod(int(apart.argmax()), len(codes))
    return min(i, j), max(i, j)


def map_span(places: np.ndarray) -> float:
    """Half the side of the map that shows nearly all of these places. (N, 2) -> s."""
    reach = np.quantile(np.abs(places).max(axis=1), 0.98)
    return float(min(max(np.ceil(10.5 * float(reach)) / 10, _SPAN), 3 * _SPAN))


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Means of `factor` x `factor` pixels. uint8 (N, H, W[, 3]) -> smaller, uint8."""
    n, high, wide, *colours = images.shape
    high, wide = high // factor, wide // factor
    blocks = images[:, : high * factor, : wide * factor]
    blocks = blocks.reshape(n, high, factor, wide, factor, *colours)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


def norm_range(codes: np.ndarray) -> tuple[float, float]:
    """Norms that hold 90 % of the codes. (N, d) -> (low, high)."""
    low, high = np.quantile(np.linalg.norm(codes, axis=1), (0.05, 0.95))
    return float(low), float(high)


def prior_range(latent_dim: int) -> tuple[float, float]:
    """Norms that hold 90 % of draws from N(0, I) in `latent_dim` dimensions."""
    from scipy.stats import chi

    low, high = chi.ppf((0.05, 0.95), latent_dim)
    return float(low), float(high)


class LatentExplorer(BrowserWidget):
    """A map of codes to click and drag, sliders along PCA directions, and a walk.

    decoder: codes (N, d) -> images (N, C, H, W) in [-1, 1], of layers that
    `browser_model.export` knows. codes (N, d), d >= 2: those of `images` (N, C, H, W)
    with `labels` (N,), both optional; the first 200 stand on the map. `prior`: the
    codes are meant to be draws from N(0, I). `code` is where the person stands now.
    """

    module = Path(__file__).with_name("explorer.js")
    title = "Latent explorer"
    height = 720

    def __init__(
        self,
        decoder: nn.Module,
        codes: Tensor | np.ndarray,
        *,
        images: Tensor | None = None,
        labels: Sequence[int] | Tensor | None = None,
        class_names: Sequence[str] = (),
        prior: bool = False,
    ):
        codes = as_array(codes)
        self.codes = codes[:MOST_CODES].astype(np.float32)
        self.axes = principal_axes(codes)
        if prior and codes.shape[1] == 2:  # in units of N(0, I) the rings are round
            self.axes |= {"mean": np.zeros(2), "scale": np.ones(2)}
        self.model = browser_model.export(decoder, codes.shape[1])
        one_each = labels is not None and np.ndim(labels) == 1  # not 14 findings
        self.class_names = list(class_names) if one_each else []
        self.labels = [0] * len(self.codes)
        if self.class_names:
            self.labels = [int(k) for k in labels[:MOST_CODES]]
        self.prior = prior
        self.shown = None if images is None else to_uint8(images[:MOST_CODES])
        if images is not None and len(images) != len(codes):
            raise ValueError(f"{len(codes)} codes, but {len(images)} images")
        smaller = np.zeros((0, *self.model.shape[1:]), np.uint8)
        if self.shown is not None:
            factor = int(np.ceil(np.sqrt(self.shown.nbytes / MOST_IMAGES)))
            smaller = shrink(self.shown, max(1, factor))
        self.image_shape = smaller.shape[1:3]
        # unlike images: far apart on the map, and not beyond its rim
        places = self.place(self.codes)
        self.span = map_span(places)
        on_it = np.flatnonzero((np.abs(places) <= self.span).all(axis=1))
        start, end = on_it[list(far_pair(places[on_it]))]
        self.ends = self.codes[start], self.codes[end]
        self.start(
            {
                "spec": self._spec(),
                "weights": self.model.data,
                "codes": self.codes.astype("<f4").tobytes(),
                "images": smaller.tobytes(),
                "code": [round(float(x), 5) for x in self.codes[start]],
            }
        )

    @property
    def code(self) -> np.ndarray:
        """The code (d,) whose picture is shown; what you set moves the point."""
        return np.asarray(self.view.code, dtype=np.float32)

    @code.setter
    def code(self, code: Any) -> None:
        values = [round(float(x), 5) for x in code]
        if len(values) != self.model.latent_dim:
            raise ValueError(
                f"a code has {self.model.latent_dim} numbers, got {len(values)}"
            )
        self.view.code = values

    @property
    def rings(self) -> tuple[float, ...]:
        """Radii that hold half and 95 % of N(0, I), where the map shows all of it."""
        if not self.prior or self.model.latent_dim != 2:
            return ()
        return tuple(float(np.sqrt(-2 * np.log(1 - share))) for share in (0.5, 0.95))

    @property
    def axis_names(self) -> list[str]:
        if self.model.latent_dim == 2:
            return ["z1", "z2"]
        return [f"direction {k + 1}" for k in range(len(self.axes["scale"]))]

    def _spec(self) -> dict[str, Any]:
        """All that the page must know, as JSON can carry it."""
        axes = self.axes
        shares = [f"{share:.0%}" for share in axes["share"]]
        flat = self.model.latent_dim == 2
        what = "The two numbers of a code" if flat else "PCA directions of the codes"
        unit = "place" if self.rings else "place in standard deviations"
        return {
            "model": self.model.description(),
            "mean": axes["mean"].tolist(),
            "components": axes["components"].tolist(),
            "scale": axes["scale"].tolist(),
            "axis_names": self.axis_names,
            "axis_labels": [
                f"{name}: {share}"
                for name, share in zip(self.axis_names, shares, strict=True)
            ],
            "heading": f"{what}: share of the variance, {unit}",
            "labels": self.labels,
            "class_names": self.class_names,
            "colours": list(COLOURS),
            "norms": list(norm_range(self.codes)),
            "prior": list(prior_range(self.model.latent_dim)) if self.prior else None,
            "rings": list(self.rings),
            "span": self.span,
            "image_shape": list(self.image_shape),
            "ends": [end.tolist() for end in self.ends],
        }

    def place(self, codes: np.ndarray) -> np.ndarray:
        """Where codes stand on the map. (N, d) -> (N, 2), in standard deviations."""
        centred = np.atleast_2d(codes) - self.axes["mean"]
        return (centred @ self.axes["components"][:2].T) / self.axes["scale"][:2]

    def alt(self) -> str:
        across, up = self.place(self.code)[0]
        norm = float(np.linalg.norm(self.code))
        names = self.axis_names
        low, high = norm_range(self.codes)
        more = "and the nearest image" if self.shown is not None else "alone"
        if self.model.latent_dim > 2:
            more += "; below, walks between two codes by a line and an arc"
        return (
            f"Latent map of {len(self.codes)} codes with {self.model.latent_dim} "
            f"numbers; the point is at {names[0]} {across:.1f}, {names[1]} {up:.1f} "
            f"with norm {norm:.1f} (90 % of the codes: {low:.1f} to {high:.1f}). "
            f"Right: its picture, {more}."
        )

    def static_png(self) -> bytes:
        """The static twin as one PNG: the map, the point's picture, and both walks.

        Two dimensions have the pictures under the map instead of the walks.
        """
        from PIL import Image

        plots = self._map()
        strips = _strips(self.model, self.code, self._walks(), self._nearest())
        size = (plots.width + strips.width, max(plots.height, strips.height))
        twin = Image.new("RGB", size, "white")
        twin.paste(plots, (0, (twin.height - plots.height) // 2))
        twin.paste(strips, (plots.width, (twin.height - strips.height) // 2))
        buffer = io.BytesIO()
        few = twin.quantize(palette=_palette(), dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def _walks(self) -> list[list[np.ndarray]]:
        if self.model.latent_dim == 2:
            return []
        return [[way(*self.ends, t) for t in np.linspace(0, 1, 5)] for way in WAYS]

    def _nearest(self) -> np.ndarray | None:
        """The real image whose code is nearest to the point."""
        if self.shown is None:
            return None
        return self.shown[np.linalg.norm(self.codes - self.code, axis=1).argmin()]

    def _map(self) -> Any:
        """Codes, the walk's ends and the point, as an image."""
        import matplotlib.pyplot as plt

        tile = self.model.shape[2] // max(1, self.model.shape[2] // 32)
        across = max(1, 200 // tile)  # pictures; each pixel stays one
        side, more_names = across * tile, 12 * ((len(self.class_names) - 1) // 3)
        wide, high, left, bottom = side + 46, side + 60 + more_names, 38, 34
        figure = plt.figure(figsize=(wide / 80, high / 80), dpi=80)
        place = (left / wide, bottom / high, side / wide, side / high)
        axis = figure.add_axes(place)
        if self.model.latent_dim == 2:
            axis.imshow(
                self._pictures(across),
                extent=2 * (-self.span, self.span),
                aspect="auto",
                interpolation="nearest",
            )
        places = self.place(self.codes)
        for k in range(max(1, len(self.class_names))):
            here = np.asarray(self.labels) == k
            axis.plot(
                *places[here].T,
                _MARKS[k % len(_MARKS)],
                color=COLOURS[k % len(COLOURS)],
                ms=3,
                label=self.class_names[k] if self.class_names else None,
            )
        turn = np.linspace(0, 2 * np.pi, 90)
        for radius in self.rings:
            ring = self.place(radius * np.stack([np.cos(turn), np.sin(turn)], axis=1))
            axis.plot(*ring.T, "-", color="black", lw=1)
        way = lerp if self.model.latent_dim == 2 else slerp
        walk = np.array([way(*self.ends, t) for t in np.linspace(0, 1, 25)])
        axis.plot(*self.place(walk).T, "-", color="black", lw=1)
        for name, end in zip("AB", self.ends, strict=True):
            axis.annotate(
                name,
                self.place(end)[0],
                color="white",
                ha="center",
                va="center",
                fontsize=7,
                bbox={"boxstyle": "circle,pad=0.2", "color": "black"},
            )
        point = self.place(self.code)[0]
        axis.plot(*point, "o", ms=13, mfc="none", mec=COLOURS[1], mew=2)
        names = self.axis_names
        axis.set(xlim=(-self.span, self.span), ylim=(-self.span, self.span))
        ticks = np.arange(-int(self.span), int(self.span) + 1, 1 + int(self.span) // 4)
        axis.set(xticks=ticks, yticks=ticks)
        axis.set_xlabel(names[0], fontsize=9)
        axis.set_ylabel(names[1], fontsize=9, labelpad=0)
        axis.tick_params(labelsize=8)
        if self.class_names:
            figure.legend(
                fontsize=7,
                frameon=False,
                loc="upper center",
                ncols=3,
                columnspacing=1,
                handletextpad=0.1,
            )
        return figure_image(figure)

    def _pictures(self, n: int) -> np.ndarray:
        """What the decoder draws on a grid over the map, pale. -> (n H, n W, 3)."""
        at = self.span * (2 * np.arange(n) + 1 - n) / n
        across, up = np.meshgrid(at, at[::-1])
        steps = np.stack([across.ravel(), up.ravel()], axis=1)
        codes = (
            self.axes["mean"] + (steps * self.axes["scale"]) @ self.axes["components"]
        )
        tiles = to_uint8(browser_model.run(self.model, codes))
        tiles = shrink(tiles, max(1, tiles.shape[2] // 32))
        tiles = 255 - (255 - tiles) // 32 * 16  # half as dark, in 8 greys
        tiles = tiles[..., None].repeat(3, -1) if tiles.ndim == 3 else tiles
        rows = tiles.reshape(n, n, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
        return rows.reshape(n * tiles.shape[1], n * tiles.shape[2], 3)


WAYS = (lerp, slerp)
_PARTS = (1.0, 0.7, 0.4)


def _palette() -> Any:
    """31 greys, and each colour of the marks with two paler ones: small files."""
    from PIL import Image, ImageColor

    colours = [(v, v, v) for v in (*range(0, 256, 17), *range(127, 256, 8))]
    for name in COLOURS:
        rgb = np.array(ImageColor.getrgb(name))
        colours += [tuple((255 - (255 - rgb) * part).astype(int)) for part in _PARTS]
    image = Image.new("P", (1, 1))
    image.putpalette([int(v) for colour in colours for v in colour])
    return image


def _few_greys(pixels: np.ndarray) -> np.ndarray:
    return (pixels // 16 * 17).astype(np.uint8)  # 16 greys, black to white


def _strips(
    model: browser_model.BrowserModel,
    code: np.ndarray,
    walks: list[list[np.ndarray]],
    real: np.ndarray | None,
) -> Any:
    """The picture of `code` beside `real`, and below the walks, as an image."""
    from PIL import Image, ImageDraw, ImageFont

    every = np.stack([code, *(z for walk in walks for z in walk)])
    pixels = _few_greys(to_uint8(browser_model.run(model, every)))
    side = max(1, round(64 / model.shape[2])) * model.shape[2]
    font = ImageFont.load_default(11)
    text, left, step = 16, 44, side + 3
    size = (left + 5 * step, (2 + len(walks)) * (side + text))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)

    def put(image: np.ndarray, x: int, y: int, zoom: int = 1) -> None:
        picture = Image.fromarray(image).convert("RGB")
        shape = (side * zoom, side * zoom)
        sheet.paste(picture.resize(shape, Image.Resampling.NEAREST), (x, y))

    pen.text(
        (left, 0), f"the point, norm {np.linalg.norm(code):.1f}", "black", font=font
    )
    put(pixels[0], left, text, zoom=2)
    if real is not None:
        pen.text((left + 5 * step // 2, 0), "nearest image", "black", font=font)
        put(_few_greys(real), left + 5 * step // 2, text, zoom=2)
    pictures = iter(pixels[1:])
    for row, (name, walk) in enumerate(zip(("line", "arc"), walks, strict=False)):
        y = (2 + row) * (side + text)
        pen.text((8, y + side // 2), name, "black", font=font)
        for i, z in enumerate(walk):
            put(next(pictures), left + i * step, y)
            norm = f"norm {np.linalg.norm(z):.1f}"
            pen.text((left + i * step + 8, y + side), norm, "black", font=font)
    return sheet
