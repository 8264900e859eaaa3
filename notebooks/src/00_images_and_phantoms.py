# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.33, lab: 4, full: 10}
# ---

# %% [markdown]
# # 00 Images and phantoms
#
# What a pixel means in a medical image, where the pictures of this course come
# from, and what to look at before any model sees them.
#
# ## Goals
# You can
#
# - say what a pixel stands for in X-ray, CT and MR, and which of them has a
#   unit;
# - tell from TR, TE and TI which tissue is bright, and write the equation;
# - choose a CT window, and say what it hides;
# - read a data card, and find imbalance, copies and leaks before they fool you;
# - show that two pictures with the same PSNR can look nothing alike.
#
# You need Python and NumPy arrays, and no physics. Take 45 minutes.
#
# The heads in this lesson are simulated. None is a patient, and nothing here is
# for clinical use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from matplotlib.colors import ListedColormap
from scipy import ndimage

import course_lib.checks.lesson_00 as checks
from course_lib import phantoms
from course_lib.cards import medmnist_facts
from course_lib.datasets import find_duplicates, load_images
from course_lib.fetch import medmnist_records
from course_lib.metrics import psnr, ssim
from course_lib.phantoms import TISSUE_PROPERTIES, TISSUES
from course_lib.plotting import COLOURS, show_bars, show_curves
from course_lib.plotting import show_figure, show_images, show_rows
from course_lib.runtime import per_budget, report, seed_everything
from course_lib.widgets import MRPhysics

# %% [markdown]
# The parameters of the lesson. `dataset` counts from the part *Data* on: the
# built-in `phantom`, a MedMNIST name such as `pneumoniamnist`, or a file.

# %% tags=["parameters"]
budget = os.environ.get("COURSE_BUDGET", "lab")
dataset = "phantom"
image_size = 32
seed = 0

# %% [markdown]
# What follows from them.

# %%
generator = seed_everything(seed)
rng = np.random.default_rng(seed)
n_images = per_budget(budget, smoke=800, lab=2400, full=6000)
n_heads = per_budget(budget, smoke=40, lab=60, full=200)
head = 12  # the subject that we look at; try another

# %% [markdown]
# ## One slice, five pictures
# Below is one slice of one head, taken five times. It has several lesions.
# Before you go on: in which of the five pictures can you find them?
#
# First the camera. `maps` says how much of each tissue is in each pixel, and
# `take` turns that into a picture.


# %%
def take(maps, contrast):
    """One picture of tissue maps, 0 to 1, with the noise of the data set."""
    low, high = phantoms.WINDOWS[contrast]
    if contrast == "CT":
        signal = phantoms.render_ct(maps, noise=2.0, rng=rng)
    else:
        tr, te, ti = phantoms.PROTOCOLS[contrast]
        noise = 0.02 * (high - low)
        signal = phantoms.render(
            maps, tr=tr, te=te, ti=ti, noise=noise, rng=rng
        )
    return phantoms.window(signal, low, high)


def print_facts(facts):
    """Print statements, and whether they hold."""
    for statement, holds in facts.items():
        print(f"{statement}: {bool(holds)}")


# %% [markdown]
# Then the five pictures.

# %% tags=["nbval-ignore-output"]
maps = phantoms.subject_maps(head, 128, lesion="MS-like lesions")
pictures = {name: take(maps, name) for name in phantoms.CONTRASTS}
show_images(
    2 * np.stack(list(pictures.values())) - 1,
    titles=list(pictures),
    size=1.9,
    alt="The same simulated slice as T1, T2, PD and FLAIR MR and as CT",
)

# %% [markdown]
# Now with the truth. We made this head, so we know where its lesions are: the
# orange lines. The last panel is the map behind all five pictures.


# %%
def show_truth(pictures, maps):
    """The pictures with lesions outlined, and the map of the main tissue."""
    mask = maps[TISSUES.index("MS lesion")] >= 0.5
    colours = ["#000000", "#56B4E9", "#777777", "#DDDDDD", "#E9DFA0"]
    colours += ["#A0736A", "#FFFFFF", "#D55E00", "#CC79A7", "#882255"]
    figure, axes = plt.subplots(
        2, 3, figsize=(7.2, 5.1), layout="constrained"
    )
    *frames, last = axes.flat
    for axis, (name, picture) in zip(frames, pictures.items(), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.contour(mask, [0.5], colors=COLOURS[4], linewidths=0.9)
        axis.set_title(name, fontsize=10)
    last.imshow(maps.argmax(axis=0), ListedColormap(colours), vmin=0, vmax=9)
    last.set_title("main tissue", fontsize=10)
    for name in ("csf", "grey matter", "white matter", "MS lesion"):
        last.plot([], [], "s", c=colours[TISSUES.index(name)], label=name)
    last.legend(fontsize=6, loc="lower right", framealpha=0.9)
    for axis in axes.flat:
        axis.axis("off")
    show_figure(figure, alt="Five pictures, lesions outlined, and a tissue map")


# %% [markdown]
# Did you find them all, and in which picture?

# %% tags=["nbval-ignore-output"]
show_truth(pictures, maps)

# %% [markdown]
# The picture first, the number second. How far does a lesion stand out from
# white matter? We count in standard deviations of the noise: single pixels
# below about 3 drown.

# %% tags=["nbval-ignore-output"]
lesion = maps[TISSUES.index("MS lesion")] > 0.95
white = maps[TISSUES.index("white matter")] > 0.95
noise = dict.fromkeys(pictures, 0.02) | {"CT": 2.0 / 80}
stands_out = {
    name: abs(picture[lesion].mean() - picture[white].mean()) / noise[name]
    for name, picture in pictures.items()
}
show_bars(
    stands_out,
    ylabel="lesion against white matter\n(noise standard deviations)",
    alt="How far a lesion stands out in each contrast, in units of noise",
)

# %% [markdown]
# One lesion, from glaring to invisible. Nothing is wrong with the CT: the
# lesion has almost the density of white matter, and density is what CT sees.
# A model that is given this picture is bound by the same physics.

# %% tags=["nbval-check-output"]
print("maps:", maps.shape, "with tissues:", ", ".join(TISSUES))
ranking = sorted(stands_out, key=stands_out.get)
print_facts(
    {
        "tissue fractions add up to 1": np.allclose(maps.sum(axis=0), 1),
        "lesions stand out least on CT": ranking[0] == "CT",
        "lesions stand out most on FLAIR or T2": ranking[-1] in ("FLAIR", "T2"),
        "on CT a lesion is below 3 noise deviations": stands_out["CT"] < 3,
    }
)

# %% [markdown]
# **Where this head comes from.** The anatomy is the ICBM 2009a template, an
# average of real brains made at the Montreal Neurological Institute (copyright
# Louis Collins, McConnell Brain Imaging Centre, MNI, McGill University; free to
# use with this notice kept). Each subject is a seeded draw: bent, stretched,
# with wider or narrower ventricles and its own skull. Lesions are put into the
# tissue map *before* the physics, so each picture has an exact mask.
#
# **What it is not.** It is not patient data. There is no blood vessel, no
# motion, no coil that fails, no disease but three simple ones. What works on
# the phantom has passed a first test, and no more.

# %% [markdown]
# ## What a pixel means
#
# | | a pixel tells | unit | bright is |
# |---|---|---|---|
# | X-ray | what a whole ray lost on its way through you | none | dense or thick |
# | CT | how much one small box weakens X-rays, against water | HU | dense |
# | MR | how strongly one small box still rings when we listen | none | your choice |
# | ultrasound | how much sound comes back, log scale | none | a border |
# | PET | how much tracer decays in one box | Bq/ml | uptake |
# | microscopy, skin, eye | light in three channels | none | bright |
#
# CT solves X-rays for the attenuation $\mu$ of each box and states it against
# water: $\mathrm{HU} = 1000\,(\mu - \mu_{water})/\mu_{water}$. Air is $-1000$,
# water $0$, on every scanner. An X-ray keeps only the sum along the ray: a
# share $\exp(-\sum \mu\,\Delta x)$ of the photons arrives.
#
# Guess: we put a tumour into the head. By how much does it change the X-ray at
# most: 0.1, 1, 10 or 50 per cent?


# %%
def photons_through(hu):
    """Share of the photons that cross a slice from front to back. -> (S,)"""
    mu = 0.0206 * (1 + hu / 1000)  # per mm; water at 60 keV has 0.0206
    return np.exp(-mu.sum(axis=0) * 220 / hu.shape[0])  # the slice: 220 mm


with_tumour = phantoms.subject_maps(head, 128, lesion="tumour")
as_white = TISSUE_PROPERTIES["white matter"]
healthy = TISSUE_PROPERTIES | {"tumour": as_white, "oedema": as_white}
seen = photons_through(phantoms.render_ct(with_tumour))
same = photons_through(phantoms.render_ct(with_tumour, tissues=healthy))

# %% [markdown]
# And the answer, beside what the head itself does to the ray.

# %% tags=["nbval-ignore-output"]
change = np.abs(seen / same - 1).max()
print(f"darkest ray: 1 photon in {1 / seen.min():.0f} gets through")
print(f"the tumour changes a ray by at most {100 * change:.1f} %")

# %% [markdown]
# That is why CT was invented: it takes the sum apart again.
#
# MR is different. The receiver's gain is set anew for each patient, so an MR
# pixel has **no unit**: 412 means nothing, and the same white matter may read
# 412 here and 90 next door. Only differences within one picture count. Models
# that mix scanners must normalise first, and say how.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "a tumour changes an X-ray of the head by less than 5 %": change < 0.05,
        "less than 1 photon in 20 crosses the head": seen.min() < 0.05,
    }
)

# %% [markdown]
# ## One equation makes four pictures
#
# A tissue brings three numbers. **PD**: how much water there is. **T1**: how
# long it takes to recover after a pulse. **T2**: how fast its signal fades.
# The scanner brings two waiting times. **TR**: from pulse to pulse. **TE**:
# from pulse to listening. The signal of a spin echo is
#
# $$S = PD\,\left(1 - e^{-TR/T_1}\right)\,e^{-TE/T_2}.$$
#
# With an inverting pulse a time **TI** before, the recovery starts upside down
# and passes through zero:
#
# $$S = PD\,\left|\,1 - 2\,e^{-TI/T_1} + e^{-TR/T_1}\right|\,e^{-TE/T_2}.$$
#
# These numbers are for a field of 1.5 tesla (Collins et al. 1998; oedema,
# tumour and HU are typical values).

# %% tags=["nbval-ignore-output"]
lines = ["| tissue | T1 (ms) | T2 (ms) | PD | HU |", "|---|--:|--:|--:|--:|"]
for name, row in TISSUE_PROPERTIES.items():
    if row.pd > 0:
        times = f"{row.t1:.0f} | {row.t2:.0f} | {row.pd:.2f}"
        lines.append(f"| {name} | {times} | {row.hu:.0f} |")
display(Markdown("\n".join(lines)))


# %% [markdown]
# **Exercise E00.1.** Write both formulas as one function. This is the very
# function that makes the data of the course. All times are in ms; numbers and
# arrays must both work.


# %%
def spin_echo(pd, t1, t2, *, tr, te, ti=None):
    """Signal of a spin echo, or with `ti` of inversion recovery, >= 0."""
    pd, t1, t2 = (
        np.asarray(value, dtype=np.float64) for value in (pd, t1, t2)
    )
    # solution E00.1
    if ti is None:
        recovery = 1 - np.exp(-tr / t1)
    else:
        recovery = np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1))
    return pd * recovery * np.exp(-te / t2)


# %% [markdown]
# The check tests what your function does, not how it is written. The lesson
# goes on with the library's version, whatever you wrote.

# %% tags=["nbval-check-output"]
checks.check_spin_echo(spin_echo)

# %% [markdown]
# Where does contrast come from? Each line is a tissue, each dotted line a
# protocol of the data set. Contrast is the gap between the lines *there*.


# %%
def plot_signal(axis, time, values, **fixed):
    """Signal of four tissues while one time varies, protocols marked."""
    for number, name in enumerate(("csf", "grey matter", "white matter")):
        draw_tissue(axis, name, number, time, values, fixed)
    draw_tissue(axis, "MS lesion", 3, time, values, fixed)
    for name, (tr, te, ti) in phantoms.PROTOCOLS.items():
        at = {"tr": tr, "te": te, "ti": ti}[time]
        if at and (time != "te" or name == "T2"):
            axis.axvline(at, color="black", ls=":", lw=0.8)
            axis.text(at, 1.01, name, fontsize=8, ha="center")
    rest = ", ".join(f"{k.upper()} {v:.0f}" for k, v in fixed.items())
    axis.set(xlabel=f"{time.upper()} (ms)", ylim=(0, 1))
    axis.set_title(f"with {rest}", fontsize=9, pad=14)
    axis.spines[["top", "right"]].set_visible(False)


def draw_tissue(axis, name, number, time, values, fixed):
    row = TISSUE_PROPERTIES[name]
    times = {time: values, **fixed}
    signal = phantoms.spin_echo(row.pd, row.t1, row.t2, **times)
    style = ("-", "--", ":", "-.")[number]
    axis.plot(values, signal, style, color=COLOURS[number], label=name)


# %% [markdown]
# Before you run it: at which TR do white and grey matter differ most?

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(
    1, 3, figsize=(9.4, 2.9), layout="constrained", sharey=True
)
_, te, _ = phantoms.PROTOCOLS["T1"]
plot_signal(axes[0], "tr", np.geomspace(100, 10000, 150), te=te)
axes[0].set_xscale("log")
tr, _, _ = phantoms.PROTOCOLS["T2"]
plot_signal(axes[1], "te", np.linspace(5, 300, 100), tr=tr)
tr, te, _ = phantoms.PROTOCOLS["FLAIR"]
plot_signal(axes[2], "ti", np.linspace(20, 4000, 200), tr=tr, te=te)
axes[0].set_ylabel("signal")
axes[0].legend(frameon=False, fontsize=7, loc="upper left")
show_figure(figure, alt="Signal against TR, TE and TI for four tissues")

# %% [markdown]
# Left: with a short TR only fast T1 has recovered, so white matter leads and
# CSF is dark: T1 weighting. Middle: with a long TE only slow T2 is still heard,
# so water shines: T2 weighting. Right: at one TI the CSF passes through zero
# just when we listen. That is FLAIR, and why a lesson beside a ventricle hides
# on T2 and not on FLAIR. Exercise E00.2 asks you for that TI.


# %% tags=["nbval-check-output"]
def signals(contrast):
    """{tissue: signal} under a protocol of the data set."""
    tr, te, ti = phantoms.PROTOCOLS[contrast]
    return {
        name: float(
            phantoms.spin_echo(row.pd, row.t1, row.t2, tr=tr, te=te, ti=ti)
        )
        for name, row in TISSUE_PROPERTIES.items()
    }


t1, t2, flair = signals("T1"), signals("T2"), signals("FLAIR")
print_facts(
    {
        "T1: white over grey over CSF": t1["white matter"]
        > t1["grey matter"] > t1["csf"],
        "T2: CSF over grey over white": t2["csf"]
        > t2["grey matter"] > t2["white matter"],
        "FLAIR: CSF below 2 % of white matter": flair["csf"]
        < 0.02 * flair["white matter"],
        "FLAIR: the MS lesion is brighter than grey matter by half or more":
        flair["MS lesion"] > 1.5 * flair["grey matter"],
    }
)

# %% [markdown]
# ## Turn the knobs
# The same maps, the same equation, and your hands. White is set to the
# brightest of the four tissues, as a console would. Try to
#
# 1. make CSF black;
# 2. make grey and white matter vanish into each other, with no inversion;
# 3. make the lesion outshine all else.
#
# Then say which of the three cannot be done without the inversion pulse. (In
# a saved page you see a still picture; the knobs move in Jupyter.)

# %% tags=["nbval-ignore-output"]
MRPhysics(phantoms.subject_maps(head, 96, lesion="MS-like lesions"))

# %% [markdown]
# Did you notice the noise? Where all tissues are weak, the console turns the
# gain up, and the noise comes with it. Contrast has a price in signal, and
# signal has a price in minutes: TR is time in the scanner.
