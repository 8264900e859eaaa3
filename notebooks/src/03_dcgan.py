# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.75, lab: 4, full: 12}
# ---

# %% [markdown]
# # 03 DCGAN
#
# Two networks play against each other, and one of them learns to draw: build
# the game, watch it work, break it in five ways, and measure every claim.
#
# ## Goals
# You can
#
# - say what each network wants, and write both losses from logits;
# - show which of the two generator losses falls silent, and when;
# - build the generator and the discriminator of the DCGAN paper, and say what
#   each of its guidelines does *here*;
# - tell a good GAN from a bad one by a distance and a held-out gap, not by its
#   loss;
# - recognise mode collapse, overfitting and checkerboards, and measure them;
# - ask for a class, and score whether you got it.
#
# You need lesson 01. Take 90 minutes. Nothing here is for clinical use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import copy
import os
from itertools import count, cycle, pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from course_lib.autoencoders import fit_pca
from course_lib.benchmarks import benchmark_value, show_benchmark
from course_lib.checks import (
    check_dcgan_init,
    check_ema_step,
    check_learn_discriminator,
    check_non_saturating,
    check_optimal_d,
)
from course_lib.datasets import batches, load_images
from course_lib.feature_net import FeatureNet
from course_lib.feature_training import mean_recall, predict
from course_lib.features import course_extractor, for_models
from course_lib.gan_lab_widget import GANLab
from course_lib.gans import (
    KINDS,
    Augment,
    PointNet,
    diff_augment,
    init_weights,
    make_train_step,
    r1_penalty,
    ring_coverage,
    ring_of_gaussians,
    stage_widths,
)
from course_lib.latent_explorer import LatentExplorer
from course_lib.metrics import (
    density_coverage,
    frechet_distance,
    frechet_statistics,
)
from course_lib.plotting import (
    COLOURS,
    show_bars,
    show_curves,
    show_figure,
    show_images,
    show_rows,
    show_table,
)
from course_lib.runtime import (
    notice,
    per_budget,
    pick_device,
    print_facts,
    report,
    seed_everything,
)
from course_lib.scrubber import Scrubber, gradient_norm
from course_lib.training import (
    EMA,
    autocast,
    capture_step,
    fit,
    linear_decay,
    load_weights,
    ship_weights,
    start_from_shipped,
    with_schedules,
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
# What follows from them. Larger images get smaller batches, and the short runs
# fewer steps. They get R1, too, a penalty that *Break it* explains: in them
# $D$ finds every fault, and $G$ gets worse once $D$ is always right.

# %%
rng = seed_everything(seed)
device = pick_device()
threads = torch.get_num_threads()
latent_dim, width = 64, 32
less = min(1.0, 32 / image_size)
batch_size = int(less * 64)
steps = per_budget(budget, smoke=16, lab=1400, full=20_000)
few_steps = int(less * per_budget(budget, smoke=4, lab=400, full=3000))
stages = per_budget(budget, smoke=8, lab=8, full=16)
calm = {"r1": 1.0} if image_size > 32 else {}
n_train = per_budget(budget, smoke=2000, lab=None, full=None)
label = f"{Path(dataset).stem}_{image_size}"  # in the names of weights


# %% [markdown]
# ## Data
# Part of the images belongs to the extractor that will score us (see
# *Measure*): a judge must not have been trained on what it judges. The models
# get the rest.

# %% tags=["nbval-ignore-output"]
images, labels, card = load_images(dataset, "train", image_size, n=n_train)
ours = for_models(dataset, images)
images, labels = images[ours], labels[ours]
held_out, _, _ = load_images(dataset, "test", image_size)
held_out = held_out[:600]
channels = images.shape[1]
show_images(
    images[:48:6],
    size=0.9,
    caption=f"{card.name}: 8 of {len(images):,} training images",
    alt=f"Eight training images of {card.name}",
)
print(card.licence, card.note, sep="\n")

# %% [markdown]
# What both networks will see: images in $[-1, 1]$, because the generator ends
# in tanh. Keep that in mind; one of the claims below breaks it.

# %% tags=["nbval-check-output"]
print("an image:", tuple(images.shape[1:]))
print("in [-1, 1]:", bool(images.min() >= -1 and images.max() <= 1))
print("the generator will get:", latent_dim, "random numbers")

# %% [markdown]
# ## Model
# An autoencoder learns to draw by copying. A **generator** $G$ never sees an
# image. It turns random numbers $z \sim N(0, I)$ into a picture, and all that
# it hears is how a second network, the **discriminator** $D$, liked it.
#
# The guidelines of the DCGAN paper (Radford et al. 2015) are:
#
# 1. strided convolutions, no pooling, no hidden fully connected layers;
# 2. batch norm in both networks, but not at $G$'s output and $D$'s input;
# 3. ReLU in $G$, with tanh at the output; LeakyReLU in $D$.
#
# First the block that doubles the side. A transposed convolution with stride 2
# puts its input on every second pixel and lets the kernel fill in the rest.


# %%
def up_block(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(c_in),
        nn.ReLU(inplace=True),
        # kernel 4, stride 2: every pixel is covered equally
        nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
    )


# %% [markdown]
# The generator is a linear layer that makes a small map, and such blocks. Skip
# `num_classes` and `labels` for now: they are for the last part of *Measure*.


# %%
class Generator(nn.Module):
    def __init__(
        self,
        latent_dim: int = 64,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        widths, side = stage_widths(image_size, width)
        inputs = latent_dim + (num_classes or 0)
        self.project = nn.Linear(inputs, widths[-1] * side**2, bias=False)
        self.unflatten = nn.Unflatten(1, (widths[-1], side, side))
        blocks = [up_block(*c) for c in pairwise([*widths[::-1], channels])]
        self.blocks = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.num_classes:
            z = torch.cat(
                [z, F.one_hot(labels, self.num_classes).to(z)], dim=1
            )
        return self.blocks(self.unflatten(self.project(z)))


# %% [markdown]
# The discriminator runs the other way, and ends in **one number**: the logit
# $a$ of "this is real", so that $D(x) = \sigma(a)$. The sigmoid itself belongs
# to the loss, where it can be computed without overflow.


# %%
def down_block(c_in: int, c_out: int, norm: str = "batch") -> nn.Sequential:
    free = norm in ("none", "spectral")  # the others have their own bias
    conv = nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=free)
    layers = {"batch": nn.BatchNorm2d(c_out), "none": nn.Identity()}
    layers["instance"] = nn.InstanceNorm2d(c_out, affine=True)
    layers["spectral"] = nn.Identity()
    if norm not in layers:
        raise ValueError(f"norm {norm!r}: choose from {', '.join(layers)}")
    conv = spectral_norm(conv) if norm == "spectral" else conv
    return nn.Sequential(conv, layers[norm], nn.LeakyReLU(0.2, inplace=True))


# %% [markdown]
# Batch norm from the second block on, as in the paper; `norm` lets us choose
# something else later. A conditional discriminator has one logit a class.


# %%
class Discriminator(nn.Module):
    def __init__(
        self,
        width: int = 32,
        image_size: int = 32,
        channels: int = 1,
        num_classes: int | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths, side = stage_widths(image_size, width, odd=True)
        norms = [norm if norm == "spectral" else "none", *[norm] * len(widths)]
        steps = zip([channels, *widths], widths, norms, strict=False)
        self.blocks = nn.Sequential(*(down_block(*step) for step in steps))
        self.head = nn.Linear(widths[-1] * side**2, num_classes or 1)
        if norm == "spectral":
            self.head = spectral_norm(self.head)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.head(self.blocks(x).flatten(1))  # (N, classes)
        if self.num_classes is None:
            return logits[:, 0]
        return logits.gather(1, labels[:, None])[:, 0]


# %% [markdown]
# Both start from small random weights, $N(0, 0.02^2)$, and batch-norm scales
# near **one** (`init_weights` is exercise E03.5; the claim check shows what
# happens to those who draw the scales from $N(0, 0.02^2)$ too).


# %%
def new_pair(width=width, norm="batch", num_classes=None):
    """A fresh generator and discriminator on the device."""
    shape = (width, image_size, channels, num_classes)
    nets = {
        "generator": Generator(latent_dim, *shape),
        "discriminator": Discriminator(*shape, norm=norm),
    }
    nets = nn.ModuleDict(nets).apply(init_weights)
    # the order in memory that convolutions like best on a CPU
    return nets.to(device, memory_format=torch.channels_last)


# %% [markdown]
# Probe them. Which one has more weights, the artist or the critic?

# %% tags=["nbval-check-output"]
probe = new_pair()
x = probe["generator"].unflatten(
    probe["generator"].project(torch.randn(2, latent_dim, device=device))
)
print("start", tuple(x.shape[1:]))
for block in probe["generator"].blocks:
    x = block(x)
    print(f"{type(block).__name__:10}", tuple(x.shape[1:]))
print("logits", tuple(probe["discriminator"](x).shape))
for name, net in probe.items():
    print(f"{name}: {sum(p.numel() for p in net.parameters()):,} weights")

# %% [markdown]
# ## Loss
# ### The game
# $D$ wants to tell real from generated; $G$ wants $D$ to fail (Goodfellow et
# al. 2014, eq. 1):
#
# $$\min_G \max_D \; V = E_{x}\left[\log D(x)\right] +
# E_{z}\left[\log\left(1 - D(G(z))\right)\right].$$
#
# Suppose that $G$ stands still. Where the data have density $p$ and the
# pictures of $G$ have density $q$, the best answer of $D$ is
# $D^* = p / (p + q)$ (exercise E03.3). Below, $q$ moves towards $p$. What is
# $D^*$ when they are equal?


# %%
def bell(x, mean, std=1.0):
    return (
        torch.exp(-(((x - mean) / std) ** 2) / 2) / std / (2 * torch.pi) ** 0.5
    )


def show_game(means=(3.0, 1.5, 0.0)):
    """Densities and the best D, for three places of the generator."""
    x = torch.linspace(-4, 7, 400)
    figure, axes = plt.subplots(
        1, 3, figsize=(8.6, 2.2), sharey=True, layout="constrained"
    )
    for axis, mean in zip(axes, means, strict=True):
        p, q = bell(x, 0.0), bell(x, mean)
        axis.fill_between(x, p, alpha=0.3, color=COLOURS[0], label="data p")
        axis.fill_between(x, q, alpha=0.3, color=COLOURS[1], label="fakes q")
        axis.plot(x, p / (p + q), "k", lw=1.4, label="best D")
        axis.set_title(f"q is {mean:g} away", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    show_figure(figure, alt="Two densities and the best discriminator")


# %% [markdown]
# Look at the black line, and at what is left of it on the right.

# %% tags=["nbval-ignore-output"]
show_game()

# %% [markdown]
# On the right $D$ says 1/2 everywhere: it cannot do better than guess. That is
# the only fixed point of the game. Note what it does *not* say: $D$ at 50 %
# does not mean that the pictures are good. A stupid $D$ says 50 %, too.
#
# ### Two losses for G
# From logits, with $\sigma(-a) = 1 - \sigma(a)$, everything is a
# $\mathrm{softplus}(a) = \log(1 + e^a)$, and nothing overflows:


# %%
def discriminator_loss(
    real: Tensor,
    fake: Tensor,
    kind: str = "non-saturating",
    real_label: float = 1.0,
) -> Tensor:
    if kind in ("saturating", "non-saturating"):
        cross_entropy = F.softplus(real) - real_label * real
        return cross_entropy.mean() + F.softplus(fake).mean()
    if kind == "least-squares":
        return (
            real - real_label
        ).square().mean() / 2 + fake.square().mean() / 2
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    raise ValueError(f"kind {kind!r}: choose from {', '.join(KINDS)}")


# %% [markdown]
# For the generator the paper gives two. The formula of the game says: make
# $\log(1 - D(G(z)))$ small (**saturating**). The text below it says: better
# make $\log D(G(z))$ large (**non-saturating**). Least squares and hinge are
# later proposals, kept here for exercise and for lesson 04.


# %%
def generator_loss(fake: Tensor, kind: str = "non-saturating") -> Tensor:
    if kind == "saturating":
        return F.logsigmoid(-fake).mean()
    if kind == "non-saturating":
        return F.softplus(-fake).mean()
    if kind == "least-squares":
        return (fake - 1).square().mean() / 2
    if kind == "hinge":
        return -fake.mean()
    raise ValueError(f"kind {kind!r}: choose from {', '.join(KINDS)}")


# %% [markdown]
# At the start of training $D$ has an easy life: $D(G(z))$ is near 0, far left
# in the plot. Which of the two lines tells $G$ what to do *there*? Guess, then
# look at the right panel: the size of the gradient that reaches $G$.

# %% tags=["nbval-ignore-output"]
a = torch.linspace(-8, 4, 200, requires_grad=True)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
for kind, style in {"saturating": "--", "non-saturating": "-"}.items():
    loss = torch.stack([generator_loss(logit[None], kind) for logit in a])
    (slope,) = torch.autograd.grad(loss.sum(), a)
    d_of_fake = a.sigmoid().detach()
    axes[0].plot(d_of_fake, loss.detach(), style, label=kind)
    axes[1].plot(d_of_fake, slope.abs(), style, label=kind)
for axis, name in zip(
    axes, ("loss of G", "size of the gradient"), strict=True
):
    axis.set(xlabel="D(G(z))", ylabel=name, xscale="log")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False, fontsize=8)
show_figure(figure, alt="Loss and gradient of G against D(G(z)), both losses")

# %% [markdown]
# The saturating loss is flat exactly where $G$ is bad. Both pull in the same
# direction, and at $D = 1/2$ with the same force. That was one number; now the
# whole network. We leave $G$ untrained, train $D$ alone, and watch the
# gradient that arrives at the weights of $G$.

# %%
nets = new_pair(width // 2)
g, d = nets["generator"], nets["discriminator"]
opt_d = torch.optim.Adam(d.parameters(), 2e-4, betas=(0.5, 0.999))
silence = {"saturating": [], "non-saturating": []}
d_says = []
feed = cycle(batches(images, batch_size=batch_size, device=device))
for step in range(30):
    fake = g(torch.randn(batch_size, latent_dim, device=device))
    if step % 3 == 0:
        d_says.append(d(fake).sigmoid().mean().item())
        for kind, sizes in silence.items():
            loss = generator_loss(d(fake), kind)
            slopes = torch.autograd.grad(
                loss, list(g.parameters()), retain_graph=True
            )
            sizes.append(
                torch.cat([s.flatten() for s in slopes]).norm().item()
            )
    loss = discriminator_loss(d(next(feed)), d(fake.detach()))
    opt_d.zero_grad()
    loss.backward()
    opt_d.step()

# %% [markdown]
# From right to left in this picture $D$ gets better.

# %% tags=["nbval-ignore-output"]
show_curves(
    {kind: (d_says, sizes) for kind, sizes in silence.items()},
    xlabel="D(G(z)), mean over a batch",
    ylabel="gradient norm at G's weights",
    logx=True,
    logy=True,
    marker="o",
    alt="Gradient at the generator as the discriminator gets better",
)

# %% [markdown]
# A discriminator that learns fast silences the saturating loss within a few
# steps. It is the *generator* that saturates, and when it is *bad*; you will
# read the opposite.

# %% tags=["nbval-check-output"]
half = torch.zeros(1, requires_grad=True)
slopes = [
    torch.autograd.grad(generator_loss(half, kind), half)[0].item()
    for kind in silence
]
lost = {kind: sizes[-1] / sizes[0] for kind, sizes in silence.items()}
print_facts(
    {
        "at D = 1/2 both gradients are equal": slopes[0] == slopes[1] == -0.5,
        "D got better: D(G(z)) fell below 1/10": d_says[-1] < 0.1,
        "then the non-saturating gradient is over 5 times the other": 5
        * silence["saturating"][-1]
        < silence["non-saturating"][-1],
    }
)

# %% [markdown]
# ## Training
# One step of $D$, then one of $G$, on the same fakes. Two lines matter.
# `fake.detach()`: the step of $D$ must not move $G$. And in $G$'s step the
# weights of $D$ are frozen: $D$ hands the gradient on, and needs none itself.
# `r1` and `augment` do nothing for now.


# %%
def update_discriminator(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None = None,
    *,
    kind: str = "non-saturating",
    real_label: float = 1.0,
    r1: float = 0.0,
    augment: Augment = nn.Identity(),  # noqa: B008 - it has no state
) -> Tensor:
    fake = fake.detach()  # D's step must not move the generator
    real_logits = discriminator(augment(real), labels)
    fake_logits = discriminator(augment(fake), labels)
    loss = discriminator_loss(real_logits, fake_logits, kind, real_label)
    total = loss
    if r1:
        few = None if labels is None else labels[:8]
        total = loss + r1 / 2 * r1_penalty(discriminator, real[:8], few)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return loss.detach()


# %% [markdown]
# The generator's step:


# %%
def update_generator(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    fake: Tensor,
    labels: Tensor | None = None,
    *,
    kind: str = "non-saturating",
    augment: Augment = nn.Identity(),  # noqa: B008
) -> Tensor:
    discriminator.requires_grad_(False)  # D hands a gradient on, needs none
    loss = generator_loss(discriminator(augment(fake), labels), kind)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    discriminator.requires_grad_(True)
    return loss.detach()


# %% [markdown]
# A step of training is the two, one after the other: the `train_step(batch)`
# that `fit` of lesson 01 calls. `make_train_step` of the library is this very
# closure, for any pair of networks.


# %%
def two_steps(nets, opt_g, opt_d, batch, *, r1=0.0):
    """What make_train_step(...)(batch) does, for images without labels."""
    z = torch.randn(len(batch), latent_dim, device=batch.device)
    fake = nets["generator"](z)
    d = nets["discriminator"]
    loss_d = update_discriminator(d, opt_d, batch, fake, r1=r1)
    loss_g = update_generator(d, opt_g, fake)
    return {"loss_d": loss_d, "loss_g": loss_g}


def adam(net, rate, betas=(0.5, 0.999)):
    return torch.optim.Adam(net.parameters(), rate, betas=betas, fused=True)


# %% [markdown]
# Is it the same? Two pairs from one seed, one step each.

# %% tags=["nbval-check-output"]
twins = []
for way in ("by hand", "library"):
    torch.manual_seed(seed)
    nets = new_pair(8)
    g, d = nets["generator"], nets["discriminator"]
    opt_g, opt_d = adam(g, 1e-3), adam(d, 1e-3)
    batch = images[:8].to(device)
    if way == "by hand":
        two_steps(nets, opt_g, opt_d, batch)
    else:
        make_train_step(g, d, opt_g, opt_d)(batch)
    twins.append([p.detach().clone() for p in nets.parameters()])
same = all(torch.equal(a, b) for a, b in zip(*twins, strict=True))
print("the library's train_step gives the same weights:", same)

# %% [markdown]
# ### Before we train: how will we score it?
# A loss cannot tell (you will see). We compare *distributions*: features of
# real and generated images from a small network that was trained on other
# images, a Gaussian fitted to each, and the Frechet distance between the two.
# The name of the number says which features it stands on. Lesson 06 takes it
# apart; for now: smaller is better, both sides have the same $N$, and it means
# something only beside its baselines.
#
# - **real**: one half of the real images against the other. Nobody gets below
#   it.
# - **PCA Gaussian**: 64 principal components, each drawn from a Gaussian. It
#   costs one second and no training.

# %%
extractor = course_extractor(dataset, image_size)
n_score = min(
    per_budget(budget, smoke=400, lab=1500, full=3000), len(images) // 2
)
order = torch.randperm(len(images), generator=rng)
real_a, real_b = images[order[:n_score]], images[order[n_score : 2 * n_score]]
features_a = extractor(real_a)
statistics_a = frechet_statistics(features_a)
z_score = torch.randn(n_score, latent_dim, generator=rng)


@torch.no_grad()
def draw(g, z=z_score, y=None):
    """Images of a generator, in eval mode, on the CPU."""
    g.eval()
    parts = []
    for i in range(0, len(z), 250):
        y_part = None if y is None else y[i : i + 250].to(device)
        parts.append(g(z[i : i + 250].to(device), y_part).float().cpu())
    return torch.cat(parts).contiguous()


def distance(x):
    """Frechet distance of images to the first real half."""
    return frechet_distance(statistics_a, extractor(x))


# %% [markdown]
# The baselines, before any training.

# %% tags=["nbval-ignore-output"]
pca = fit_pca(images, 64)
codes = pca.encode(images)
noise = torch.randn(n_score, 64, generator=rng)
by_pca = pca.decode(codes.mean(dim=0) + codes.std(dim=0) * noise)
probe_images = draw(probe["generator"])
baselines = {
    "real, other half": distance(real_b),
    "PCA-64 Gaussian": distance(by_pca),
    "untrained generator": distance(probe_images),
}
print(f"{extractor.frechet_name}, N = {n_score} on both sides")
for name, value in baselines.items():
    print(f"{name:20} {value:8.2f}")

# %% [markdown]
# ### The run
# Every network of this lesson trains with the same two functions. The first
# lets the learning rates fall in a straight line.


# %%
def falling(step, optimizers, steps, fall):
    """The same step; the learning rates fall to `fall` of their start."""
    start = [opt.param_groups[0]["lr"] for opt in optimizers]
    counter = count(1)

    def train_step(batch):
        share = max(fall, 1 - next(counter) / steps)
        for opt, rate in zip(optimizers, start, strict=True):
            opt.param_groups[0]["lr"] = rate * share
        return step(batch)

    return train_step


# %% [markdown]
# The second makes the optimisers and keeps a running mean of $G$'s weights
# (**EMA**), which is the generator that we want. It stops a few times on the
# way if somebody wants to `watch`.


# %%
def train(
    nets,
    feed,
    steps,
    rates=(1e-3, 1e-3),
    betas=(0.5, 0.999),
    fall=0.05,
    options=None,
    watch=None,
):
    """Train a pair; its mean generator. `options` are make_train_step's."""
    # On batches this small two threads wait for each other.
    torch.set_num_threads(threads if feed.batch_size >= batch_size else 1)
    g, d = nets["generator"], nets["discriminator"]
    opts = adam(g, rates[0], betas), adam(d, rates[1], betas)
    step = make_train_step(g, d, *opts, **(options or {}))
    step, ema = falling(step, opts, steps, fall), EMA(g)
    n = max(1, steps // stages) if watch else steps
    for _ in range(steps // n):
        history = fit(step, feed, n, ema=ema)
        if watch:
            watch(ema.module, d, history)
    return ema.module


# %% [markdown]
# What we note on the way: the losses, what $D$ says about images that it has
# not seen and how often it is right, how large the gradient at $G$ is, the
# distance, and how many real images have a generated one nearby (*coverage*,
# see *Break it*). The **scrubber** keeps eight images beside these numbers.

# %%
track, scrubber = [], Scrubber(f"DCGAN, {card.name}, {budget}, seed {seed}")


@torch.no_grad()
def ask_d(d, fake):
    """What D says of new real images and of fakes; how often it is right."""
    real, fake = d(held_out.to(device)), d(fake[:600].to(device))
    right = (real > 0).float().mean() + (fake < 0).float().mean()
    said = {"D_on_real": real.sigmoid().mean().item()}
    said["D_on_fake"] = fake.sigmoid().mean().item()
    return said, right.item() / 2


def watch(g, d, history):
    """Add a row to `track` and a frame to the scrubber."""
    fake = draw(g)
    features = extractor(fake)
    said, right = ask_d(d, fake)
    row = {"step": len(history.steps) * (len(track) + 1), "D is right": right}
    row["distance"] = frechet_distance(statistics_a, features)
    track.append(row)
    said |= {name: values.mean() for name, values in history.items()}
    said["gradient_at_G"] = gradient_norm(nets["generator"])
    said["coverage"] = density_coverage(features_a, features)[1]
    scrubber.record(row["step"], fake[:8], **said, distance=row["distance"])


# %% [markdown]
# The recipe is the paper's ($\beta_1 = 0.5$, batch norm in both) with three
# changes: narrow networks, a learning rate five times as large that falls, and
# the mean of $G$. *Break it* tries the last two alone. In the notebook the
# scrubber appears as the training starts; drag it whenever you like.

# %% tags=["nbval-ignore-output"]
scrubber.show_live()
nets = new_pair()
shipped = start_from_shipped(f"dcgan_{label}", nets, budget)
rate = 1e-5 if shipped else 1e-3
feed = batches(images, batch_size=batch_size, seed=seed, device=device)
keeper = train(nets, feed, steps, (rate, rate), options=calm, watch=watch)
if shipped:
    notice(
        "Budget smoke: the class score and every number of a short run, from "
        "'Break it' on, were measured when these weights were made, and are "
        "read from their manifest. The pictures of those runs are of networks "
        "that have hardly trained."
    )
print(f"{steps} steps on batches of {batch_size}")

# %% [markdown]
# The caption that every picture of this model will carry, and the run once
# more, to replay. Go back to the first frame. Which curve moves when the
# pictures get better?

# %% tags=["nbval-ignore-output"]
origin = "shipped weights" if shipped else "trained here"
made = f"{card.name}, {image_size} px, budget {budget}, seed {seed}, {origin}"
scrubber

# %% [markdown]
# Two losses that lean against each other. Do they tell you whether the
# pictures are good? Write your answer down.
#
# ## Look
# Images that nobody has ever taken, the first draws, none picked, and where
# they stand: real images, our generator, the PCA Gaussian, and the nearest
# real image to each of the generated ones, so that you can see whether it
# copied.

# %% tags=["nbval-ignore-output"]
samples = draw(keeper)
near = torch.cdist(samples[:3].flatten(1), images.flatten(1)).argmin(dim=1)
show_rows(
    {
        "real": real_b[:3],
        "DCGAN": samples[:3],
        "nearest real": images[near],
        "PCA Gaussian": by_pca[:3],
    },
    size=0.75,
    caption=made,
    alt="Rows of real, generated, nearest real and PCA-generated images",
)

# %% [markdown]
# Walk from one $z$ to another: from A to B by the line and by the arc, in your
# browser. If $G$ had learned eight pictures by heart, the walk would jump. The
# arc stays on the sphere on which Gaussian noise lives; the line cuts through
# the middle, where no draw ever was (lesson 02). What does $G$ draw there?
# (The map shows two of the directions of $z$; in a GAN none is special.)

# %% tags=["nbval-ignore-output"]
LatentExplorer(keeper, z_score[:200], prior=True)

# %% [markdown]
# ## Measure
# The picture first, the number second, the baselines third.

# %% tags=["nbval-ignore-output"]
mine = distance(samples)
scores = {"DCGAN": mine, **baselines}
_, near_real = density_coverage(features_a, extractor(samples))
show_table(
    ["", extractor.frechet_name],
    [(name, f"{value:.2f}") for name, value in scores.items()],
    note=f"N = {n_score} on both sides. The samples lie near {near_real:.0%} "
    f"of the real images (coverage). {made}.",
)

# %% [markdown]
# One run with one seed proves little, and a distance says more beside somebody
# else's. So a benchmark, whose result comes with the course, has three seeds
# of this recipe and of the one that tutorials have: the same paper's network
# at 32 px and width 64, rate $2 \cdot 10^{-4}$, $\beta_1 = 0.5$, no mean. Both
# get the same time on chest X-rays (PneumoniaMNIST).

# %% tags=["nbval-ignore-output"]
show_benchmark("dcgan")

# %% [markdown]
# The third row goes on from the paper. $D$ loses batch norm and momentum
# ($\beta_1 = 0$) and gets **R1** with $\gamma = 1$, a penalty on the slope of
# *one* image's logit, which batch norm would mix with its neighbours': with it
# $G$ settles where the other circles (*Break it*, on a ring). And $G$ gets a
# convolution more, which *adds* to its input what it finds (`with_residuals`).
# A step of this costs more, so there are fewer:

# %% tags=["nbval-ignore-output"]
recipes = ("tutorial recipe", "lesson 03", "lesson 03, R1 and residual")
away, taken, later = (
    [benchmark_value(entry, row, column) for row in recipes]
    for entry, column in (
        ("dcgan", "Frechet distance"),
        ("dcgan", "steps"),
        ("dcgan_240", "Frechet distance"),
    )
)
for i, name in ((1, "the paper's recipe"), (2, "R1 and residual")):
    print(
        f"{name:18} {away[0] / away[i]:.1f} times nearer than the tutorial, "
        f"{later[0] / later[i]:.1f} times after 240 s"
    )
print(f"with {1 - taken[2] / taken[1]:.0%} fewer steps in the same time")

# %% [markdown]
# A lead belongs to its time: with more of it the tutorial comes nearer, too,
# and the last row is a floor for all. Hold it also against the spread of the
# seeds. *Break it* has R1 in a *short* run: does it help there?
#
# Part of the lead over the tutorial is recipe, part is speed. This is how much
# faster a step is where *networks and algorithm are the same*, from memory
# layout, frozen weights and fakes that are used twice:

# %% tags=["nbval-ignore-output"]
show_benchmark("dcgan_step")
show_benchmark("dcgan_step_torchgan")

# %% [markdown]
# ### Loss and quality
# Now your answer from above. Left: how often $D$ is right about new images.
# Right: what we care about.

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.3), layout="constrained")
for axis, name in zip(axes, ("D is right", "distance"), strict=True):
    at = [row["step"] for row in track]
    axis.plot(at, [row[name] for row in track], "o-", color=COLOURS[0])
    axis.set(xlabel="training step", title=name)
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylim(0.4, 1)
show_figure(figure, alt="Accuracy of D, and distance, during training")
guess = min(track, key=lambda row: abs(row["D is right"] - 0.5))
print(f"D nearest to 50 %: step {guess['step']}", end=", ")
print(f"distance {guess['distance']:.2f}; at the end {mine:.2f}")

# %% [markdown]
# The losses say how the two networks stand *against each other*; both may be
# bad, and neither scale is fixed. A discriminator that is right half of the
# time is the fixed point of the game, and it is also what a discriminator does
# that has learned nothing:

# %% tags=["nbval-check-output"]
with torch.no_grad():
    _, at_start = ask_d(probe["discriminator"].eval(), probe_images)
print_facts(
    {
        "an untrained D is right about half of the time": 0.3 < at_start < 0.7,
        "its generator draws noise, 1.5 times as far as a PCA Gaussian": (
            baselines["untrained generator"]
            > 1.5 * baselines["PCA-64 Gaussian"]
        ),
        "DCGAN beats the PCA Gaussian": mine < baselines["PCA-64 Gaussian"],
    }
)

# %% [markdown]
# ### Ask for a class
# A conditional GAN gives both networks the label (Mirza and Osindero 2014):
# $G$ gets it one-hot beside $z$, and $D$ has one logit a class, so that a
# healthy head under the label "tumour" counts as fake. On the phantom we use
# FLAIR, where lesions shine.

# %% tags=["nbval-ignore-output"]
contrast = "FLAIR" if dataset == "phantom" else "T1"
x_class, y_class, class_card = load_images(
    dataset, "train", image_size, contrast=contrast, n=n_train
)
x_class, y_class = x_class[ours], y_class[ours]
x_test, y_test, _ = load_images(dataset, "test", image_size, contrast=contrast)
names = class_card.class_names
classes = len(names)
pair = new_pair(24, num_classes=classes)
shipped_pair = start_from_shipped(f"dcgan_classes_{label}", pair, budget)
feed = batches(
    x_class, y_class, batch_size=batch_size, seed=seed, device=device
)
asked = train(
    pair,
    feed,
    int(less * per_budget(budget, smoke=4, lab=800, full=8000)),
    (1e-5, 1e-5) if shipped_pair else (1e-3, 1e-3),
    options=calm,
)
print(f"{class_card.name}: {len(x_class):,} images of {classes} classes")

# %% [markdown]
# One row a class; each column is one $z$. What changes along a column, and
# what stays?

# %% tags=["nbval-ignore-output"]
rows = {}
for k, name in enumerate(names):
    y = torch.full((3,), k)
    rows[name] = draw(asked, z_score[:3], y)
show_rows(
    rows,
    size=0.75,
    caption=made.replace("T1", contrast),
    alt="Generated images, one row a class, one z a column",
)

# %% [markdown]
# Did we get what we asked for? The **class-accuracy score** (Ravuri and
# Vinyals 2019) asks it the useful way: train a classifier on *generated*
# images alone, and test it on *real* ones. Beside it the same classifier
# trained on real images, and guessing.


# %%
def classifier_score(x, y, steps):
    """Balanced accuracy, on real test images, of a classifier of x, y."""
    torch.manual_seed(seed)
    net = FeatureNet(classes, channels=channels, size=image_size).to(device)
    opt = torch.optim.Adam(net.parameters(), 3e-3)

    def train_step(batch):
        images, labels = batch
        loss = F.cross_entropy(net.logits(net.features(images)), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return {"loss": loss}

    net.train()
    fit(train_step, batches(x, y, batch_size=64, device=device), steps)
    return mean_recall(predict(net.eval(), x_test.to(device)).cpu(), y_test)


# %% [markdown]
# At budget `smoke` nothing trains for long enough to be scored. Then the
# lesson shows what was measured when the weights were made.


# %%
def measured_with(manifest, name, now):
    """The numbers of that name in a manifest, in the order of `now`."""
    known = manifest["metrics"][name]
    return {key: known[key] for key in now if key in known}


# %% [markdown]
# As many generated images as real ones, in the same proportion of classes.

# %% tags=["nbval-ignore-output"]
y_like = y_class[:4000]
z_like = torch.randn(len(y_like), latent_dim, generator=rng)
x_like = draw(asked, z_like, y_like)
class_steps = per_budget(budget, smoke=2, lab=200, full=1000)
class_score = {
    "trained on generated": classifier_score(x_like, y_like, class_steps),
    "trained on real": classifier_score(x_class[:4000], y_like, class_steps),
    "guessing": 1 / classes,
}
if shipped_pair:
    class_score = measured_with(shipped_pair, "class_score", class_score)
show_bars(
    class_score,
    ylabel="balanced accuracy\non real test images",
    alt="Accuracy of classifiers trained on generated and on real images",
)

# %% [markdown]
# The gap between the first two bars is what the generator has not learned
# about the classes. The score sees both faults at once: wrong class, and too
# little variety within one.

# %% [markdown]
# ## Break it
# ### One guideline at a time
# Everybody repeats the guidelines. Few have taken one away. `swap` replaces
# each layer of a kind; each bar below is the paper's recipe (batch norm in
# both, $\beta_1 = 0.5$, a constant rate) with *one* change, trained for the
# same few steps at half the width, on batches of 16.


# %%
def swap(net, old, make):
    """Replace every layer of class `old` by make(layer), in place."""
    for name, child in net.named_children():
        if isinstance(child, old):
            setattr(net, name, make(child))
        else:
            swap(child, old, make)


def pooled(conv):
    smooth = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    return nn.Sequential(smooth.apply(init_weights), nn.MaxPool2d(2))


def dense(linear):
    hidden = nn.Linear(latent_dim, 256), nn.ReLU()
    out = nn.Linear(256, linear.out_features)
    return nn.Sequential(*hidden, out).apply(init_weights)


def leaky_and_dropout(_):
    return nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout2d(0.25))


# %% [markdown]
# The changes: which network, which layer, and what comes instead.

# %%
G, D = "generator", "discriminator"
edits = {
    "no batch norm in G": (G, nn.BatchNorm2d, lambda _: nn.Identity()),
    "no batch norm in D": (D, nn.BatchNorm2d, lambda _: nn.Identity()),
    "max pooling in D": (D, nn.Conv2d, pooled),
    "dense layer in G": (G, nn.Linear, dense),
    "LeakyReLU in G": (G, nn.ReLU, lambda _: nn.LeakyReLU(0.2)),
    "ReLU in D": (D, nn.LeakyReLU, lambda _: nn.ReLU()),
    "dropout in D": (D, nn.LeakyReLU, leaky_and_dropout),
}

# %% [markdown]
# The short run that all of them share.


# %%
def short_run(
    edit=None,
    seed=seed,
    data=images,
    norm="batch",
    rates=(1e-3, 1e-3),
    betas=(0.5, 0.999),
    fall=1.0,
    options=None,
    steps=few_steps,
):
    """Train with one change; the mean generator, the raw one, and D."""
    torch.manual_seed(seed)
    nets = new_pair(width // 2, norm)
    if edit:
        which, old, make = edit
        swap(nets[which], old, make)
    nets.to(device, memory_format=torch.channels_last)
    feed = batches(data, batch_size=16, seed=seed, device=device)
    mean_g = train(nets, feed, steps, rates, betas, fall, options)
    return mean_g, nets[G], nets[D]


# %% [markdown]
# Before you run it: which of the seven hurts most, and which helps? The grey
# band spans three seeds of the recipe itself: so much is luck.

# %% tags=["nbval-ignore-output"]
base_mean, base_raw, _ = short_run()
seeds = [distance(draw(base_mean))]
seeds += [distance(draw(short_run(seed=seed + i)[0])) for i in (1, 2)]
guidelines = {"as in the paper": seeds[0]}
for name, edit in edits.items():
    guidelines[name] = distance(draw(short_run(edit)[0]))
if shipped:
    guidelines = measured_with(shipped, "guidelines", guidelines)
    seeds = shipped["metrics"]["seeds"]
print(f"three seeds of the recipe: {min(seeds):.1f} to {max(seeds):.1f}")

# %% [markdown]
# The chart, which comes twice.


# %%
def show_distances(values, title):
    """One bar a name; the band is the range of the seeds."""
    figure, axis = plt.subplots(figsize=(6.4, 0.28 * len(values) + 0.7))
    axis.axvspan(min(seeds), max(seeds), color="0.85")
    bars = axis.barh(list(values), list(values.values()), color=COLOURS[5])
    axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axis.invert_yaxis()
    scale = f"{extractor.frechet_name}, logarithmic"
    axis.set(xlabel=scale, title=title, xscale="log")
    axis.margins(x=0.12)
    axis.tick_params(which="both", bottom=False, labelbottom=False)
    axis.spines[["top", "right"]].set_visible(False)
    show_figure(figure, alt=f"{title}: distance for each change")


# %% [markdown]
# The answer.

# %% tags=["nbval-ignore-output"]
show_distances(guidelines, "One guideline at a time (smaller is better)")

# %% [markdown]
# Count as a finding only what lies outside the band, and even that with one
# seed in mind. A guideline is what worked for its authors, on their images,
# for their number of steps: a good start, and no law.
#
# ### Tricks, each for itself
# The same for what later papers added. The bars so far had the EMA of $G$, so
# the first one here leaves it out. Then the saturating loss; two learning
# rates ($D$ four times faster; Heusel et al. 2017); a rate that falls; no
# momentum; label smoothing (real is 0.9; Salimans et al. 2016); and $D$
# without batch norm, with and without R1 (Mescheder et al. 2018).

# %% tags=["nbval-ignore-output"]
tricks = {
    "as in the paper": seeds[0],
    "no EMA": base_raw,
    "saturating loss": {"options": {"kind": "saturating"}},
    "D 4 times faster": {"rates": (2.5e-4, 1e-3)},
    "rates fall to 5 %": {"fall": 0.05},
    "no momentum": {"betas": (0.0, 0.999)},
    "real label 0.9": {"options": {"real_label": 0.9}},
    "no batch norm in D": guidelines["no batch norm in D"],
    "the same with R1": {"norm": "none", "options": {"r1": 0.1}},
}
for name, how in tricks.items():
    if isinstance(how, dict):
        how = short_run(**how)[0]
    tricks[name] = how if isinstance(how, float) else distance(draw(how))
if shipped:
    tricks = measured_with(shipped, "tricks", tricks)
show_distances(tricks, "One trick at a time (smaller is better)")

# %% [markdown]
# Read this chart with the band in mind, and then once more: these are *short*
# runs on small batches. What helps here may do nothing in a long run, and a
# trick that does nothing here may pay there.
#
# ### Mode collapse, where you can see it
# Real images have no list of modes to tick off. A ring of eight Gaussians
# has. The same step, the same losses, two small dense networks; only the
# settings of the optimisers differ:
#
# 1. $\beta_1 = 0.9$, the default of Adam;
# 2. $D$ learns ten times more slowly than $G$;
# 3. $\beta_1 = 0.5$, as in the paper;
# 4. the third with R1.
#
# Which of the four will collapse? Say so, then run.

# %%
ring_steps = per_budget(budget, smoke=800, lab=1500, full=3000)


def ring_run(seed=seed, rates=(1e-3, 1e-3), betas=(0.5, 0.999), r1=0.0):
    """Train on the ring; 2,000 points, found modes, share on a mode."""
    torch.manual_seed(seed)
    points = torch.Generator().manual_seed(seed)
    g, d = PointNet(2, 2), PointNet(2, 1)
    opts = adam(g, rates[0], betas), adam(d, rates[1], betas)
    step = make_train_step(g, d, *opts, r1=r1)
    for _ in range(ring_steps):
        step(ring_of_gaussians(128, points))
    with torch.no_grad():
        fake = g(torch.randn(2000, 2))
    return fake, *ring_coverage(fake)


rings = {
    "Adam's default": ring_run(betas=(0.9, 0.999)),
    "slow D": ring_run(rates=(2e-3, 2e-4)),
    "as in the paper": ring_run(),
    "the same, R1": ring_run(r1=1.0),
}

# %% [markdown]
# Crosses are the eight modes. A mode counts as found if it holds a fifth of
# its fair share of the points.

# %% tags=["nbval-ignore-output"]
truth = ring_of_gaussians(400, rng)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
for axis, (name, (fake, found, share)) in zip(
    axes, rings.items(), strict=True
):
    axis.scatter(*truth.T, s=14, marker="+", color=COLOURS[6], lw=0.5)
    axis.scatter(*fake[:600].T, s=2, color=COLOURS[1], alpha=0.5)
    axis.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), xticks=[], yticks=[])
    axis.set_title(f"{name}\n{found} of 8, {share:.0%} on a mode", fontsize=9)
    axis.set_aspect("equal")
show_figure(figure, alt="Four GANs on a ring of eight Gaussians")

# %% [markdown]
# The game has a fixed point, and that is no promise to reach it. With momentum
# both players overshoot each other's last move and circle for ever; a slow
# $D$ is chased in one direction at a time. R1 flattens $D$ around the data, so
# that $G$ can settle there. One seed proves little; here are more of the last
# two:

# %% tags=["nbval-ignore-output"]
more = range(seed + 1, seed + per_budget(budget, smoke=1, lab=4, full=9))
for name, r1 in {"as in the paper": 0.0, "the same, R1": 1.0}.items():
    found = [rings[name][1]] + [ring_run(i, r1=r1)[1] for i in more]
    print(f"{name:16} modes found, by seed: {found}")

# %% [markdown]
# As statements that hold on every machine:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "with Adam's default, 2 modes or fewer": rings["Adam's default"][1]
        <= 2,
        "with a slow D, 2 modes or fewer": rings["slow D"][1] <= 2,
        "with R1, 3 modes or more": rings["the same, R1"][1] >= 3,
    }
)

# %% [markdown]
# ### The lab: turn the knobs yourself
# The same game, live, on a ring with somewhat wider modes. Each preset asks
# first what you expect; then press *Train*, and read what was measured. After
# that the knobs are yours. Three things to try: let $D$ learn alone, then $G$
# alone; take the preset *collapse* and turn up the R1 penalty while it runs;
# draw your own data, by mouse or with the arrow keys and the space bar.

# %% tags=["nbval-ignore-output"]
quick = ("D too strong",)  # what a picture shows that nobody can click
usual = ("collapse", "healthy")
twin = per_budget(budget, smoke=quick, lab=usual, full=usual)
GANLab(features_a, twin=twin)

# %% [markdown]
# Blue is what $D$ takes for real, and a line shows where it pushes a sample.
# Look at those lines where the samples lie: that is all that $G$ ever hears.
# Where $D$ is sure and the loss saturates they shrink to dots, and where all
# samples hear the same they move as one. The data *features of images* are the
# real images of this lesson, as their extractor sees them, in the plane of
# their first two principal components.
#
# ### The same on images
# Images have no modes to count, so we count real images instead: one is
# *covered* if a fake lies nearer to it than its fifth real neighbour does, in
# the features of the extractor (Naeem et al. 2020).
#
# The collapse that we show was not planned. The first version of this
# lesson's conditional generator had a label as *loud* as the whole of $z$: 64
# embedded numbers beside 64 random ones, where it now has a single 1. Here it
# is again, turned up: the weights of the label start 32 times as large. What
# will $G$ do with $z$?


# %%
def class_run(loud):
    """A short conditional run: images in the classes of the data, loss."""
    torch.manual_seed(seed)
    pair, seen = new_pair(width // 2, num_classes=classes), []
    with torch.no_grad():
        pair[G].project.weight[:, latent_dim:] *= 32 if loud else 1
    feed = batches(x_class, y_class, batch_size=16, seed=seed, device=device)

    def note(g, d, history):
        seen.append(history["loss_g"].mean().item())

    mean_g = train(pair, feed, few_steps, fall=1.0, watch=note)
    return draw(mean_g, z_score, y_class[order[:n_score]]), seen[-1]


# %% [markdown]
# How many real images are covered:

# %%
features_class = extractor(x_class[order[:n_score]])


def covered(x, real=features_a):
    """Share of the real images that have a fake nearby."""
    return density_coverage(real, extractor(x))[1]


(loud, loud_loss), (quiet, quiet_loss) = class_run(True), class_run(False)
coverage = {
    "DCGAN": covered(samples),
    "short run, label as it is": covered(quiet, features_class),
    "short run, loud label": covered(loud, features_class),
}
coverage |= shipped["metrics"]["coverage"] if shipped else {}
ends = {"loud": loud_loss, "as it is": quiet_loss}
ends |= shipped["metrics"]["ends"] if shipped else {}

# %% [markdown]
# Different $z$ in each column, and classes as they come:

# %% tags=["nbval-ignore-output"]
show_rows(
    {"loud label": loud[:4], "as it is": quiet[:4]},
    size=0.7,
    caption=made.replace("T1", contrast),
    alt="Samples of a collapsed and of a balanced conditional generator",
)
for name, value in coverage.items():
    print(f"{name:26} covers {value:.1%} of {n_score} real images")
print("loss of G at the end:", {k: round(v, 2) for k, v in ends.items()})

# %% [markdown]
# On the phantom: one picture a class. At the start the label is a certain
# signal and $z$ a noisy one, so $G$ learns to use the label first; a loud one
# drowns $z$, for long or for good. Would the losses have told you? No single
# image does.

# %% [markdown]
# ### Few images
# Hospitals have hundreds of images, not thousands. "Few data: train longer",
# people say. We train on 32 images, twice as long, with and without
# **DiffAugment** (Zhao et al. 2020): each image is shifted, brightened and
# partly covered before $D$ sees it, real *and* fake, in both steps. What will
# $D$ do with 32 images, and what will $G$ learn from it?


# %%
def memorised(d, seen):
    """How often D scores an image that it trained on above one it did not."""
    d.eval()
    with torch.no_grad():
        a, b = (d(x.to(device)).cpu() for x in (seen, held_out))
    return (a[:, None] > b[None, :]).double().mean().item()


few = images[:32]
few_runs, few_scores = {}, {}
for name, data, options in (
    ("32 images", few, {}),
    ("32, DiffAugment", few, {"augment": diff_augment}),
    ("all images", images, {}),
):
    mean_g, _, d_few = short_run(
        data=data, options=options, steps=2 * few_steps
    )
    few_runs[name] = draw(mean_g)
    told = memorised(d_few, data[:600])
    few_scores[name] = told, distance(few_runs[name])
few_scores |= shipped["metrics"]["few"] if shipped else {}

# %% [markdown]
# Pictures, then how often $D$ prefers an image that it has trained on to one
# that it has not (1/2: it cannot tell), and the distance.

# %% tags=["nbval-ignore-output"]
show_rows(
    {name: x[:2] for name, x in few_runs.items()},
    size=0.7,
    caption=made,
    alt="Samples after training on 32 images, without and with DiffAugment",
)
for name, (told, far) in few_scores.items():
    print(f"{name:16} prefers what it saw: {told:.2f}   distance {far:.1f}")

# %% [markdown]
# A $D$ that sees 32 images for long knows them by heart: it can tell most of
# them from a new patient. From then on those 32 are all that it teaches. With
# augmentation its preference comes down towards 1/2. Now compare the
# distances: does the larger gap have the larger one? It need not, because
# near-copies of real images have nearly real statistics. So watch the gap on
# held-out images; no loss shows it. It also says who was in the training set,
# which the privacy lesson comes back to.
#
# ### Checkerboards
# A transposed convolution with stride 2 lays its kernel on every second
# pixel. With kernel 4 each output pixel gets two of the taps in each
# direction. With kernel 3 or 5 neighbours get different numbers of them. Count
# before you look: in which pattern?

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.3), layout="constrained")
overlap = {}
for axis, k in zip(axes, (3, 4, 5), strict=True):
    ones = torch.ones(1, 1, 8, 8)
    taps = F.conv_transpose2d(ones, torch.ones(1, 1, k, k), stride=2)
    overlap[k] = taps[0, 0, k - 1 : 1 - k, k - 1 : 1 - k]
    axis.imshow(overlap[k], cmap="gray", vmin=0, vmax=9)
    low, high = overlap[k].aminmax()
    axis.set_title(f"kernel {k}: {low:.0f} to {high:.0f} taps", fontsize=9)
    axis.axis("off")
show_figure(figure, alt="How many kernel taps meet in each pixel")

# %% [markdown]
# That is arithmetic, not noise, and it repeats every second pixel: as power at
# the highest frequency that an image can hold. We look for it where it must
# be, in the map of how much each pixel varies from sample to sample, and train
# kernels 3, 4 and 5 and the other known cure, nearest-neighbour upsampling
# followed by an ordinary convolution (Odena et al. 2016).


# %%
def odd_kernel(k):
    def make(layer):
        c_in, c_out = layer.in_channels, layer.out_channels
        shape = {"stride": 2, "padding": (k - 1) // 2, "output_padding": 1}
        return nn.ConvTranspose2d(c_in, c_out, k, **shape).apply(init_weights)

    return (G, nn.ConvTranspose2d, make)


def resized(layer):
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), conv.apply(init_weights))


def variance_map(x):
    """How much each pixel varies over images. (N, C, S, S) -> (S, S)."""
    return x.var(dim=0).mean(dim=0)


def grid_power(variances):
    """Power of a variance map at every second pixel, over that at 0."""
    power = torch.fft.fft2(variances).abs()
    half = len(variances) // 2
    ends = power[0, half] + power[half, 0] + power[half, half]
    return (ends / power[0, 0]).item()


# %% [markdown]
# Untrained first, then after the short run. Random weights have a pattern of
# their own, each network another; what the mean map of eight networks keeps is
# the kernel's.

# %%
uppers = {
    "kernel 4": None,
    "kernel 3": odd_kernel(3),
    "kernel 5": odd_kernel(5),
    "resize, kernel 3": (G, nn.ConvTranspose2d, resized),
}
untrained = {}
real_grid = grid_power(variance_map(real_b))
trained = {"real": (real_grid, baselines["real, other half"])}
torch.manual_seed(seed)
for name, edit in uppers.items():
    maps = []
    for _ in range(8):
        g = new_pair(8)[G]
        if edit:
            swap(g, *edit[1:])
        maps.append(variance_map(draw(g.to(device), z_score[:250])))
    untrained[name] = grid_power(sum(maps))
    x = draw(short_run(edit)[0] if edit else base_mean)
    trained[name] = grid_power(variance_map(x)), distance(x)
trained |= shipped["metrics"]["trained"] if shipped else {}

# %% [markdown]
# The share of the pattern, before and after training:

# %% tags=["nbval-ignore-output"]
rows = []
for name, (after, far) in trained.items():
    before = f"{untrained[name]:.3f}" if name in untrained else ""
    rows.append((name, before, f"{after:.3f}", f"{far:.1f}"))
show_table(["", "untrained", "trained", "distance"], rows)

# %% [markdown]
# Odd kernels start with the pattern, and training has to work against it; see
# how far it got, and what it cost. A kernel that is a multiple of the stride
# starts with little of it, and so does resizing.

# %% tags=["nbval-check-output"]
for k, t in overlap.items():
    print(f"kernel {k}: from {t.min():.0f} to {t.max():.0f} taps a pixel")
even = untrained["kernel 4"]
print_facts(
    {
        "kernel 3: over twice the pattern": untrained["kernel 3"] > 2 * even,
        "kernel 5: over 1.3 times": untrained["kernel 5"] > 1.3 * even,
    }
)

# %% [markdown]
# ## Claim check
# Claims as they are often written, and what the papers say.
#
# 1. *GANs date from 2012.* They were published in 2014 (Goodfellow et al.,
#    arXiv 1406.2661).
# 2. *DCGAN has LeakyReLU instead of ReLU, and dropout.* LeakyReLU in $D$ only,
#    ReLU in $G$, batch norm in both, no dropout (1511.06434).
# 3. *There is one min/max formula, and $G$ maximises $\log D(G(z))$.* These
#    are two games: the minimax loss and the non-saturating one (1406.2661,
#    section 3).
# 4. *The gradient saturates for $D$ when $G$ is good.* It saturates for $G$,
#    when $D(G(z))$ is near 0 (1406.2661, 1701.04862).
# 5. *$D$ at 50 %, or a falling loss, means good images.* Neither does.
# 6. *Few data: train longer.* $D$ learns them by heart; augment what it sees
#    (2006.10738, 2006.06676).
# 7. *Checkerboards are noise.* They are arithmetic (Odena et al. 2016).
#
# The third and fourth you measured in *Loss*, the fifth in *Measure*, the last
# two in *Break it*. The second we read off our networks:

# %% tags=["nbval-check-output"]
kinds = {
    k: {type(m).__name__ for m in net.modules()} for k, net in probe.items()
}
print_facts(
    {
        "ReLU in G, no LeakyReLU": "ReLU" in kinds[G]
        and "LeakyReLU" not in kinds[G],
        "LeakyReLU in D, no ReLU": "LeakyReLU" in kinds[D]
        and "ReLU" not in kinds[D],
        "batch norm in both": "BatchNorm2d" in kinds[G] & kinds[D],
        "dropout in neither": "Dropout2d" not in kinds[G] | kinds[D],
    }
)

# %% [markdown]
# **`nn.BatchNorm2d(n, 0.8)`** stands in a much-copied GAN collection. Meant
# was a momentum of 0.8. What does it do?

# %% tags=["nbval-check-output"]
meant = nn.BatchNorm2d(8, momentum=0.2)  # torch counts the other way round
copied = nn.BatchNorm2d(8, 0.8)
x = 0.1 * torch.randn(64, 8, 8, 8, generator=rng)
print("copied: eps", copied.eps, "momentum", copied.momentum)
print(f"input std 0.1, meant: {meant(x).std():.1f} at the output")
print(f"input std 0.1, copied: {copied(x).std():.1f} at the output")

# %% [markdown]
# The second positional argument is `eps`, which is added to the variance: a
# weak signal is not normalised at all. Write `momentum=`.
#
# **"All weights from $N(0, 0.02^2)$"**, batch-norm scales included, is the
# other copy. Each such layer then multiplies its signal by about 0.02.

# %% tags=["nbval-check-output"]
torch.manual_seed(seed)
muted = new_pair(8)[G]
for layer in muted.modules():
    if isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
loud = new_pair(8)[G]
z = torch.randn(64, latent_dim, generator=rng).to(device)
with torch.no_grad():
    spread = {
        k: g(z).std(0).mean().item() for k, g in (("0", muted), ("1", loud))
    }
print(
    "scales near 0 mute the untrained generator more than tenfold:",
    10 * spread["0"] < spread["1"],
)

# %% [markdown]
# **"Images in $[0, 1]$ will do."** A tanh generator can draw them. But half
# of its range is then never real, and whoever forgets to map the result back
# compares, and shows, washed-out pictures. The same short run, on images in
# $[0, 1]$:

# %% tags=["nbval-ignore-output"]
from_zero = draw(short_run(data=(images + 1) / 2)[0])
mapped = (2 * from_zero - 1).clamp(-1, 1)
ranges = {
    "trained on [-1, 1]": seeds[0],
    "[0, 1], mapped back": distance(mapped),
    "[0, 1], as it is": distance(from_zero),
    "fake pixels below 0": (from_zero < 0).double().mean().item(),
}
ranges |= shipped["metrics"]["ranges"] if shipped else {}
for name, value in ranges.items():
    print(
        f"{name:20} {value:.0%}"
        if "pixels" in name
        else f"{name:20} distance {value:7.1f}"
    )

# %% [markdown]
# **"Samples with $D > 0.7$ are verified."** Would real patients pass? And are
# the samples that $D$ likes a fair draw? We compare the half that it likes
# best with the rest, and two random halves with each other.

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    d = nets[D].eval()
    passes = (d(held_out.to(device)).sigmoid() > 0.7).float().mean()
    liked = torch.cat([d(x.to(device)).cpu() for x in samples.split(250)])
features = extractor(samples)
by_taste = features[liked.argsort(descending=True)]
half = n_score // 2
print(f"real held-out images that pass D > 0.7: {passes:.0%}")
print("distance between two halves of the samples")
print(f"  random    {frechet_distance(features[:half], features[half:]):.2f}")
print(f"  D's taste {frechet_distance(by_taste[:half], by_taste[half:]):.2f}")

# %% [markdown]
# $D$ compares *this* generator with *these* images, at this moment. Its number
# is no probability that an image is valid: real images fail the test, and
# what passes is another distribution than what was drawn. Anyone who filters
# by $D$ must score the filtered set, and say that it was filtered.
#
# ## Exercises
# The checks say what is wrong, not only that it is. The lesson goes on with
# the library's versions.
#
# **E03.1** The loss of the generator that does not fall silent, from logits.


# %%
def non_saturating(fake_logits):
    """Mean of -log D(G(z)). (N,) logits -> (). No overflow at -1000."""
    # solution E03.1
    return F.softplus(-fake_logits).mean()


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_non_saturating(non_saturating)

# %% [markdown]
# **E03.2** One step of $D$ alone, with the logistic loss. The weights of $G$
# must get no gradient from it.


# %%
def learn_discriminator(generator, discriminator, optimizer, real, z):
    """One step of the optimizer, which holds D's weights; returns the loss."""
    # solution E03.2
    fake = generator(z).detach()
    loss = F.softplus(-discriminator(real)).mean()
    loss = loss + F.softplus(discriminator(fake)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_learn_discriminator(learn_discriminator)

# %% [markdown]
# **E03.3** The best discriminator. Set the derivative of
# $p \log D + q \log(1 - D)$ to zero, for each $x$ on its own.


# %%
def optimal_d(p, q):
    """Densities of data and fakes, (N,) > 0 each -> the best D(x), (N,)."""
    # solution E03.3
    return p / (p + q)


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_optimal_d(optimal_d)

# %% [markdown]
# **E03.4** One step of the running mean of weights.


# %%
def ema_step(mean_net, net, decay):
    """mean <- decay * mean + (1 - decay) * net, for each weight, in place."""
    # solution E03.4
    pairs = zip(mean_net.parameters(), net.parameters(), strict=True)
    with torch.no_grad():
        for mean, weight in pairs:
            mean.lerp_(weight, 1 - decay)


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_ema_step(ema_step)

# %% [markdown]
# **E03.5** The weights to start from, without the two copied errors.


# %%
def dcgan_init(layer):
    """For `net.apply`: convolutions N(0, 0.02), norm scales N(1, 0.02)."""
    # solution E03.5
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    if isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_dcgan_init(dcgan_init)

# %% [markdown]
# ## On a GPU
# The same code at 64 px and twice the width, on the phantom. The networks are
# so small that a GPU waits for Python: its kernels are over before the next
# one has been named. So one step is recorded as a **CUDA graph**
# (`capture_step`) and replayed; `autocast` computes in bfloat16. Device and
# type come from the data, so nothing else changes.


# %%
def train_large(g, d, data, steps, batch_size=128):
    """Train a larger pair by one recorded step; returns its mean generator."""
    nets = nn.ModuleList([g, d]).apply(init_weights)
    nets.to(device, memory_format=torch.channels_last)
    opts = [adam(net, 1e-3) for net in (g, d)]
    plain = make_train_step(g, d, *opts)

    def train_step(batch):
        with autocast(device):
            return plain(batch)

    feed = batches(data, batch_size=batch_size, seed=seed, device=device)
    rates, ema = [linear_decay(opt, steps) for opt in opts], EMA(g)
    step = capture_step(train_step, next(iter(feed)), opts)
    fit(with_schedules(step, rates), feed, steps, ema=ema)
    return ema.module


# %% [markdown]
# On a GPU this trains (not at `smoke`). Elsewhere you see what one made of the
# phantom: the course ships that generator.

# %% tags=["nbval-ignore-output"]
large = Generator(128, 64, 64).to(device)
gpu_steps = per_budget(budget, smoke=0, lab=5000, full=20_000)
if device.type == "cuda" and gpu_steps:
    many = load_images("phantom", "train", 64)[0]
    large = train_large(large, Discriminator(64, 64), many, gpu_steps)
    large_origin = "trained here"
else:
    large_origin = load_weights("dcgan_large_phantom_64", large)["budget"]
show_images(
    draw(large, torch.randn(3, 128)),
    columns=3,
    alt="Three images of 64 pixels by the large generator",
    caption=f"phantom, 64 px, {large_origin}",
)

# %% [markdown]
# What each measure gained (guess first: is it bfloat16?), and what the
# training came to:

# %% tags=["nbval-ignore-output"]
show_benchmark("gpu_dcgan_speed")
show_benchmark("gpu_dcgan_training")

# %% [markdown]
# bfloat16 alone is *slower* here: it halves the memory, and each cast is one
# more kernel to name. What the GPU lacked was work, and the graph gives it.

# %% [markdown]
# ## Summary
# The headline numbers, with their baselines.

# %% tags=["nbval-ignore-output"]
report(
    distance=mine,
    distance_real=baselines["real, other half"],
    distance_pca=baselines["PCA-64 Gaussian"],
    distance_n=n_score,
    extractor=extractor.name,
    coverage=coverage["DCGAN"],
    class_score=class_score["trained on generated"],
    class_score_real=class_score["trained on real"],
    d_memorises_32_images=few_scores["32 images"][0],
    d_memorises_with_diffaugment=few_scores["32, DiffAugment"][0],
    benchmark_times_nearer=away[0] / away[1],
    benchmark_times_nearer_with_r1=away[0] / away[2],
    from_manifest="class_score, coverage, d_memorises" if shipped else "none",
)


# %% [markdown]
# If weights are being made for shipping, they are written here, in half
# precision, with what was measured with them.


# %%
def ship(name, nets, seen, metrics):
    """Write weights as the shipped ones, if `build --weights` is running."""
    manifest = {
        "command": f"python -m course_lib run 03 --budget {budget}",
        "data": seen.name,
        "budget": budget,
        "seed": seed,
        "metrics": metrics,
    }
    ship_weights(name, copy.deepcopy(nets).half(), manifest=manifest)


nets[G].load_state_dict(keeper.state_dict())
pair[G].load_state_dict(asked.state_dict())
measured = {"distance": mine, "n": n_score, "extractor": extractor.name}
measured |= {"guidelines": guidelines, "tricks": tricks, "seeds": seeds}
measured |= {"coverage": coverage, "few": few_scores, "trained": trained}
measured |= {"ends": ends, "ranges": ranges}
ship(f"dcgan_{label}", nets, card, measured)
ship(f"dcgan_classes_{label}", pair, class_card, {"class_score": class_score})

# %% [markdown]
# What you have learned, computed:

# %% tags=["nbval-check-output"]
told = {name: told for name, (told, _) in few_scores.items()}
by_label = {name.split(", ")[-1]: share for name, share in coverage.items()}
known = {}
if by_label["label as it is"] > 0.01:  # else neither has learned enough
    known["a loud label costs coverage"] = (
        by_label["loud label"] < by_label["label as it is"]
    )
print_facts(
    {
        "a bad G hears the non-saturating loss, not the saturating one": 5
        * silence["saturating"][-1]
        < silence["non-saturating"][-1],
        "D prefers the 32 images that it trained on": told["32 images"] > 0.65,
        "with DiffAugment it prefers them less": told["32, DiffAugment"]
        < told["32 images"] - 0.1,
        "DCGAN is nearer to the real images than a PCA Gaussian": mine
        < baselines["PCA-64 Gaussian"],
        "real images are nearer still": baselines["real, other half"] < mine,
    }
    | known
)

# %% [markdown]
# A GAN is a game, and its losses are the score of the game, not of the
# pictures. What keeps it honest is outside: a distance with its baselines, a
# discriminator gap on held-out images, a coverage count. The next lesson
# changes the game so that the loss itself means something.
#
# ## References
# - Goodfellow et al. 2014, Generative adversarial nets. arXiv 1406.2661
# - Mirza and Osindero 2014, Conditional generative adversarial nets. 1411.1784
# - Radford, Metz and Chintala 2015, Unsupervised representation learning with
#   deep convolutional GANs. 1511.06434
# - Odena, Dumoulin and Olah 2016, Deconvolution and checkerboard artifacts.
#   Distill, doi 10.23915/distill.00003
# - Salimans et al. 2016, Improved techniques for training GANs. 1606.03498
# - Arjovsky and Bottou 2017, Towards principled methods for training GANs.
#   1701.04862
# - Heusel et al. 2017, GANs trained by a two time-scale update rule.
#   1706.08500
# - Mescheder, Geiger and Nowozin 2018, Which training methods for GANs do
#   actually converge? 1801.04406
# - Ravuri and Vinyals 2019, Classification accuracy score. 1905.10887
# - Naeem et al. 2020, Reliable fidelity and diversity metrics. 2002.09797
# - Zhao et al. 2020, Differentiable augmentation. 2006.10738
# - Karras et al. 2020, Training GANs with limited data. 2006.06676
