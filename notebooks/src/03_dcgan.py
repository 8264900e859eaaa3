# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.33, lab: 4, full: 12}
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
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from course_lib.autoencoders import fit_pca
from course_lib.checks import (
    check_dcgan_init,
    check_ema_step,
    check_learn_discriminator,
    check_non_saturating,
    check_optimal_d,
)
from course_lib.datasets import batches, load_images
from course_lib.feature_net import FeatureNet
from course_lib.features import course_extractor, for_models
from course_lib.gans import (
    PointNet,
    diff_augment,
    discriminator_loss,
    generator_loss,
    init_weights,
    make_train_step,
    r1_penalty,
    ring_coverage,
    ring_of_gaussians,
    stage_widths,
)
from course_lib.metrics import density_coverage, frechet_distance
from course_lib.metrics import frechet_statistics
from course_lib.plotting import COLOURS, show_bars, show_curves, show_figure
from course_lib.plotting import show_history, show_images, show_rows
from course_lib.runtime import per_budget, pick_device, report
from course_lib.runtime import seed_everything
from course_lib.training import EMA, autocast, fit
from course_lib.training import ship_weights, start_from_shipped

# %% [markdown]
# The parameters of the lesson. `dataset` is the built-in `phantom`, a MedMNIST
# name such as `pneumoniamnist`, or a file.

# %% tags=["parameters"]
budget = os.environ.get("COURSE_BUDGET", "lab")
dataset = "phantom"
image_size = 32
seed = 0

# %% [markdown]
# What follows from them.

# %%
rng = seed_everything(seed)
device = pick_device()
latent_dim, width, batch_size = 64, 32, 64
steps = per_budget(budget, smoke=8, lab=2400, full=20_000)
few_steps = per_budget(budget, smoke=2, lab=240, full=1500)
stages = per_budget(budget, smoke=2, lab=8, full=16)
n_train = per_budget(budget, smoke=2000, lab=None, full=None)
label = f"{Path(dataset).stem}_{image_size}"  # in the names of weights


def print_facts(facts):
    """Print statements, and whether they hold."""
    for statement, holds in facts.items():
        print(f"{statement}: {bool(holds)}")


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
    images[:16],
    caption=f"{card.name}: 16 of {len(images):,} training images",
    alt=f"Sixteen training images of {card.name}",
)
print(f"{card.licence}. {card.note}")

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
        nn.ReLU(),
        # kernel 4, stride 2: every pixel is covered equally
        nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1),
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
        self.latent_dim = latent_dim
        widths, side = stage_widths(image_size, width)
        self.embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        inputs = 2 * latent_dim if num_classes else latent_dim
        self.project = nn.Linear(inputs, widths[-1] * side**2, bias=False)
        self.unflatten = nn.Unflatten(1, (widths[-1], side, side))
        blocks = [up_block(*c) for c in pairwise([*widths[::-1], channels])]
        self.blocks = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return self.blocks(self.unflatten(self.project(z)))


# %% [markdown]
# The discriminator runs the other way, and ends in **one number**: the logit
# $a$ of "this is real", so that $D(x) = \sigma(a)$. The sigmoid itself belongs
# to the loss, where it can be computed without overflow.


# %%
def down_block(c_in: int, c_out: int, norm: str = "batch") -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)
    layers = {"batch": nn.BatchNorm2d(c_out), "none": nn.Identity()}
    layers["instance"] = nn.InstanceNorm2d(c_out, affine=True)
    layers["spectral"] = nn.Identity()
    if norm not in layers:
        raise ValueError(f"norm {norm!r}: choose from {', '.join(layers)}")
    conv = spectral_norm(conv) if norm == "spectral" else conv
    return nn.Sequential(conv, layers[norm], nn.LeakyReLU(0.2))


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
        widths, side = stage_widths(image_size, width)
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
    return torch.exp(-(((x - mean) / std) ** 2) / 2) / std / (2 * torch.pi) ** 0.5


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
        return (real - real_label).square().mean() / 2 + fake.square().mean() / 2
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
for axis, name in zip(axes, ("loss of G", "size of the gradient"), strict=True):
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
feed = iter(batches(images, batch_size=batch_size, seed=seed, device=device))
for step in range(30):
    fake = g(torch.randn(batch_size, latent_dim, device=device))
    if step % 3 == 0:
        d_says.append(d(fake).sigmoid().mean().item())
        for kind, sizes in silence.items():
            loss = generator_loss(d(fake), kind)
            slopes = torch.autograd.grad(
                loss, list(g.parameters()), retain_graph=True
            )
            sizes.append(torch.cat([s.flatten() for s in slopes]).norm().item())
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
# `r1` and `augment` are zero and nothing for now.


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


def adam(net, rate, betas=(0.0, 0.99)):
    return torch.optim.Adam(net.parameters(), rate, betas=betas)


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
