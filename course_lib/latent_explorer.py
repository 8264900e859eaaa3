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
from course_lib.plotting import COLOURS, to_uint8

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_CODES = 200  # on the map; more would hide each other
MOST_IMAGES = 400_000  # bytes of real images in a page
DIRECTIONS = 6
_MARKS = ("o", "s", "^", "D")


def principal_axes(codes: np.ndarray, most: int = DIRECTIONS) -> dict[str, np.ndarray]:
    """PCA of codes (N, d): mean (d,), components (k, d), scale (k,), share (k,).

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
        components = rows[:most]
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
        codes = np.asarray(codes.detach().cpu() if hasattr(codes, "detach") else codes)
        self.codes = codes[:MOST_CODES].astype(np.float32)
        self.axes = principal_axes(codes)
        self.model = browser_model.export(decoder, codes.shape[1])
        self.class_names = list(class_names)
        self.labels = [int(k) for k in labels[:MOST_CODES]] if class_names else []
        self.labels = self.labels or [0] * len(self.codes)
        self.prior = prior
        self.shown = None if images is None else to_uint8(images[:MOST_CODES])
        if images is not None and len(images) != len(codes):
            raise ValueError(f"{len(codes)} codes, but {len(images)} images")
        few = self.shown is not None and self.shown.nbytes <= MOST_IMAGES
        start, end = far_pair(self.codes)
        self.ends = self.codes[start], self.codes[end]
        self.start(
            {
                "spec": self._spec(),
                "weights": self.model.data,
                "codes": self.codes.astype("<f4").tobytes(),
                "images": self.shown.tobytes() if few else b"",
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
            "heading": f"{what}: share of the variance, place in standard deviations",
            "labels": self.labels,
            "class_names": self.class_names,
            "colours": list(COLOURS),
            "norms": list(norm_range(self.codes)),
            "prior": list(prior_range(self.model.latent_dim)) if self.prior else None,
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
        return (
            f"Latent map of {len(self.codes)} codes with {self.model.latent_dim} "
            f"numbers; the point is at {names[0]} {across:.1f}, {names[1]} {up:.1f} "
            f"with norm {norm:.1f} (90 % of the codes: {low:.1f} to {high:.1f}). "
            "Right: its picture, and walks between two codes by a line and an arc."
        )

    def static_png(self) -> bytes:
        """The static twin: map, picture, and both walks, as one PNG."""
        import matplotlib.pyplot as plt
        from PIL import Image

        figure, axis = plt.subplots(figsize=(3.1, 3.0), layout="constrained")
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
        walk = [[way(*self.ends, t) for t in np.linspace(0, 1, 5)] for way in WAYS]
        axis.plot(*self.place(np.array(walk[1])).T, "-", color="black", lw=1)
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
        axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xlabel=names[0], ylabel=names[1])
        if self.class_names:
            axis.legend(fontsize=6, frameon=False, loc="upper left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="w")
        plt.close(figure)
        plots = Image.open(buffer).convert("RGB")
        away = np.linalg.norm(self.codes - self.code, axis=1)
        real = None if self.shown is None else self.shown[away.argmin()]
        strips = _strips(self.model, self.code, walk, real)
        twin = Image.new(
            "RGB",
            (plots.width + strips.width, max(plots.height, strips.height)),
            "white",
        )
        twin.paste(plots, (0, (twin.height - plots.height) // 2))
        twin.paste(strips, (plots.width, (twin.height - strips.height) // 2))
        buffer = io.BytesIO()
        twin.quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


WAYS = (lerp, slerp)


def _strips(
    model: browser_model.BrowserModel,
    code: np.ndarray,
    walks: Any,
    real: np.ndarray | None,
) -> Any:
    """The picture of `code` beside `real`, and below both walks, as an image."""
    from PIL import Image, ImageDraw, ImageFont

    every = np.stack([code, *walks[0], *walks[1]])
    pixels = to_uint8(browser_model.run(model, every)) // 8 * 8  # 32 greys
    side = max(1, round(64 / model.shape[2])) * model.shape[2]
    font = ImageFont.load_default(11)
    columns, text = len(walks[0]), 16
    sheet = Image.new("RGB", (44 + columns * (side + 3), 4 * text + 4 * side), "white")
    pen = ImageDraw.Draw(sheet)

    def put(image: np.ndarray, x: int, y: int, zoom: int = 1) -> None:
        size = (side * zoom, side * zoom)
        picture = Image.fromarray(image).convert("RGB")
        sheet.paste(picture.resize(size, Image.Resampling.NEAREST), (x, y))

    norm = np.linalg.norm(code)
    pen.text((44, 0), f"the point, norm {norm:.1f}", fill="black", font=font)
    put(pixels[0], 44, text, zoom=2)
    if real is not None:
        x = 44 + 5 * (side + 3) // 2
        pen.text((x, 0), "nearest image", fill="black", font=font)
        put(real, x, text, zoom=2)
    top = 2 * text + 2 * side
    for row, (name, walk) in enumerate(zip(("line", "arc"), walks, strict=True)):
        y = top + row * (side + text)
        pen.text((8, y + side // 2), name, fill="black", font=font)
        for i, z in enumerate(walk):
            x = 44 + i * (side + 3)
            put(pixels[1 + row * columns + i], x, y)
            norm = f"norm {np.linalg.norm(z):.1f}"
            pen.text((x + 8, y + side), norm, fill="black", font=font)
    return sheet
