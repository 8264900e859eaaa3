# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.5, lab: 4, full: 10}
# ---

# %% [markdown]
# # 01 Autoencoders
#
# Press an image through a handful of numbers, bring it back, and learn from
# what got lost on the way.
#
# ## Goals
# You can
#
# - build an encoder and a decoder, and predict the shape after every layer;
# - write the training loop, and say what a library function adds to it;
# - tell whether a network was worth the trouble, by comparing it with PCA;
# - use the same network to remove noise, and its failures to find lesions,
#   and say when a plain threshold does better;
# - show why an autoencoder is no generator, however good its pictures.
#
# You need lesson 00 and some PyTorch: tensors, `nn.Module`, an optimiser. Take
# 60 minutes. Nothing here is for clinical use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import copy
import os
from itertools import pairwise
from pathlib import Path

import torch
from scipy import ndimage
from torch import Tensor, nn

from course_lib import autoencoders, checks, plotting
from course_lib.autoencoders import PCA, add_noise, feature_sizes, fit_pca
from course_lib.datasets import batches, load_images
from course_lib.latent_explorer import LatentExplorer
from course_lib.metrics import frechet_distance, psnr, ssim
from course_lib.phantoms import make_phantom
from course_lib.runtime import (
    per_budget,
    pick_device,
    print_facts,
    report,
    seed_everything,
)
from course_lib.training import fit, ship_weights, start_from_shipped

# %% [markdown]
# The parameters of the lesson. `dataset` is the built-in `phantom`, a MedMNIST
# name such as `pneumoniamnist`, or a file.

# %% tags=["parameters"]
budget = os.environ.get("COURSE_BUDGET", "lab")
dataset = "phantom"
image_size = 32
seed = 0

# %% [markdown]
# What follows from them. `latent_dim` is the handful of numbers.

# %%
generator = seed_everything(seed)
device = pick_device()
latent_dim, width = 16, 24
steps = per_budget(budget, smoke=5, lab=1200, full=15_000)
few_steps = per_budget(budget, smoke=10, lab=200, full=3_000)
n_train = per_budget(budget, smoke=2000, lab=None, full=None)
n_test = per_budget(budget, smoke=750, lab=750, full=None)
if budget == "smoke":  # larger images: fewer of them
    n_test = int(n_test * min(1.0, 32 / image_size) ** 2)
n_heads = per_budget(budget, smoke=240, lab=750, full=None)  # for lesions
label = f"{Path(dataset).stem}_{image_size}"  # in the names of weights


# %% [markdown]
# ## Data
# T1-weighted heads from the phantom, or the images that you asked for.

# %% tags=["nbval-ignore-output"]
images, _, card = load_images(dataset, "train", image_size, n=n_train)
test_images, test_labels, _ = load_images(
    dataset, "test", image_size, n=n_test
)
channels = images.shape[1]
pixels = images[0].numel()
plotting.show_images(
    images[:20:4],
    size=1.6,
    caption=f"{card.name}: 5 of {len(images):,} training images",
    alt=f"Five training images of {card.name}",
)

# %% [markdown]
# How many numbers would you need to describe *one* of these pictures, so that
# a colleague who has seen all the others could draw it? The picture itself
# holds over a thousand. Write your number down.

# %% tags=["nbval-check-output"]
print("pixels in an image:", pixels)
print("numbers that the network will get:", latent_dim)
print("images in [-1, 1]:", bool(images.abs().max() <= 1))

# %% [markdown]
# ## Model
# The **encoder** turns an image into a *code* $z$ of a few numbers. Each block
# halves the side and widens the channels; a linear layer reads the code off.
# A convolution with kernel $k$, stride $s$ and padding $p$ turns a side $n$
# into
#
# $$n' = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1 .$$
#
# What does $k=4$, $s=2$, $p=1$ do to 32? To 7? Exercise E01.1.


# %%
class Encoder(nn.Module):
    def __init__(
        self,
        latent_dim: int = 32,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
    ) -> None:
        super().__init__()
        features, side = feature_sizes(image_size, width)
        blocks: list[nn.Module] = []
        for c_in, c_out in pairwise([channels, *features]):
            blocks += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(c_out),  # has a bias of its own
                nn.SiLU(),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.to_code = nn.Linear(features[-1] * side * side, latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_code(self.blocks(x).flatten(1))  # -> (N, latent_dim)


# %% [markdown]
# Never trust a network that you have not probed. Before you run it: after
# which block are there fewer numbers than the image had pixels?

# %% tags=["nbval-check-output"]
encoder = Encoder(latent_dim, width, image_size, channels)
x = images[:2]
print(f"image {tuple(x.shape[1:])}: {pixels:,} numbers")
for layer in encoder.blocks:
    x = layer(x)
    if isinstance(layer, nn.SiLU):
        print(f"block {tuple(x.shape[1:])}: {x[0].numel():,} numbers")
print(f"code  {tuple(encoder(images[:2]).shape[1:])}")

# %% [markdown]
# After none of them. The convolutions look for patterns, and have room for
# more numbers than the image. All the squeezing happens in the last step, from
# the last block to the code: that is the **bottleneck**.
#
# The **decoder** goes the other way. A transposed convolution with kernel 4
# and stride 2 doubles the side. The kernel is a multiple of the stride, so
# every pixel gets equally many contributions: no checkerboard. The last layer
# is tanh, because the images live in $[-1, 1]$; you will see what another
# choice costs.


# %%
class Decoder(nn.Module):
    def __init__(
        self,
        latent_dim: int = 32,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
    ) -> None:
        super().__init__()
        features, side = feature_sizes(image_size, width)
        self.from_code = nn.Linear(latent_dim, features[-1] * side * side)
        self.unflatten = nn.Unflatten(1, (features[-1], side, side))
        blocks: list[nn.Module] = []
        for c_in, c_out in pairwise([*features[::-1], channels]):
            blocks += [
                nn.BatchNorm2d(c_in),
                nn.SiLU(),
                nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1),
            ]
        self.blocks = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.blocks(self.unflatten(self.from_code(z)))


# %% [markdown]
# The same probe, from a code back to an image.

# %% tags=["nbval-check-output"]
decoder = Decoder(latent_dim, width, image_size, channels)
x = decoder.unflatten(decoder.from_code(torch.randn(2, latent_dim)))
print(f"code  {(latent_dim,)}\nstart {tuple(x.shape[1:])}")
for layer in decoder.blocks:
    x = layer(x)
    if isinstance(layer, nn.ConvTranspose2d):
        print(f"block {tuple(x.shape[1:])}")
print("output stays within (-1, 1):", bool(x.abs().max() < 1))

# %% [markdown]
# An **autoencoder** is one after the other, with nothing in between but the
# code.


# %%
class Autoencoder(nn.Module):
    def __init__(
        self,
        latent_dim: int = 32,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = Encoder(latent_dim, width, image_size, channels)
        self.decoder = Decoder(latent_dim, width, image_size, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


# %% [markdown]
# ## Loss
# The target of an autoencoder is its own input. No label, no annotator:
#
# $$L = \frac{1}{NP} \sum_{i=1}^{N} \lVert x_i - \hat{x}_i \rVert^2 ,
# \qquad \hat{x} = g(f(x)),$$
#
# with encoder $f$, decoder $g$ and $P$ pixels. In words: the mean squared
# error of a pixel. It is tied to the PSNR of lesson 00 by
# $\mathrm{PSNR} = 10 \log_{10}(4 / L)$ for one image, since $[-1, 1]$ is 2
# wide.


# %%
def reconstruction_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared error over all pixels. (N, C, H, W) twice -> ()."""
    if x.shape != x_hat.shape:
        raise ValueError(
            f"x is {tuple(x.shape)} and x_hat {tuple(x_hat.shape)}; "
            "they must be equal"
        )
    return (x - x_hat).square().mean()


# %% [markdown]
# ### The baseline first
# What does this loss give to those who do not train a network?
#
# - **The mean image**, for everybody: zero numbers an image.
# - **PCA** with as many numbers as our code. It is the best *linear*
#   autoencoder under this very loss (Baldi and Hornik 1989), takes a second,
#   and has no learning rate.

# %%
pca = fit_pca(images, latent_dim)
mean_image = images.mean(dim=0).expand_as(test_images)
by_pca = pca(test_images)

# %% [markdown]
# Look at what 16 numbers can do when they are used linearly. (From here on
# the pictures show the same four test images.)

# %% tags=["nbval-ignore-output"]
picks = torch.arange(0, len(test_images), len(test_images) // 4)[:4]
plotting.show_rows(
    {
        "test image": test_images[picks],
        "mean image": mean_image[picks],
        f"PCA, {latent_dim}": by_pca[picks],
    },
    size=1.05,
    alt="Test images, the mean training image, and PCA with 16 components",
)
for name, guess in {"mean image": mean_image, "PCA": by_pca}.items():
    print(f"{name}: {psnr(test_images, guess).mean():.2f} dB")

# %% [markdown]
# A ghost of the head, with the right size and tilt. This is the number to
# beat. Guess before you go on: how many dB better will a network with the same
# 16 numbers be?

# %% [markdown]
# ## Training
# The loop, once, by hand. Eight lines; every lesson of this course trains with
# them.

# %%
fresh = Autoencoder(latent_dim, width, image_size, channels)
by_hand = copy.deepcopy(fresh)
optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
feed = batches(images[:96], batch_size=16, seed=seed)
losses = []
for _epoch in range(2):
    for x in feed:
        x_hat = by_hand(x)
        loss = reconstruction_loss(x, x_hat)
        optimizer.zero_grad()  # forget the gradient of the last batch
        loss.backward()  # a gradient for every weight
        optimizer.step()  # a small step downhill
        losses.append(loss.item())

# %% [markdown]
# Now `fit`. You give it the inside of the loop, `train_step`; it does the two
# `for` and the last line, and adds a progress bar, checkpoints and a stop at
# the first loss that is not a number. Same start, same seed, same batches:
# will the weights be the same?

# %% tags=["nbval-check-output"]
by_fit = copy.deepcopy(fresh)
optimizer = torch.optim.Adam(by_fit.parameters(), lr=1e-3)


def train_step(x):
    loss = reconstruction_loss(x, by_fit(x))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss}


history = fit(train_step, batches(images[:96], batch_size=16, seed=seed), 12)
pairs = zip(by_hand.parameters(), by_fit.parameters(), strict=True)
print("steps by hand and by fit:", len(losses), len(history["loss"]))
print("every weight is equal:", all(torch.equal(a, b) for a, b in pairs))

# %% [markdown]
# Yes: those eight lines are all that `fit` does to a network. From here on we
# use it through two small helpers. `train` lets the learning rate rise and
# fall once over the run, which allows it to be large in the middle; `apply`
# runs a network on many images.


# %%
def train(model, images, steps, loss_of, rate=1e-2):
    """Minimise loss_of(batch) over the parameters of `model`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)

    def train_step(x):
        loss = loss_of(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss}

    model.train()
    feed = batches(images, batch_size=64, seed=seed, device=device)
    return fit(train_step, feed, steps)


@torch.no_grad()
def apply(module, x):
    """The module on many inputs, in eval mode; the answer on the CPU."""
    module.eval()
    return torch.cat([module(part.to(device)).cpu() for part in x.split(500)])


# %% [markdown]
# Now the real one. At budget `smoke` it goes on from weights that come with
# the course, and a box says so; else it starts from nothing.

# %% tags=["nbval-ignore-output"]
model = Autoencoder(latent_dim, width, image_size, channels).to(device)
shipped = start_from_shipped(f"autoencoder_{label}", model, budget)
history = train(
    model,
    images,
    steps,
    lambda x: reconstruction_loss(x, model(x)),
    rate=1e-4 if shipped else 1e-2,
)
origin = "shipped weights" if shipped else "trained here"
made = f"{card.name}, {image_size} px, budget {budget}, seed {seed}, {origin}"
first, *_, last = history["loss"]
print(f"loss: {first:.3f} at the first step, {last:.4f} after {steps}")

# %% [markdown]
# A falling loss says that the loss falls. Whether the pictures are any good,
# only the pictures say.
#
# ## Look
# Test images that no training has seen, and what came back through 16 numbers.
# Go column by column. What is missing in the second row?

# %% tags=["nbval-ignore-output"]
by_model = apply(model, test_images)
plotting.show_rows(
    {"test image": test_images[picks], "autoencoder": by_model[picks]},
    size=1.6,
    caption=made,
    alt="Test images and their reconstruction by the autoencoder",
)

# %% [markdown]
# Hold it against PCA's row above. Then look again at what is *gone*: noise and
# the finest detail, as one would want, and on the phantom also the dark tumour
# of the first column. Where the truth is known, we can count what is left of
# tumours: 100 % would be as dark as they are, 0 % as bright as the same place
# in the mean image.

# %% tags=["nbval-ignore-output"]
if dataset == "phantom":
    known = make_phantom("test", image_size, n_test)
    mask = torch.from_numpy(known.lesion_mask)
    mask[torch.from_numpy(known.labels) != 2] = False  # tumours only
    drop = [
        (x[:, 0] - mean_image[:, 0])[mask].mean()
        for x in (test_images, by_model, by_pca)
    ]
    error = (test_images - by_model).square()[:, 0]
    print(f"left of tumours by the autoencoder: {drop[1] / drop[0]:.0%}")
    print(f"left of tumours by PCA: {drop[2] / drop[0]:.0%}")
    print(f"tumours are {mask.double().mean():.1%} of all pixels")
    print(f"and {error[mask].sum() / error.sum():.1%} of the squared error")

# %% [markdown]
# Nobody asked for that. But tumours are rare and small, so forgetting them
# costs the loss little. Keep it in mind whenever a network "cleans
# up" a medical image. (It is also the idea behind the lesion detector below.)
#
# ### Between two codes
# Take the codes of two test images that are far apart, and walk from one to
# the other in a straight line, decoding as you go. Below it, the same walk
# between the pixels. Which row could be patients?

# %% tags=["nbval-ignore-output"]
test_codes = apply(model.encoder, test_images)
apart = torch.cdist(test_codes[:30], test_codes[:30])
start, end = divmod(apart.argmax().item(), len(apart))
t = torch.linspace(0, 1, 5)[:, None]
walk = (1 - t) * test_codes[start] + t * test_codes[end]
fade = (1 - t[..., None, None]) * test_images[start]
fade = fade + t[..., None, None] * test_images[end]
plotting.show_rows(
    {"codes": apply(model.decoder, walk), "pixels": fade},
    size=1.05,
    caption=made,
    alt="From one test image to another, between codes and between pixels",
)

# %% [markdown]
# The walk between pixels is a double exposure, with two outlines in the
# middle. The walk between codes moves one outline. A number for it: how far is
# the middle of a walk from the nearest training image? We take many pairs, and
# two baselines: reconstructions, and real test images.


# %%
def nearest(x, others):
    """RMS distance of each x to the nearest of others. (N, ...) -> (N,)."""
    away = torch.cdist(x.flatten(1), others.flatten(1)).amin(dim=1)
    return away / x[0].numel() ** 0.5


a = torch.randperm(len(test_images), generator=generator)[:400]
b = a.roll(1)
middle = {
    "halfway between codes": apply(
        model.decoder, (test_codes[a] + test_codes[b]) / 2
    ),
    "halfway between pixels": (test_images[a] + test_images[b]) / 2,
    "reconstruction of a test image": by_model[a],
    "test image": test_images[a],
}
far = {k: nearest(v, images).mean().item() for k, v in middle.items()}

# %% [markdown]
# RMS distance of a pixel, in units of the images (which are 2 wide).

# %% tags=["nbval-ignore-output"]
for name, value in far.items():
    print(f"{name:31} {value:.3f}")

# %% [markdown]
# If halfway between codes is no further from real images than a plain
# reconstruction is, then the space between *these* codes is well filled. Do
# not conclude that all of it is: the claim check below goes elsewhere.
#
# Go and see. Each mark on this map is the code of a test image, seen along the
# two directions in which codes differ most. Click a mark, drag the ring (or
# use the arrow keys), move the sliders, walk from A to B. Your browser runs
# the decoder, so the map lives on in the pages of `run`.
#
# 1. Move one slider alone, far out: what does its direction change?
# 2. Find a place where the picture is no head any more. How far is it from the
#    marks?
# 3. Walk by the line and by the arc. What happens to the picture where the
#    norm leaves the blue band?

# %% tags=["nbval-ignore-output"]
LatentExplorer(
    model.decoder,
    test_codes,
    images=test_images,
    labels=test_labels,
    class_names=card.class_names,
)

# %% [markdown]
# The straight line leads through the middle, where codes are shorter than
# those of images; on the phantom the picture fades on the way. Is the arc the
# better way, then? Ask the data: nothing in the training asked for it.

# %% [markdown]
# ## Measure
# PSNR and SSIM on the test split, beside both baselines. The last line asks
# the other way round: how many components does PCA need to be as good?

# %%
wide_pca = fit_pca(images, 128)


def pca_with(k, full):
    """The first k components of a larger PCA."""
    return PCA(full.mean, full.components[:k], full.shape)


def mean_psnr(x_hat):
    return psnr(test_images, x_hat).mean().item()


scores = {
    "mean image": (0, mean_image),
    "PCA": (latent_dim, by_pca),
    "autoencoder": (latent_dim, by_model),
}
for k in range(8, 129, 8):
    guess = pca_with(k, wide_pca)(test_images)
    if mean_psnr(guess) >= mean_psnr(by_model) or k == 128:
        scores["PCA, as good"] = (k, guess)
        break

# %% [markdown]
# The table.

# %% tags=["nbval-ignore-output"]
rows = []
for name, (k, guess) in scores.items():
    similar = ssim(test_images, guess).mean()
    rows.append((name, k, f"{mean_psnr(guess):.2f} dB", f"{similar:.3f}"))
plotting.show_table(
    ["", "numbers", "PSNR", "SSIM"],
    rows,
    note=f"N = {len(test_images)} test images. {made}.",
)
wins = (psnr(test_images, by_model) > psnr(test_images, by_pca)).double()
print(f"the autoencoder is closer on {wins.mean():.0%} of the images")

# %% [markdown]
# Be fair to PCA: it has far fewer weights, and never fails to converge. Count.

# %% tags=["nbval-check-output"]
gain = mean_psnr(by_model) - mean_psnr(by_pca)
weights = sum(p.numel() for p in model.parameters())
print(f"weights of the autoencoder: {weights:,}")
print(f"weights of PCA: {pca.mean.numel() + pca.components.numel():,}")
print("the autoencoder beats PCA by more than 0.5 dB:", gain > 0.5)

# %% [markdown]
# ### How wide a bottleneck?
# Now the same network with other codes, all trained for the same short time,
# against PCA with as many numbers. Draw the two curves in the air before you
# look. Where do they cross, if they do?


# %%
def brief(k):
    """PSNR after a short training with k numbers."""
    torch.manual_seed(seed)
    net = Autoencoder(k, width, image_size, channels).to(device)
    train(net, images, few_steps, lambda x: reconstruction_loss(x, net(x)))
    return mean_psnr(apply(net, test_images))


sizes = (2, 8, 32, 128)
if shipped:  # at budget smoke: the curve that was measured with the weights
    brief_curve = shipped["metrics"]["brief_curve"]
else:
    brief_curve = [brief(k) for k in sizes]
pca_curve = [mean_psnr(pca_with(k, wide_pca)(test_images)) for k in sizes]

# %% [markdown]
# The picture. The single point is the network that you trained above, for
# longer.

# %% tags=["nbval-ignore-output"]
plotting.show_curves(
    {
        "PCA": (sizes, pca_curve),
        "autoencoder, short training": (sizes, brief_curve),
        "autoencoder above": ([latent_dim], [mean_psnr(by_model)]),
    },
    xlabel="numbers in the code",
    ylabel="PSNR (dB)",
    logx=True,
    marker="o",
    title=made,
    alt="PSNR against the size of the code, for PCA and for autoencoders",
)

# %% [markdown]
# Two things to read off. Where the code is small, the network bends its few
# numbers around the data and wins. Where the code is large, PCA keeps gaining
# with every component, at no cost, while the network needs *training* to use
# what it has: the single point is the same network with more steps. So if your
# autoencoder loses to PCA, train it for longer before you make it larger. And
# plot PCA, or you will not notice.

# %% [markdown]
# ### Denoising
# Give the network a noisy image and ask for the clean one (Vincent et al.
# 2008):
#
# $$\tilde{x} = x + \sigma \epsilon, \quad \epsilon \sim N(0, I), \qquad
# L = \lVert x - g(f(\tilde{x})) \rVert^2 .$$
#
# Noise goes in, and the target stays clean; `denoising_loss` is exercise
# E01.3. We go on from the network above, with $\sigma = 0.4$.

# %%
sigma = 0.4
denoiser = copy.deepcopy(model)
noise_rng = torch.Generator(device=device).manual_seed(seed)
history = train(
    denoiser,
    images,
    few_steps,
    lambda x: autoencoders.denoising_loss(denoiser, x, sigma, noise_rng),
    rate=1e-4 if shipped else 5e-3,
)

# %% [markdown]
# The baselines: a Gaussian and a median filter, as every viewer has them, and
# PCA. Each may choose its strength on training images, for every noise level
# anew. Our network gets no such choice.


# %%
def gaussian(x, s):
    return torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, s, s)))


def median(x, s):
    return torch.from_numpy(ndimage.median_filter(x.numpy(), (1, 1, s, s)))


filters = {
    "Gaussian filter": (gaussian, (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)),
    "median filter": (median, (3, 5)),
    "PCA": (lambda x, k: pca_with(k, wide_pca)(x), (8, 16, 32, 64, 128)),
}


def tuned(how, strengths, level):
    """The strength with the best PSNR on 100 noisy training images."""
    clean = images[:100]
    noisy = add_noise(clean, level, generator)
    gains = [psnr(clean, how(noisy, s)).mean() for s in strengths]
    return strengths[int(torch.stack(gains).argmax())]


# %% [markdown]
# Five noise levels, one of them the level that the network was trained on.
# Which method will win at the lowest?

# %%
levels = (0.05, 0.1, 0.2, sigma, 0.8)
cleaned = {name: {} for name in ("noisy", *filters, "denoiser")}
for level in levels:
    noisy = add_noise(test_images, level, generator)
    cleaned["noisy"][level] = noisy
    for name, (how, strengths) in filters.items():
        best = tuned(how, strengths, level)
        cleaned[name][level] = how(noisy, best)
    cleaned["denoiser"][level] = apply(denoiser, noisy)

# %% [markdown]
# At the training level, first the pictures:

# %% tags=["nbval-ignore-output"]
few = picks[:3]
shown = ("noisy", "Gaussian filter", "PCA", "denoiser")
plotting.show_rows(
    {"clean": test_images[few]} | {k: cleaned[k][sigma][few] for k in shown},
    size=1.05,
    caption=made,
    alt="Clean and noisy test images, and what three methods make of them",
)

# %% [markdown]
# Then the numbers, at all five levels:

# %% tags=["nbval-ignore-output"]
denoised = {
    name: [mean_psnr(by_level[level]) for level in levels]
    for name, by_level in cleaned.items()
}
plotting.show_curves(
    denoised,
    x=levels,
    xlabel="standard deviation of the noise",
    ylabel="PSNR (dB)",
    marker="o",
    title=made,
    alt="PSNR against the noise level for five methods",
)

# %% [markdown]
# At little noise the network loses, to a mild filter and to PCA: it brings no
# image back better than its bottleneck allows, clean or not. The more noise,
# the better it stands, because it knows what such an image looks like and the
# filters do not. PCA knows it, too, and is the opponent to take seriously. On
# your data, find the noise level from which the network is worth its training.
# And mind the pictures: they look convincing at *every* level, also where a
# lesion has gone.

# %% [markdown]
# ### A sparse code
# Another way to be frugal: many units, few of them on at a time. A code has
# 64 units here, passes a ReLU so that a unit can be exactly 0, and pays for
# activity, as in sparse coding (Olshausen and Field 1996):
#
# $$L = \lVert x - g(z) \rVert^2 + \lambda \, \overline{|z|}, \qquad
# z = \mathrm{ReLU}(f(x)).$$
#
# The penalty can be cheated: halve the code, double the decoder's weights, and
# the picture is the same for half the price. So we try a second way, too: fix
# the scale of every unit by batch norm, and switch it on only when it is one
# standard deviation above its own mean. Which of the two will leave more units
# alive?
#
# Both borrow the convolutions of the network above, so that a short training
# is enough. (At `smoke` it is shorter still: too short to read much from.)


# %%
def sparse_autoencoder(units, *switch):
    """The network above with a wider code that passes through `switch`."""
    torch.manual_seed(seed)
    net = Autoencoder(units, width, image_size, channels)
    for half in ("encoder", "decoder"):
        learnt = getattr(model, half).blocks.state_dict()
        getattr(net, half).blocks.load_state_dict(learnt)
    net.encoder = nn.Sequential(net.encoder, *switch)
    return net.to(device)


units = 64
norm = nn.BatchNorm1d(units, affine=False)
sparse = {
    "L1": sparse_autoencoder(units, nn.ReLU()),
    "threshold": sparse_autoencoder(units, norm, nn.Threshold(1, 0)),
}

# %% [markdown]
# The penalty $\lambda$ is for the first of them only.


# %%
def sparse_loss(net, x, weight):
    z = net.encoder(x)
    loss = reconstruction_loss(x, net.decoder(z))
    return loss + weight * autoencoders.sparsity_penalty(z)


for kind, weight in {"L1": 0.05, "threshold": 0.0}.items():
    train(
        sparse[kind],
        images,
        few_steps,
        lambda x, k=kind, w=weight: sparse_loss(sparse[k], x, w),
        rate=5e-3,
    )

# %% [markdown]
# For each unit: on how many test images is it on? The units are sorted by
# that.

# %% tags=["nbval-ignore-output"]
activity = {k: apply(net.encoder, test_images) for k, net in sparse.items()}
usage = {k: (z > 0).double().mean(dim=0) for k, z in activity.items()}
plotting.show_curves(
    {k: share.sort(descending=True).values for k, share in usage.items()},
    xlabel="unit, the busiest first",
    ylabel="share of test images\nwith the unit on",
    title=made,
    alt="How often each of 64 units is on, for both kinds of sparse code",
)
for kind, net in sparse.items():
    on, never = usage[kind].mean(), (usage[kind] == 0).sum()
    quality = mean_psnr(apply(net.decoder, activity[kind]))
    print(
        f"{kind:9} {on:4.0%} on at a time, {never:2} never, {quality:.2f} dB"
    )

# %% [markdown]
# Look at the right end of each curve. A unit that is on for nobody is dead: a
# code with half of its units dead is not sparse, only smaller. In a sparse
# code every unit is on for *some* images. What do such units mean? We take one
# out of the code and look at what is missing from the picture: white is what
# the unit adds, black what it takes away.


# %%
def adds(kind, unit):
    """What a unit adds to the 40 test images that it answers most."""
    z = activity[kind]
    z = z[z[:, unit].argsort(descending=True)[:40]]
    without = z.clone()
    without[:, unit] = 0
    decoder = sparse[kind].decoder
    picture = (apply(decoder, z) - apply(decoder, without)).mean(dim=0)
    return picture / picture.abs().max().clamp(min=1e-6)


# %% [markdown]
# The four units with the highest mean activity, in each network.

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {
        kind: torch.stack(
            [adds(kind, k) for k in z.mean(dim=0).argsort(descending=True)[:4]]
        )
        for kind, z in activity.items()
    },
    size=1.05,
    caption=made,
    alt="What single units of the two sparse codes add to a picture",
)

# %% [markdown]
# Rims are size, position and tilt of what you see; on the phantom some units
# are about the ventricles, others about one side. None was told to be: it is
# what pays under the loss. Do not read more into them than you could show.

# %% [markdown]
# ### What it cannot draw: lesions
# An autoencoder that has only ever seen healthy heads cannot draw a lesion. So
# the **residual** $|x - \hat{x}|$ should light up where one is. No annotation
# needed: it is a popular idea, and we can test it, because the phantom knows
# every lesion. (This part uses the phantom at 32 px whatever `dataset` is.)
#
# We take two contrasts. On FLAIR lesions are the brightest thing in the
# head. On T2 they are bright, and so is the healthy CSF.


# %%
def to_images(array):
    """uint8 (N, H, W) -> float (N, 1, H, W) in [-1, 1]."""
    return torch.from_numpy(array).float()[:, None] / 127.5 - 1


contrasts = ("FLAIR", "T2")
heads = make_phantom("train", 32, n_train)
test_heads = make_phantom("test", 32, n_heads)
healthy = {c: to_images(heads.images[c])[heads.labels == 0] for c in contrasts}
unseen = {c: to_images(test_heads.images[c]) for c in contrasts}
inside = test_heads.tissue > 0  # the head; the air is too easy
truth = test_heads.lesion_mask[inside]

# %% [markdown]
# How much there is to find, and how rare it is.

# %% tags=["nbval-check-output"]
rare = truth.mean()
shared = set(heads.subjects.tolist()) & set(test_heads.subjects.tolist())
print("test subjects that are in the training set:", len(shared))
print("lesions are fewer than 2 pixels in 100:", bool(rare < 0.02))

# %% [markdown]
# One network for each contrast, with a code of 8 numbers: narrow, so that
# there is no room for surprises.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
detectors = nn.ModuleDict({c: Autoencoder(8, 16) for c in contrasts})
detectors = detectors.to(device)
known = start_from_shipped("lesions_phantom_32", detectors, budget)
for c, net in detectors.items():
    history = train(
        net,
        healthy[c],
        2 * few_steps,
        lambda x, net=net: reconstruction_loss(x, net(x)),
        rate=1e-4 if known else 1e-2,
    )
    print(f"{c}: loss {history['loss'][-1]:.4f} after {2 * few_steps} steps")
drawn = {c: apply(net, unseen[c]) for c, net in detectors.items()}

# %% [markdown]
# The picture first: T2 slices with lesions, what the network makes of them,
# the residual, and the truth. Where is the residual right, and where does it
# shout for no reason?

# %% tags=["nbval-ignore-output"]
size = test_heads.lesion_mask.sum(axis=(1, 2))
with_lesion = torch.from_numpy((size > 8).nonzero()[0])
some = with_lesion[:: len(with_lesion) // 4][:4]
residual = {
    c: autoencoders.residual_map(unseen[c], drawn[c]) for c in contrasts
}
plotting.show_rows(
    {
        "T2": unseen["T2"][some],
        "drawn as healthy": drawn["T2"][some],
        "residual": 2 * residual["T2"][some, None].clamp(max=1) - 1,
        "truth": 2.0 * torch.from_numpy(test_heads.lesion_mask)[some, None]
        - 1,
        "FLAIR": unseen["FLAIR"][some],
    },
    size=1.05,
    caption=f"phantom, 32 px, budget {budget}, seed {seed}",
    alt="T2 slices with lesions, reconstruction, residual, truth, and FLAIR",
)

# %% [markdown]
# Now the number. The **AUC** is the probability that a lesion pixel scores
# higher than a healthy one; 0.5 is a coin. With about one lesion pixel in a
# hundred, a high AUC can still mean that most alarms are false. The
# **average precision** (AP), the mean share of true alarms, says that; a coin
# gets the share of lesion pixels.
#
# The baselines are PCA's residual with 8 and with 16 components, and the raw
# intensity: "bright is lesion", no model at all. Rank the four before you run
# it, once for FLAIR and once for T2.


# %%
def auc(score):
    """Area under the ROC curve, over the pixels of all heads."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(truth, score.numpy()[inside])


def precision(score):
    """Average precision, over the same pixels."""
    from sklearn.metrics import average_precision_score

    return average_precision_score(truth, score.numpy()[inside])


maps = {}
for c in contrasts:
    maps["intensity", c] = unseen[c][:, 0]
    for k in (8, 16):
        x_hat = fit_pca(healthy[c], k)(unseen[c])
        score = autoencoders.residual_map(unseen[c], x_hat)
        maps[f"PCA residual, {k}", c] = score
    maps["autoencoder residual, 8", c] = residual[c]
found = {key: (auc(score), precision(score)) for key, score in maps.items()}

# %% [markdown]
# AUC, and AP in brackets.

# %% tags=["nbval-ignore-output"]
rows = []
for who in dict.fromkeys(name for name, _ in found):
    cells = ["{:.3f} ({:.2f})".format(*found[who, c]) for c in contrasts]
    rows.append([who, *cells])
rows.append(["coin"] + [f"0.500 ({rare:.3f})"] * len(contrasts))
plotting.show_table(["", *contrasts], rows)
print(f"N = {len(truth):,} pixels, {truth.sum():,} of them lesion")

# %% [markdown]
# On FLAIR the network adds nothing: the lesions are the brightest pixels, and
# a threshold finds them. Meissen et al. (2021) found the same on public data
# sets of tumours and of multiple sclerosis, where a threshold on FLAIR did
# better than published anomaly detectors. On T2 brightness is ambiguous, and a
# model of the healthy head earns its keep. The lesson is not that residuals
# fail. It is that "an AUC of 0.99 without any labels" says nothing until the
# raw intensity stands beside it.

# %% tags=["nbval-check-output"]
(flair_raw, _), (flair_net, _) = (
    found[who, "FLAIR"] for who in ("intensity", "autoencoder residual, 8")
)
(t2_raw, ap_raw), (t2_net, ap_net) = (
    found[who, "T2"] for who in ("intensity", "autoencoder residual, 8")
)
print_facts(
    {
        "FLAIR: no model is as good as the network": flair_raw
        > flair_net - 0.002,
        "T2: the residual has the higher AUC": t2_net > t2_raw + 0.005,
        "T2: the residual has 3 times the precision": ap_net > 3 * ap_raw,
    }
)

# %% [markdown]
# ## Break it
# ### A better reconstruction, a worse detector
# The detector had 8 numbers. Would more help? With more components PCA brings
# every image back better, to the last detail. Predict two curves before you
# run it: the PSNR on healthy test heads, and the AUC for lesions.

# %%
many = (2, 4, 8, 16, 32, 64, 128, 256)
many = per_budget(budget, smoke=(2, 16, 256), lab=many, full=many)
well = torch.from_numpy(test_heads.labels == 0)
curves = {c: [] for c in contrasts}
quality = []
for c in contrasts:
    full = fit_pca(healthy[c], max(many))
    for k in many:
        x_hat = pca_with(k, full)(unseen[c])
        score = autoencoders.residual_map(unseen[c], x_hat)
        curves[c].append(auc(score))
        if c == "T2":
            quality.append(psnr(unseen[c][well], x_hat[well]).mean().item())

# %% [markdown]
# The PSNR rises from left to right all the way; it is printed below the
# picture.

# %% tags=["nbval-ignore-output"]
plotting.show_curves(
    curves,
    x=many,
    xlabel="components of PCA",
    ylabel="AUC of the residual",
    logx=True,
    marker="o",
    title="phantom, 32 px",
    alt="AUC of PCA's residual against the number of components",
)
print("components  ", *(f"{k:5}" for k in many))
print("PSNR, T2, dB", *(f"{value:5.1f}" for value in quality))
print(f"T2: AUC {max(curves['T2']):.3f} by the best PCA", end=", ")
print(f"{t2_net:.3f} by the autoencoder")

# %% [markdown]
# Too narrow (see T2), and the residual is full of healthy detail. Too wide,
# and the model copies what it should not know, lesion included: it turns into
# the identity, which reconstructs perfectly and detects nothing. The loss
# cannot tell you where to stop, since it improves all the way. And one more
# thing to be honest about: compare the best point of PCA with the network.

# %% tags=["nbval-check-output"]
best = {c: max(values) for c, values in curves.items()}
print_facts(
    {
        "PSNR rises with every step": all(a < b for a, b in pairwise(quality)),
        "FLAIR: the widest loses more than 0.05 AUC": best["FLAIR"]
        - curves["FLAIR"][-1]
        > 0.05,
        "T2: the widest loses more than 0.05 AUC": best["T2"]
        - curves["T2"][-1]
        > 0.05,
    }
)

# %% [markdown]
# ### The wrong last layer
# A slip that no error message reports: images in $[-1, 1]$, and a decoder that
# ends in a ReLU (or a sigmoid) as if they were in $[0, 1]$. Will the loss
# still fall? How good can the result get at best?

# %%
torch.manual_seed(seed)
wrong = Autoencoder(latent_dim, width, image_size, channels)
wrong.decoder.blocks[-1] = nn.ReLU()  # was: nn.Tanh()
wrong = wrong.to(device)
history = train(
    wrong,
    images,
    few_steps,
    lambda x: reconstruction_loss(x, wrong(x)),
)

# %% [markdown]
# The loss falls and settles, as in every good run. The pictures:

# %% tags=["nbval-ignore-output"]
by_wrong = apply(wrong, test_images)
first, *_, last = history["loss"]
print(f"loss: {first:.2f} at the start, {last:.2f} at the end")
plotting.show_rows(
    {"test image": test_images[few], "ReLU at the end": by_wrong[few]},
    size=1.05,
    caption=f"{card.name}, {image_size} px, budget {budget}, seed {seed}",
    alt="Test images, and what a decoder with a ReLU at its end makes of them",
)

# %% [markdown]
# Everything darker than middle grey comes back as middle grey. You can know
# the ceiling without any training: the best that a ReLU could do is to copy
# what is above 0 and answer 0 elsewhere.

# %% tags=["nbval-check-output"]
ceiling = mean_psnr(test_images.clamp(min=0))
print("lowest output is 0:", bool(by_wrong.min() == 0))
print("perfect training could not beat PCA:", ceiling < mean_psnr(by_pca))
print("and this run is below that ceiling:", mean_psnr(by_wrong) < ceiling)

# %% [markdown]
# A habit that catches this in a minute: print the range of the data and the
# range of the output, side by side, before you train.

# %% [markdown]
# ## Claim check
# ### "Give it noise, and an autoencoder generates"
# **As it is often written.** The decoder is a generator: feed it a random
# vector, and out comes a new image.
#
# **What the originals say.** Hinton and Salakhutdinov (2006) made autoencoders
# to reduce dimensions, and claim no more: the loss asks that $g(f(x))$ be $x$,
# and says nothing on *where* the codes lie. There is no distribution to draw
# from. Kingma and Welling (arXiv 1312.6114) added one to the loss; theirs is
# the variational autoencoder.
#
# **What we can measure.** First, where are the codes? A draw from $N(0, I)$
# has a norm close to $\sqrt{d}$, which is 4 for 16 numbers.

# %% tags=["nbval-ignore-output"]
codes = apply(model.encoder, images)
noise = torch.randn(len(test_codes), latent_dim, generator=generator)
for name, z in {"codes": test_codes, "N(0, I)": noise}.items():
    low, high = z.norm(dim=1).quantile(torch.tensor([0.01, 0.99])).tolist()
    print(f"{name:8} norm {low:.1f} to {high:.1f}, 98 % of them")

# %% [markdown]
# Two different worlds. What does the decoder make of the second? Below it, a
# compromise: a Gaussian that has the mean and the covariance of the codes
# (`sample_codes`, exercise E01.6). What real codes give stands under *Look*.

# %% tags=["nbval-ignore-output"]
drawn_codes = {
    "codes of test images": test_codes,
    "N(0, I)": noise,
    "Gaussian fitted to codes": autoencoders.sample_codes(
        codes, len(test_codes), generator
    ),
}
decoded = {k: apply(model.decoder, z) for k, z in drawn_codes.items()}
plotting.show_rows(
    {k: decoded[k][picks] for k in ("N(0, I)", "Gaussian fitted to codes")},
    size=1.6,
    caption=made,
    alt="Decoded normal noise, and decoded draws from a fitted Gaussian",
)

# %% [markdown]
# Four numbers for it. For the code: how far is it from the nearest code of a
# training image, in standard deviations of the codes? For its picture: how far
# is that from the nearest training image, and what share lies further away
# than 95 % of reconstructions do? That can be fooled, since a plain grey
# picture is close to many. So, last, for the whole set: the **Fréchet
# distance** between its 64 first principal components and those of the
# training images. It compares means and covariances, notices pictures that are
# all alike, and gets its own lesson (06).


# %%
def whiten(z):
    """Codes in units of their own spread: identity covariance."""
    factor = torch.linalg.cholesky(torch.cov(codes.T))
    centred = (z - codes.mean(dim=0)).T
    return torch.linalg.solve_triangular(factor, centred, upper=False).T


eye = pca_with(64, wide_pca)
decoded["(real test images)"] = test_images
rms = {k: nearest(x, images) for k, x in decoded.items()}
limit = rms["codes of test images"].quantile(0.95)
frechet = {
    k: float(frechet_distance(eye.encode(images), eye.encode(x)))
    for k, x in decoded.items()
}

# %% [markdown]
# The table. The last row is what real test images get.

# %% tags=["nbval-ignore-output"]
rows = []
for k, value in frechet.items():
    beyond = (rms[k] > limit).double().mean()
    away = ""
    if k in drawn_codes:
        away = nearest(whiten(drawn_codes[k]), whiten(codes)).median()
        away = f"{latent_dim**0.5 * away:.1f}"
    near = f"{rms[k].mean():.3f}"
    rows.append((k, away, near, f"{beyond:.0%}", f"{value:.1f}"))
plotting.show_table(
    ["decoded from", "nearest code", "nearest image", "beyond", "Fréchet"],
    rows,
    note=f"N = {len(test_codes)} each. {made}.",
)

# %% [markdown]
# The last doubt: perhaps this network just happened to choose an odd scale?
# Then scale its codes. Multiply the encoder's last layer by 8 and divide the
# decoder's first by 8. The reconstructions, and so the loss, are the same to
# the last bit. What becomes of the "samples"?

# %% tags=["nbval-ignore-output"]
rows = {}
for name, scale in {"codes / 8": 1 / 8, "codes x 8": 8}.items():
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.encoder.to_code.weight.mul_(scale)
        twin.encoder.to_code.bias.mul_(scale)
        twin.decoder.from_code.weight.div_(scale)
    same = torch.equal(apply(twin, test_images), by_model)
    rows[name] = apply(twin.decoder, noise)[few]
    print(f"{name:9} the same reconstructions: {same}")
plotting.show_rows(
    rows,
    size=1.05,
    caption=made,
    alt="The same noise decoded by two networks with equal reconstructions",
)

# %% [markdown]
# One loss, one set of reconstructions, as many "generators" as you like. The
# network has no prior; whoever draws from $N(0, I)$ has made one up. The
# fitted Gaussian is an honest try: on the phantom most of its draws read as
# heads. Yet as a set they are clearly further from the truth than
# reconstructions are. Codes do not fill an ellipsoid, and nothing in the
# training asked them to. Lesson 02 asks. (On other data look at the last row
# of the table first: where the test images themselves are far from the
# training images, the Fréchet distance cannot tell the two apart.)

# %% tags=["nbval-check-output"]
floor, tried, fitted = (frechet[k] for k in drawn_codes)
x = apply(twin, test_images)
print_facts(
    {
        "codes x 8, the same reconstructions": torch.equal(x, by_model),
        "codes x 8, other samples": not torch.allclose(
            apply(twin.decoder, noise), decoded["N(0, I)"], atol=0.01
        ),
        "N(0, I): over 10 times as far as codes": tried > 10 * floor,
        "fitted Gaussian: far better": fitted < tried / 5,
        "fitted Gaussian: not as good as codes": fitted > 1.2 * floor,
    }
)

# %% [markdown]
# ### `nn.BatchNorm2d(n, 0.8)`
# **As it is often written**, in a much copied collection of GANs, and meant as
# the momentum. **What it says:** the second argument is `eps`. The layer
# divides by $\sqrt{\mathrm{var} + \mathrm{eps}}$ (Ioffe and Szegedy, arXiv
# 1502.03167), where `eps` is there to avoid a division by 0 and should be
# tiny. **What it does:** how large is the spread behind the layer, which is
# there to make it 1?

# %% tags=["nbval-check-output"]
layer = nn.BatchNorm2d(4, 0.8)
print("eps", layer.eps, "and momentum", layer.momentum)
for spread in (2.0, 0.5, 0.1):
    x = spread * torch.randn(64, 4, 16, 16, generator=generator)
    meant = nn.BatchNorm2d(4, momentum=0.8)(x).std()
    print(f"input {spread}: {layer(x).std():.2f}, meant was {meant:.2f}")

# %% [markdown]
# The smaller the activations, the more they are shrunk: the layer does the
# opposite of its job where it is needed. Nothing crashes, training is just
# worse. Write arguments by name.

# %% [markdown]
# ## Exercises
# For each: write the function, run the check, and let its answer help you.
#
# **E01.1.** The side of a feature map after a convolution, from the formula in
# *Model*.


# %%
def conv_side(side, kernel, stride, padding):
    """Side after nn.Conv2d, four ints -> int."""
    # solution E01.1
    return (side + 2 * padding - kernel) // stride + 1


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_conv_side(conv_side)


# %% [markdown]
# **E01.2.** Which share of the variance does a reconstruction explain? The
# total is the squared distance of the images to their *mean image*, summed
# over everything. What the reconstruction gets wrong is not explained.


# %%
def explained_variance(x, x_hat):
    """(N, C, H, W) twice -> one number, at most 1."""
    # solution E01.2
    wrong = (x - x_hat).square().sum()
    total = (x - x.mean(dim=0)).square().sum()
    return 1 - wrong / total


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_explained_variance(explained_variance)


# %% [markdown]
# **E01.3.** The loss of the denoiser. `model` maps images to images; draw the
# noise from `generator`.


# %%
def denoising_loss(
    model: nn.Module, x: Tensor, sigma: float, generator: torch.Generator
) -> Tensor:
    """Clean images x (N, C, H, W) in [-1, 1] -> one number, with gradient."""
    # solution E01.3
    noisy = add_noise(x, sigma, generator)
    return reconstruction_loss(x, model(noisy))


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_denoising_loss(denoising_loss)


# %% [markdown]
# **E01.4.** PCA from scratch: fit `k` components to `train`, then send `x`
# through them. `torch.linalg.svd` or `torch.linalg.eigh` will help.


# %%
def pca_reconstruct(train, x, k):
    """(N, C, H, W), (M, C, H, W) -> (M, C, H, W)."""
    # solution E01.4
    flat, mean = train.flatten(1), train.flatten(1).mean(dim=0)
    v = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:k]
    return ((x.flatten(1) - mean) @ v.T @ v + mean).view_as(x)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_pca_reconstruct(pca_reconstruct)


# %% [markdown]
# **E01.5.** The residual map of the lesion detector: how wrong is each pixel,
# averaged over the channels?


# %%
def residual_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """(N, C, H, W) twice -> (N, H, W), on one scale for all images."""
    # solution E01.5
    return (x - x_hat).abs().mean(dim=1)


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_residual_map(residual_map)


# %% [markdown]
# **E01.6.** Draw `n` codes from the Gaussian that has the mean and the
# covariance of `codes`. If $LL^\top$ is the covariance and $\epsilon$ is
# $N(0, I)$, then $L\epsilon$ has that covariance.


# %%
def sample_codes(codes: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """(N, d) -> (n, d)."""
    # solution E01.6
    noise = torch.randn(n, codes.shape[1], generator=generator)
    factor = torch.linalg.cholesky(torch.cov(codes.T))
    return codes.mean(dim=0) + noise @ factor.T


# %% [markdown]
# The check.

# %% tags=["nbval-check-output"]
checks.check_sample_codes(sample_codes)

# %% [markdown]
# Three to think about, without a check:
#
# - Train with 16 images instead of all. How large does the gap between
#   training and test PSNR get, and which picture above would have warned you?
# - `brief(128)` loses to PCA. Give it ten times the steps. Does it still?
# - Train the denoiser on all noise levels at once. What does it cost at 0.4?
#
# ## On a GPU
# Nothing changes but the sizes: data, networks and noise are on `device`, and
# `fit` does not wait for it. `python -m course_lib run 01 --budget full` takes
# more than ten times the steps. Try `width = 64` and 128 px there, and watch
# whether the gap to PCA grows.
#
# Keep the weights of this run for the readers of budget `smoke`. (Does nothing
# unless a maintainer runs `build --weights`.)

# %%
manifest = {
    "command": "python -m course_lib build 01 --weights",
    "data": card.name,
    "budget": budget,
    "seed": seed,
}
metrics = {"psnr": mean_psnr(by_model), "psnr_pca": mean_psnr(by_pca)}
metrics["brief_curve"] = brief_curve
ship_weights(
    f"autoencoder_{label}", model, manifest=manifest | {"metrics": metrics}
)
metrics = {c: found["autoencoder residual, 8", c] for c in contrasts}
manifest |= {"data": "phantom", "metrics": metrics}
kept = ship_weights("lesions_phantom_32", detectors, manifest=manifest)

# %% [markdown]
# ## Summary
# The headline numbers of this run, with their baselines.

# %% tags=["nbval-ignore-output"]
report(
    psnr=mean_psnr(by_model),
    psnr_pca=mean_psnr(by_pca),
    ssim=ssim(test_images, by_model).mean().item(),
    ssim_pca=ssim(test_images, by_pca).mean().item(),
    denoised=denoised["denoiser"][3],
    denoised_pca=denoised["PCA"][3],
    denoised_gaussian=denoised["Gaussian filter"][3],
    auc_T2=t2_net,
    auc_T2_intensity=t2_raw,
    auc_FLAIR=flair_net,
    auc_FLAIR_intensity=flair_raw,
    frechet_of_reconstructions=floor,
    frechet_of_decoded_noise=tried,
    frechet_of_fitted_gaussian=fitted,
)

# %% [markdown]
# What you take with you, each line computed above:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "a network with 16 numbers beats PCA with 16": gain > 0.5,
        "at strong noise it beats a Gaussian filter": denoised["denoiser"][-1]
        > denoised["Gaussian filter"][-1] + 0.5,
        "at weak noise it does not": denoised["denoiser"][0]
        < denoised["Gaussian filter"][0],
        "on T2 the residual finds lesions better": t2_net > t2_raw,
        "on FLAIR a threshold is enough": flair_raw > flair_net - 0.002,
        "a wider bottleneck is a worse detector": curves["T2"][-1]
        < best["T2"],
        "an autoencoder is no generator": tried > 10 * floor,
    }
)

# %% [markdown]
# Next, in `02_variational_autoencoder`: one more term in the loss, and the
# noise becomes a place where heads are.
#
# ## References
# - Baldi, Hornik, *Neural networks and principal component analysis: learning
#   from examples without local minima*, Neural Networks 2(1), 1989
# - Hinton, Salakhutdinov, *Reducing the dimensionality of data with neural
#   networks*, Science 313, 2006
# - Ioffe, Szegedy, *Batch normalization: accelerating deep network training by
#   reducing internal covariate shift*, ICML 2015,
#   [arXiv 1502.03167](https://arxiv.org/abs/1502.03167)
# - Kingma, Welling, *Auto-encoding variational Bayes*, ICLR 2014,
#   [arXiv 1312.6114](https://arxiv.org/abs/1312.6114)
# - Meissen, Kaissis, Rueckert, *Challenging current semi-supervised anomaly
#   segmentation methods for brain MRI*, MICCAI BrainLes workshop 2021,
#   [arXiv 2109.06023](https://arxiv.org/abs/2109.06023)
# - Olshausen, Field, *Emergence of simple-cell receptive field properties by
#   learning a sparse code for natural images*, Nature 381, 1996
# - Vincent, Larochelle, Bengio, Manzagol, *Extracting and composing robust
#   features with denoising autoencoders*, ICML 2008
