# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.75, lab: 4, full: 20}
# ---

# %% [markdown]
# # 06 Evaluation metrics
#
# "Can I use FID on my few medical images?" A lesson that answers by measuring:
# what each metric sees, what it is blind to, and how many images it needs.
#
# ## Goals
# You can
#
# - write PSNR, SSIM, the Fréchet distance and KID, each in a few lines, and
#   say what each of them compares;
# - say what a few images do to a Fréchet distance, and name two cures;
# - name a fault that each metric notices, and one that it cannot see;
# - say why the FIDs of two papers do not compare;
# - report a distance with N, extractor, interval and floor, and say what may
#   be concluded from it;
# - catch a generator that copies, which every distance here rewards.
#
# You need lessons 00 and 03. Take 90 minutes. Nothing here is for clinical
# use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import inspect
import io
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from PIL import Image
from torch import Tensor, nn

from course_lib import checks, metrics, plotting, pretrained, textbook
from course_lib.audit import audit, find_copies, plant_copies, show_copies
from course_lib.conditional import usefulness
from course_lib.datasets import load_images
from course_lib.evaluation import evaluate
from course_lib.feature_net import FeatureNet
from course_lib.features import course_extractor, for_models
from course_lib.metric_sandbox import (
    RESIZES,
    Sandbox,
    blurred,
    noisy,
    resized,
    windowed,
)
from course_lib.metrics import density_coverage, frechet_distance, kid
from course_lib.phantoms import SLICES_PER_SUBJECT
from course_lib.runtime import (
    per_budget,
    pick_device,
    print_facts,
    report,
    seed_everything,
)
from course_lib.sandbox_widget import MetricSandbox
from course_lib.scoreboard import (
    CONDITIONAL,
    PLAIN,
    read_scoreboard,
    read_translations,
    score_generators,
    shipped_generators,
)

# %% [markdown]
# The parameters of the lesson. `dataset` is the built-in `phantom`, a MedMNIST
# name such as `pneumoniamnist`, or a file.

# %% tags=["parameters"]
budget = os.environ.get("COURSE_BUDGET", "lab")
dataset = "phantom"
image_size = 32
seed = 0

# %% [markdown]
# What follows from them. `n_set` is how many images stand on each side of a
# comparison of sets.

# %%
rng = seed_everything(seed)
device = pick_device()
n_set = per_budget(budget, smoke=125, lab=500, full=1000)
n_half = per_budget(budget, smoke=200, lab=624, full=624)
n_load = per_budget(budget, smoke=2000, lab=None, full=None)
n_held_out = per_budget(budget, smoke=240, lab=None, full=None)
repeats = per_budget(budget, smoke=3, lab=6, full=20)
train_steps = per_budget(budget, smoke=45, lab=150, full=600)
contrast = "FLAIR" if dataset == "phantom" else "T1"  # T1: not used elsewhere

# %% [markdown]
# ## Data
# The phantom as FLAIR, where lesions can be seen, or the images that you asked
# for. `for_models` leaves out the quarter of a real training set that the
# extractor has learned from: a judge must not have seen what it judges.
#
# Slices of one head look alike, and every interval and test below takes images
# as independent. So we keep *one slice of each head*. From these come three
# sets that share nobody: the **reference**, **fresh** real images, and a
# **training set**, twice as large, that a generator may have seen.


# %%
def load(contrast):
    """What models may learn from, its labels, and what nobody learned from."""
    images, labels, card = load_images(
        dataset, "train", image_size, contrast=contrast, n=n_load
    )
    kept = for_models(dataset, images)
    parts = [
        load_images(
            dataset, split, image_size, contrast=contrast, n=n_held_out
        )
        for split in ("val", "test")
    ]
    held_out = [torch.cat(pair) for pair in list(zip(*parts, strict=True))[:2]]
    return images[kept], labels[kept], held_out, card


# %% [markdown]
# Load, keep one slice a head, deal out.

# %%
images, labels, held_out, card = load(contrast)
if dataset == "phantom":
    heads = len(images) // SLICES_PER_SUBJECT
    slices = torch.randint(SLICES_PER_SUBJECT, (heads,), generator=rng)
    one_each = torch.arange(heads) * SLICES_PER_SUBJECT + slices
    images, labels = images[one_each], labels[one_each]
order = torch.randperm(len(images), generator=rng)
n_set = min(n_set, len(images) // 4)
ref, fresh, seen = order[: 4 * n_set].split((n_set, n_set, 2 * n_set))
reference = images[ref]

# %% [markdown]
# A look, and what the set is.

# %% tags=["nbval-ignore-output"]
plotting.show_images(
    reference[::4][:8],
    size=0.9,
    caption=f"{card.name}: 8 of {n_set} images of the reference",
    alt=f"Eight images of {card.name}",
)
print(card.source, card.licence, card.note, sep="\n")

# %% [markdown]
# The judge of sets is the course's extractor for this data set: a small
# classifier, whose last layer but one gives 64 numbers an image. It has a name
# and a hash, and both belong to every number that it makes.

# %% tags=["nbval-check-output"]
extractor = course_extractor(dataset, image_size)
FD = extractor.frechet_name
print("features of an image:", extractor.dim)
print_facts(
    {
        "images in [-1, 1]": images.min() >= -1 and images.max() <= 1,
        "the sets share no image": not set(ref.tolist()) & set(fresh.tolist())
        and not set(seen.tolist()) & set(order[: 2 * n_set].tolist()),
        "more images than features": n_set > extractor.dim,
        "its distance may not be called FID": FD != "FID",
    }
)

# %% [markdown]
# ## Measure
# ### Two images: PSNR
# Where the true image is known (denoising, translation, super-resolution) we
# compare pixel by pixel. PSNR is the mean squared error on a logarithmic
# scale, $10 \log_{10}(R^2 / \mathrm{MSE})$ in dB, where $R$ is the width of
# the range: 2 for images in $[-1, 1]$ (lesson 00 shows what a wrong one
# costs).
#
# **Exercise E06.1.** Write it for a batch: one number an image.


# %%
def peak_snr(x: Tensor, y: Tensor) -> Tensor:
    """PSNR in dB of images in [-1, 1]. (N, C, H, W) twice -> (N,)"""
    # solution E06.1
    mse = (x - y).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(2**2 / mse)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_peak_snr(peak_snr)

# %% [markdown]
# ### SSIM, in the lines that it deserves
# PSNR adds up pixels as if they had no neighbours. SSIM (Wang et al. 2004)
# compares *windows*: their means $\mu$, their variances $\sigma^2$, and how
# they go together, $\sigma_{xy}$:
#
# $$\mathrm{SSIM} = \frac{2\mu_x\mu_y + c_1}{\mu_x^2 + \mu_y^2 + c_1} \cdot
# \frac{2\sigma_{xy} + c_2}{\sigma_x^2 + \sigma_y^2 + c_2},$$
#
# averaged over all places where the window fits. The constants
# $c_1 = (0.01 R)^2$ and $c_2 = (0.03 R)^2$ keep flat windows from dividing by
# zero.


# %%
def gaussian_ssim(x: Tensor, y: Tensor, data_range: float = 2.0) -> Tensor:
    taps = torch.exp(-0.5 * ((torch.arange(11) - 5) / 1.5) ** 2)
    taps = taps / taps.sum()
    window = (taps[:, None] * taps).to(x)[None, None]  # 11 x 11, sum 1

    def local_mean(images: Tensor) -> Tensor:
        return F.conv2d(images.flatten(0, 1)[:, None], window)

    mu_x, mu_y = local_mean(x), local_mean(y)
    var_x = local_mean(x * x) - mu_x**2
    var_y = local_mean(y * y) - mu_y**2
    cov = local_mean(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    contrast = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * contrast).view(len(x), -1).mean(dim=1)


# %% [markdown]
# Three ways to spoil an image by the same squared error: blur, as much noise,
# and as much brightness. Which of them will SSIM like best?

# %% tags=["nbval-ignore-output"]
clean = reference[:100]
soft = blurred(clean, 1.0)
error = (soft - clean).flatten(1).square().mean(dim=1).sqrt()
grain = torch.randn(clean.shape, generator=rng)
grainy = clean + error[:, None, None, None] * grain
brighter = clean + error[:, None, None, None]
spoilt = {"blurred": soft, "as much noise": grainy, "brighter": brighter}
rows = []
for name, y in spoilt.items():
    p, s = metrics.psnr(clean, y).mean(), gaussian_ssim(clean, y).mean()
    rows.append((name, f"{p:.2f} dB", f"{s:.3f}"))
plotting.show_rows(
    {"true": clean[:16:2], **{k: y[:16:2] for k, y in spoilt.items()}},
    size=0.8,
    alt="True images, the same blurred, with noise, and brighter",
)
plotting.show_table(["", "PSNR", "SSIM"], rows)

# %% [markdown]
# One PSNR, three opinions of SSIM. None is an error: they weigh faults
# differently. And "SSIM" is a family. The same pairs, in the forms that
# libraries take by default or people take by mistake:

# %% tags=["nbval-ignore-output"]
half = [(images + 1) / 2 for images in (clean, soft)]  # in [0, 1]
variants = {
    "Gaussian window, range 2": metrics.ssim(clean, soft),
    "uniform 7 x 7 window": metrics.ssim(clean, soft, window="uniform"),
    "the same, sample covariance": metrics.ssim(
        clean, soft, window="uniform", covariance="sample"
    ),
    "range 1 on [-1, 1] (wrong)": metrics.ssim(clean, soft, data_range=1.0),
    "scaled to [0, 1], range 1": metrics.ssim(*half, data_range=1.0),
}
forms = {name: values.mean().item() for name, values in variants.items()}
plotting.show_table(
    ["SSIM of the blurred images", "mean"],
    [(name, f"{value:.3f}") for name, value in forms.items()],
)

# %% [markdown]
# A table of SSIM values without window and range cannot be compared with
# another. (Scaling to $[0, 1]$ is not harmless either: $\mu$ depends on where
# zero is.)

# %% tags=["nbval-check-output"]
by_psnr, by_ssim = (
    [metric(clean, y).mean().item() for y in spoilt.values()]
    for metric in (metrics.psnr, gaussian_ssim)
)
gap = gaussian_ssim(clean, soft) - metrics.ssim(clean, soft)
print_facts(
    {
        "our SSIM is the library's, to 1e-4": gap.abs().max() < 1e-4,
        "the three have one PSNR, within 0.3 dB": (
            max(by_psnr) - min(by_psnr) < 0.3
        ),
        "their SSIM differ by more than 0.05": (
            max(by_ssim) - min(by_ssim) > 0.05
        ),
        "form and range move SSIM by more than 0.02": (
            max(forms.values()) - min(forms.values()) > 0.02
        ),
    }
)

# %% [markdown]
# ### Two sets: describe each by features
# A GAN draws a patient who does not exist. No true image belongs to the
# drawing, so nothing above applies, and we compare *sets*. In pixels, two sets
# of chests are two clouds of thin air. So a network that has learned to see
# describes each image by a few numbers: its **features**, what its last layer
# is given.
#
# **Exercise E06.2.** `classifier` is an `nn.Sequential` that ends in a linear
# layer, which makes the logits. Return what that layer gets. Features of an
# image must not depend on its neighbours in the batch.


# %%
def penultimate(classifier: nn.Sequential, images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, d), without gradient"""
    # solution E06.2
    classifier.eval()  # else batch norm mixes the images of a batch
    with torch.no_grad():
        return classifier[:-1](images)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_penultimate(penultimate)

# %% [markdown]
# ### The Fréchet distance
# Describe each cloud of features by its mean $\mu$ and its covariance
# $\Sigma$, as if it were a Gaussian. Between two Gaussians the Wasserstein
# distance (lesson 04), in its squared form, is known exactly (Heusel et al.
# 2017, eq. 6):
#
# $$\mathrm{FD} = \|\mu_a - \mu_b\|^2 + \mathrm{tr}\,\Sigma_a +
# \mathrm{tr}\,\Sigma_b - 2\,\mathrm{tr}\,(\Sigma_a \Sigma_b)^{1/2}.$$
#
# **Exercise E06.3.** The sample covariance, without `torch.cov`.


# %%
def covariance(features: Tensor) -> Tensor:
    """(N, d) -> (d, d)"""
    # solution E06.3
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_covariance(covariance)

# %% [markdown]
# The last term is the one that implementations get wrong.
# $\Sigma_a \Sigma_b$ is *not symmetric*, so `eigvalsh`, which reads one
# triangle and trusts you about the other, is not for it. But it has the
# eigenvalues of $\Sigma_a^{1/2}\, \Sigma_b\, \Sigma_a^{1/2}$, which is.
#
# **Exercise E06.4.** Write $\mathrm{tr}\,(\Sigma_a \Sigma_b)^{1/2}$: the sum
# of the square roots of these eigenvalues. Rounding may leave some slightly
# below zero.


# %%
def root_trace(cov_a: Tensor, cov_b: Tensor) -> Tensor:
    """Two covariances (d, d) -> ()"""
    # solution E06.4
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    values = torch.linalg.eigvalsh(root_a @ cov_b @ root_a)
    return values.clamp(min=0).sqrt().sum()  # rounding leaves values below 0


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_root_trace(root_trace)

# %% [markdown]
# The rest is the formula. (From here on the lesson uses the library's versions
# of what you wrote. They stand in `course_lib.textbook`, line by line as
# here.)

# %%
from course_lib.textbook import covariance, root_trace


def frechet_of_gaussians(a: Tensor, b: Tensor) -> Tensor:
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    cov_a, cov_b = covariance(a), covariance(b)
    return shift + cov_a.trace() + cov_b.trace() - 2 * root_trace(cov_a, cov_b)


# %% [markdown]
# ### KID
# The kernel inception distance (Binkowski et al. 2018) fits no Gaussian. It is
# the squared **maximum mean discrepancy** with a kernel $k$: how alike are
# images within each set, on average, and how alike across?
#
# $$\mathrm{MMD}^2 = \mathbb{E}\,k(x, x') + \mathbb{E}\,k(y, y') -
# 2\,\mathbb{E}\,k(x, y), \qquad k(x, y) = (x \cdot y / d + 1)^3.$$
#
# **Exercise E06.5.** $x$ and $x'$ are two *different* images. Estimate it from
# the three matrices of kernel values.


# %%
def unbiased_mmd(k_aa: Tensor, k_bb: Tensor, k_ab: Tensor) -> Tensor:
    """Kernel values (N, N), (M, M), (N, M) -> ()"""
    # solution E06.5
    n, m = k_ab.shape
    within_a = (k_aa.sum() - k_aa.trace()) / (n * (n - 1))
    within_b = (k_bb.sum() - k_bb.trace()) / (m * (m - 1))
    return within_a + within_b - 2 * k_ab.mean()


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_unbiased_mmd(unbiased_mmd)

# %% [markdown]
# With the kernel it is KID. Do ours and the library's agree, on the reference
# against fresh images?


# %%
def cubic_kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def by_hand(a, b):
    """Fréchet distance and KID of two sets of features, as written above."""
    kernels = cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b)
    kid_of_all = textbook.unbiased_mmd(*kernels)
    return frechet_of_gaussians(a, b).item(), kid_of_all.item()


real_f = extractor(reference).double()
fresh_f = extractor(images[fresh]).double()
blur_f = extractor(blurred(images[fresh], 0.8)).double()
noise_f = extractor(noisy(images[fresh], 0.16, seed=seed)).double()

# %% [markdown]
# They do.

# %% tags=["nbval-check-output"]
agree = {}
for name, other in {"fresh": fresh_f, "blurred": blur_f}.items():
    fd, k = by_hand(real_f, other)
    library = frechet_distance(real_f, other), kid(real_f, other)
    agree[f"{name}: Fréchet distance to 1e-6"] = abs(
        fd - library[0]
    ) < 1e-6 * (1 + fd)
    agree[f"{name}: KID to 1e-6"] = abs(k - library[1]) < 1e-6 * (1 + abs(k))
print_facts(agree)

# %% [markdown]
# ### How many images?
# Now the question of the lesson. Real images against other real images: the
# true distance is **zero**, whatever N is. Before you run it, draw the two
# curves that you expect.


# %%
def real_against_real(n, times):
    """Mean Fréchet distance and KID of n real images against n others."""
    found = []
    for _ in range(times * max(1, largest // n)):  # small N scatter more
        pick = torch.randperm(len(every_f), generator=rng)[: 2 * n]
        a, b = every_f[pick[:n]], every_f[pick[n:]]
        found.append((frechet_distance(a, b), kid(a, b)))
    return torch.tensor(found).mean(dim=0).tolist()


every_f = extractor(images[order[: 6 * n_set]]).double()
largest = len(every_f) // 2
ratio = (largest / 50) ** (1 / 7)
sizes = sorted({round(50 * ratio**i) for i in range(8)} - {0})
sizes = [n for n in sizes if 2 * n <= len(every_f)]
bias = torch.tensor([real_against_real(n, repeats) for n in sizes])
loud = kid(real_f, noise_f)  # what KID says of a fault that anybody sees
fd_n, kid_n = bias.T
tail = torch.tensor(sizes[-5:])  # the line, through the five largest N
end = textbook.at_infinity(tail, fd_n[-5:])
slope = (fd_n[-5:].mean() - end) / (1 / tail).mean()

# %% [markdown]
# The dots lie in a straight line on the right, where the axis is $1/N$. That
# is the way out: follow the line to infinitely many images.

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(1, 3, figsize=(9.4, 2.6), layout="constrained")
axes[0].plot(sizes, fd_n, "o-", color=plotting.COLOURS[0])
axes[0].set(xlabel="N", title="Fréchet distance")
axes[1].plot(sizes, kid_n, "s-", color=plotting.COLOURS[1])
axes[1].axhline(kid(real_f, blur_f), ls=":", color="black")
axes[1].text(sizes[0], kid(real_f, blur_f), "a blur of 0.8 px", va="bottom")
axes[1].set(xlabel="N", title="KID")
axes[1].margins(y=0.3)
for axis in axes[:2]:
    axis.set_xscale("log")
    ticks = [n for n in (50, 100, 200, 400, 800) if n <= sizes[-1]]
    axis.set_xticks(ticks, ticks)
    axis.minorticks_off()
axes[2].plot([1 / n for n in sizes], fd_n, "o", color=plotting.COLOURS[0])
far = 1 / sizes[-5]
axes[2].plot([0, far], [end, end + slope * far], "--", color="black")
axes[2].plot(0, end, "*", ms=11, color=plotting.COLOURS[1])
axes[2].set(xlabel="1 / N", title="the same distance")
for axis in axes:
    axis.spines[["top", "right"]].set_visible(False)
plotting.show_figure(
    figure,
    alt="Real against real: the Fréchet distance falls with N, KID stays at 0",
)

# %% [markdown]
# The Fréchet distance of two sets of *the same images' kind* is far from zero
# at small N, and falls about as $1/N$: covariances from few samples are too
# uneven. KID is right on average at every N (it scatters, and may fall below
# zero). So
#
# - distances compare at **equal N** alone,
# - the floor, real against real at that N, belongs beside each of them,
# - below $N = d$ the covariance has no full rank: do not ask for the number,
# - KID, or the line in $1/N$, has no such bias.
#
# **Exercise E06.6.** Write that line: a least-squares fit of the values
# against $1/N$, and its value at $1/N = 0$ (Chong and Forsyth 2020 call it
# FID-infinity).


# %%
def at_infinity(sizes: Tensor, values: Tensor) -> Tensor:
    """Several N (K,), the distance at each (K,) -> the intercept ()"""
    # solution E06.6
    x = 1 / sizes
    slope = ((x - x.mean()) * (values - values.mean())).sum()
    slope = slope / (x - x.mean()).square().sum()
    return values.mean() - slope * x.mean()


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_at_infinity(at_infinity)

# %% [markdown]
# And the claim in numbers. (`metrics.frechet_infinity` draws the subsets of
# two sets and fits the line in one call. Ours above averages over many draws,
# which you cannot do with few images: one line scatters about 0.)

# %% tags=["nbval-check-output"]
print_facts(
    {
        "real against real: the smallest N says over 3 times the largest": (
            fd_n[0] > 3 * fd_n[-1]
        ),
        "in the middle it lies between": fd_n[0] > fd_n[4] > fd_n[-1],
        "the line ends nearer to 0 than the largest N comes": (
            abs(end) < fd_n[-1]
        ),
        "KID stays within a tenth of what noise makes": (
            kid_n.abs().max() < 0.1 * loud
        ),
    }
)

# %% [markdown]
# ### Which metric notices what?
# Generators with a fault that we know, because we made them out of fresh real
# images: they blur, add noise, forget a class, repeat a few images, or copy
# the training set. The other numbers of the field come in:
#
# - **precision**: share of fakes within reach of some real image; **recall**:
#   share of real images within reach of some fake; **density** and
#   **coverage**, the same thoughts with less noise (Naeem et al. 2020);
# - **MiFID**: the Fréchet distance *to the training set*, divided by how near
#   fakes lie to it, where that is suspiciously near;
# - **diversity**: 1 - SSIM between fakes; **Inception Score**: $\exp
#   \mathbb{E}\,\mathrm{KL}(p(y|x)\,\|\,p(y))$ of a classifier.
#
# Before you look: which generator will fool the most metrics?

# %%
rare = int(torch.bincount(labels[fresh]).argmin())
usual = fresh[labels[fresh] != rare]
refill = usual[torch.randint(len(usual), (n_set,), generator=rng)]
lost = torch.where(labels[fresh] == rare, refill, fresh)
repeated = fresh[:20].repeat(n_set // 20 + 1)[:n_set]
generators = {
    "real, others": images[fresh],
    "blur, 0.8 px": blurred(images[fresh], 0.8),
    "noise, SD 0.1": noisy(images[fresh], 0.1, seed=seed),
    "rarest class lost": images[lost],
    "20 images, repeated": images[repeated],
    "training images": images[seen[:n_set]],
}

# %% [markdown]
# Six of each. Which of these sets would you send back?

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {
        name.replace(", ", ",\n"): fakes[:6]
        for name, fakes in generators.items()
    },
    size=0.75,
    alt="Six images of each generator with a known fault",
)

# %% [markdown]
# All numbers of one set of fakes, against the reference:

# %%
seen_f = extractor(images[seen]).double()


def all_metrics(fakes, against=None):
    """{metric: value} of a set of images, against features of real ones."""
    against, f = real_f if against is None else against, extractor(fakes)
    f = f.double()
    precision, recall = metrics.precision_recall(against, f)
    density, coverage = density_coverage(against, f)
    return {FD: frechet_distance(against, f), "KID": kid(against, f)} | {
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "MiFID": metrics.mifid(seen_f, f),
        "diversity": metrics.diversity(fakes, pairs=500),
        "IS": metrics.inception_score(extractor.probabilities(fakes)),
    }


# %% [markdown]
# What is a large difference? Real against real, split anew a few times, tells
# how far each metric strays by chance. A cell in bold lies more than five such
# standard deviations away.

# %%
pool = torch.cat([ref, fresh])
by_chance = []
for _ in range(repeats + 2):
    mixed = pool[torch.randperm(len(pool), generator=rng)]
    against = extractor(images[mixed[:n_set]]).double()
    by_chance.append(all_metrics(images[mixed[n_set:]], against))
usual_values = {
    k: torch.tensor([r[k] for r in by_chance]) for k in by_chance[0]
}
table = {name: all_metrics(fakes) for name, fakes in generators.items()}
real_row = table["real, others"]

# %% [markdown]
# One table for all.


# %% tags=["nbval-ignore-output"]
def cell(key, value):
    """The value, bold where chance does not explain it."""
    found = usual_values[key]
    odd = (
        abs(value - found.mean()) > 5 * found.std() + 1e-3 * found.mean().abs()
    )
    return f"**{value:.3g}**" if odd else f"{value:.3g}"


rows = [("PSNR, SSIM", *["no pairs"] * len(table))]
for key in real_row:
    cells = [cell(key, values[key]) for values in table.values()]
    rows.append((key.replace(FD, "Fréchet distance"), *cells))
plotting.show_table(
    ["", *table],
    rows,
    note=f"{extractor.name}, N = {n_set} a side; bold: over 5 SD off real vs "
    "real. Larger is better for precision, recall, density, coverage, IS.",
)

# %% [markdown]
# Read it line by line. PSNR and SSIM have nothing to say: there are no pairs.
# Precision is blind to a lost class and to repetition, since every single fake
# is fine; recall and coverage see them. Diversity by SSIM and the Inception
# Score are surprised by few faults and pleased by some. And the last column,
# the worst privacy disaster of all, passes for real images everywhere but with
# MiFID, the one line that asks the training set.

# %% tags=["nbval-check-output"]
fault = {name: table[name] for name in table if name != "real, others"}
copied, few = fault["training images"], fault["20 images, repeated"]
print_facts(
    {
        "blur and noise double the Fréchet distance": (
            min(fault[k][FD] for k in ("blur, 0.8 px", "noise, SD 0.1"))
            > 2 * real_row[FD]
        ),
        "a few images repeated: precision does not fall by 0.15": (
            few["precision"] > real_row["precision"] - 0.15
        ),
        "but recall and coverage fall by more than 0.2": (
            few["coverage"] < real_row["coverage"] - 0.2
            and few["recall"] < real_row["recall"] - 0.2
        ),
        "copies: the Fréchet distance is that of real images (x 2)": (
            copied[FD] < 2 * real_row[FD]
        ),
        "copies: MiFID is over 100 times that of real images": (
            copied["MiFID"] > 100 * real_row["MiFID"]
        ),
    }
)

# %% [markdown]
# ### Your turn: make the metrics disagree
# The same faults on sliders, with intervals. Find a setting that
#
# 1. one metric alone notices;
# 2. precision forgives and recall does not, and the other way round;
# 3. at N = 100 passes for real, and at the largest N does not.
#
# The dashed line is real against real at the same N. (In a saved page you see
# a still picture; the sliders move in Jupyter.)

# %% tags=["nbval-ignore-output"]
choice = {
    "classifier": extractor,
    "self-supervised": course_extractor(
        dataset, image_size, kind="self-supervised"
    ),
}
some = order[:1500]
sandbox = Sandbox(images[some], labels[some], choice, seed=seed)
MetricSandbox(sandbox, start="blur")

# %% [markdown]
# ### Why FIDs of papers do not compare
# Nothing is wrong with the next fakes: they are fresh real images. Only they
# were *prepared* in another way than the reference: halved and enlarged by
# another resize filter, stored as JPEG, shown in a narrower window, left in
# $[0, 1]$. The column on the right prepares *both* sides.


# %% tags=["nbval-ignore-output"]
def stored_as_jpeg(pictures, quality=75):
    """What a JPEG file gives back. (N, C, H, W) -> the same shape."""
    done = []
    for x in ((pictures + 1) * 127.5).round().byte().movedim(1, 3).numpy():
        file = io.BytesIO()
        Image.fromarray(x.squeeze()).save(file, "JPEG", quality=quality)
        back = torch.from_numpy(np.array(Image.open(file))).view(x.shape)
        done.append(back.movedim(2, 0) / 127.5 - 1)
    return torch.stack(done)


ways = {"nothing": lambda x: x}
ways |= {f"resize, {k}": lambda x, k=k: resized(x, k) for k in RESIZES[1:]}
ways["JPEG, quality 75"] = stored_as_jpeg
ways["window, 10 % cut off each end"] = lambda x: windowed(x, 0.1)
ways["range [0, 1]"] = lambda x: (x + 1) / 2
prepared = {}
for name, way in ways.items():
    f = extractor(way(images[fresh])).double()
    both = extractor(way(reference)).double()
    prepared[name] = frechet_distance(real_f, f), frechet_distance(both, f)
plotting.show_table(
    ["preparation", f"{FD}, fakes alone", "both sides"],
    [(k, f"{a:.3g}", f"{b:.3g}") for k, (a, b) in prepared.items()],
)

# %% [markdown]
# A resize filter is worth as much as a generator. Papers resize with different
# libraries, some store JPEG (both: Parmar et al. 2022), some window a CT by
# hand, and few of them say so. And a distance has the unit of its features, so
# another extractor is another scale:

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
small = {"channels": images.shape[1], "size": image_size}
other = "phantom" if "mednist" in str(dataset).lower() else "mednist"
judges = {
    "classifier of this data": extractor,
    "self-supervised on this data": choice["self-supervised"],
    f"classifier of {other}": course_extractor(other, image_size),
}
judged = {}
for name, judge in judges.items():
    against = judge(reference).double()
    judged[name] = {
        k: frechet_distance(against, judge(x).double())
        for k, x in generators.items()
    }
plotting.show_table(
    ["Fréchet distance by", *generators],
    [(k, *(f"{v:.3g}" for v in row.values())) for k, row in judged.items()],
    note=f"N = {n_set} a side, {card.name}.",
)

# %% [markdown]
# Same images, same N. Only a *ratio* to the floor of the same row can be read,
# and even the order of the faults may change from row to row.

# %% tags=["nbval-check-output"]
floors = [row["real, others"] for row in judged.values()]
by_filter = [a for k, (a, _) in prepared.items() if k.startswith("resize")]
print_facts(
    {
        "extractors: the floors differ by more than 1.3 times": (
            max(floors) > 1.3 * min(floors)
        ),
        "resize filters: the distances differ by more than 1.3 times": (
            max(by_filter) > 1.3 * min(by_filter)
        ),
        "a wrong range alone: over 5 times the floor": (
            prepared["range [0, 1]"][0] > 5 * prepared["nothing"][0]
        ),
        "both sides in [0, 1]: nearer again": (
            prepared["range [0, 1]"][1] < 0.5 * prepared["range [0, 1]"][0]
        ),
    }
)

# %% [markdown]
# ### A report instead of a number
# `evaluate` gives what belongs to a distance: N, d, extractor and hash, the
# range, an interval, the floor, a test, doubts, and a sentence. Here is the
# simplest case, real images against others of the same set. What may be
# concluded?

# %% tags=["nbval-ignore-output"]
n_half = min(n_half, len(images) // 2)
halves = images[order[: 2 * n_half]].split(n_half)
between = evaluate(
    *halves, extractor=extractor, name=f"{n_half} other real images"
)
display(between)

# %% [markdown]
# By chance one split in twenty looks odd at $p < 0.05$, and yours may be it.
# So four more splits:

# %%
p_values = [between.p_value]  # one split in twenty looks odd by chance
for split in range(4):
    again = images[torch.randperm(len(images), generator=rng)[: 2 * n_half]]
    new = evaluate(*again.split(n_half), extractor=extractor, seed=split)
    p_values.append(new.p_value)

# %% [markdown]
# The sentence does not say "equal". It says what was not found, and how large
# a difference would have looked the same. Next, a hospital that sends **60**
# images, and a colleague whose fakes lie in $[0, 1]$.

# %% tags=["nbval-check-output"]
few_report = evaluate(halves[0][:60], halves[1][:60], extractor=extractor)
try:
    evaluate(halves[0], (halves[1] + 1) / 2, extractor=extractor)
except ValueError as error:
    refused = str(error)
print("warnings with 60 images:", *few_report.warnings[-1:], sep="\n  ")
print("in [0, 1]:", refused.split(": ", 1)[1])
first = next(iter(between.scores.values()))
print_facts(
    {
        "the halves: an interval around the value": (
            first.low <= first.value <= first.high and first.high > 0
        ),
        "five splits in halves: median p above 0.02": (
            sorted(p_values)[2] > 0.02
        ),
        "60 images: no Fréchet distance, only KID": (
            next(iter(few_report.scores)).startswith("KID")
        ),
    }
)

# %% [markdown]
# ### What can so few images tell?
# Free of bias is not yet sharp-eyed. So give `evaluate` sets of several sizes
# with *small* faults that we chose. How often does its permutation test say
# that they differ ($p < 0.05$)? Before you look: which fault needs the most
# images, and what should stand in the row of *real, others*?

# %%
small_faults = {
    "real, others": lambda chosen: images[chosen],
    "blur, 0.4 px": lambda chosen: blurred(images[chosen], 0.4),
    "noise, SD 0.05": lambda chosen: noisy(images[chosen], 0.05, seed=seed),
    "noise, SD 0.1": lambda chosen: noisy(images[chosen], 0.1, seed=seed),
    "rarest class lost": lambda chosen: images[chosen],
}
few_sizes = per_budget(
    budget, smoke=(50, 150), lab=(50, 100, 200, 400), full=(50, 100, 200, 400)
)
draws = per_budget(budget, smoke=2, lab=20, full=100)

# %% [markdown]
# A draw: n real images, n others with the fault, nobody on both sides.


# %%
def share_noticed(name, n):
    """Share of draws in which n faulty fakes differ from n real images."""
    found = 0
    for draw in range(draws):
        pick = torch.randperm(len(images), generator=rng)
        real, others = pick[:n], pick[n:]
        if name == "rarest class lost":
            others = others[labels[others] != rare]
        fakes = small_faults[name](others[:n])
        options = {"groups": 5, "permutations": 99, "seed": draw}
        one = evaluate(images[real], fakes, extractor=extractor, **options)
        found += one.p_value < 0.05
    return found / draws


noticed = {
    name: [share_noticed(name, n) for n in few_sizes] for name in small_faults
}

# %% [markdown]
# What the faults look like, and how often they are noticed.

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {
        name.replace(", ", ",\n"): make(fresh[:8])
        for name, make in small_faults.items()
        if name != "rarest class lost"
    },
    size=0.8,
    alt="Real images, slightly blurred ones, and two with a trace of noise",
)
plotting.show_table(
    ["noticed at N =", *map(str, few_sizes)],
    [(k, *(f"{v:.0%}" for v in row)) for k, row in noticed.items()],
    note=f"share of {draws} draws with p < 0.05, {extractor.name}",
)

# %% [markdown]
# The first row is the price of a test: it cries wolf once in twenty. The other
# rows are its *power*. A fault that passes at N = 50 may be plain at N = 400,
# and one that the extractor is blind to passes at every N. So "no difference
# was found" says little until you know which difference N images would have
# shown. Make a table like this one, with the fault that *you* fear, before you
# collect.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "noise of SD 0.1 is noticed in every draw at the largest N": (
            noticed["noise, SD 0.1"][-1] == 1
        ),
        "nothing is noticed in at most half of the draws": (
            sum(noticed["real, others"]) <= len(few_sizes) / 2
        ),
    }
)

# %% [markdown]
# ### A distance and its use
# Somebody wants the fakes for training. Then the honest metric is the use:
# train a classifier on synthetic images, test it on real ones (Ravuri and
# Vinyals 2019). We ask the generators of lessons 02 to 04 that draw a chosen
# class, and three faults. Guess: what will a set of *real* images with
# shuffled labels score in each of the two?

# %%
learn = torch.cat([seen, fresh])
x, y = images[learn], labels[learn]
shuffled = y[torch.randperm(len(y), generator=rng)]
sets = {
    "real, labels shuffled": (x, shuffled),
    "blur, 0.8 px": (blurred(x, 0.8), y),
    "noise, SD 0.1": (noisy(x, 0.1, seed=seed), y),
}
drawn = shipped_generators(dataset, images, labels, CONDITIONAL)
for name, draw in drawn.items():
    if name.startswith("conditional"):
        sets[name] = draw(len(x), torch.Generator().manual_seed(seed))
if budget == "smoke":  # two are enough to see that every line runs
    sets = {k: sets[k] for k in ("real, labels shuffled", "blur, 0.8 px")}

# %% [markdown]
# The test is on validation and test images, from which no model here has
# learned. (The reference will not do: it was among the training images of the
# course's generators, which flatters their distances a little. At budget
# `smoke` the classifiers see 16 pixels, to be quick.)


# %%
def seen_by_classifier(pictures):
    """Images as the classifier gets them: smaller at budget smoke."""
    side = per_budget(budget, smoke=16, lab=image_size, full=image_size)
    return F.interpolate(
        pictures, (side, side), mode="bilinear", antialias=True
    )


use = {"real": (frechet_distance(real_f, fresh_f), None)}
for name, (fake_x, fake_y) in sets.items():
    pairs = (x, y), (fake_x, fake_y), held_out
    flat = [part for a, b in pairs for part in (seen_by_classifier(a), b)]
    found = usefulness(*flat, steps=train_steps, seed=seed)
    f = extractor(fake_x[-n_set:]).double()
    use[name] = frechet_distance(real_f, f), found.fake
    use["real"] = use["real"][0], found.real

# %% [markdown]
# Distance and use, side by side.

# %% tags=["nbval-ignore-output"]
chance = 1 / len(card.class_names)
plotting.show_table(
    ["trained on", FD, "balanced accuracy on real images"],
    [(k, f"{fd:.3g}", f"{acc:.2f}") for k, (fd, acc) in use.items()],
    note=f"guessing: {chance:.2f}; one seed, {train_steps} steps each",
)

# %% [markdown]
# The second row has a perfect distance and no use; distances never look at
# labels. Below it, a distance many times the floor may still leave most of the
# use. Neither number replaces the other: say first what the images are for.

# %% tags=["nbval-check-output"]
right, wrong = use["real"], use["real, labels shuffled"]
print_facts(
    {
        "shuffled labels: the distance is that of real images": (
            abs(wrong[0] - right[0]) < 1e-6 * right[0]
        ),
        "shuffled labels: accuracy falls by more than 0.1": (
            wrong[1] < right[1] - 0.1
        ),
        "blur: over twice the distance of real images": (
            use["blur, 0.8 px"][0] > 2 * right[0]
        ),
    }
)

# %% [markdown]
# ### The scoreboard
# All generators of lessons 01 to 04, from the weights that the course ships,
# under one protocol: equal N, this extractor, the validation and test images
# as the reference, which neither a model nor the extractor has learned from.
# (Those of lesson 05 translate; they come below.)
# Two rows need no network: a Gaussian over 64 PCA codes, and *training
# images*, the row of a perfect copier.

# %% tags=["nbval-ignore-output"]
protocol = {
    "n": per_budget(budget, smoke=100, lab=500, full=1000),
    "groups": per_budget(budget, smoke=10, lab=20, full=20),
    "permutations": per_budget(budget, smoke=99, lab=499, full=499),
    "seed": seed,
}
plain_images, plain_labels, plain_held_out, plain_card = load("T1")
board = score_generators(
    dataset,
    plain_images,
    plain_labels,
    plain_held_out[0],
    kinds=PLAIN if dataset == "phantom" else PLAIN + CONDITIONAL,
    **protocol,
)
display(board)

# %% [markdown]
# As a picture: dots with their intervals, on a logarithmic axis, and the floor
# as a dashed line.

# %% tags=["nbval-ignore-output"]
mine = {k: next(iter(x.scores.values())) for k, x in board.reports.items()}
figure, axis = plt.subplots(figsize=(6.8, 2.8), layout="constrained")
for row, found in enumerate(mine.values()):
    ends = [max(found.low, 0.05), found.high]
    axis.plot(ends, [row, row], lw=3, color=plotting.COLOURS[0])
    axis.plot(found.value, row, "o", color=plotting.COLOURS[0])
    axis.text(1.1 * found.high, row, f"{found.value:.3g}", va="center")
axis.axvline(found.baseline, ls="--", color="black")
axis.set_yticks(range(len(mine)), list(mine))
axis.invert_yaxis()
axis.set(xscale="log", xlabel=f"{FD}; dashed: real against real")
axis.spines[["top", "right"]].set_visible(False)
plotting.show_figure(
    figure,
    alt="Distances of the course's generators with intervals, best first: "
    + ", ".join(f"{name} {found.value:.3g}" for name, found in mine.items()),
)

# %% [markdown]
# Read the first row with care: it is *best*, and it is a privacy disaster. No
# model can be asked to be nearer than it.
#
# The same for three data sets, at larger N: as far as we know the first such
# table for MedMNIST in which all rows share one protocol. It is computed by a
# script and shipped; what it was made from stands below it.

# %%
tables, how = read_scoreboard()
models = list(dict.fromkeys(k for t in tables.values() for k in t.reports))
models.sort(key=lambda name: name.startswith("conditional"))


def entry(comparison, model, score):
    """Value and interval of one model in one table, or a dash."""
    if model not in comparison.reports:
        return "-"
    scores = comparison.reports[model].scores
    s = next(v for k, v in scores.items() if k.startswith(score))
    interval = f"({s.low:.3g} to {s.high:.3g})".replace(" ", "\u00a0")
    return f"{s.value:.3g}<br>{interval}"


def floor_of(comparison, score):
    """Real against real at the same N."""
    scores = next(iter(comparison.reports.values())).scores
    found = next(v for k, v in scores.items() if k.startswith(score))
    return f"{found.baseline:.3g}"


# %% [markdown]
# In brackets 95 % intervals; the last row is the floor.

# %% tags=["nbval-ignore-output"]
for score in ("FD", "KID", "coverage"):
    rows = [
        (name, *(entry(t, name, score) for t in tables.values()))
        for name in models
    ]
    floor = [floor_of(t, score) for t in tables.values()]
    plotting.show_table([score, *tables], [*rows, ("real vs real", *floor)])

# %% [markdown]
# The protocol, so that you can repeat or refute it: MD5 of the files and how
# the SHA-256 of the weights begin. (PneumoniaMNIST has been published with
# another MD5; shapes and counts of this file are the published ones.)

# %% tags=["nbval-ignore-output"]
for title, t in tables.items():
    one = next(iter(t.reports.values()))
    print(
        f"{title}: N = {one.n} a side of {one.n_real} held-out images, "
        f"{one.extractor} ({one.sha256[:8]}), reference {one.reference}"
    )
    made = how["sources"][title]
    print("  data:", made["md5"] or "made by the course", end="; weights: ")
    print(*(f"{k} {v[:8]}" for k, v in made["weights"].items()), sep=", ")
print(f"{how['command']}, {how['date']}, torch {how['torch']}")

# %% [markdown]
# Down a column compare, across columns never: every column has an extractor
# of its own. Which recipes win depends on the data set and on the budget that
# a laptop allows; what does not is that all of them are above the floor.

# %% tags=["nbval-check-output"]
facts = {}
for title, t in tables.items():
    first = {
        k: next(iter(r.scores.values())).value for k, r in t.reports.items()
    }
    rest = [v for k, v in first.items() if k != "training images"]
    facts[f"{title}: no model is nearer than copies"] = (
        min(rest) > first["training images"]
    )
facts["here: noise through an autoencoder is last or next to it"] = (
    list(mine)[-2:].count("autoencoder, N(0, I)") == 1
    or "autoencoder, N(0, I)" not in mine
)
print_facts(facts)

# %% [markdown]
# ### Translators on the board
# The translators of lesson 05 make images, too: from a set of T1 heads a set
# of T2 heads. So the same protocol scores them, with held-out images of the
# *target*, of other people, as the reference. And on the phantom the true
# image of each head is known, so that SSIM and PSNR can stand beside. Before
# you look: training on pairs was nearest to the truth of each head. Is it the
# nearest as a set?

# %% tags=["nbval-ignore-output"]
translations = read_translations()
for title, found in translations.items():
    rows = []
    for name in found.sets.reports:
        distances = [entry(found.sets, name, k) for k in ("FD", "KID")]
        paired = found.pairs.get(name, {})
        rows.append(
            (name, *distances, *(f"{m:.3g}" for m, *_ in paired.values()))
        )
    floor = [floor_of(found.sets, k) for k in ("FD", "KID")]
    truth = [
        *next(iter(found.pairs.values()), {})
    ]  # SSIM and PSNR, or nothing
    rows.append(("real vs real", *floor, *("" for _ in truth)))
    n = next(iter(found.sets.reports.values())).n
    plotting.show_table([f"{title}, N = {n}", "FD", "KID", *truth], rows)

# %% [markdown]
# The first table answers. Trained on pairs is *best* by SSIM and PSNR and
# *behind* as a set: regression paints the mean of what is possible, near to
# every truth, smoother than any real image. Two metrics, two questions.
#
# And look at the row *to volunteers*, the translator of lesson 05 that deletes
# nineteen lesions in twenty. By SSIM and PSNR it is ahead of the one trained
# on *piles of patients*, which keeps over half of them; KID cannot tell the
# two apart, and the intervals of their Fréchet distances overlap. No number of
# this lesson knows which part of an image matters. If it is the lesion, count
# lesions.

# %% tags=["nbval-check-output"]
t2_made = next(iter(translations.values()))
kid_of = {
    name: next(v for k, v in r.scores.items() if k.startswith("KID"))
    for name, r in t2_made.sets.reports.items()
}
ssim_of = {name: scores["SSIM"] for name, scores in t2_made.pairs.items()}
pairs_row, cycle_row = "trained on pairs", "CycleGAN"
print_facts(
    {
        "on pairs: the better SSIM, intervals apart": (
            ssim_of[pairs_row][1] > ssim_of[cycle_row][2]
        ),
        "without pairs: the better KID, intervals apart": (
            kid_of[cycle_row].high < kid_of[pairs_row].low
        ),
        "lesions deleted: the better SSIM again, intervals apart": (
            ssim_of["CycleGAN, to volunteers"][1]
            > ssim_of["CycleGAN, piles of patients"][2]
        ),
    }
)

# %% [markdown]
# ## Break it
# ### A generator that copies
# Its inventor is proud: "our distance is below that of any GAN". It takes a
# training image and adds a trace of noise, so that no comparison of files
# finds it. In a second paper only one fake in ten is such a copy.

# %%
copier = plant_copies(images[seen[:n_set]], "noise", amount=0.02, seed=seed)
tenth = n_set // 10
mixed = torch.cat([copier[:tenth], images[fresh][tenth:]])
tricks = {
    "a copier": copier,
    "one in ten a copy": mixed,
    "honest (real, others)": images[fresh],
}
rows, scored = [], {}
for name, fakes in tricks.items():
    fd = frechet_distance(real_f, extractor(fakes).double())
    found = find_copies(fakes, images[seen], reference)
    scored[name] = fd, found

# %% [markdown]
# Beside them the generators of lessons 02 to 04, against the same reference
# (which they have trained on, and which the copier has not seen).
# The audit looks for each fake's nearest training image, up to noise, a mirror
# and a shift, and asks whether *held-out real images* lie as near.

# %% tags=["nbval-ignore-output"]
rivals = {
    name: frechet_distance(real_f, extractor(draw(n_set, rng)[0]).double())
    for name, draw in drawn.items()
    if name != "training images"
}
best = min(rivals, key=rivals.get)
plotting.show_table(
    ["", FD, "flagged as copies", "held-out images flagged"],
    [
        (name, f"{fd:.3g}", f"{c.rate:.0%}", f"{c.held_out_rate:.0%}")
        for name, (fd, c) in scored.items()
    ],
    note=f"best of the course's models here: {best}, {rivals[best]:.3g}",
)
show_copies(scored["a copier"][1], copier, images[seen])

# %% [markdown]
# The whole audit of the second paper, with its sentence:

# %% tags=["nbval-ignore-output"]
audited = audit(mixed, images[seen], reference)
display(audited)

# %% [markdown]
# Every distance of this lesson rewards the copier, and must: copies *are* from
# the right distribution. Whether a set is new is another question, and it has
# to be asked of the training set.

# %% tags=["nbval-check-output"]
planted = scored["one in ten a copy"][1].flagged
print_facts(
    {
        "the copier is nearer to real images than the best model": (
            scored["a copier"][0] < rivals[best]
        ),
        "the audit flags over 80 % of its images": (
            scored["a copier"][1].rate > 0.8
        ),
        "one in ten: over 70 % of the copies are found": (
            planted[:tenth].double().mean() > 0.7
        ),
        "one in ten: the distance is below twice that of honest images": (
            scored["one in ten a copy"][0]
            < 2 * scored["honest (real, others)"][0]
        ),
        "honest images are flagged less than a third as often": (
            scored["honest (real, others)"][1].rate
            < scored["a copier"][1].rate / 3
        ),
    }
)

# %% [markdown]
# ## Claim check
# ### "SSIM and PSNR are qualitative metrics"
# So a survey. They are *quantitative*, and **full-reference**: they need the
# paired truth, a range and a window. What happens to them without a pair? We
# score perfect samples (real images) by "the truth" of another patient.

# %% tags=["nbval-check-output"]
apart = metrics.psnr(reference, images[fresh]).mean().item()
moved = metrics.psnr(reference, images[fresh].roll(1, dims=0)).mean().item()
constant = reference.mean(dim=0, keepdim=True).expand_as(reference)
grey = metrics.psnr(reference, constant).mean().item()
print_facts(
    {
        "a number for every pair": metrics.psnr(clean, soft).shape == (100,),
        "perfect samples, unpaired: PSNR below 25 dB": apart < 25,
        "reordered, nothing else changes: the same within 1 dB": (
            abs(apart - moved) < 1
        ),
        "one mean image, always the same, beats perfect samples": grey > apart,
    }
)

# %% [markdown]
# ### "KID is essentially FID with a kernel"
# FID sees mean and covariance, assumes the rest to be Gaussian, and is biased;
# KID is an unbiased estimate of an MMD (Binkowski et al. 2018). Imagine four
# features that stand for four findings, each present in one patient of ten. A
# bad generator gives *every* patient a little of each: Gaussian features with
# exactly the mean and the covariance of the real ones. Which of the two can
# tell?


# %% tags=["nbval-ignore-output"]
def with_moments_of(a, noise):
    """Noise (N, d), moved to the mean and the covariance of a."""

    def root(cov):
        values, vectors = torch.linalg.eigh(cov)
        return vectors, values.sqrt()

    noise = noise - noise.mean(dim=0)
    (u, s), (v, t) = root(covariance(noise)), root(covariance(a))
    return noise @ (u / s) @ u.T @ (v * t) @ v.T + a.mean(dim=0)


chances = torch.rand(2, 1000, 4, generator=rng, dtype=torch.double)
ill, well = ((chances < 0.1).double() - 0.1) / 0.3  # mean 0, variance 1
noise = torch.randn(ill.shape, generator=rng, dtype=torch.double)
everybody = with_moments_of(ill, noise)
print(f"KID: real {kid(ill, well):.3f}, fake {kid(ill, everybody):.3f}")

# %% [markdown]
# And the other half of the claim, the bias, from the curves above.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "same mean and covariance: Fréchet distance below 1e-6": (
            frechet_distance(ill, everybody) < 1e-6
        ),
        "KID tells them apart": kid(ill, everybody) > 0.2,
        "and real from real it does not": abs(kid(ill, well)) < 0.1,
        "at N = 50 the Fréchet distance is biased, KID not": (
            fd_n[0] > 3 * fd_n[-1] and kid_n[0].abs() < 0.1 * loud
        ),
    }
)

# %% [markdown]
# ### "The lower the Inception Score's KL to the training images, the better"
# $\mathrm{IS} = \exp \mathbb{E}\,\mathrm{KL}(p(y|x)\,\|\,p(y))$: larger is
# better, and no training image occurs in it (Salimans et al. 2016; Barratt and
# Sharma 2018). So it can be played: one image of each class, the one that the
# classifier is surest of, again and again. And off the classes that the
# network knows, it means nothing; papers use ImageNet's on MRI. Here the
# foreign classifier is that of another data set of the course.

# %% tags=["nbval-ignore-output"]
p_real = extractor.probabilities(images[pool])
surest = pool[p_real.argmax(dim=0)]
trick = images[surest.repeat(n_set // len(surest))]
foreign = judges[f"classifier of {other}"]
contest = {**generators, "surest image of each class": trick}
inception = {
    name: [
        metrics.inception_score(judge.probabilities(x))
        for judge in (extractor, foreign)
    ]
    for name, x in contest.items()
}
plotting.show_table(
    ["Inception Score", "own classes", f"classes of {other}"],
    [(k, f"{a:.2f}", f"{b:.2f}") for k, (a, b) in inception.items()],
)

# %% [markdown]
# The best score by far goes to a handful of real images, repeated.

# %% tags=["nbval-check-output"]
by_trick = inception["surest image of each class"][0]
order_own, order_foreign = (
    sorted(contest, key=lambda k, i=i: inception[k][i]) for i in (0, 1)
)
print_facts(
    {
        "one image of each class beats all real images": (
            by_trick > inception["real, others"][0]
        ),
        "and has the best score of all": by_trick
        == max(a for a, _ in inception.values()),
        "another classifier, another order": order_own != order_foreign,
    }
)

# %% [markdown]
# ### "Karras et al. enhance the Inception Score with FID"
# FID is by Heusel et al. (2017), who introduced it in a paper on two learning
# rates for GANs. That is a matter of reading. "Enhance" can be measured: FID
# takes *features* and a set of *real* images, the Inception Score
# *probabilities* and nothing else. Do the two rank the faults of the table
# alike?

# %% tags=["nbval-check-output"]
needed = {
    name: list(inspect.signature(function).parameters)
    for name, function in {
        "Frechet distance": metrics.frechet_distance,
        "Inception Score": metrics.inception_score,
    }.items()
}
for name, arguments in needed.items():
    print(f"{name} of", " and ".join(arguments))
by_fd = sorted(table, key=lambda name: table[name][FD])
by_is = sorted(table, key=lambda name: -table[name]["IS"])
print_facts(
    {
        "other real images: the Fréchet distance of the same fakes changes": (
            frechet_distance(noise_f, fresh_f) > 2 * real_row[FD]
        ),
        "both rank the six sets alike": by_fd == by_is,
    }
)

# %% [markdown]
# ### "LPIPS uses the layers of Inception V3"
# AlexNet, VGG or SqueezeNet, with a learned weight for each channel (Zhang et
# al. 2018). The library offers what the paper has. Its backbones are large,
# so they are not shipped; what happens here, happens offline.

# %% tags=["nbval-check-output"]
print("backbones of LPIPS:", ", ".join(pretrained.BACKBONES))
try:
    pretrained.lpips(clean, soft, net="inception")
except ValueError as error:
    print(error)
print_facts({"Inception is one of them": "inception" in pretrained.BACKBONES})

# %% [markdown]
# With the weights at hand it is one call; else the message says what to get.

# %% tags=["nbval-ignore-output"]
try:
    found = {k: pretrained.lpips(clean, y).mean() for k, y in spoilt.items()}
    print({name: round(value.item(), 3) for name, value in found.items()})
except (FileNotFoundError, ImportError) as error:
    print("no LPIPS on this machine:", str(error).split(". ")[0])

# %% [markdown]
# ### "FID" from logits
# Often seen: the classifier's *output* goes into the formula, and the result
# is called FID. Logits keep what separates classes and drop the rest.


# %% tags=["nbval-ignore-output"]
def outputs(x):
    """Features, logits and probabilities of images, in float64."""
    f = extractor(x)
    with torch.no_grad():
        logits = extractor.network.logits(f)
    return [part.double() for part in (f, logits, logits.softmax(dim=1))]


real_out = outputs(reference)
by_output = {
    name: [
        frechet_distance(a, b)
        for a, b in zip(real_out, outputs(x), strict=True)
    ]
    for name, x in generators.items()
}
plotting.show_table(
    ["Fréchet distance on", *by_output],
    [
        (kind, *(f"{values[i]:.3g}" for values in by_output.values()))
        for i, kind in enumerate(("features", "logits", "probabilities"))
    ],
)

# %% [markdown]
# Three scales, not always one order, and one name. The cure is the name:
# `FD[extractor]` with the layer, and FID for Inception's with the FID weights
# alone.
#
# ### "Features of a medical network are always better"
# Not so: with RadImageNet rankings disagreed with experts (Woodland et al.
# 2023), and the question is open (arXiv 2412.01496). Here the measurable part:
# how many times the floor does each fault stand, for an extractor of this
# data, one without labels, one of other medical images, and one with random
# weights?

# %%
torch.manual_seed(seed)
blank = FeatureNet(2, **small)
blank.train()
with torch.no_grad():
    blank.features(images[pool])  # sets the scale of each feature
blank.eval()


def untrained(x):
    """Features of a network that has learned nothing."""
    with torch.no_grad():
        return blank.features(x).double()


judged["random weights"] = {
    k: frechet_distance(untrained(reference), untrained(x))
    for k, x in generators.items()
}

# %% [markdown]
# Which of them would you trust with a lost class?

# %% tags=["nbval-ignore-output"]
sees = {
    name: {k: v / row["real, others"] for k, v in row.items()}
    for name, row in judged.items()
}
names = list(generators)[1:]
plotting.show_table(
    ["times the floor", *names],
    [(k, *(f"{row[g]:.1f}" for g in names)) for k, row in sees.items()],
)

# %% [markdown]
# No row is largest in every column. An extractor sees what its training made
# it see; say which it was, and show a second one.

# %% tags=["nbval-check-output"]
winners = {g: max(sees, key=lambda judge, g=g: sees[judge][g]) for g in names}
rankings = {tuple(sorted(names, key=row.get)) for row in sees.values()}
print_facts(
    {
        "no extractor is the most sensitive to every fault": (
            len(set(winners.values())) > 1
        ),
        "extractors rank the faults in more than one way": len(rankings) > 1,
        "to copies all are nearly blind: below 3 times the floor": (
            max(row["training images"] for row in sees.values()) < 3
        ),
        "features and probabilities: scales differ by over 5 times": (
            by_output["real, others"][0] > 5 * by_output["real, others"][2]
        ),
    }
)

# %% [markdown]
# ### "FID with a few hundred images", and FIDs compared across papers
# Both are answered above, on 64 features. Inception has 2048. Two samples of
# *one and the same* Gaussian of 2048 dimensions, with a spectrum that falls as
# that of features does:

# %% tags=["nbval-ignore-output"]
d = 2048
sizes_2048 = per_budget(
    budget, smoke=(50, 200, 1000), lab=(100, 512, 2048), full=(100, 512, 2048)
)
scale = torch.linspace(1, 0.01, d) ** 2 * 0.4
wide = {}
for n in sizes_2048:
    a, b = torch.randn(2, n, d, generator=rng) * scale
    wide[n] = frechet_distance(a, b), kid(a, b)
plotting.show_table(
    ["N", "Fréchet distance, truth 0", "KID, truth 0"],
    [(n, f"{fd:.3g}", f"{k:.1g}") for n, (fd, k) in wide.items()],
)

# %% [markdown]
# A paper with 100 images and a paper with 2048 would differ several-fold with
# *no difference at all* between their models (Binkowski et al. 2018; Chong and
# Forsyth 2020).
#
# ### "MS-SSIM at 28 px"
# MS-SSIM halves the image four times and needs room for an 11-tap window
# each time (Wang et al. 2003). What if there is none?

# %% tags=["nbval-check-output"]
thumbs = F.interpolate(clean, (28, 28), mode="bilinear", antialias=True)
try:
    metrics.ms_ssim(thumbs, thumbs, scales=5)
except ValueError as error:
    print(error)
fd_wide = [fd for fd, _ in wide.values()]
print_facts(
    {
        "2048-d: the smallest N says over twice the largest": (
            fd_wide[0] > 2 * fd_wide[-1]
        ),
        "5 scales fit from 161 px": (
            metrics.ms_ssim_scales(160) == 4
            and metrics.ms_ssim_scales(161) == 5
        ),
        "28 px carry two of them": metrics.ms_ssim_scales(28) == 2,
    }
)

# %% [markdown]
# ### "Low FID, so it did not copy" and "synthetic, so anonymous"
# *Break it* has measured both: the copier had the lowest distance in the
# lesson, and the audit named its images one by one. Finding no copies would
# still be no proof of privacy.
#
# ## Exercises
# E06.1 to E06.6 stand above, each where its line is needed: PSNR, features,
# the covariance, the root of a product, the unbiased kernel estimate, and the
# line to infinitely many images. To go further, with no check but your own
# table:
#
# - Add a generator to *Which metric notices what*: every image mirrored, or
#   every tenth replaced by noise. Predict its row first.
# - Put `n_set` to 100 and to 1000. Which cells lose their bold type? Which
#   fault needs the most images to be seen?
# - Hide copies from the audit: how far must you move or warp a training image
#   until it is not flagged, and is it another patient then?
#
# ## On a GPU
# An extractor goes where you send it, and its features come back to the CPU,
# where the distances are a matter of milliseconds. With the FID weights on
# disk (`pretrained.inception_extractor`) the same calls give an FID.

# %% tags=["nbval-ignore-output"]
if device.type == "cuda":
    there = course_extractor(dataset, image_size, device=device)
    gap = (there(reference) - extractor(reference)).abs().max().item()
    print(f"features on the GPU and on the CPU differ by {gap:.0e} at most")
else:
    print("No GPU here: this part is skipped.")

# %% [markdown]
# ## Summary
# Can I use FID on my few medical images? Not FID, and not alone. With a few
# hundred images take KID, or a Fréchet distance on an extractor with fewer
# features than you have images, at equal N, with an interval and beside real
# against real. Measure first which fault so few images would show. Add recall
# or coverage for what is missing, an audit for what is copied, and the use for
# what it is for.
#
# The headline numbers of this run:

# %% tags=["nbval-ignore-output"]
report(
    extractor=extractor.name,
    n=n_set,
    fd_real_real=real_row[FD],
    fd_real_real_smallest_n=fd_n[0].item(),
    fd_infinity=end.item(),
    fd_blur=table["blur, 0.8 px"][FD],
    fd_copier=scored["a copier"][0],
    copier_flagged=scored["a copier"][1].rate,
    halves_p=between.p_value,
    use_real=right[1],
    use_shuffled_labels=wrong[1],
    best_model=best,
    fd_best_model=rivals[best],
)

# %% [markdown]
# What you take with you, each line computed above:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "the Fréchet distance falls with N, KID does not": (
            fd_n[0] > 3 * fd_n[-1] and kid_n.abs().max() < 0.1 * loud
        ),
        "precision alone misses what is missing": (
            few["precision"] > real_row["precision"] - 0.15
            and few["coverage"] < real_row["coverage"] - 0.2
        ),
        "a range or a resize filter moves the number": (
            max(by_filter) > 1.3 * min(by_filter)
        ),
        "a perfect distance may be of no use": (
            abs(wrong[0] - right[0]) < 1e-6 * right[0]
            and wrong[1] < right[1] - 0.1
        ),
        "distances reward copies, the audit catches them": (
            scored["a copier"][0] < rivals[best]
            and scored["a copier"][1].rate > 0.8
        ),
        "the Inception Score never looks at real images": (
            by_trick > inception["real, others"][0]
        ),
    }
)

# %% [markdown]
# Next, in `07_reader_study`: the same question, put to people.
#
# ## References
# - Barratt, Sharma, *A note on the Inception Score*, 2018,
#   [arXiv 1801.01973](https://arxiv.org/abs/1801.01973)
# - Bai et al., *On training sample memorization: lessons from benchmarking
#   generative modeling with a large-scale competition*, 2021,
#   [arXiv 2106.03062](https://arxiv.org/abs/2106.03062)
# - Binkowski et al., *Demystifying MMD GANs*, 2018,
#   [arXiv 1801.01401](https://arxiv.org/abs/1801.01401)
# - Chong, Forsyth, *Effectively unbiased FID and Inception Score and where to
#   find them*, 2020, [arXiv 1911.07023](https://arxiv.org/abs/1911.07023)
# - Dar et al., *Investigating data memorization in 3D latent diffusion models
#   for medical image synthesis*, 2023,
#   [arXiv 2307.01148](https://arxiv.org/abs/2307.01148)
# - Heusel et al., *GANs trained by a two time-scale update rule converge to a
#   local Nash equilibrium*, 2017,
#   [arXiv 1706.08500](https://arxiv.org/abs/1706.08500)
# - Kynkaanniemi et al., *Improved precision and recall metric for assessing
#   generative models*, 2019
# - Naeem et al., *Reliable fidelity and diversity metrics for generative
#   models*, 2020, [arXiv 2002.09797](https://arxiv.org/abs/2002.09797)
# - Parmar, Zhang, Zhu, *On aliased resizing and surprising subtleties in GAN
#   evaluation*, 2022, [arXiv 2104.11222](https://arxiv.org/abs/2104.11222)
# - Ravuri, Vinyals, *Classification accuracy score for conditional generative
#   models*, 2019, [arXiv 1905.10887](https://arxiv.org/abs/1905.10887)
# - Salimans et al., *Improved techniques for training GANs*, 2016,
#   [arXiv 1606.03498](https://arxiv.org/abs/1606.03498)
# - Wang, Simoncelli, Bovik, *Multi-scale structural similarity for image
#   quality assessment*, 2003
# - Wang et al., *Image quality assessment: from error visibility to structural
#   similarity*, 2004
# - Woodland et al., *Feature extraction for generative medical imaging
#   evaluation: new evidence against an evolving trend*, 2023,
#   [arXiv 2311.13717](https://arxiv.org/abs/2311.13717)
# - Zhang et al., *The unreasonable effectiveness of deep features as a
#   perceptual metric*, 2018,
#   [arXiv 1801.03924](https://arxiv.org/abs/1801.03924)
