"""What the metric sandbox of lesson 06 computes: spoilt fakes, scores, one picture.

`course_lib.sandbox_widget.MetricSandbox` is a thin shell over it. Images are (N, C, S,
S) in [-1, 1].
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.distances import (
    FrechetStatistics,
    frechet_distance,
    frechet_statistics,
)
from course_lib.evaluation import feature_scores, jackknife_widths
from course_lib.features import Extractor
from course_lib.plotting import COLOURS, figure_image, small_png, to_uint8
from course_lib.runtime import one_thread

RESIZES = ("none", "nearest", "bilinear", "bicubic", "antialiased")
GROUPS = 10  # of the jackknife
SHOWN = {  # key -> name, and whether more is worse
    "frechet": ("Fréchet distance", True),
    "kid": ("KID", True),
    "precision": ("precision", False),
    "recall": ("recall", False),
    "coverage": ("coverage", False),
    "copies": ("copies found", True),
}
_END = 300.0  # what lies further out, in half-widths, is drawn at the edge


@dataclass(frozen=True)
class Setting:
    """What is done to real images before they are called fakes; by default nothing."""

    n: int = 150
    blur: float = 0.0  # sigma of a Gaussian, pixels
    noise: float = 0.0  # standard deviation, the range [-1, 1] is 2 wide
    dropped: float = 0.0  # share of the rarest class that is missing
    copies: float = 0.0  # share of fakes that are training images
    extractor: str = ""  # "": the first
    resize: str = "none"  # to half the side and back, on the fake side alone
    window: float = 0.0  # share of the grey scale cut off at each end, as in a CT
    zero_one: bool = False  # the fakes lie in [0, 1], and nobody noticed


PRESETS = {
    "real": Setting(),
    "blur": Setting(blur=0.8),
    "noise": Setting(noise=0.16),
    "lost class": Setting(dropped=1.0),
    "copies": Setting(copies=1.0),
    "resize": Setting(resize="nearest"),
    "window": Setting(window=0.2),
    "range": Setting(zero_one=True),
}


@dataclass(frozen=True)
class Reading:
    """One metric: value with its 95 % interval, and real against real at this N."""

    value: float
    low: float
    high: float
    baseline: float
    width: float  # half of the interval of real against real
    worse_is_more: bool

    @property
    def notices(self) -> bool:
        """Whether the interval lies on the worse side of real against real."""
        if self.worse_is_more:
            return self.low > self.baseline + self.width / 2
        return self.high < self.baseline - self.width / 2

    def place(self, value: float) -> float:
        """How much worse than real images, in half-widths; asinh, so all fits."""
        sign = 1 if self.worse_is_more else -1
        z = sign * (value - self.baseline) / max(self.width, 1e-9)
        return math.asinh(min(max(z, -_END), _END))


# --- what can be wrong with a generator -----------------------------------------------


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, `sigma` in pixels; the border is repeated. Same shape."""
    from scipy.ndimage import gaussian_filter

    if sigma < 0:
        raise ValueError(f"sigma must not be negative, got {sigma}")
    if sigma == 0:
        return images
    done = gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(done)


def noisy(images: Tensor, sd: float, *, seed: int = 0) -> Tensor:
    """Gaussian noise of standard deviation `sd`, clipped to [-1, 1]. Same shape."""
    if sd < 0:
        raise ValueError(f"sd must not be negative, got {sd}")
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + sd * noise).clamp(-1, 1)


def resized(images: Tensor, kind: str) -> Tensor:
    """To half the side and back by one filter of RESIZES. Same shape, in [-1, 1]."""
    if kind not in RESIZES:
        raise ValueError(f"resize {kind!r}: choose from {', '.join(RESIZES)}")
    if kind == "none":
        return images
    mode = "bilinear" if kind == "antialiased" else kind
    smooth = {} if mode == "nearest" else {"antialias": kind == "antialiased"}
    side = images.shape[-1]
    small = F.interpolate(images, (side // 2, side // 2), mode=mode, **smooth)
    large = F.interpolate(small, (side, side), mode=mode)
    return large.clamp(-1, 1)  # bicubic overshoots


def windowed(images: Tensor, cut: float) -> Tensor:
    """Greys stretched so that a share `cut` at each end of [-1, 1] is clipped."""
    if not 0 <= cut < 0.5:
        raise ValueError(f"cut must be in [0, 0.5), got {cut}")
    return (images / (1 - 2 * cut)).clamp(-1, 1)


# --- the sandbox ----------------------------------------------------------------------


class Sandbox:
    """Real images in three parts: a reference, fresh ones, and a training set.

    images (N, C, S, S) in [-1, 1], labels (N,), `extractors` {name: Extractor}. Fakes
    are made of the fresh ones, copies of the training set; nothing else is a model
    here, so you know what is wrong. Raises ValueError for fewer than 300 images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        extractors: Mapping[str, Extractor],
        *,
        seed: int = 0,
    ):
        if len(images) < 300 or len(images) != len(labels):
            raise ValueError(
                f"needs 300 images with a label each, got {len(images)} and "
                f"{len(labels)}"
            )
        order = torch.randperm(
            len(images), generator=torch.Generator().manual_seed(seed)
        )
        self.largest = min(500, len(images) // 3)
        parts = order[: 3 * self.largest].split(self.largest)
        self.reference, self.fresh, self.train = (images[part] for part in parts)
        self.labels = labels[parts[1]]
        counts = torch.bincount(labels).double()
        self.rare = int(counts.where(counts > 0, torch.inf).argmin())
        self.extractors = dict(extractors)
        self._known = _directions(self.train)
        self._near = _nearest(self.reference, self._known)
        self._features: dict[str, tuple[Tensor, Tensor]] = {}
        self._baselines: dict[tuple[int, str], dict[str, tuple[float, float]]] = {}
        self._parts: dict[tuple[int, str], list[FrechetStatistics]] = {}
        self._last: tuple[Setting, dict[str, Reading]] | None = None

    def fakes(self, setting: Setting) -> Tensor:
        """(n, C, S, S): the first n fresh images, spoilt as `setting` says."""
        if not 2 <= setting.n <= self.largest:
            raise ValueError(f"n must be 2 to {self.largest}, got {setting.n}")
        images = self.fresh[: setting.n].clone()
        rare = torch.nonzero(self.labels[: setting.n] == self.rare).flatten()
        others = torch.nonzero(self.labels != self.rare).flatten()
        lost = rare[: round(setting.dropped * len(rare))]
        # another image of another class, from the end, where few are in use
        images[lost] = self.fresh[others.flip(0)[: len(lost)]]
        copied = torch.randperm(setting.n, generator=torch.Generator().manual_seed(1))[
            : round(setting.copies * setting.n)
        ]
        images[copied] = self.train[copied]
        images = noisy(blurred(images, setting.blur), setting.noise)
        images = windowed(resized(images, setting.resize), setting.window)
        return (images + 1) / 2 if setting.zero_one else images

    def readings(self, setting: Setting) -> dict[str, Reading]:
        """{key of SHOWN: Reading}; the last answer is kept."""
        if self._last is None or self._last[0] != setting:
            with one_thread():
                self._last = setting, self._measure(setting)
        return self._last[1]

    def _measure(self, setting: Setting) -> dict[str, Reading]:
        n, fakes = setting.n, self.fakes(setting)
        extractor = self._extractor(setting)
        real = self._real_features(setting)[0][:n]
        fake = extractor(fakes).double()
        values = feature_scores(real, fake, n > extractor.dim)
        widths, _ = jackknife_widths(real, fake, False, GROUPS, 0, 0)
        if n > extractor.dim:
            widths["frechet"] = _frechet_width(self._real_parts(setting), fake)
        near = _nearest(fakes, self._known)
        values["copies"] = (near > self._near.quantile(0.99)).double().mean().item()
        widths["copies"] = _share_width(values["copies"], n)
        found = {}
        for key, (baseline, width) in self._baseline(setting).items():
            value, half, worse = values[key], widths[key], SHOWN[key][1]
            low, high = value - half, value + half
            if key != "kid":
                low = max(low, 0.0)
            if key not in ("kid", "frechet"):
                high = min(high, 1.0)
            found[key] = Reading(value, low, high, baseline, width, worse)
        return found

    def _extractor(self, setting: Setting) -> Extractor:
        name = setting.extractor or next(iter(self.extractors))
        if name not in self.extractors:
            known = ", ".join(self.extractors)
            raise ValueError(f"extractor {name!r}: choose from {known}")
        return self.extractors[name]

    def _real_features(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """Features of the reference and of the fresh images, each computed once."""
        extractor = self._extractor(setting)
        if extractor.name not in self._features:
            pair = (self.reference, self.fresh)
            self._features[extractor.name] = tuple(extractor(x).double() for x in pair)
        return self._features[extractor.name]

    def _real_parts(self, setting: Setting) -> list[FrechetStatistics]:
        """Of the reference at this N: all of it, then without each group."""
        key = setting.n, self._extractor(setting).name
        if key not in self._parts:
            real = self._real_features(setting)[0][: setting.n]
            fold, _ = _folds(len(real))
            kept = [real, *(real[fold != g] for g in range(GROUPS))]
            self._parts[key] = [frechet_statistics(part) for part in kept]
        return self._parts[key]

    def _baseline(self, setting: Setting) -> dict[str, tuple[float, float]]:
        """{key: (value, half-width)} of real against real at this N, mean of 4."""
        n, extractor = setting.n, self._extractor(setting)
        if (n, extractor.name) not in self._baselines:
            pool = torch.cat(self._real_features(setting))
            generator = torch.Generator().manual_seed(0)
            runs = []
            for _ in range(4):
                order = torch.randperm(len(pool), generator=generator)
                pair = pool[order[:n]], pool[order[n : 2 * n]]
                runs.append(feature_scores(*pair, n > extractor.dim))
            widths, _ = jackknife_widths(*pair, n > extractor.dim, GROUPS, 0, 0)
            found = {
                key: (float(np.mean([run[key] for run in runs])), widths[key])
                for key in SHOWN
                if key in runs[0]
            }
            found["copies"] = (0.01, _share_width(0.01, n))
            self._baselines[n, extractor.name] = found
        return self._baselines[n, extractor.name]


def _folds(n: int) -> list[Tensor]:
    """The groups of the jackknife on both sides, as `jackknife_widths` draws them."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(n, generator=generator) % GROUPS for _ in range(2)]


def _frechet_width(real: list[FrechetStatistics], fake: Tensor) -> float:
    """Half of the 95 % interval of the Frechet distance, by the jackknife.

    `real`: all of it, then without each group; fake (N, d), as many. It is that of
    `jackknife_widths`, fast enough for a slider: the real side is kept, and centred
    features are their own factor, so that no covariance has to be decomposed.
    """
    from scipy.stats import t

    whole, (_, fold) = frechet_statistics(fake), _folds(len(fake))
    values = [[frechet_distance(part, whole) for part in real[1:]], []]
    for g in range(GROUPS):
        part = fake[fold != g]
        centred = (part - part.mean(dim=0)) / (len(part) - 1) ** 0.5
        kept = FrechetStatistics(len(part), part.mean(dim=0), centred)
        values[1].append(frechet_distance(real[0], kept))
    variance = (GROUPS - 1) * np.var(values, axis=1).sum()
    return float(t.ppf(0.975, 2 * (GROUPS - 1)) * variance**0.5)


def _share_width(share: float, n: int) -> float:
    """Half of the Wilson interval of a share of n."""
    z = 1.96
    return z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)


def _directions(images: Tensor) -> Tensor:
    """(N, C, S, S) -> (N, D), mean 0 and length 1: products are correlations."""
    x = F.avg_pool2d(images.mean(dim=1, keepdim=True), 2).flatten(1)
    return F.normalize(x - x.mean(dim=1, keepdim=True), eps=1e-3)


def _nearest(images: Tensor, known: Tensor) -> Tensor:
    """(N,): correlation with the most similar training image."""
    return (_directions(images) @ known.T).amax(dim=1)


# --- how it is shown ------------------------------------------------------------------


def describe(sandbox: Sandbox, setting: Setting) -> str:
    """Alt text: what was done to the fakes, and which metric notices."""
    readings = sandbox.readings(setting)
    notices = [SHOWN[key][0] for key, r in readings.items() if r.notices]
    quiet = [SHOWN[key][0] for key, r in readings.items() if not r.notices]
    numbers = ", ".join(
        f"{SHOWN[key][0]} {r.value:.3g} ({r.low:.3g} to {r.high:.3g})"
        for key, r in readings.items()
    )
    return (
        f"{said(setting)}, N = {setting.n}: {numbers}. Noticed by "
        f"{', '.join(notices) or 'none'}; not noticed by {', '.join(quiet) or 'none'}."
    )


def said(setting: Setting) -> str:
    """What was done to the fakes, in words."""
    parts = []
    if setting.blur:
        parts.append(f"blurred by {setting.blur:.1f} px")
    if setting.noise:
        parts.append(f"noise of {setting.noise:.2f}")
    if setting.dropped:
        parts.append(f"{setting.dropped:.0%} of the rarest class missing")
    if setting.copies:
        parts.append(f"{setting.copies:.0%} copied from the training set")
    if setting.resize != "none":
        parts.append(f"halved and enlarged ({setting.resize})")
    if setting.window:
        parts.append(f"{setting.window:.0%} cut off each end of the greys")
    if setting.zero_one:
        parts.append("range [0, 1]")
    return f"Real images, {', '.join(parts)}" if parts else "Real images, untouched"


def to_html(sandbox: Sandbox, setting: Setting, *, scale: int = 1) -> str:
    """Fakes, numbers and one common axis as one piece of HTML, without scripts."""
    readings = sandbox.readings(setting)
    picture = _picture(sandbox, setting, 1, 8)  # the browser enlarges it, by squares
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    pixels = base64.b64encode(buffer.getvalue()).decode()
    head = "".join(
        f'<th scope="col" style="text-align:{side};padding:0 .6em">{text}</th>'
        for text, side in (
            ("", "left"),
            ("value", "right"),
            ("95 % interval", "right"),
            ("real vs real", "right"),
            ("better | worse than real", "left"),
            ("", "left"),
        )
    )
    rows = "".join(_row(key, reading) for key, reading in readings.items())
    # decoding="sync": no empty frame between two pictures
    return (
        f'<img decoding="sync" src="data:image/png;base64,{pixels}" '
        f'width="{scale * picture.width}" height="{scale * picture.height}" '
        'style="image-rendering:pixelated" '
        f'alt="{html.escape(describe(sandbox, setting))}">'
        f"<div>Above: real images. Below: {html.escape(said(setting).lower())}.</div>"
        '<table style="border-collapse:collapse;color:inherit;line-height:1.7">'
        f"<tr>{head}</tr>{rows}</table>"
        '<div style="font-size:90%">The dashed line is real against real at this N, '
        "the band its 95 % interval; further right is worse.</div>"
    )


def _row(key: str, r: Reading) -> str:
    cells = (f"{r.value:.3g}", f"{r.low:.3g} to {r.high:.3g}", f"{r.baseline:.3g}")
    numbers = "".join(
        f'<td style="text-align:right;padding:0 .6em">{text}</td>' for text in cells
    )
    colour = COLOURS[1] if r.notices else COLOURS[0]
    middle, unit = 60, 36  # pixels: where real against real stands, and one asinh
    low, at, high = (
        min(max(middle + unit * r.place(x), 4), 296) for x in (r.low, r.value, r.high)
    )
    low, high = sorted((low, high))
    band = unit * math.asinh(1)
    shape = (
        f'<path d="M{at - 5:.1f} 10l5 -6l5 6l-5 6z" fill="{colour}"/>'
        if r.notices
        else f'<circle cx="{at:.1f}" cy="10" r="5" fill="{colour}"/>'
    )
    plot = (
        '<svg width="300" height="20" style="display:block" role="img" '
        f'aria-label="{SHOWN[key][0]}: '
        f'{"worse than" if r.notices else "like"} real images">'
        f'<rect x="{middle - band:.1f}" width="{2 * band:.1f}" height="20" '
        'fill="currentColor" opacity=".12"/>'
        f'<path d="M{middle} 0V20" stroke="currentColor" stroke-dasharray="3 2"/>'
        f'<path d="M{low:.1f} 10H{high:.1f}" stroke="{colour}" stroke-width="3"/>'
        f"{shape}</svg>"
    )
    verdict = "<b>notices</b>" if r.notices else "does not notice"
    return (
        f'<tr style="background:none"><th scope="row" style="text-align:left">'
        f"{SHOWN[key][0]}</th>{numbers}<td>{plot}</td><td>{verdict}</td></tr>"
    )


def _picture(sandbox: Sandbox, setting: Setting, scale: int, count: int) -> Any:
    """Some real images of the reference above as many fakes, as a PIL image.

    What is between them is transparent: the page may be dark.
    """
    from PIL import Image

    # the composition of all n, so that lost and copied images can be seen
    rows = sandbox.reference[:count], sandbox.fakes(setting)[:count]
    gap = 2
    lines = []
    for row in rows:
        pixels = to_uint8(row)
        pixels = pixels.reshape(*pixels.shape[:3], -1)
        opaque = np.full_like(pixels[..., :1], 255)
        pixels = np.concatenate([pixels, opaque], axis=-1)
        pixels = np.pad(pixels, [(0, 0), (0, gap), (0, gap), (0, 0)])
        lines.append(np.concatenate(list(pixels), axis=1))
    image = Image.fromarray(np.concatenate(lines, axis=0))
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST)


def to_figure(sandbox: Sandbox, setting: Setting) -> bytes:
    """The static twin: real images, fakes, and all metrics on one axis, as a PNG."""
    import matplotlib.pyplot as plt
    from PIL import Image

    readings = sandbox.readings(setting)
    figure, axis = plt.subplots(figsize=(7.2, 2.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)  # inches, or labels touch the edge
    axis.axvspan(-math.asinh(1), math.asinh(1), color="0.9")
    axis.axvline(0, color="black", ls="--", lw=1)
    for row, r in enumerate(readings.values()):
        colour = COLOURS[1] if r.notices else COLOURS[0]
        ends = [r.place(r.low), r.place(r.high)]
        axis.plot(ends, [row, row], color=colour, lw=2.5)
        axis.plot(r.place(r.value), row, "D" if r.notices else "o", color=colour)
        text = f"{r.value:.3g}  (real {r.baseline:.3g})"
        axis.text(1.01, row, text, transform=axis.get_yaxis_transform(), va="center")
    names = [SHOWN[key][0] for key in readings]
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    ticks = [-3, 0, 3, 10, 30, 100, 300]
    axis.set_xticks([math.asinh(t) for t in ticks], [str(t) for t in ticks])
    axis.set(
        xlim=(-2.2, math.asinh(_END) + 0.2),
        xlabel="worse than real against real, in half-widths of its interval",
        title=f"Above: real images. Below: {said(setting).lower()}, N = {setting.n}",
    )
    axis.title.set_fontsize(9)
    axis.spines[["top", "right"]].set_visible(False)
    plot = figure_image(figure)
    scale = max(1, plot.width // (8 * sandbox.fresh.shape[-1] + 16))
    strip = _picture(sandbox, setting, scale, 8)
    strip = strip.point(lambda grey: grey // 8 * 255 // 31)
    twin = Image.new("RGB", (plot.width, plot.height + strip.height), "white")
    left = max(0, (plot.width - strip.width) // 2)
    twin.paste(strip.convert("RGB"), (left, 0), strip.getchannel("A"))
    twin.paste(plot, (0, strip.height))
    return small_png(twin, colours=128)


def preset_of(setting: Setting) -> str | None:
    """The preset that a setting is, whatever N and extractor."""
    for name, preset in PRESETS.items():
        if replace(preset, n=setting.n, extractor=setting.extractor) == setting:
            return name
    return None
