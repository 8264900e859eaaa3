# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.75, lab: 4, full: 20}
# ---

# %% [markdown]
# # 02 Variational autoencoders
#
# Give the codes of an autoencoder a shape that is known in advance, and it
# can draw new images, put a price on each number, and say how likely an image
# is.
#
# ## Goals
# You can
#
# - derive the ELBO from the likelihood, and say what its gap is;
# - write the loss with its units right, and say what happens if you do not;
# - explain why noise is drawn *before* the network touches it;
# - predict which dimensions of a code will collapse, and cure what should not;
# - say why the pictures are blurred, and why more training is no cure;
# - compare with the best linear model, whose likelihood is known exactly.
#
# You need lesson 01. Take 90 minutes. Nothing here is for clinical use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import copy
import math
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checks, plotting, variational
from course_lib.autoencoders import Decoder, Encoder, fit_pca
from course_lib.benchmarks import show_benchmark
from course_lib.datasets import batches, load_images
from course_lib.features import course_extractor, for_models
from course_lib.latent_explorer import LatentExplorer
from course_lib.metrics import frechet_distance, ssim
from course_lib.phantoms import TISSUES, make_phantom
from course_lib.runtime import (
    per_budget,
    pick_device,
    print_facts,
    report,
    seed_everything,
)
from course_lib.training import (
    EMA,
    autocast,
    capture_step,
    fit,
    load_weights,
    ship_weights,
    start_from_shipped,
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
# What follows from them. The big networks are few; the many small experiments
# get a network with one hidden layer and `few_steps`.

# %%
generator = seed_everything(seed)
device = pick_device()
latent_dim = 32
less = min(1.0, 32 / image_size)  # larger images: shorter experiments
steps = per_budget(budget, smoke=4, lab=1700, full=15_000)
side_steps = per_budget(budget, smoke=2, lab=700, full=6_000)
few_steps = int(less * per_budget(budget, smoke=90, lab=600, full=4_000))
few_steps = max(90, few_steps)
hidden = per_budget(budget, smoke=128, lab=256, full=512)
n_train = per_budget(budget, smoke=int(2000 * less), lab=None, full=None)
n_test = per_budget(budget, smoke=int(250 * less), lab=750, full=1_000)
gentle = 0.01 if budget == "smoke" else 1.0  # shipped weights: do not shake
label = f"{Path(dataset).stem}_{image_size}"  # in the names of weights

# %% [markdown]
# ## Data
# T1-weighted heads from the phantom, or the images that you asked for. A
# quarter of real training sets is left to the judge of our pictures (lesson
# 06), which must not have seen them.

# %% tags=["nbval-ignore-output"]
images, labels, card = load_images(dataset, "train", image_size, n=n_train)
allowed = for_models(dataset, images)
images, labels = images[allowed], labels[allowed]
test_images, test_labels, _ = load_images(dataset, "test", image_size)
order = torch.randperm(len(test_images), generator=generator)[:n_test]
test_images, test_labels = test_images[order], test_labels[order]
channels, pixels = images.shape[1], images[0].numel()
plotting.show_rows(
    {"test images": test_images[:3]},
    size=0.8,
    alt=f"Three test images of {card.name}",
    caption=f"{card.name}; {len(images):,} images to train with",
)
print(card.source, card.licence, card.note, sep="\n")

# %% [markdown]
# Lesson 01 ended badly: an autoencoder that draws good copies draws nonsense
# from a random code, since nobody told it where codes should lie. Before you
# go on, write down what you would add to its loss so that codes look like
# draws from $N(0, I)$.

# %% [markdown]
# ## Model
# A **story of how an image comes about**: draw a code $z \sim N(0, I)$, let
# the decoder turn it into an image $\hat x(z)$, add noise of standard
# deviation $\sigma$ to each pixel. So $p(x \mid z) = N(x;\, \hat x(z),
# \sigma^2 I)$. The encoder runs the story backwards. Many codes could have
# made $x$, so it answers with a distribution, $q(z \mid x) = N(z;\, \mu(x),
# \mathrm{diag}\, e^{\mathrm{logvar}(x)})$: two numbers for each dimension.
#
# To train, we draw $z$ from $q$. A draw has no derivative. The trick (Kingma
# and Welling 2014): draw $\varepsilon \sim N(0, I)$, which depends on nothing,
# and *compute* $z$ from it.
#
# **Exercise E02.1.** Write the trick. `logvar` is the log of the *variance*.


# %%
def reparameterise(mu: Tensor, logvar: Tensor) -> Tensor:
    """A draw from N(mu, exp(logvar)) that gradients pass. -> (N, L)."""
    # solution E02.1
    std = torch.exp(0.5 * logvar)
    return mu + std * torch.randn_like(std)


# %% [markdown]
# The check looks at what your function does, not at how it is written.

# %% tags=["nbval-check-output"]
checks.check_reparameterise(reparameterise)

# %% [markdown]
# The lesson goes on with the library's version, whatever you wrote.

# %%
reparameterise = variational.reparameterise

# %% [markdown]
# The model is *not* a new network. It is what we do with two networks, here
# the encoder (with twice as many outputs) and the decoder of lesson 01. One
# number is new: $\log \sigma$, which the model learns. `logvar` ends at 2: on
# the average a posterior is no wider than the prior (0), but an image unlike
# all others may be given millions.


# %%
class VAE(nn.Module):
    """A variational autoencoder of any two networks."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, latent_dim: int
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim = latent_dim
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, dim=1)  # (N, 2L) -> twice (N, L)
        return mu, logvar.clamp(max=2)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decode(reparameterise(mu, logvar)), mu, logvar

    def sample(self, n: int, generator: torch.Generator, *y: Tensor) -> Tensor:
        z = torch.randn(n, self.latent_dim, generator=generator)
        return self.decode(z.to(self.log_sigma), *y)


# %% [markdown]
# A probe: what goes in, what comes out.

# %% tags=["nbval-check-output"]
encoder = Encoder(2 * latent_dim, 24, image_size, channels)
decoder = Decoder(latent_dim, 24, image_size, channels)
model = VAE(encoder, decoder, latent_dim).to(device)
x_hat, mu, logvar = model(test_images[:2].to(device))
print("an image comes back in its shape:", x_hat.shape[1:] == images.shape[1:])
print("means and log variances:", tuple(mu.shape), tuple(logvar.shape))

# %% [markdown]
# ## Loss
# We want decoder weights under which the training images are likely. But
# $p(x) = \int p(x \mid z)\,p(z)\,dz$ runs over all codes, and nearly all of
# them explain nothing. So look only where the encoder says. For any $q$,
#
# $$\log p(x) = \underbrace{E_q[\log p(x \mid z)] - KL(q(z \mid x) \,\|\,
# p(z))}_{\mathrm{ELBO}} + KL(q(z \mid x) \,\|\, p(z \mid x)).$$
#
# (Write $\log p(x) = E_q[\log p(x \mid z)\,p(z) / p(z \mid x)]$, and multiply
# and divide by $q$.) The last term is never negative, so the ELBO is a *lower
# bound*, and its gap says how far $q$ is from the true posterior.
#
# You can see this where $\log p(x)$ is known: one code, one pixel, a decoder
# $\hat x = 2z$, noise 0.5, and $x = 1.5$. Where will the best mean of $q$ lie:
# at $x / 2 = 0.75$, or elsewhere?

# %%
gain, noise, x0 = 2.0, 0.5, 1.5
evidence = torch.distributions.Normal(0.0, math.hypot(gain, noise))
evidence = evidence.log_prob(torch.tensor(x0)).item()  # exact log p(x)
best_mean = gain * x0 / (gain**2 + noise**2)  # the true posterior
best_std = noise / math.hypot(gain, noise)


def toy_elbo(mean, std):
    """ELBO of the one-pixel model for q = N(mean, std^2), in closed form."""
    error = (x0 - gain * mean) ** 2 + (gain * std) ** 2
    log_p = -0.5 * (error / noise**2 + math.log(2 * math.pi * noise**2))
    return log_p - 0.5 * (mean**2 + std**2 - 1 - 2 * math.log(std))


means = torch.linspace(0.2, 1.2, 200)
bounds = {f"q with std {s:.2f}": toy_elbo(means, s) for s in (0.1, 0.5)}
bounds["q with the true std"] = toy_elbo(means, best_std)
bounds["log p(x), exact"] = torch.full_like(means, evidence)

# %% [markdown]
# Each curve is one width of $q$, moved from left to right.

# %% tags=["nbval-ignore-output"]
plotting.show_curves(
    {name: (means, bound) for name, bound in bounds.items()},
    xlabel="mean of q",
    ylabel="nats",
    height=2.4,
    alt="ELBO against the mean of q, all below the exact log p(x)",
)

# %% [markdown]
# Only the true posterior touches the line; it lies a little nearer to 0 than
# $x/2$, since the prior pulls. All else stays below.

# %% tags=["nbval-check-output"]
top = torch.stack([toy_elbo(means, s) for s in (0.05, 0.1, 0.3, 0.5)]).max()
print_facts(
    {
        "no q exceeds log p(x)": top <= evidence + 1e-5,
        "the true posterior leaves no gap": math.isclose(
            toy_elbo(best_mean, best_std), evidence, rel_tol=1e-5
        ),
        "its mean is not x / 2": abs(best_mean - x0 / gain) > 0.01,
    }
)

# %% [markdown]
# **Exercise E02.2.** For two Gaussians the KL has a closed form,
# $\frac12(\mu^2 + e^{\mathrm{logvar}} - 1 - \mathrm{logvar})$ for each
# dimension. Derive it, then write it. Keep the dimensions apart: we will look
# at each.


# %%
def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL to N(0, 1) of each dimension, in nats. (N, L), (N, L) -> (N, L)."""
    # solution E02.2
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


# %% [markdown]
# Does it agree with the definition?

# %% tags=["nbval-check-output"]
checks.check_kl_to_standard_normal(kl_to_standard_normal)

# %% [markdown]
# **Exercise E02.3.** The other term. $-\log N(x; \hat x, \sigma^2)$, *summed*
# over the pixels of an image: pixels are independent, so their log
# probabilities add up. Keep the terms with $\sigma$.


# %%
def gaussian_nll(x: Tensor, x_hat: Tensor, log_sigma: Tensor) -> Tensor:
    """-log N(x; x_hat, sigma^2) in nats, one number an image. -> (N,)."""
    # solution E02.3
    error = ((x - x_hat) / log_sigma.exp()) ** 2
    terms = 0.5 * error + log_sigma + 0.5 * math.log(2 * math.pi)
    return terms.flatten(1).sum(1)


# %% [markdown]
# Three slips are so common here that the check knows them by name.

# %% tags=["nbval-check-output"]
checks.check_gaussian_nll(gaussian_nll)

# %% [markdown]
# Both together are the loss. It has a unit, the nat, and so its parts may be
# added without a weight: no $\beta$ to tune.

# %%
kl_to_standard_normal = variational.kl_to_standard_normal
gaussian_nll = variational.gaussian_nll


def elbo_parts(
    x: Tensor, x_hat: Tensor, mu: Tensor, logvar: Tensor, log_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """The two parts of the negative ELBO: nll (N,) and KL (N, L)."""
    if x.shape != x_hat.shape:
        raise ValueError(
            f"x is {tuple(x.shape)} and x_hat {tuple(x_hat.shape)}; "
            "they must be equal"
        )
    kl = kl_to_standard_normal(mu, logvar)
    return gaussian_nll(x, x_hat, log_sigma), kl


def elbo_loss(x, x_hat, nll, kl):
    return (nll + kl.sum(dim=1)).mean()


# %% [markdown]
# Why bother with a closed form? $KL = E_q[\log q(z) - \log p(z)]$ could be
# averaged over draws. Guess: how many draws until that is right to 1 %?

# %% tags=["nbval-ignore-output"]
q_mu, q_logvar = torch.tensor([[1.0, -0.5]]), torch.tensor([[-2.0, 0.5]])
exact = kl_to_standard_normal(q_mu, q_logvar).sum().item()
counts, errors = [4**k for k in range(1, 7)], []
for count in counts:
    noise_in = torch.randn(200, count, 2, generator=generator)
    z = q_mu + (0.5 * q_logvar).exp() * noise_in  # 200 repetitions
    log_ratio = variational.log_normal(z, q_mu, q_logvar)
    log_ratio -= variational.log_normal(z, torch.zeros(2), torch.zeros(2))
    errors.append((log_ratio.mean(1) - exact).square().mean().sqrt().item())
slope = math.log(errors[-1] / errors[0]) / math.log(counts[-1] / counts[0])
print(f"closed form: {exact:.3f} nats")
for count, error in zip(counts, errors, strict=True):
    print(f"{count:5d} draws: wrong by {100 * error / exact:5.1f} %")

# %% [markdown]
# Thousands. The error falls as one over the root of the number of draws, and
# in each training step we can afford one. Where a term is known, use it.

# %% tags=["nbval-check-output"]
print("error falls as draws ** -0.5:", abs(slope + 0.5) < 0.1)
print(
    "4096 draws are within 5 % of the closed form:", errors[-1] < 0.05 * exact
)

# %% [markdown]
# ## Training
# One step, as in lesson 01. `objective` is the loss of this run, so that all
# experiments below share these lines. The noise level $\log\sigma$ gets ten
# times the learning rate: it has a long way to go, and it is one number.


# %%
def train(model, data, steps, objective=elbo_loss, rate=4e-3):
    weights = [p for n, p in model.named_parameters() if n != "log_sigma"]
    groups = [{"params": weights}, {"params": [model.log_sigma]}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [rate, 10 * rate], total_steps=steps + 1, pct_start=0.1
    )

    def train_step(batch):
        inputs = batch if isinstance(batch, (tuple, list)) else (batch,)
        with autocast(device):
            x_hat, mu, logvar = (part.float() for part in model(*inputs))
        nll, kl = elbo_parts(inputs[0], x_hat, mu, logvar, model.log_sigma)
        loss = objective(inputs[0], x_hat, nll, kl)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"-ELBO": (nll + kl.sum(1)).mean(), "KL": kl.sum(1).mean()}

    history = fit(train_step, data, steps)
    model.eval()
    return history


# %% [markdown]
# And its objective. A decoder that first learns to use every corner of the
# code never lets go of them again, and leaves holes between. So the KL starts
# dear and becomes cheap: its factor falls from 50 to 1, where the loss is the
# negative ELBO. (A simplification for now; *Break it* shows the usual warm-up
# in the other direction, and what the factor means.)


# %%
def annealed(steps, start=50.0, until=0.6):
    """The negative ELBO, its KL dearer in the beginning."""
    done = 0

    def objective(x, x_hat, nll, kl):
        nonlocal done
        left = max(0.0, 1 - done / (until * steps))
        done += 1
        return (nll + start**left * kl.sum(dim=1)).mean()

    return objective


def loader(*tensors, batch_size=32):
    return batches(*tensors, batch_size=batch_size, seed=seed, device=device)


# %% [markdown]
# Training, from nothing at budgets `lab` and `full`.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
model = VAE(encoder, decoder, latent_dim).to(device)
shipped = start_from_shipped(f"vae_{label}", model, budget)
start = 1.0 if shipped else 50.0
rate = 8e-3 * gentle if shipped else 8e-3
objective = annealed(steps, start)
history = train(model, loader(images), steps, objective, rate)
last = history.last()
made_with = f"{card.name}, budget {budget}, seed {seed}" + (
    ", shipped weights" if shipped else ""
)
if len(history.steps) > 50:
    plotting.show_curves(
        {k: (history.steps_of(k)[::20], history[k][::20]) for k in history},
        xlabel="training step",
        ylabel="nats an image",
        height=2.4,
        alt="Negative ELBO and KL in training",
    )
print(f"-ELBO {last['-ELBO']:.0f}, KL {last['KL']:.1f} nats an image")

# %% [markdown]
# A negative number of nats is no error: the likelihood of a *density* may
# exceed 1. Only differences between models of the same images mean something.

# %% [markdown]
# ## Look
# First a helper that every section below uses: all that a model says of images
# that it has not seen.


# %%
@torch.no_grad()
def held_out(model, x, *conditions):
    """What a model says of images that it has not seen."""
    model.eval()
    x, *conditions = (part.to(device) for part in (x, *conditions))
    x_hat, mu, logvar = model(x, *conditions)
    nll, kl = elbo_parts(x, x_hat, mu, logvar, model.log_sigma)
    return {
        "elbo": -(nll + kl.sum(1)).cpu(),
        "rate": kl.sum(1).mean().item(),
        "distortion": (x - x_hat).square().flatten(1).sum(1).mean().item(),
        "kl": kl.mean(0).sort(descending=True).values.cpu(),
        "x_hat": model.decode(mu, *conditions).cpu(),
        "mu": mu.cpu(),
        "logvar": logvar.cpu(),
    }


# %% [markdown]
# Held-out images, what their code brings back, and images that never were,
# $\hat x(z)$ of random $z$. The last row is what lesson 01 could not do.

# %% tags=["nbval-ignore-output"]
found = held_out(model, test_images)
with torch.no_grad():
    drawn = model.sample(1000, torch.Generator().manual_seed(seed)).cpu()
row = slice(0, 3)
rows = {"held out": test_images[row], "brought back": found["x_hat"][row]}
plotting.show_rows(
    rows | {"drawn": drawn[row]},
    size=0.8,
    alt="Held-out images, their reconstructions, and images from random codes",
    caption=made_with,
)

# %% [markdown]
# Where do the codes lie? With two dimensions we can see it, so we train a
# second, small VAE.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(seed)
flat = VAE(
    Encoder(4, 12, image_size, channels),
    Decoder(2, 12, image_size, channels),
    2,
).to(device)
flat_shipped = start_from_shipped(f"vae_map_{label}", flat, budget)
flat_rate = 4e-3 * gentle if flat_shipped else 4e-3
flat_objective = annealed(side_steps, 1.0 if flat_shipped else 20.0)
print(train(flat, loader(images), side_steps, flat_objective, flat_rate))
codes = held_out(flat, test_images)["mu"]

# %% [markdown]
# The map: where it puts held-out images, marked by class, over what it draws
# there; the rings hold half and 95 % of all draws of the prior. Click a mark,
# drag the ring, or use the arrow keys: your browser runs the decoder. Walk
# along $z_1$, then along $z_2$. What did each axis learn, with nobody naming
# it?

# %% tags=["nbval-ignore-output"]
LatentExplorer(
    flat.decoder,
    codes,
    images=test_images,
    labels=test_labels,
    class_names=card.class_names,
    prior=True,
)

# %% [markdown]
# Neighbours on the map look alike, so it can be walked. Where the codes of
# real images do not reach, the decoder has learned nothing, and it shows: two
# dimensions are too few to fill the prior evenly.
#
# Now from one image to another. A straight line between two codes, or an arc?
#
# In many dimensions a normal draw has almost always the same norm, near
# $\sqrt d$: 5.7 for our 32 dimensions, 11.3 for 128. Prior draws live on a
# shell. A slider that starts at $z = 0$ starts where no draw ever lies.
#
# **Exercise E02.4.** Write `slerp`: from $a$ to $b$ along an arc with the
# angle $\omega$ between them, $\frac{\sin((1-t)\omega)}{\sin \omega} a +
# \frac{\sin(t\omega)}{\sin\omega} b$. Where both point the same way, 0 / 0
# waits for you.


# %%
def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a (t = 0) to b (t = 1) along an arc. (N, L) twice -> (N, L)."""
    # solution E02.4
    cosine = F.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    sine = torch.sin(angle)
    arc = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    return torch.where(sine > 1e-4, arc / sine, (1 - t) * a + t * b)


# %% [markdown]
# Its check.

# %% tags=["nbval-check-output"]
checks.check_slerp(slerp)

# %% [markdown]
# Three ways from one draw to another: the line, the arc, and a fade of the
# pixels, which needs no model at all.

# %% tags=["nbval-ignore-output"]
slerp = variational.slerp
a, b = torch.randn(2, 500, latent_dim, generator=generator)
times = torch.linspace(0, 1, 5).tolist()
lines = [(1 - t) * a + t * b for t in times]
arcs = [slerp(a, b, t) for t in times]


@torch.no_grad()
def decoded(z):
    return model.decode(z.to(device)).cpu()


ends = decoded(a), decoded(b)
far = (ends[0] - ends[1]).square().flatten(1).sum(1).argmax()  # unlike pair
fade = [(1 - t) * ends[0][far] + t * ends[1][far] for t in times]
by_line = decoded(torch.stack([z[far] for z in lines]))
by_arc = decoded(torch.stack([z[far] for z in arcs]))
plotting.show_rows(
    {"line": by_line, "arc": by_arc, "fade of pixels": torch.stack(fade)},
    size=0.8,
    alt="From one drawn image to another by a line, an arc and a pixel fade",
    caption=made_with,
)

# %% [markdown]
# The fade shows two heads at once. The model's ways show one head that
# changes. And the norm tells line and arc apart: in the middle of the line it
# is too small by $\sqrt 2$, and what is drawn there is more ordinary than any
# draw.

# %% tags=["nbval-check-output"]
shell = math.sqrt(latent_dim)
line_norm = lines[2].norm(dim=1).mean() / shell
arc_norm = arcs[2].norm(dim=1).mean() / shell
average = images.mean(0)
ordinary = [
    (decoded(z) - average).square().mean().item() for z in (lines[2], a)
]
norm_128 = torch.randn(2000, 128, generator=generator).norm(dim=1)
print_facts(
    {
        "a 128-d normal draw has norm 11.3, within 0.1": abs(
            norm_128.mean() - 11.3
        )
        < 0.1,
        "none of 2000 draws has half that norm": norm_128.min() > 5.65,
        "the middle of the line has 0.7 of the norm": abs(line_norm - 0.7)
        < 0.05,
        "the middle of the arc has all of it": abs(arc_norm - 1) < 0.05,
        "half-way on the line is nearer to the average image": ordinary[0]
        < ordinary[1],
    }
)

# %% [markdown]
# Sliders, then: start at a draw, not at 0. A slider is honest if it moves one
# thing, and the things are uncorrelated over images. The entries $z_k$ nearly
# are: for the two with the highest KL,

# %% tags=["nbval-ignore-output"]
aggregate = held_out(model, images[:1000])
per_dim = kl_to_standard_normal(aggregate["mu"], aggregate["logvar"]).mean(0)
strongest = per_dim.argsort(descending=True)[:2].tolist()
correlation = torch.corrcoef(aggregate["mu"].T[strongest]).triu(1).abs().max()
for k in strongest:
    print(f"z[{k}]: {per_dim[k]:.1f} nats")
print(f"correlation of the two over images: {correlation:.2f}")

# %% [markdown]
# The sliders below are the principal directions of the codes, uncorrelated by
# construction. The orange band under the picture is the shell where draws of
# the prior live. Three things to do:
#
# 1. draw from $N(0, I)$ a few times, then go to the middle: is that picture
#    like the draws, or like an average?
# 2. walk from A to B by the line and by the arc, and watch the norm;
# 3. go to an image and move one slider alone.

# %% tags=["nbval-ignore-output"]
LatentExplorer(
    model.decoder,
    found["mu"],
    images=test_images,
    labels=test_labels,
    class_names=card.class_names,
    prior=True,
)

# %% [markdown]
# ## Measure
# The best *linear* model of this kind is probabilistic PCA (Tipping and Bishop
# 1999): the same story with a linear decoder. Its $\log p(x)$ is known
# exactly, with no gap. So we set our *lower bound* against its *exact* value,
# with as many dimensions and one $\sigma$ each. If the bound is higher, the
# network has won fairly.

# %%
pca = fit_pca(images, latent_dim)
rows_train = images.flatten(1) - pca.mean
total = rows_train.square().sum(1).mean().item()
variances = pca.encode(images).var(0, correction=0)
left_over = (total - variances.sum().item()) / (pixels - latent_dim)
linear = variational.ppca_log_evidence(
    test_images, pca.mean, pca.components, variances, left_over
)
by_pca = pca(test_images)


def bits_per_pixel(log_p):
    """Bits to store a pixel of 256 grey levels with this model."""
    return (math.log(127.5) - log_p.mean().item() / pixels) / math.log(2)


# %% [markdown]
# The picture first: the same images through both, 32 numbers each.

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {
        "held out": test_images[8:10],
        f"PCA, {latent_dim}": by_pca[8:10],
        f"VAE, {latent_dim}": found["x_hat"][8:10],
    },
    size=0.8,
    alt="Held-out images, brought back by PCA and by the VAE",
    caption=made_with,
)

# %% [markdown]
# The numbers, on images that neither has seen.

# %% tags=["nbval-ignore-output"]
elbo, linear_evidence = found["elbo"].mean().item(), linear.mean().item()
ssim_vae = ssim(test_images, found["x_hat"]).mean().item()
ssim_pca = ssim(test_images, by_pca).mean().item()
print(f"VAE, ELBO:         {elbo:6.0f} nats, {ssim_vae:.3f} SSIM")
print(f"PCA, exact log p:  {linear_evidence:6.0f} nats, {ssim_pca:.3f} SSIM")
print(f"bits a pixel: {bits_per_pixel(found['elbo']):.2f} against", end=" ")
print(f"{bits_per_pixel(linear):.2f}, and 8 in the file")

# %% [markdown]
# How much does the ELBO hide? With $K$ codes an image, weighted by how well
# each explains it, the bound gets tighter (Burda et al. 2016). The average
# stands *inside* the logarithm; exercise E02.6 lets you write it.


# %%
@torch.no_grad()
def log_weights(model, x, k):
    """log p(x|z) + log p(z) - log q(z|x) of k draws each. -> (N, k)."""
    x = x.to(device)
    mu, logvar = model.encode(x)
    weights = []
    for _ in range(k):
        z = reparameterise(mu, logvar)
        log_p = -gaussian_nll(x, model.decode(z), model.log_sigma)
        log_p += variational.log_normal(z, torch.zeros_like(z), 0 * z)
        weights.append(log_p - variational.log_normal(z, mu, logvar))
    return torch.stack(weights, dim=1).cpu()


weights = log_weights(model, test_images[:50], 64)
tighter = {
    k: variational.importance_weighted_bound(weights[:, :k]).mean().item()
    for k in (1, 4, 16, 64)
}

# %% [markdown]
# The bound with more and more draws, and the exact value of PCA.

# %% tags=["nbval-ignore-output"]
for k, bound in tighter.items():
    print(f"VAE, {k:2d} draws: log p(x) is at least {bound:5.0f} nats")
print(f"PCA:           log p(x) is exactly  {linear[:50].mean():5.0f} nats")

# %% [markdown]
# The gain from one draw to 64 is part of the gap: the encoder's Gaussian is
# not the true posterior. The comparison is on the safe side: what we know of
# the VAE can only rise, and PCA's value is exact.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "held-out ELBO above the exact log p of PCA": elbo > linear_evidence,
        "held-out SSIM above PCA with as many numbers": ssim_vae > ssim_pca,
        "more draws tighten the bound": tighter[64] > tighter[1],
    }
)

# %% [markdown]
# And the images that it *draws*? The distance between two sets of images, on
# the features of a small network that neither side trained on (lesson 06 takes
# this number apart). Two baselines: one half of the real images against the
# other, and a Gaussian with 64 principal components, which needs no network.

# %%
extractor = course_extractor(dataset, image_size)
n = min(1000, len(images) // 2)
shuffled = images[torch.randperm(len(images), generator=generator)]
real_features = extractor(shuffled[:n])


def distance(fakes):
    """Frechet distance to real images, n on both sides."""
    features = extractor(fakes[:n].clamp(-1, 1))
    return float(frechet_distance(real_features, features))


# %% [markdown]
# Three sets against the same real images.

# %% tags=["nbval-ignore-output"]
pca64 = fit_pca(images, 64)
spread = pca64.encode(images).std(0)
gaussian = pca64.decode(torch.randn(n, 64, generator=generator) * spread)
distances = {
    "real, other half": distance(shuffled[n : 2 * n]),
    "VAE": distance(drawn),
    "VAE, with its noise": distance(
        drawn + model.log_sigma.exp().item() * torch.randn(drawn.shape)
    ),
    "Gaussian, PCA 64": distance(gaussian),
}
print(f"{extractor.frechet_name}, N = {n} a side; {made_with}")
for name, value in distances.items():
    print(f"{name:<20}{value:8.2f}")

# %% [markdown]
# One of these sets is real, one is the VAE's, one the Gaussian's. Which, and
# what gives it away?

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {
        "set 1": gaussian[:2],
        "set 2": shuffled[:2],
        "set 3": drawn[8:10],
    },
    size=0.8,
    alt="Real images, images of the VAE, and draws from a PCA Gaussian",
    caption=made_with,
)

# %% [markdown]
# Set 2 is real. Set 1 is the Gaussian's: it mixes images, and keeps the grain.
# Set 3 is the VAE's: one image each, and too smooth. A distance weighs the two
# faults in its own way: run this on chest X-rays (`pneumoniamnist`) too before
# you trust the order.

# %% [markdown]
# ## Two ways to a gradient
# Was the trick of *Model* needed? There is another way to move $\mu$, with no
# derivative of the decoder at all: $\nabla_\mu E_q[f(z)] = E_q[f(z)\,
# \nabla_\mu \log q(z)]$, the score-function estimator (REINFORCE). Try codes,
# and move towards those that did well. Both are right on average. Guess the
# ratio of their variances: 2, 20, or 2,000?


# %%
def two_gradients(model, x, n):
    """Gradients of E_q[log p(x|z)] for mu, one draw each. -> (n, L) twice."""
    mu, logvar = (part.detach() for part in model.encode(x.to(device)))
    noise_in = torch.randn(n, mu.shape[1], generator=generator).to(mu)
    z = (mu + (0.5 * logvar).exp() * noise_in).requires_grad_()
    many = x.to(device).expand(n, -1, -1, -1)
    f = -gaussian_nll(many, model.decode(z), model.log_sigma.detach())
    (pathwise,) = torch.autograd.grad(f.sum(), z)
    score = (z - mu).detach() / logvar.exp()  # gradient of log q for mu
    return pathwise, f.detach()[:, None] * score, f.detach(), score


pathwise, by_score, f, score = two_gradients(model, test_images[:1], 1000)
with_baseline = (f - f.mean())[:, None] * score  # the usual repair
spreads = {
    "reparameterised": pathwise.var(0).mean().item(),
    "score function": by_score.var(0).mean().item(),
    "score, with a baseline": with_baseline.var(0).mean().item(),
}

# %% [markdown]
# Their variances, for one image and 1,000 draws.

# %% tags=["nbval-ignore-output"]
for name, value in spreads.items():
    ratio = value / spreads["reparameterised"]
    print(f"{name:<24} variance {value:10.3g}   {ratio:10.1f} times")

# %% [markdown]
# That is the price of a gradient that treats the decoder as a black box: so
# many more draws for the same precision. A baseline helps, and does not close
# the gap. Both agree on the mean, as far as so noisy a thing can be known.

# %% tags=["nbval-check-output"]
ratio = spreads["score function"] / spreads["reparameterised"]
off = (by_score.mean(0) - pathwise.mean(0)).abs()
standard_error = (by_score.var(0) / len(by_score)).sqrt()
print_facts(
    {
        "the score function has over 100 times the variance": ratio > 100,
        "a baseline lowers it": spreads["score, with a baseline"]
        < spreads["score function"],
        "both have one mean, within 5 standard errors": (
            off < 5 * standard_error
        ).all(),
    }
)

# %% [markdown]
# ## Rate and distortion
# The two parts of the loss have names in information theory. The KL is the
# **rate**: nats that the code costs. The squared error is the **distortion**.
# A factor $\beta$ before the KL (Higgins et al. 2017) trades one for the
# other.
#
# With a Gaussian likelihood $\beta$ is nothing new. Divide
# $\|x-\hat x\|^2 / 2\sigma^2 + \beta\, KL$ by $\beta$: it is the plain loss at
# the noise $\sigma \sqrt\beta$. Whoever fixes $\sigma$ has chosen a $\beta$.
#
# For the linear model the whole curve is known. A principal direction is worth
# its rate only where its variance exceeds $\sigma^2$; it is dropped
# otherwise. So PCA's spectrum *predicts* how many dimensions survive.
#
# The learning rate of these networks depends on their size. Adam moves every
# weight by about that rate, so a step moves a layer's sums by the rate times
# all that its inputs vary by. With one rate for all sizes, images unlike the
# others get codes far out at 64 px.


# %%
few_rate = min(4e-3, 225 / (images.std(dim=0).sum().item() * hidden))


def small_vae(sigma=None):
    """A small VAE, with a fixed noise level if one is given."""
    torch.manual_seed(seed)
    net = variational.mlp_vae(latent_dim, hidden, image_size, channels)
    if sigma is not None:
        net.log_sigma.requires_grad_(False).fill_(math.log(sigma))
    return net.to(device)


def experiment(sigma, objective=elbo_loss):
    """Train a small VAE for a few steps; what it does to held-out images."""
    net = small_vae(sigma)
    data = loader(images, batch_size=64)
    history = train(net, data, few_steps, objective, few_rate)
    return held_out(net, test_images) | {"history": history, "net": net}


# %% [markdown]
# Four values of $\beta$, everything else equal. The noise is a share of what a
# pixel varies by, so that one $\beta$ means the same for every data set.

# %%
fixed_sigma, sweep = 0.37 * math.sqrt(total / pixels), {}
for beta in (0.3, 3.0, 30.0, 300.0):

    def weighted(x, x_hat, nll, kl, beta=beta):
        return (nll + beta * kl.sum(dim=1)).mean()

    sweep[beta] = experiment(fixed_sigma, weighted)

# %% [markdown]
# Distortion against rate: the linear model's curve, and one point for each
# $\beta$.

# %% tags=["nbval-ignore-output"]
rest = torch.tensor(
    [total - variances.sum().item()]
)  # of all other directions
spectrum = torch.cat([variances, rest])
sigmas = torch.logspace(-1.5, 1, 60).tolist()
best_linear = [
    variational.linear_rate_distortion(spectrum, s, latent_dim) for s in sigmas
]
figure, axis = plt.subplots(figsize=(6.2, 2.3), layout="constrained")
axis.plot(*zip(*[x[:2] for x in best_linear], strict=True), color="#777777")
axis.plot([], [], color="#777777", label="best linear VAE, closed form")
for k, (beta, result) in enumerate(sweep.items()):
    point = (result["rate"], result["distortion"])
    colour = plotting.COLOURS[k]
    axis.plot(*point, "o", color=colour, label=f"VAE, beta {beta:g}")
axis.set(
    xlabel="rate: KL (nats an image)", ylabel="distortion", xscale="symlog"
)
axis.legend(
    frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
)
plotting.show_figure(
    figure, alt="Rate-distortion points of the VAE on the linear curve"
)

# %% [markdown]
# Two images of *Look* again, at three $\beta$. Cheap codes bring back the
# average image, dear ones the person.

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {f"beta {b:g}": sweep[b]["x_hat"][:2] for b in (0.3, 30.0, 300.0)},
    size=0.8,
    alt="Held-out images brought back at three values of beta",
    caption=f"small VAE, {few_steps} steps; {card.name}, seed {seed}",
)

# %% [markdown]
# Predicted and measured number of living dimensions (those with more than 0.1
# nats). A network can fold several directions into one, so it may need fewer;
# where it had few steps, dimensions that must die may still linger.

# %% tags=["nbval-ignore-output"]
alive, predicted = {}, {}
for beta, result in sweep.items():
    sigma = fixed_sigma * math.sqrt(beta)
    alive[beta] = int((result["kl"] > 0.1).sum())
    *_, predicted[beta] = variational.linear_rate_distortion(
        spectrum, sigma, latent_dim
    )
    print(
        f"beta {beta:5g} (as if sigma were {sigma:4.2f}): "
        f"predicted {predicted[beta]:2d} of {latent_dim}, alive {alive[beta]}"
    )

# %% [markdown]
# Dimensions die in the order that the spectrum says: the loss asked for it.

# %% tags=["nbval-check-output"]
rates = [r["rate"] for r in sweep.values()]
distortions = [r["distortion"] for r in sweep.values()]
faded = sweep[300.0]["kl"] < 0.1 * sweep[0.3]["kl"]  # nats, sorted
print_facts(
    {
        "a larger beta buys a lower rate, each time": rates
        == sorted(rates, reverse=True),
        "and pays with distortion, each time": distortions
        == sorted(distortions),
        "the order of death is the predicted one": alive[0.3]
        >= alive[30.0]
        >= alive[300.0],
        "at the largest beta half of the code keeps under a tenth": (
            faded.sum() >= latent_dim // 2
        ),
    }
)

# %% [markdown]
# ## Break it
# Here is the loss as many tutorials write it:
# `F.mse_loss(x_hat, x) + kl.sum(1).mean()`. The first term is a *mean* over
# pixels, the second a *sum* over dimensions. Before you run it: which $\beta$
# has its author chosen without knowing? What will the reconstructions look
# like, and will the loss curve warn you?


# %%
def tutorial_loss(x, x_hat, nll, kl):
    return F.mse_loss(x_hat, x) + kl.sum(1).mean()


hidden_sigma = math.sqrt(pixels / 2)  # error / pixels = error / (2 sigma**2)
broken = experiment(hidden_sigma, tutorial_loss)

# %% [markdown]
# What comes back for four different heads.

# %% tags=["nbval-ignore-output"]
plotting.show_rows(
    {"brought back": broken["x_hat"][:4]},
    size=0.8,
    alt="Reconstructions of four images: one and the same image",
    caption=f"mean over pixels, {few_steps} steps; {card.name}, seed {seed}",
)
print(f"rate {broken['rate']:.4f} nats, as if sigma were {hidden_sigma:.1f}")

# %% [markdown]
# One image for everybody: **posterior collapse**. $q(z \mid x)$ is $N(0, 1)$
# whatever $x$ is, the decoder has learned to do without the code, and the loss
# went down nicely all the while. The images live in $[-1, 1]$, and we told the
# model that the noise is many times wider than that. No direction of the
# spectrum exceeds such a variance.
#
# Two cures are usual. Which will work?
#
# 1. **Warm-up** (Bowman et al. 2016): the KL counts nothing at first, and
#    fully in the second half.
# 2. **The right likelihood**: sum over pixels, and let $\sigma$ be learned.
#
# A third is for codes that are half dead, like the one at the largest $\beta$
# above. **Free bits** (Kingma et al. 2016): each dimension may use 0.5 nats
# without paying. Exercise E02.5 lets you write it.

# %%
counter = iter(range(few_steps))


def warm_up(x, x_hat, nll, kl):
    factor = min(1.0, next(counter) / (few_steps / 2))
    return F.mse_loss(x_hat, x) + factor * kl.sum(1).mean()


def with_free_bits(x, x_hat, nll, kl):
    return nll.mean() + 300 * variational.free_bits(kl, 0.5)


cures = {
    "mean over pixels": broken,
    "with warm-up": experiment(hidden_sigma, warm_up),
    "learned sigma": experiment(None),
    "beta 300": sweep[300.0],
    "beta 300, free bits": experiment(fixed_sigma, with_free_bits),
}

# %% [markdown]
# The KL of each dimension, sorted: which numbers carry anything?

# %% tags=["nbval-ignore-output"]
plotting.show_curves(
    {name: (range(latent_dim), r["kl"]) for name, r in cures.items()},
    xlabel="dimension, sorted",
    ylabel="KL (nats)",
    height=2.4,
    alt="KL of each latent dimension after each cure",
)

# %% [markdown]
# And what comes back of the same images.

# %% tags=["nbval-ignore-output"]
chosen = list(cures)[1:3] + list(cures)[4:]
plotting.show_rows(
    {name: cures[name]["x_hat"][:2] for name in chosen},
    size=0.8,
    alt="What each cure brings back of two held-out images",
    caption=f"small VAE, {few_steps} steps; {card.name}, seed {seed}",
)

# %% [markdown]
# Warm-up delays the collapse. It helps where an optimum with a living code
# exists and is missed; here the loss itself wants none. The right likelihood
# pays each dimension what it earns: some many nats, some few. Free bits keep
# every dimension at its floor, whether it earns that or not.

# %% tags=["nbval-check-output"]
warm = cures["with warm-up"]
lived = warm["history"]["KL"].max()
freed, right = cures["beta 300, free bits"], cures["learned sigma"]
spread_back = broken["x_hat"].std(0).mean() / test_images.std(0).mean()
print_facts(
    {
        "collapsed: less than 0.1 nats in all": broken["rate"] < 0.1,
        "all reconstructions are one image": spread_back < 0.1,
        "warm-up: the code lived, then died": warm["rate"] < 0.1 * lived,
        "learned sigma: over 20 nats": right["rate"] > 20,
        "free bits: no dimension below half its floor": (
            freed["kl"] > 0.25
        ).all(),
        "and less distortion than without": freed["distortion"]
        < sweep[300.0]["distortion"],
    }
)

# %% [markdown]
# ## Why it blurs
# Suppose a code does not say whether an edge lies one pixel to the left or to
# the right. Which single image has the smallest expected squared error?

# %% tags=["nbval-ignore-output"]
sharp = test_images[:1]
left_one, right_one = sharp.roll(-1, dims=3), sharp.roll(1, dims=3)
best_answer = (left_one + right_one) / 2  # the mean minimises squared error
plotting.show_rows(
    {"left, right, best": torch.cat([left_one, right_one, best_answer])},
    size=0.8,
    alt="An image moved left, moved right, and the average of both",
)

# %% [markdown]
# Their average: an image that never occurs. A Gaussian with one fixed variance
# for all pixels *is* the squared error, so its best decoder draws the mean of
# everything that the code leaves open. What it leaves open it calls noise, and
# noise it takes to be independent from pixel to pixel. Look at what is left
# over.


# %%
def edge_energy(x):
    """Mean squared difference of neighbouring pixels."""
    across, down = x.diff(dim=3), x.diff(dim=2)
    return (across.square().mean() + down.square().mean()).item()


residual = test_images - found["x_hat"]
sigma = model.log_sigma.exp().item()
speckle = sigma * torch.randn(drawn.shape, generator=generator)
pairs = torch.stack(
    [residual[..., 1:].flatten(), residual[..., :-1].flatten()]
)
neighbours = torch.corrcoef(pairs)[0, 1].item()
edges = {
    "real": edge_energy(test_images),
    "VAE, brought back": edge_energy(found["x_hat"]),
    "VAE, drawn": edge_energy(drawn),
    "drawn + noise": edge_energy((drawn + speckle).clamp(-1, 1)),
    "smallest beta": edge_energy(sweep[0.3]["x_hat"]),
    "largest beta": edge_energy(sweep[300.0]["x_hat"]),
}

# %% [markdown]
# The residual, beside the noise that the model believes in.

# %% tags=["nbval-ignore-output"]
believed = sigma * torch.randn(residual[:2].shape, generator=generator)
plotting.show_rows(
    {
        "residual x 2": 2 * residual[:2],
        "believed x 2": 2 * believed,
    },
    size=0.8,
    alt="Residuals have structure; the noise that the model assumes has none",
    caption=made_with,
)
for name, value in edges.items():
    print(f"edge energy, {name:<18}{value:.3f}")
print(f"correlation of neighbours in the residual: {neighbours:.2f}")

# %% [markdown]
# The residual has outlines in it: the model calls edges noise. Add the noise
# that it believes in, and the edge energy comes back as grain, not as edges.
# A larger $\sigma$ (or $\beta$) blurs more. More training narrows $\sigma$; as
# long as one Gaussian for independent pixels is the story, the mean is the
# answer. Lesson 03 trades this likelihood for a judge.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "reconstructions have less edge energy than real images": edges[
            "VAE, brought back"
        ]
        < 0.95 * edges["real"],
        "so has the average of two shifted images": edge_energy(best_answer)
        < 0.8 * edge_energy(sharp),
        "a larger beta blurs more": edges["largest beta"]
        < 0.9 * edges["smallest beta"],
        "neighbours in the residual are correlated": neighbours > 0.05,
    }
)

# %% [markdown]
# ## Draw a chosen class
# Tell both networks the class (Sohn et al. 2015): the encoder sees it as extra
# planes, the decoder as extra numbers. What the label says the code need not
# say, so at drawing time you choose it.


# %%
class ConditionalVAE(VAE):
    """A VAE that is told the class, on both sides."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        classes: int,
    ) -> None:
        super().__init__(encoder, decoder, latent_dim)
        self.classes = classes

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        planes = F.one_hot(y, self.classes).to(x)[:, :, None, None]
        planes = planes.expand(-1, -1, *x.shape[2:])  # (N, K) -> (N, K, H, W)
        return super().encode(torch.cat([x, planes], dim=1))

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        told = F.one_hot(y, self.classes).to(z)
        return super().decode(torch.cat([z, told], dim=1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x, y)
        return self.decode(reparameterise(mu, logvar), y), mu, logvar


# %% [markdown]
# On the phantom we take FLAIR, where lesions show.

# %% tags=["nbval-ignore-output"]
contrast = "FLAIR" if dataset == "phantom" else "T1"  # T1: not used elsewhere
class_images, class_labels, class_card = load_images(
    dataset, "train", image_size, contrast=contrast, n=n_train
)
class_images, class_labels = class_images[allowed], class_labels[allowed]
classes, told_dim = len(card.class_names), 16
torch.manual_seed(seed)
conditional = ConditionalVAE(
    Encoder(2 * told_dim, 16, image_size, channels + classes),
    Decoder(told_dim + classes, 16, image_size, channels),
    told_dim,
    classes,
).to(device)
told_shipped = start_from_shipped(f"cvae_{label}", conditional, budget)
told_history = train(
    conditional,
    loader(class_images, class_labels),
    side_steps,
    annealed(side_steps, 1.0 if told_shipped else 50.0),
    4e-3 * gentle if told_shipped else 4e-3,
)
print(told_history)

# %% [markdown]
# One code a column, one class a row. What changes down a column, and what
# stays?

# %% tags=["nbval-ignore-output"]
told_z = torch.randn(
    3, told_dim, generator=torch.Generator().manual_seed(seed)
)
told_rows = {}
for k, name in enumerate(card.class_names):
    wanted = torch.full((3,), k, device=device)
    with torch.no_grad():
        told_rows[str(name)] = conditional.decode(
            told_z.to(device), wanted
        ).cpu()
plotting.show_rows(
    told_rows,
    size=0.8,
    alt="The same codes drawn as each class",
    caption=f"{class_card.name}, budget {budget}, seed {seed}",
)

# %% [markdown]
# Was the class that we asked for drawn? We ask the same small network, which
# is a classifier too, and show how well it does on real images: no draw can be
# expected to do better. The mean image first, then with the noise that belongs
# to the model.


# %%
def class_accuracy(pictures, wanted):
    """Share of images of each class that the extractor takes for it."""
    guess = extractor.probabilities(pictures.clamp(-1, 1)).argmax(1)
    return {
        name: (guess[wanted == k] == k).float().mean().item()
        for k, name in enumerate(card.class_names)
    }


# %% [markdown]
# Real images, drawn ones, and drawn ones with their noise.

# %% tags=["nbval-ignore-output"]
wanted = torch.arange(classes).repeat_interleave(200)
with torch.no_grad():
    told = conditional.sample(len(wanted), generator, wanted.to(device)).cpu()
told_sigma = conditional.log_sigma.exp().item()
grainy = told + told_sigma * torch.randn(told.shape, generator=generator)
real_class = class_accuracy(
    *load_images(dataset, "test", image_size, contrast=contrast)[:2]
)
drawn_class = class_accuracy(told, wanted)
grainy_class = class_accuracy(grainy, wanted)
print(f"{'class':<24}{'real':>8}{'drawn':>8}{'+ noise':>9}   (chance", end=" ")
print(f"{1 / classes:.2f})")
for name in card.class_names:
    print(
        f"{name!s:<24.24}{real_class[name]:8.2f}{drawn_class[name]:8.2f}"
        f"{grainy_class[name]:9.2f}"
    )

# %% [markdown]
# Read the table with the section before in mind. A class that is a *shape*
# can be drawn. A class that is many small spots, each somewhere else, is
# averaged away: on FLAIR the multiple-sclerosis row is the blur, counted. On
# chest X-rays the classifier takes a smooth lung for a sick one. A conditional
# VAE is no source of rare small findings.

# %% [markdown]
# ## Find what is not normal
# Train on healthy heads alone, then ask of a new head how badly it fits. Two
# scores: the **residual** of each pixel, and the **ELBO** of the whole image.
# It needs masks: here is always the phantom, at 32 px.
# Before you look: on FLAIR, where lesions are bright, what is the simplest
# detector, and how well will it do?

# %%
truth = make_phantom("test", 32)
lesions = torch.from_numpy(truth.lesion_mask)
brain_names = ("csf", "grey matter", "white matter", "MS lesion")
brain_names += ("oedema", "tumour")
inside = torch.zeros_like(lesions)
for name in brain_names:
    inside |= torch.from_numpy(truth.tissue == TISSUES.index(name))
is_tumour = torch.from_numpy(truth.labels) == 2
healthy_test = torch.from_numpy(truth.labels) == 0


def auc(score, positive):
    """Chance that a positive scores higher than a negative. -> float."""
    rank = score.double().argsort().argsort().double() + 1
    n = int(positive.sum())
    wins = rank[positive].sum() - n * (n + 1) / 2
    return (wins / (n * (len(positive) - n))).item()


# %% [markdown]
# One small VAE a contrast, and PCA with as many dimensions on the same healthy
# heads.


# %%
def scores_of(contrast, net):
    """Test images, and what each detector makes of them: pixels and images."""
    source, classes_of, _ = load_images(
        "phantom", contrast=contrast, n=n_train
    )
    x, _, _ = load_images("phantom", "test", contrast=contrast)
    healthy = source[classes_of == 0]
    start = start_from_shipped(f"vae_healthy_{contrast}_32", net, budget)
    speed = 4e-3 * gentle if start else 4e-3
    print(contrast, train(net, loader(healthy), side_steps, rate=speed))
    result, by_pca16 = held_out(net, x), fit_pca(healthy, 16)(x)
    raw = (x if contrast == "FLAIR" else -x)[:, 0]
    extreme = raw.masked_fill(~inside, -1).flatten(1).topk(10).values
    pixel = {
        "VAE": (x - result["x_hat"]).abs()[:, 0],
        "PCA": (x - by_pca16).abs()[:, 0],
        "intensity": raw,
    }
    image = {"VAE": -result["elbo"], "intensity": extreme.mean(1)}
    image["PCA"] = pixel["PCA"].square().sum((1, 2))
    return x, pixel, image


# %% [markdown]
# Scores against the truth: healthy heads and heads with a tumour.

# %% tags=["nbval-ignore-output"]
some = healthy_test | is_tumour
where = inside & some[:, None, None]
healthy_nets, detection, seen_by = {}, {}, {}
for name in ("T1", "FLAIR"):
    torch.manual_seed(seed)
    net = VAE(Encoder(32, 16, 32), Decoder(16, 16, 32), 16).to(device)
    healthy_nets[name] = net
    x, pixel, image = seen_by[name] = scores_of(name, net)
    detection[name, "pixels"] = {
        k: auc(score[where], lesions[where]) for k, score in pixel.items()
    }
    detection[name, "images"] = {
        k: auc(score[some], is_tumour[some]) for k, score in image.items()
    }

# %% [markdown]
# Tumours on T1, and what the model could not explain.

# %% tags=["nbval-ignore-output"]
shown = is_tumour.nonzero()[:8:4, 0]
panels = {}
for name, (x, pixel, _) in seen_by.items():
    panels[name] = x[shown]
    if name == "T1":
        panels["T1, residual"] = 4 * pixel["VAE"][shown, None] - 1
plotting.show_rows(
    panels | {"true mask": 2.0 * lesions[shown, None] - 1},
    size=0.8,
    alt="Heads with tumours, residuals of a healthy VAE, and true masks",
    caption=f"phantom test heads, budget {budget}, seed {seed}",
)

# %% [markdown]
# The area under the ROC curve; 0.5 is guessing. "Intensity" is no model: dark
# pixels on T1, bright ones on FLAIR.

# %% tags=["nbval-ignore-output"]
print(f"{'':<16}{'VAE':>8}{'PCA':>8}{'intensity':>11}")
for (name, what), row_of in detection.items():
    values = f"{row_of['VAE']:8.3f}{row_of['PCA']:8.3f}"
    print(f"{name + ' ' + what:<16}{values}{row_of['intensity']:11.3f}")

# %% [markdown]
# Both lines matter. On T1, where a tumour is as grey as grey matter, knowing
# what is normal helps. On FLAIR a threshold is as good as anything; published
# detectors have lost to it (Meissen et al. 2021). Never report such a model
# without that baseline.

# %% tags=["nbval-check-output"]
t1_pixel, t1_image = detection["T1", "pixels"], detection["T1", "images"]
flair_pixel = detection["FLAIR", "pixels"]
print_facts(
    {
        "T1, pixels: the residual beats intensity": t1_pixel["VAE"]
        > t1_pixel["intensity"] + 0.02,
        "T1, images: the ELBO beats guessing by far": t1_image["VAE"] > 0.7,
        "FLAIR, pixels: a threshold is enough": flair_pixel["intensity"]
        > flair_pixel["VAE"] - 0.005,
    }
)

# %% [markdown]
# ## Claim check
# **"VAEs suffer from mode collapse."** That is a failure of GANs (lesson 03).
# The usual failures of a VAE are the two that you have seen: blur, and
# posterior collapse. The loss asks for the likelihood of *every* training
# point, so leaving a mode out is punished without limit; smearing between
# modes is punished little. Eight little Gaussians on a ring, the test on which
# GANs fail: how many will a VAE cover, and how much will it put in between?

# %%
angles = torch.arange(8) * math.pi / 4
centres = torch.stack([angles.cos(), angles.sin()], dim=1)
which = torch.randint(8, (4000,), generator=generator)
ring = centres[which] + 0.05 * torch.randn(4000, 2, generator=generator)


def layers(n_in, n_out):
    return nn.Sequential(
        nn.Linear(n_in, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(),
        nn.Linear(64, n_out),
    )  # fmt: skip


torch.manual_seed(seed)
ring_vae = VAE(layers(2, 4), layers(2, 2), 2).to(device)
ring_steps = max(600, 2 * few_steps)
train(ring_vae, loader(ring, batch_size=128), ring_steps, rate=2e-3)
with torch.no_grad():
    dots = ring_vae.sample(2000, generator)
    dots += ring_vae.log_sigma.exp() * torch.randn_like(dots)
away, nearest = torch.cdist(dots.cpu(), centres).min(1)
on_mode = away < 0.25
covered = torch.bincount(nearest[on_mode], minlength=8) > 20  # 1 % of 2000
between = 1 - on_mode.float().mean().item()

# %% [markdown]
# Left the data, right what the VAE draws.

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(
    1, 2, figsize=(4.4, 2.3), layout="constrained", sharex=True, sharey=True
)
for axis, points, title in zip(
    axes,
    (ring[:300], dots.cpu()[:300]),
    ("data", "drawn by a VAE"),
    strict=True,
):
    axis.plot(*points.T, ".", ms=2, color=plotting.COLOURS[0], alpha=0.5)
    axis.set(title=title, aspect="equal", xlim=(-1.6, 1.6))
plotting.show_figure(
    figure, alt="Eight Gaussians on a ring, and draws of a VAE"
)
print(f"modes covered: {int(covered.sum())} of 8; in between: {between:.0%}")

# %% [markdown]
# **"An autoencoder is generative when given a random noise seed."** Lesson 01
# measured that it is not, since nothing asks its codes to be $N(0, I)$ (the
# prior is the point of Kingma and Welling 2014, arXiv 1312.6114). Now the fix,
# measured on the very same small network: train it once with $\beta = 0$ and
# no noise in the code (an autoencoder), once with the annealed
# ELBO, and decode $N(0, I)$ with both.


# %%
class NoNoise(nn.Module):
    """A VAE that decodes the mean: an autoencoder."""

    def __init__(self, vae):
        super().__init__()
        self.vae, self.log_sigma = vae, vae.log_sigma

    def forward(self, x):
        mu, logvar = self.vae.encode(x)
        return self.vae.decode(mu), mu, logvar


def plain(x, x_hat, nll, kl):
    return nll.mean()


# %% [markdown]
# The same net twice, and the same random codes.

# %%
claims = {}
for name, objective in (("autoencoder", plain), ("VAE", annealed(few_steps))):
    net = small_vae()
    seen = NoNoise(net) if name == "autoencoder" else net
    data = loader(images, batch_size=64)
    train(seen, data, few_steps, objective, few_rate)
    with torch.no_grad():
        seeds = torch.Generator().manual_seed(seed)
        claims[name] = net.sample(1000, seeds).cpu()

# %% [markdown]
# What each makes of random noise.

# %% tags=["nbval-ignore-output"]
from_noise = {name: distance(fakes) for name, fakes in claims.items()}
plotting.show_rows(
    {f"{name}, noise": fakes[:2] for name, fakes in claims.items()},
    size=0.8,
    alt="Random codes decoded by an autoencoder and by a VAE of the same size",
    caption=f"small nets, {few_steps} steps; {card.name}, seed {seed}",
)
for name, value in from_noise.items():
    print(f"{name:<12} {extractor.frechet_name} {value:.1f}")

# %% [markdown]
# Both claims, checked.

# %% tags=["nbval-check-output"]
worse = from_noise["autoencoder"] > 1.1 * from_noise["VAE"]
print_facts(
    {
        "a VAE covers all 8 modes": covered.all(),
        "and puts over 1 % in between": between > 0.01,
        "decoding noise, the autoencoder is further from real images": worse,
    }
)

# %% [markdown]
# ## Exercises
# E02.1 to E02.4 stand where they are needed: `reparameterise`,
# `kl_to_standard_normal`, `gaussian_nll` and `slerp`. Two more.
#
# **E02.5. Free bits.** Average the KL of each dimension over the batch, let no
# dimension count for less than `floor`, and add up. Why the mean over the
# batch first?


# %%
def free_bits(kl: Tensor, floor: float) -> Tensor:
    """(N, L) KL in nats -> (): each dimension costs at least `floor`."""
    # solution E02.5
    return kl.mean(dim=0).clamp(min=floor).sum()


# %% [markdown]
# Its check looks at the gradient, too.

# %% tags=["nbval-check-output"]
checks.check_free_bits(free_bits)

# %% [markdown]
# **E02.6. The importance-weighted bound.** `log_weights[n, k]` is $\log p(x_n
# \mid z) + \log p(z) - \log q(z \mid x_n)$ of draw $k$. Return the log of the
# *mean weight* of each image, and mind that weights such as $e^{900}$ are too
# large for a computer.


# %%
def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """(N, K) log weights in nats -> (N,)."""
    # solution E02.6
    total = torch.logsumexp(log_weights, dim=1)
    return total - math.log(log_weights.shape[1])


# %% [markdown]
# Which bound did you write?

# %% tags=["nbval-check-output"]
checks.check_importance_weighted_bound(importance_weighted_bound)

# %% [markdown]
# Without a check: give `VAE` one $\sigma$ for each pixel instead of one for
# all (a parameter of the image's shape). Where does the ELBO earn most, and do
# the pictures get better?

# %% [markdown]
# ## On a GPU
# The same VAE at 64 px and twice the width, on the phantom. So small a network
# keeps a GPU waiting for Python to name the next kernel. `capture_step`
# records one step as a **CUDA graph** and replays it. What changes from step
# to step lives in tensors that are read anew: the rate, the KL's factor.


# %%
def train_large(big, images, steps, batch_size=128):
    """Train in bfloat16, by one recorded step; returns the mean decoder."""
    optimizer = torch.optim.Adam(big.parameters(), 1e-3, fused=True)
    factor = torch.ones((), device=device)

    def train_step(x):
        with autocast(device):
            x_hat, mu, logvar = (part.float() for part in big(x))
        nll, kl = elbo_parts(x, x_hat, mu, logvar, big.log_sigma)
        optimizer.zero_grad()
        (nll + factor * kl.sum(1)).mean().backward()
        optimizer.step()
        return {"-ELBO": (nll + kl.sum(1)).mean()}

    feed, ema = loader(images, batch_size=batch_size), EMA(big.decoder)
    step = capture_step(train_step, next(iter(feed)), [optimizer])
    for part in range(10):  # dear in the beginning, as above
        factor.fill_(50.0 ** max(0.0, 1 - part / 6))
        fit(step, feed, max(1, steps // 10), ema=ema)
    return ema.module


# %% [markdown]
# A GPU trains this (not at `smoke`); elsewhere you see what one made.

# %% tags=["nbval-ignore-output"]
big = VAE(Encoder(128, 64, 64), Decoder(64, 64, 64), 64).to(device)
gpu_steps = per_budget(budget, smoke=0, lab=2000, full=8000)
if device.type == "cuda" and gpu_steps:
    many = load_images("phantom", "train", 64)[0]
    big.to(device, memory_format=torch.channels_last)
    large = train_large(big, many, gpu_steps)
    large_origin = "trained here"
else:
    large = big.decoder
    large_origin = load_weights("vae_large_phantom_64", large)["budget"]
with torch.no_grad():
    pictures = large.eval()(torch.randn(4, 64, device=device)).float().cpu()
plotting.show_images(
    pictures,
    columns=4,
    alt="Four images of 64 px, drawn by the large VAE",
    caption=f"phantom, 64 px, {large_origin}",
)

# %% [markdown]
# What each measure gained (guess first: is it bfloat16?):

# %% tags=["nbval-ignore-output"]
show_benchmark("gpu_vae_speed")
show_benchmark("gpu_vae_training")

# %% [markdown]
# bfloat16 alone is *slower* here: each cast is one more kernel to name. What
# the GPU lacked was work, and the graph gives it.
#
# The weights that `smoke` starts from (kept only by `build --weights`).

# %%
run = f"python -m course_lib run 02 --budget {budget}"
manifest = {"command": run, "budget": budget, "seed": seed}
quality = {"elbo": elbo, "ssim": ssim_vae, "frechet": distances["VAE"]}
flat_elbo = held_out(flat, test_images)["elbo"].mean().item()
keep = {
    f"vae_{label}": (model, card, quality),
    f"vae_map_{label}": (flat, card, {"elbo": flat_elbo}),
    f"cvae_{label}": (
        conditional,
        class_card,
        {"class accuracy": drawn_class},
    ),
}
if dataset == "phantom":
    for name, net in healthy_nets.items():
        auc_found = {"AUC of lesions": detection[name, "pixels"]["VAE"]}
        seen = f"phantom, {name}, healthy heads"
        keep[f"vae_healthy_{name}_32"] = (net, seen, auc_found)

# %% [markdown]
# Half precision: half the size.

# %%
for name, (net, seen, metrics) in keep.items():
    told = {"data": getattr(seen, "name", seen), "metrics": metrics}
    small = copy.deepcopy(net).half()
    ship_weights(name, small, manifest=manifest | told)

# %% [markdown]
# ## Summary
# The headline numbers of this run, with their baselines.

# %% tags=["nbval-ignore-output"]
report(
    elbo=elbo,
    log_p_pca=linear_evidence,
    ssim=ssim_vae,
    ssim_pca=ssim_pca,
    bits_per_pixel=bits_per_pixel(found["elbo"]),
    frechet=distances["VAE"],
    frechet_pca_gaussian=distances["Gaussian, PCA 64"],
    frechet_real_half=distances["real, other half"],
    variance_ratio_of_score_function=ratio,
    collapsed_rate=broken["rate"],
    auc_T1=t1_pixel["VAE"],
    auc_T1_intensity=t1_pixel["intensity"],
    auc_FLAIR=flair_pixel["VAE"],
    auc_FLAIR_intensity=flair_pixel["intensity"],
)

# %% [markdown]
# What you take with you, each line computed above:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "the ELBO is a lower bound, tight at the true posterior": top
        <= evidence + 1e-5,
        "a VAE beats the best linear model, by ELBO and SSIM": elbo
        > linear_evidence
        and ssim_vae > ssim_pca,
        "drawing noise first saves over 100 times the variance": ratio > 100,
        "a mean where a sum belongs collapses the posterior": broken["rate"]
        < 0.1,
        "learning sigma cures it, warm-up does not": right["rate"]
        > 20
        > warm["rate"],
        "what is left over is not noise: hence the blur": neighbours > 0.05,
        "a VAE does not drop modes, it smears between them": covered.all()
        and between > 0.01,
        "on FLAIR a threshold finds tumours as well": flair_pixel["intensity"]
        > flair_pixel["VAE"] - 0.005,
    }
)

# %% [markdown]
# ## References
# - Kingma and Welling 2014, *Auto-encoding variational Bayes*, arXiv
#   1312.6114.
# - Tipping and Bishop 1999, *Probabilistic principal component analysis*,
#   J. R. Stat. Soc. B 61.
# - Sohn, Lee and Yan 2015, *Learning structured output representation using
#   deep conditional generative models*, NeurIPS.
# - Burda, Grosse and Salakhutdinov 2016, *Importance weighted autoencoders*,
#   arXiv 1509.00519.
# - Bowman et al. 2016, *Generating sentences from a continuous space*, arXiv
#   1511.06349.
# - Kingma et al. 2016, *Improving variational inference with inverse
#   autoregressive flow*, arXiv 1606.04934 (free bits).
# - Higgins et al. 2017, *beta-VAE*, ICLR.
# - Lucas et al. 2019, *Don't blame the ELBO*, arXiv 1911.02469 (collapse in
#   the linear model).
# - Rybkin, Daniilidis and Levine 2021, *Simple and effective VAE training with
#   calibrated decoders*, arXiv 2006.13202 (learn sigma).
# - Meissen, Kaissis and Rueckert 2021, *Challenging current semi-supervised
#   anomaly segmentation methods for brain MRI*, arXiv 2109.06023.
