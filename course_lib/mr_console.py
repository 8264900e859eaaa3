"""What an MR console shows for one timing: slice, curves, tasks. Plain functions.

`mr_console.js` computes the same in the browser, for `course_lib.mr_widget.MRPhysics`;
tests hold the two equal. All times in ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from course_lib.phantoms import (
    FAT,
    PROTOCOLS,
    TISSUE_PROPERTIES,
    TISSUES,
    Tissue,
    render,
    spin_echo,
)
from course_lib.plotting import COLOURS, figure_image, small_png

SHOWN = {  # tissue -> what the reader sees, colour, dash of the line
    "csf": ("CSF", COLOURS[0], ""),
    "grey matter": ("grey matter", COLOURS[2], "7 3"),
    "white matter": ("white matter", COLOURS[4], "2 2"),
    "MS lesion": ("MS lesion", COLOURS[1], "9 3 2 3"),
}
NOISE = 0.006  # in signal units at REFERENCE, about that of the data set
MOST_NOISE = 0.05  # that the knob gives
RANGES = {"TR": (100.0, 10000.0), "TE": (5.0, 300.0), "TI": (20.0, 4000.0)}  # ms
FIELDS = (0.5, 1.5, 3.0, 7.0)  # tesla
REFERENCE = 1.5  # tesla; TISSUE_PROPERTIES and the data set are for this field
# tissue -> how T1 grows (exponent of the field, Rooney et al. 2007) and what share of
# its T2 at REFERENCE a tissue loses with each tesla (Cox and Gowland 2010; grey matter:
# mean of two regions)
FIELD_EFFECT = {
    "csf": (0.0, 0.0),
    "grey matter": (0.376, 0.080),
    "white matter": (0.382, 0.075),
}


def tissues_at(field: float) -> dict[str, Tissue]:
    """TISSUE_PROPERTIES at another field, in tesla; those themselves at 1.5.

    T1 = T1(1.5 T) (field / 1.5)**exponent; T2 falls in a straight line. Measured for
    CSF, grey and white matter from 0.2 (T2: from 1.5) to 7 T. All else, lesions too,
    goes with grey matter here, for want of numbers.
    """
    found = {}
    for name, row in TISSUE_PROPERTIES.items():
        exponent, loss = FIELD_EFFECT.get(name, FIELD_EFFECT["grey matter"])
        found[name] = row._replace(
            t1=row.t1 * (field / REFERENCE) ** exponent,
            t2=row.t2 * (1 - loss * (field - REFERENCE)),
        )
    return found


def noise_at(field: float, noise: float = NOISE) -> float:
    """Deviation of the noise in signal units, where it is `noise` at 1.5 T.

    Signal over noise grows in proportion to the field, where the noise comes from the
    body and not from the receiver (Edelstein et al. 1986).
    """
    return noise * (REFERENCE / field)


def timing_problem(*, tr: float, te: float, ti: float | None = None) -> str | None:
    """Why a scanner could not run this timing, and what to move; None if it could."""
    if te >= tr:
        return f"The echo at TE {te:.0f} ms comes after the next pulse: raise TR."
    if ti is not None and ti + te >= tr:
        return (
            f"TI and TE take {ti + te:.0f} ms, more than one repetition: "
            "raise TR, or lower TI."
        )
    return None


def tissue_signals(
    *, tr: float, te: float, ti: float | None = None, field: float = REFERENCE
) -> dict[str, float]:
    """Signal of each tissue of SHOWN, by the equation that makes the data. In ms, T."""
    signals = _signals(tr=tr, te=te, ti=ti, field=field)
    return {name: float(value) for name, value in signals.items()}


def signal_curves(
    *, tr: float, te: float, ti: float | None = None, field: float = REFERENCE
) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """{"TR" (with inversion "TI"), "TE"}: (times (n,) in ms, {tissue: signal (n,)}).

    Along each axis the other settings stay as given.
    """
    axes = {"TE": np.linspace(*RANGES["TE"], 60)}
    if ti is None:
        axes = {"TR": np.geomspace(*RANGES["TR"], 80), **axes}
    else:
        last = min(RANGES["TI"][1], max(tr - te, ti))
        axes = {"TI": np.linspace(RANGES["TI"][0], last, 120), **axes}
    curves = {}
    for axis, times in axes.items():
        settings = {"tr": tr, "te": te, "ti": ti, axis.lower(): times}
        curves[axis] = (times, _signals(**settings, field=field))
    return curves


def _signals(*, tr: Any, te: Any, ti: Any, field: float) -> dict[str, Any]:
    tissues = tissues_at(field)
    return {
        name: spin_echo(row.pd, row.t1, row.t2, tr=tr, te=te, ti=ti)
        for name, row in ((name, tissues[name]) for name in SHOWN)
    }


def mr_image(
    maps: np.ndarray,
    *,
    tr: float,
    te: float,
    ti: float | None = None,
    field: float = REFERENCE,
    noise: float = NOISE,
) -> np.ndarray:
    """The slice under these settings. (T, H, W) tissue fractions -> uint8 (H, W).

    White is the brightest tissue of SHOWN, as a scanner's console would set it: where
    all signal is weak, the noise comes up with it. `noise` is the deviation of the
    complex noise at 1.5 T; at `field` it is `noise_at`.
    """
    signal = render(
        maps,
        tr=tr,
        te=te,
        ti=ti,
        noise=noise_at(field, noise),
        tissues=tissues_at(field),
    )
    white = 1.05 * max(tissue_signals(tr=tr, te=te, ti=ti, field=field).values())
    return np.rint(255 * np.clip(signal / max(white, 1e-9), 0, 1)).astype(np.uint8)


def judge_tasks(signals: Mapping[str, float], noise: float = NOISE) -> dict[str, bool]:
    """Which of the three tasks these tissue signals solve; `noise` in their unit.

    Nothing is solved where what has to be seen drowns, or is black beside the rest.
    """
    csf, grey, white, lesion = (signals[name] for name in SHOWN)
    top, matter = max(signals.values()), max(grey, white)
    least = max(10 * noise, 0.1 * top)
    return {
        "CSF is black": top > least and csf < 0.04 * top,
        "grey and white matter look the same": matter > least
        and abs(grey - white) < 0.02 * matter,
        "the lesion outshines all else": top > least
        and lesion > 1.2 * max(csf, grey, white),
    }


def describe(
    *,
    tr: float,
    te: float,
    ti: float | None = None,
    field: float = REFERENCE,
    noise: float = NOISE,
) -> str:
    """Alt text: the settings, the tissues from bright to dark, and the noise."""
    signals = tissue_signals(tr=tr, te=te, ti=ti, field=field)
    order = sorted(signals, key=signals.__getitem__, reverse=True)
    times = f"{field:g} T, TR {tr:.0f} ms, TE {te:.0f} ms"
    times += f", TI {ti:.0f} ms" if ti is not None else ""
    names = ", ".join(f"{SHOWN[name][0]} {signals[name]:.2f}" for name in order)
    return (
        f"Simulated brain slice at {times}. From bright to dark: {names}; "
        f"noise {noise_at(field, noise):.4f}."
    )


def browser_values(maps: np.ndarray) -> dict[str, Any]:
    """What `mr_console.js` needs to show the same in the browser. Maps as above.

    Fractions in 255 steps, the renderer's own noise in 32 steps of its deviation.
    """
    rows = [TISSUE_PROPERTIES[name] for name in TISSUES]
    effects = [FIELD_EFFECT.get(k, FIELD_EFFECT["grey matter"]) for k in TISSUES]
    noise = np.random.default_rng(0).standard_normal((2, *maps.shape[1:]))
    spec = {
        "shape": list(maps.shape),
        "tissues": [[float(row.pd), float(row.t1), float(row.t2)] for row in rows],
        "fat": FAT,
        "fat_kept": 1 - render.__kwdefaults__["fat_suppression"],
        "field_effects": [list(effect) for effect in effects],
        "fields": list(FIELDS),
        "reference": REFERENCE,
        "noise": NOISE,
        "most_noise": MOST_NOISE,
        "shown": [
            {
                "label": label,
                "colour": colour,
                "dash": dash,
                "index": TISSUES.index(name),
            }
            for name, (label, colour, dash) in SHOWN.items()
        ],
        "protocols": {name: list(times) for name, times in PROTOCOLS.items()},
        "ranges": {name: list(limits) for name, limits in RANGES.items()},
    }
    return {
        "spec": spec,
        "maps": np.rint(255 * np.asarray(maps)).astype(np.uint8).tobytes(),
        "noise": np.clip(np.rint(32 * noise), -127, 127).astype(np.int8).tobytes(),
    }


def to_figure(
    maps: np.ndarray, *, tr: float, te: float, ti: float | None = None
) -> bytes:
    """The static twin: slice and signal curves as one PNG, at 1.5 T.

    Below three deviations of the noise the plots are grey, as in the browser.
    """
    import matplotlib.pyplot as plt
    from PIL import Image

    times = {"tr": tr, "te": te, "ti": ti}
    figure, axes = plt.subplots(
        1, 2, figsize=(6.8, 2.8), layout="constrained", sharey=True
    )
    curves = signal_curves(**times)
    for axis, (name, (values, lines)) in zip(axes, curves.items(), strict=True):
        now = times[name.lower()]
        for tissue, signal in lines.items():
            label, colour, dash = SHOWN[tissue]
            style = (0, [float(part) / 2 for part in dash.split()]) if dash else "-"
            axis.plot(values, signal, color=colour, ls=style, label=label)
            axis.plot(now, np.interp(now, values, signal), "o", color=colour)
        axis.axvline(now, color="black", ls=":", lw=1)
        axis.axhspan(0, 3 * NOISE, color="0.85", lw=0)
        axis.set(xlabel=f"{name} (ms)", ylim=(0, 1.05), title=f"{name} = {now:.0f} ms")
        axis.spines[["top", "right"]].set_visible(False)
        if name == "TR":
            axis.set_xscale("log")
    axes[0].set_ylabel("signal")
    axes[1].legend(frameon=False, fontsize=8)
    plots = figure_image(figure)
    scale = max(1, plots.height // maps.shape[1])  # whole: each pixel stays a square
    pixels = mr_image(maps, **times) // 6 * 6  # 43 greys are enough here
    slice_ = Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    twin = Image.new(
        "RGB", (slice_.width + plots.width, max(slice_.height, plots.height)), "white"
    )
    twin.paste(slice_, (0, (twin.height - slice_.height) // 2))
    twin.paste(plots, (slice_.width, (twin.height - plots.height) // 2))
    return small_png(twin, colours=256)
