# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.5, lab: 2, full: 4}
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
# - say what a stronger magnet changes, and what it leaves alone;
# - choose a CT window, and say what it hides;
# - read a data card, and find imbalance, copies and leaks in time;
# - show that two pictures with the same PSNR can look nothing alike.
#
# You need Python and NumPy arrays, and no physics. Take 45 minutes; the
# notebook itself runs in a quarter of a minute on two cores.
#
# The heads in this lesson are simulated. None is a patient, and nothing here
# is for clinical use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from scipy import ndimage

from course_lib import mr_console, phantoms, plotting
from course_lib.cards import medmnist_facts
from course_lib.checks import (
    check_balanced_accuracy,
    check_null_time,
    check_spin_echo,
    check_split_by_subject,
    check_window_hu,
)
from course_lib.datasets import find_duplicates, load_images
from course_lib.fetch import medmnist_records
from course_lib.metrics import psnr, ssim
from course_lib.mr_widget import MRPhysics
from course_lib.phantoms import TISSUE_PROPERTIES, TISSUES
from course_lib.progress import show_progress
from course_lib.runtime import per_budget, print_facts, report, seed_everything

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
n_images = per_budget(budget, smoke=480, lab=2400, full=6000)
n_test = per_budget(budget, smoke=240, lab=400, full=750)
n_heads = per_budget(budget, smoke=40, lab=60, full=200)
head = 24  # the subject that we look at; try another

# %% [markdown]
# ## One slice, five pictures
# We are going to take the same slice of the same head five times. It has
# several lesions. In how many of the five pictures will you find them?
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


def greys(picture):
    """0..1 to -1..1 in 32 steps: a small page, and the eye sees no less."""
    return np.round(32 * np.asarray(picture)) / 16 - 1


# %% [markdown]
# Then the plate: five pictures, and the map of the main tissue behind them.


# %%
INK = ["#000000", "#56B4E9", "#777777", "#DDDDDD", "#E9DFA0"]  # as TISSUES
INK += ["#A0736A", "#FFFFFF", "#D55E00", "#CC79A7", "#882255"]


def show_plate(pictures, maps):
    """The pictures, lesions outlined in their left half, and a tissue map."""
    mask = maps[TISSUES.index("MS lesion")] >= 0.5
    mask = mask & (np.arange(128) < 64)
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.4), facecolor="black")
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)  # two screen pixels a pixel
    *frames, last = axes.flat
    for axis, (name, picture) in zip(frames, pictures.items(), strict=True):
        axis.imshow(greys(picture), "gray", interpolation="nearest")
        axis.contour(mask, [0.5], colors=plotting.COLOURS[4], linewidths=1)
        axis.text(3, 8, name, color="white")
    last.imshow(maps.argmax(axis=0), ListedColormap(INK), vmin=0, vmax=9)
    labels = {"CSF": (7, 1), "grey": (14, 2), "white": (118, 3)}
    for label, (row, ink) in (labels | {"MS lesion": (125, 7)}).items():
        last.text(2, row, label, color=INK[ink], fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    alt = "Five pictures with lesions outlined on the left, and a tissue map"
    plotting.show_figure(figure, alt=alt)


# %% [markdown]
# We made this head, so we know where its lesions are. In the left half they
# are outlined. In the right half they are yours to find: which pictures let
# you? The map at the end is the answer.

# %% tags=["nbval-ignore-output"]
maps = phantoms.subject_maps(head, 128, lesion="MS-like lesions")
pictures = {name: take(maps, name) for name in phantoms.CONTRASTS}
show_plate(pictures, maps)

# %% [markdown]
# The picture first, the number second. How far does a lesion stand out from
# white matter? We count in standard deviations of the noise: single pixels
# below about 3 drown.

# %% tags=["nbval-ignore-output"]
is_lesion = maps[TISSUES.index("MS lesion")] > 0.95
is_white = maps[TISSUES.index("white matter")] > 0.95
noise = dict.fromkeys(pictures, 0.02) | {"CT": 2.0 / 80}
stands_out = {
    name: abs(picture[is_lesion].mean() - picture[is_white].mean())
    / noise[name]
    for name, picture in pictures.items()
}
plotting.show_bars(
    stands_out,
    ylabel="lesion against white matter\n(noise standard deviations)",
    alt="How far a lesion stands out in each contrast, in units of noise",
)

# %% [markdown]
# One lesion, from glaring to invisible. Nothing is wrong with the CT: this
# lesion has almost the density of white matter, and density is what CT sees.
# A model that is given this picture is bound by the same physics.

# %% tags=["nbval-check-output"]
print("maps:", maps.shape, "with tissues:", ", ".join(TISSUES))
*_, second, first = sorted(stands_out, key=stands_out.get)
print_facts(
    {
        "tissue fractions add up to 1": np.allclose(maps.sum(axis=0), 1),
        "FLAIR and T2 show lesions best": {first, second} == {"FLAIR", "T2"},
        "on CT a lesion is below 3 deviations": stands_out["CT"] < 3,
    }
)

# %% [markdown]
# **Where this head comes from.** The anatomy is the ICBM 2009a template, an
# average of real brains made at the Montreal Neurological Institute (copyright
# Louis Collins, McConnell Brain Imaging Centre, MNI, McGill University; free
# to use with this notice kept). Each subject is a seeded draw: bent and
# stretched, with wide or narrow ventricles and a skull of its own. Lesions are
# put into the tissue map *before* the physics, so each has an exact mask.
#
# **What it is not.** It is not patient data. There is no blood vessel, no
# motion, no coil that fails, and its two diseases are simple ones. What works
# on the phantom has passed a first test, and no more.

# %% [markdown]
# ## What a pixel means
#
# | | a pixel tells | unit | bright is |
# |---|---|---|---|
# | X-ray | what a ray lost on its way through you | none | dense or thick |
# | CT | how much one small box weakens X-rays | HU | dense |
# | MR | how strongly one small box still rings | none | your choice |
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
        "fewer than 1 photon in 20 cross the head": seen.min() < 0.05,
        "the tumour changes a ray by less than 5 %": change < 0.05,
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
plotting.show_table(
    ["tissue", "T1 (ms)", "T2 (ms)", "PD", "HU"],
    [
        (name, f"{row.t1:.0f}", f"{row.t2:.0f}", row.pd, f"{row.hu:.0f}")
        for name, row in TISSUE_PROPERTIES.items()
        if row.pd > 0
    ],
)


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
check_spin_echo(spin_echo)

# %% [markdown]
# Where does contrast come from? Each line is a tissue, each dotted line a
# protocol of the data set. Contrast is the gap between the lines *there*.


# %%
FOUR = ("csf", "grey matter", "white matter", "MS lesion")
STYLES = ("-", "--", ":", "-.")


def plot_signal(axis, time, values, **fixed):
    """Signal of four tissues while one time varies, protocols marked."""
    for name, colour, style in zip(
        FOUR, plotting.COLOURS[:4], STYLES, strict=True
    ):
        row = TISSUE_PROPERTIES[name]
        times = {time: values, **fixed}
        signal = phantoms.spin_echo(row.pd, row.t1, row.t2, **times)
        axis.plot(values, signal, style, color=colour, label=name)
    for name, (tr, te, ti) in phantoms.PROTOCOLS.items():
        at = {"tr": tr, "te": te, "ti": ti}[time]
        if at and (time != "te" or name == "T2"):
            axis.axvline(at, color="black", ls=":", lw=0.8)
            axis.text(at, 1.01, name, fontsize=8, ha="center")
    rest = ", ".join(f"{k.upper()} {v:.0f}" for k, v in fixed.items())
    axis.set(xlabel=f"{time.upper()} (ms)", ylim=(0, 1))
    axis.set_title(f"with {rest} ms", fontsize=9, pad=14)
    axis.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# Before you run it: at which TR do white and grey matter differ most?

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(
    1, 3, figsize=(8.8, 2.8), layout="constrained", sharey=True
)
_, te, _ = phantoms.PROTOCOLS["T1"]
plot_signal(axes[0], "tr", np.geomspace(100, 10000, 150), te=te)
axes[0].set_xscale("log")
tr, _, _ = phantoms.PROTOCOLS["T2"]
plot_signal(axes[1], "te", np.linspace(5, 300, 100), tr=tr)
tr, te, _ = phantoms.PROTOCOLS["FLAIR"]
plot_signal(axes[2], "ti", np.linspace(20, 4000, 200), tr=tr, te=te)
axes[0].set_ylabel("signal")
axes[1].legend(frameon=False, fontsize=7, loc="upper right")
plotting.show_figure(
    figure, alt="Signal against TR, TE and TI for four tissues"
)

# %% [markdown]
# Left: with a short TR only fast T1 has recovered, so white matter leads and
# CSF is dark: T1 weighting. Middle: with a long TE only slow T2 is still
# heard, so water shines: T2 weighting. Right: at one TI the CSF passes through
# zero just when we listen. That is FLAIR, and why a lesion beside a ventricle
# hides on T2 and not on FLAIR. Exercise E00.2 asks you for that TI.


# %%
def signals(contrast):
    """Signal of every tissue of TISSUES under a protocol of the data set."""
    tr, te, ti = phantoms.PROTOCOLS[contrast]
    t1, t2, pd, _ = np.transpose(list(TISSUE_PROPERTIES.values()))
    return phantoms.spin_echo(pd, t1, t2, tr=tr, te=te, ti=ti)


# %% [markdown]
# What the curves say, as statements:

# %% tags=["nbval-check-output"]
csf, grey, white, lesion = (TISSUES.index(name) for name in FOUR)
t1, t2, flair = signals("T1"), signals("T2"), signals("FLAIR")
print_facts(
    {
        "T1: white > grey > CSF": t1[white] > t1[grey] > t1[csf],
        "T2: CSF > grey > white": t2[csf] > t2[grey] > t2[white],
        "FLAIR: CSF is gone": flair[csf] < 0.02 * flair[white],
        "FLAIR: lesion > 1.5 grey": flair[lesion] > 1.5 * flair[grey],
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
# Then say which of the three cannot be done without the inversion pulse. Last,
# change the field: which of your solutions still holds at 3 tesla? (In
# a saved notebook you see a still picture; the knobs move in Jupyter and in
# the pages of `run`.)

# %% tags=["nbval-ignore-output"]
MRPhysics(phantoms.subject_maps(head, 96, lesion="MS-like lesions"))

# %% [markdown]
# Did you notice the noise? Where all tissues are weak, the console turns the
# gain up, and the noise comes with it. Contrast has a price in signal, and
# signal has a price in minutes: TR is time in the scanner.
#
# A stronger magnet pays part of that price. Signal over noise grows about in
# proportion to the field (Edelstein et al. 1986). But the tissues change, too:
# T1 of grey and white matter grows as about the field to the power 0.38, that
# of CSF stays (Rooney et al. 2007), and T2 falls (Cox and Gowland 2010). The
# console uses these; for lesions it takes the numbers of grey matter.
#
# Guess before you run it. At 3 T, does the gap between white and grey matter
# at TR 500 grow or shrink? And where does FLAIR's TI move?


# %%
def at_field(name, field, **times):
    """Signal of a tissue at a field in tesla. Times in ms; broadcasts."""
    row = mr_console.tissues_at(field)[name]
    return phantoms.spin_echo(row.pd, row.t1, row.t2, **times)


fields = mr_console.FIELDS
trs, tis = np.arange(100.0, 3000, 10), np.arange(20.0, 4000)
short_tr, short_te, _ = phantoms.PROTOCOLS["T1"]
long_tr, late_te, _ = phantoms.PROTOCOLS["FLAIR"]
gap_at, best_tr, null_at = {}, {}, {}
for field in fields:
    bright, dark = (
        at_field(name, field, tr=trs, te=short_te)
        for name in ("white matter", "grey matter")
    )
    best_tr[field] = trs[np.argmax(bright - dark)]
    gap_at[field] = np.interp(short_tr, trs, bright - dark)
    for name in FOUR:
        fading = at_field(name, field, tr=long_tr, te=late_te, ti=tis)
        null_at[name, field] = tis[np.argmin(fading)]

# %% [markdown]
# And the answer.

# %% tags=["nbval-ignore-output"]
loud = {field: gap_at[field] / mr_console.noise_at(field) for field in fields}
plotting.show_table(
    ["field", "gap", "in noise", "best TR (ms)"]
    + [f"{name} nulled at TI (ms)" for name in FOUR[:3]],
    [
        [f"{field:g} T", f"{gap_at[field]:.3f}", f"{loud[field]:.0f}"]
        + [f"{best_tr[field]:.0f}"]
        + [f"{null_at[name, field]:.0f}" for name in FOUR[:3]]
        for field in fields
    ],
    note="gap: signal of white minus grey matter at TR 500; in noise: the "
    "same in noise deviations; best TR: where the gap is widest.",
)

# %% [markdown]
# The stronger magnet does not widen the gap. All tissues recover more slowly,
# so at the same TR the signal is *weaker*, and the widest gap comes later: 3 T
# wants a longer TR. What it gives is less noise to see the gap in. And FLAIR's
# TI does not move at all, for water keeps its T1; the TI that nulls white or
# grey matter does. A protocol belongs to a field, and so does a model that was
# trained on its pictures.

# %% tags=["nbval-check-output"]
moved = {name: null_at[name, 3.0] - null_at[name, 1.5] for name in FOUR}
print_facts(
    {
        "3 T: the gap at TR 500 is no wider": gap_at[3.0] < gap_at[1.5],
        "3 T: it stands out 1.8 times as far": loud[3.0] > 1.8 * loud[1.5],
        "3 T: the best TR is over 100 ms later": best_tr[3.0]
        > 100 + best_tr[1.5],
        "3 T: white matter's null moves by 90 ms": moved["white matter"] > 90,
        "3 T: CSF's null, and FLAIR, stay": moved["csf"] == 0,
    }
)

# %% [markdown]
# ## The CT window
# A CT pixel runs from $-1000$ to above $1000$ HU; a screen has 256 greys. A
# **window** chooses what they are spent on: level 40 and width 80 for the
# brain means 0 HU black, 80 HU white. Here is one CT with a tumour under three
# windows. What vanishes in each?

# %% tags=["nbval-ignore-output"]
hu = phantoms.render_ct(with_tumour, noise=2.0, rng=rng)
windows = {"stroke": (20, 50), "brain": (0, 80), "bone": (-500, 1500)}
shown = {k: phantoms.window(hu, *limits) for k, limits in windows.items()}
plotting.show_images(
    greys(list(shown.values())),
    titles=[f"{k}: {low} to {high} HU" for k, (low, high) in windows.items()],
    size=2.2,
    alt="One CT slice in a stroke window, a brain window and a bone window",
)

# %% [markdown]
# Two numbers say what was lost: how many greys are left between grey and white
# matter, and which share of the head is clipped to plain black or white.

# %% tags=["nbval-check-output"]
gap = (
    TISSUE_PROPERTIES["grey matter"].hu - TISSUE_PROPERTIES["white matter"].hu
)
inside = with_tumour[0] < 0.5  # tissue 0 is the background
for name, (low, high) in windows.items():
    apart = 255 * gap / (high - low)
    clipped = np.mean((hu[inside] <= low) | (hu[inside] >= high))
    print(f"{name:6}: {apart:4.1f} greys apart, {clipped:4.0%} clipped")

# %% [markdown]
# The bone window shows the brain as one grey: the difference is there in HU,
# and gone in 8 bits. The stroke window spends all greys on the brain, shows
# the noise with it, and clips what is fluid or bone. Data sets store
# the picture *after* the window, and no model brings back what it threw away.
# So ask for the window before you ask for the accuracy. Exercise E00.3.

# %% [markdown]
# ## Data
# Now the images that a model would get. `load_images` brings every set of the
# course into one form: `(N, C, H, W)` in $[-1, 1]$, with labels and a card.

# %% tags=["nbval-check-output"]
images, labels, card = load_images(
    dataset, "train", image_size, n=n_images, contrast="T2"
)
test_images, test_labels, _ = load_images(
    dataset, "test", image_size, n=n_test, contrast="T2"
)
names = card.class_names
if labels.ndim == 2:  # several findings an image: we ask for any of them
    labels, test_labels = labels.amax(dim=1), test_labels.amax(dim=1)
    names = ("no finding", "a finding")
print("one image:", tuple(images.shape[1:]), images.dtype)
print("lowest and highest value:", images.min().item(), images.max().item())

# %% [markdown]
# Look before you count. Some images of each class:

# %% tags=["nbval-ignore-output"]
per_class = max(1, 6 // len(names))
chosen = [
    index
    for number in range(len(names))
    for index in torch.nonzero(labels == number)[:per_class, 0].tolist()
][:12]
plotting.show_images(
    greys((images[chosen] + 1) / 2),
    titles=[names[labels[index]][:16] for index in chosen],
    columns=6,
    size=1.3,
    alt=f"Training images of {card.name}, with their classes",
)

# %% [markdown]
# And the card. Read it before you train: whose images, under which licence,
# how many of each class. Every set of the course comes with one.

# %% tags=["nbval-ignore-output"]
card

# %% [markdown]
# The same for all MedMNIST sets, from the records of the `medmnist` package.
# Any of these names can be the `dataset` of a lesson. One licence stands out.

# %% tags=["nbval-ignore-output"]
rows = []
for flag, record in medmnist_records().items():
    facts = medmnist_facts(flag, record)
    count = sum(record["n_samples"].values())
    task = f"{record['task']} ({len(record['label'])})"
    rows.append(
        (flag, facts["modality"], task, f"{count:,}", facts["licence"])
    )
plotting.show_table(["name", "modality", "task", "images", "licence"], rows)

# %% [markdown]
# ### What accuracy hides
# Two classifiers. One looks at nothing and always names the most frequent
# class. The other looks up the most similar training image. Which has the
# higher accuracy, and does that make it the better one?

# %% tags=["nbval-ignore-output"]
most_frequent = torch.bincount(labels).argmax()
distances = torch.cdist(test_images.flatten(1), images.flatten(1))
guesses = {
    "always the most frequent": most_frequent.expand(len(test_labels)),
    "nearest training image": labels[distances.argmin(dim=1)],
}
totals = torch.bincount(test_labels, minlength=len(names))
found = {}
rows = []
for who, guess in guesses.items():
    hits = test_labels[guess == test_labels]
    found[who] = torch.bincount(hits, minlength=len(names)) / totals
    cells = [len(hits) / len(test_labels), *found[who].tolist()]
    rows.append([who] + [f"{value:.0%}" for value in cells])
plotting.show_table(["", "accuracy"] + [f"finds {n}" for n in names], rows)

# %% [markdown]
# The first classifier never finds any class but one, and its accuracy does not
# say so. **Balanced accuracy**, the mean of the class columns, does: there it
# has exactly one over the number of classes. Exercise E00.5.

# %% tags=["nbval-check-output"]
blind, looks = (found[who].mean().item() for who in guesses)
print_facts(
    {
        "blind: 1 / classes": np.isclose(blind, 1 / len(names)),
        "looking beats blind": looks > blind,
    }
)

# %% [markdown]
# ## Measure: PSNR and SSIM, a first look
# Generative models are often scored against a true image. The two usual
# numbers are the peak signal-to-noise ratio
# $\mathrm{PSNR} = 10 \log_{10}(R^2 / \mathrm{MSE})$ in dB, where $R$ is the
# range of the values, and the structural similarity SSIM, which compares mean,
# contrast and pattern in small windows and is 1 for equal images.
#
# We take the test image with the most contrast and spoil it in four ways, each
# just so much that the PSNR is 18 dB.


# %%
strong = test_images.flatten(1).std(dim=1).argmax()
original = (test_images[strong][None].numpy() + 1) / 2  # 0 to 1
grain = rng.standard_normal(original.shape).astype("float32")
spoil = {  # name: (what to do at strength s, greatest s)
    "noise": (lambda x, s: x + s * grain, 1),
    "blur": (lambda x, s: ndimage.gaussian_filter(x, (0, 0, s, s)), 20),
    "shift": (lambda x, s: ndimage.shift(x, (0, 0, 0, s), order=1), 8),
    "dimmer": (lambda x, s: (1 - s) * x, 1),
}


def spoil_to(target, change, strongest):
    """The image changed until its PSNR is `target` dB, by bisection."""
    low, high = 0.0, strongest
    for _ in range(30):
        middle = (low + high) / 2
        value = psnr(original, change(original, middle), data_range=1.0)
        low, high = (middle, high) if value > target else (low, middle)
    return change(original, middle)


# %% [markdown]
# By PSNR these four are equally good. Rank them yourself before you look at
# the second number.

# %% tags=["nbval-ignore-output"]
spoilt = {name: spoil_to(18.0, *how) for name, how in spoil.items()}
scores = {"original": (float("inf"), 1.0)}
for name, image in spoilt.items():
    both = (metric(original, image, data_range=1.0) for metric in (psnr, ssim))
    scores[name] = tuple(value.item() for value in both)
plotting.show_images(
    greys(np.concatenate([original, *spoilt.values()])),
    titles=[f"{k}\n{p:.1f} dB, SSIM {q:.2f}" for k, (p, q) in scores.items()],
    size=1.9,
    alt="One image, and four spoilt forms of it with the same PSNR",
)

# %% [markdown]
# PSNR cannot tell a readable picture from a ruined one. SSIM tries to:
# it forgives a dimmer picture most, and minds a shift that no radiologist
# would. Neither number knows what a lesion is. Both need the true image beside
# the made one, so neither can score a sample that was made from nothing.
# Lesson 06 takes them apart.
#
# Both also need to be told the range. Models of this course end in tanh, so
# their images live in $[-1, 1]$; a file holds 0 to 255 or 0 to 1. Same two
# images, four calls:

# %% tags=["nbval-ignore-output"]
a, b = original, spoilt["dimmer"]
calls = {
    "[0, 1], range 1": (a, b, 1.0),
    "[-1, 1], range 2": (2 * a - 1, 2 * b - 1, 2.0),
    "[-1, 1], range 1 (wrong)": (2 * a - 1, 2 * b - 1, 1.0),
    "[0, 1], range 2 (wrong)": (a, b, 2.0),
}
ranges = {
    name: (psnr(*call).item(), ssim(*call).item())
    for name, call in calls.items()
}
plotting.show_table(
    ["images, `data_range`", "PSNR", "SSIM"],
    [(k, f"{p:.2f} dB", f"{q:.3f}") for k, (p, q) in ranges.items()],
)

# %% [markdown]
# A wrong range gives or takes 6 dB of PSNR, as if the error were halved or
# doubled. SSIM is worse: it moves even between the two *right* calls, because
# its first term compares means, and a mean depends on where zero is. So state
# the range, and never compare across ranges.

# %% tags=["nbval-check-output"]
(p1, s1), (p2, s2), (p3, _), (p4, _) = ranges.values()
dbs, similar = zip(*list(scores.values())[1:], strict=True)
spread = max(similar) - min(similar)
print_facts(
    {
        "all four have a PSNR of 18 dB": np.allclose(dbs, 18, atol=0.01),
        "their SSIM differ by more than 0.2": spread > 0.2,
        "range 1 for [-1, 1] costs 6.02 dB": abs(p2 - p3 - 6.02) < 0.01,
        "range 2 for [0, 1] gives 6.02 dB": abs(p4 - p1 - 6.02) < 0.01,
        "PSNR agrees in both right ranges": abs(p1 - p2) < 0.01,
        "SSIM agrees in both right ranges": abs(s1 - s2) < 0.01,
    }
)

# %% [markdown]
# ## Break it: test on the patients you trained on
# We take CT slices, every 3 mm, of many heads. Every second head has MS-like
# lesions. You have seen how much of a lesion CT shows: nothing to speak of.
# A nearest-neighbour classifier shall say whether a slice has lesions. Each
# slice is tested against training slices only, never against itself.
#
# Say a number before you run it: how accurate will it be? A coin gets 50 %.


# %%
levels = np.arange(0, 36.1, 3)  # mm
subjects = torch.arange(n_heads).repeat_interleave(len(levels))
sick = subjects % 2
taken = [
    take(phantoms.subject_maps(k, 32, mm, lesion=k % 2), "CT")
    for k in range(n_heads)
    for mm in levels
]
slices = torch.tensor(np.stack(taken), dtype=torch.float32)


def nearest(slices, fold):
    """For each slice the most similar one of another fold, and how far."""
    away = torch.cdist(slices.flatten(1), slices.flatten(1))
    away[fold[:, None] == fold[None]] = float("inf")
    distance, match = away.min(dim=1)
    return match, distance


# %% [markdown]
# Two ways to make five folds. One shuffles the slices. The other keeps the
# slices of a head together.

# %% tags=["nbval-ignore-output"]
shuffled = torch.randperm(len(slices), generator=generator) % 5
folds = {"by slice": shuffled, "by subject": subjects % 5}
accuracy, match, distance = {}, {}, {}
for name, fold in folds.items():
    match[name], distance[name] = nearest(slices, fold)
    right = sick[match[name]] == sick
    accuracy[f"split {name}"] = right.float().mean().item()
plotting.show_bars(
    accuracy | {"coin": 0.5},
    ylabel="accuracy",
    alt="Accuracy of lesions on CT: split by slice, by subject, and a coin",
)

# %% [markdown]
# The first bar looks like a paper about an invisible disease. Here is what the
# classifier does: some slices, and below each its nearest training slice under
# both splits.

# %% tags=["nbval-ignore-output"]
picks = torch.arange(6, len(slices), len(slices) // 5)[:5]
rows = {"slice": greys(slices[picks, None])}
for name in folds:
    rows[f"nearest,\n{name}"] = greys(slices[match[name][picks], None])
plotting.show_rows(
    rows, size=1.2, alt="CT slices with their nearest training slices"
)

# %% [markdown]
# It recognises the *head*, and the head carries the label. The leak grows with
# the number of slices that one takes from a head:

# %% tags=["nbval-ignore-output"]
curves = {f"split {name}": [] for name in folds} | {"coin": [0.5] * 4}
for step in (1, 2, 3, 4):
    part = torch.arange(len(slices)) % len(levels) % step == 0
    for name, fold in folds.items():
        found_slice, _ = nearest(slices[part], fold[part])
        right = sick[part][found_slice] == sick[part]
        curves[f"split {name}"].append(right.float().mean().item())
plotting.show_curves(
    curves,
    x=[3, 6, 9, 12],
    xlabel="distance between the slices of a head (mm)",
    ylabel="accuracy",
    marker="o",
    alt="Accuracy against slice distance for the two splits",
)

# %% [markdown]
# This is no toy. Yagis et al. (2021) gave *random* labels to the subjects of a
# real MR data set: the split by slice reached about 96 % accuracy, the split
# by subject 50 %. You can see it without labels, too: measure how far away the
# nearest training slice is.

# %% tags=["nbval-check-output"]
leaky, honest = accuracy["split by slice"], accuracy["split by subject"]
near = {name: far.median().item() for name, far in distance.items()}
same_head = (subjects[match["by slice"]] == subjects).float().mean()
print_facts(
    {
        "by slice: accuracy above 85 %": leaky > 0.85,
        "by subject: accuracy below 75 %": honest < 0.75,
        "by slice: 8 of 10 matches are the same head": same_head > 0.8,
        "by slice: the nearest is nearer": near["by slice"]
        < 0.8 * near["by subject"],
    }
)

# %% [markdown]
# A copy is the extreme leak. We plant three copies of one image: as it is,
# dimmer and noisy, and mirrored. Which will `find_duplicates` find?

# %% tags=["nbval-check-output"]
first = images[:1]
grain = 0.05 * torch.randn(first.shape, generator=generator)
planted = torch.cat([first, 0.7 * first - 0.2 + grain, first.flip(-1)])
kinds = ("the image itself", "dimmer and noisy", "mirrored")
hits = {pair.b: pair for pair in find_duplicates(images, planted, near=0.02)}
for index, kind in enumerate(kinds):
    hit = hits.get(index)
    how = "not found" if hit is None else "exact" if hit.exact else "near"
    print(f"{kind}: {how if hit is None or hit.a == 0 else 'another image'}")

# %% [markdown]
# A search finds what it was made for, and no more. Now the set itself: equal
# bytes within the training images, and between training and test.

# %% tags=["nbval-ignore-output"]
copies = len(find_duplicates(images, near=None))
crossing = len(find_duplicates(images, test_images, near=None))
print(f"{card.name}: {len(images)} training images, {copies} are copies")
print(f"{len(test_images)} test images, {crossing} are in the training set")

# %% [markdown]
# ## Claim check: "clean", "standard", and 28 pixels
# **As it is often written.** MedMNIST is a clean benchmark; a model that does
# well on it can read medical images.
#
# **What the originals say.** Its authors resize to 28 x 28 so that "no
# background knowledge is required for users" (Yang et al. 2023), and warn on
# the project page that the set is not intended for clinical use. Abhishek et
# al. (arXiv 2401.14497) went through DermaMNIST and found duplicates, and
# images of the same lesion in training and test.
#
# **What we can measure.** What does 28 px do to a lesion? We know each lesion,
# so: shrink FLAIR slices of 128 px, and ask how much of a lesion's contrast is
# left in its brightest pixel.


# %%
def shrink(image, size):
    """(128, 128) -> (size, size) by area, and back up as sharp squares."""
    small = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None],
        size=(size, size),
        mode="bilinear",
        antialias=True,
    )
    return torch.nn.functional.interpolate(small, image.shape)[0, 0].numpy()


# %% [markdown]
# First the picture. How many lesions do you count in each?

# %% tags=["nbval-ignore-output"]
sizes = (128, 64, 28)
sharp = take(maps, "FLAIR")
plotting.show_images(
    greys([shrink(sharp, size) for size in sizes]),
    titles=[f"{size} px, {220 / size:.1f} mm a pixel" for size in sizes],
    size=2.2,
    alt="A FLAIR slice with lesions at 128, 64 and 28 pixels",
)

# %% [markdown]
# Then the number, for every lesion of some heads: contrast that is left, 1 for
# all of it, against the diameter of the lesion in the slice.

# %%
kept = {size: [] for size in sizes}
diameters = []
tr, te, ti = phantoms.PROTOCOLS["FLAIR"]
for subject in range(n_heads // 2):
    sample = phantoms.subject_maps(subject, 128, lesion="MS-like lesions")
    image = phantoms.render(sample, tr=tr, te=te, ti=ti)
    parts, count = ndimage.label(sample[lesion] >= 0.5)
    area = np.bincount(parts.ravel())[1:]  # pixels of each lesion
    diameters += list(2 * np.sqrt(area / np.pi) * 220 / 128)
    for size in sizes:
        top = ndimage.maximum(shrink(image, size), parts, range(1, count + 1))
        full = flair[lesion] - flair[white]
        kept[size] += list((np.asarray(top) - flair[white]) / full)
diameters = np.array(diameters)
kept = {size: np.array(values) for size, values in kept.items()}

# %% [markdown]
# Lesions are counted in the clinic from 3 mm on (Thompson et al. 2018).

# %% tags=["nbval-ignore-output"]
edges = np.array([2, 4, 6, 8, 10, 12, 16])
bins = np.digitize(diameters, edges)
plotting.show_curves(
    {
        f"{size} px ({220 / size:.1f} mm a pixel)": [
            values[bins == k].mean() for k in range(1, len(edges))
        ]
        for size, values in kept.items()
    },
    x=(edges[1:] + edges[:-1]) / 2,
    xlabel="diameter of the lesion (mm)",
    ylabel="contrast that is left",
    marker="o",
    alt="Contrast of lesions left at 128, 64 and 28 pixels, against diameter",
)

# %% [markdown]
# At 28 px a pixel of this head is as wide as a lesion. What is smaller is
# averaged with its surroundings and gone, for you and for any model. The
# verdict: good for learning and for comparing methods, which is what its
# authors made it for. It is not clean by itself, and no test of diagnosis.

# %% tags=["nbval-check-output"]
lost = {size: np.mean(values < 0.5) for size, values in kept.items()}
print_facts(
    {
        "128 px: fewer than 1 lesion in 10 loses half": lost[128] < 0.1,
        "64 px: fewer than 4 in 10": lost[64] < 0.4,
        "28 px: more than half of all lesions": lost[28] > 0.5,
    }
)

# %% [markdown]
# ## Exercises
# E00.1 stands above, under the equation. For each: write the function, run the
# check, and let its answer help you.
#
# **E00.2.** At which TI does a tissue vanish? Set the signal of inversion
# recovery to zero and solve for TI. Many books print the answer for an endless
# TR; ours is finite.


# %%
def null_time(t1, tr):
    """Inversion time that nulls a tissue. ms, numbers or arrays -> ms."""
    # solution E00.2
    recovered = 1 + np.exp(-np.asarray(tr, dtype=float) / t1)
    return t1 * np.log(2 / recovered)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
check_null_time(null_time)


# %% [markdown]
# **E00.3.** Radiologists name a window by level and width: "level 40, width
# 80". Map HU to 0 (black) to 1 (white).


# %%
def window_hu(hu, level, width):
    """HU of any shape -> 0..1; `level` is the middle of the window."""
    # solution E00.3
    black = level - width / 2
    return np.clip((np.asarray(hu, dtype=float) - black) / width, 0, 1)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
check_window_hu(window_hu)


# %% [markdown]
# **E00.4.** Make the honest split. `subjects[i]` is the subject of image i;
# `fraction` is the share of *subjects* that are held out, rounded.


# %%
def split_by_subject(subjects, fraction, seed):
    """Indices of training and of test images: two int arrays, no overlap."""
    # solution E00.4
    people = np.random.default_rng(seed).permutation(np.unique(subjects))
    held_out = people[: round(fraction * len(people))]
    is_test = np.isin(subjects, held_out)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
check_split_by_subject(split_by_subject)


# %% [markdown]
# **E00.5.** Write the balanced accuracy: for each class that occurs in
# `labels`, the share of its images that was named right; then the mean.


# %%
def balanced_accuracy(labels, predictions):
    """Mean over classes of the share found. Arrays (N,) of int -> float."""
    # solution E00.5
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    shares = [np.mean(predictions[labels == k] == k) for k in set(labels)]
    return float(np.mean(shares))


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
check_balanced_accuracy(balanced_accuracy)

# %% [markdown]
# **What you have solved**, here and in all lessons, is kept in a small file of
# your own: exercises and tries, no name, no date, no code. Run this cell again
# whenever you like, here or, with its import, in any lesson.
# `course_lib.progress.export_progress` writes a CSV table. (In a saved
# notebook all is open.)

# %% tags=["nbval-ignore-output"]
show_progress()

# %% [markdown]
# ## Summary
# The headline numbers of this run.

# %% tags=["nbval-ignore-output"]
report(
    accuracy_split_by_slice=leaky,
    accuracy_split_by_subject=honest,
    ssim_lowest_at_18_dB=min(similar),
    ssim_highest_at_18_dB=max(similar),
    lesions_lost_at_28_px=float(lost[28]),
    lesions_lost_at_128_px=float(lost[128]),
    copies_in_training=copies,
)

# %% [markdown]
# What you take with you, each line computed above:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "CT cannot show what has equal density": stands_out["CT"] < 3,
        "TI can make a tissue vanish": flair[csf] < 0.02 * flair[white],
        "equal PSNR, unequal pictures": spread > 0.2,
        "a split by slice tests memory": leaky - honest > 0.2,
        "28 px lose lesions that 128 px show": lost[28] > 5 * lost[128],
    }
)

# %% [markdown]
# Next, in `01_autoencoder`: can a network press one of these images into a few
# numbers, and is what comes back still the same patient?
#
# ## References
# - Abhishek, Jain, Hamarneh, *Investigating the quality of DermaMNIST and
#   Fitzpatrick17k dermatological image datasets*, Scientific Data 12:196,
#   2025, [arXiv 2401.14497](https://arxiv.org/abs/2401.14497)
# - Collins et al., *Design and construction of a realistic digital brain
#   phantom*, IEEE Transactions on Medical Imaging 17(3), 1998
# - Cox, Gowland, *Simultaneous quantification of T2 and T'2 using a combined
#   gradient echo-spin echo sequence at ultrahigh field*, Magnetic Resonance in
#   Medicine 64(5), 2010
# - Edelstein et al., *The intrinsic signal-to-noise ratio in NMR imaging*,
#   Magnetic Resonance in Medicine 3(4), 1986
# - Fonov et al., *Unbiased average age-appropriate atlases for pediatric
#   studies*, NeuroImage 54(1), 2011
# - Rooney et al., *Magnetic field and tissue dependencies of human brain
#   longitudinal 1H2O relaxation in vivo*, Magnetic Resonance in Medicine
#   57(2), 2007
# - Thompson et al., *Diagnosis of multiple sclerosis: 2017 revisions of the
#   McDonald criteria*, Lancet Neurology 17(2), 2018
# - Wang et al., *Image quality assessment: from error visibility to structural
#   similarity*, IEEE Transactions on Image Processing 13(4), 2004
# - Yagis et al., *Effect of data leakage in brain MRI classification using 2D
#   convolutional neural networks*, Scientific Reports 11:22544, 2021
# - Yang et al., *MedMNIST v2: a large-scale lightweight benchmark for 2D and
#   3D biomedical image classification*, Scientific Data 10:41, 2023
