# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.5, lab: 1, full: 2}
# ---

# %% [markdown]
# # 07 Reader study
#
# Real or generated? Answer it yourself, blinded, and find out what your
# answers prove, how many it takes, and what a machine sees that you do not.
#
# ## Goals
# You can
#
# - put images before a reader so that nothing but the images can tell;
# - turn answers into d-prime, a criterion and an AUC, each with its interval;
# - say what "could not tell them apart" proves, and test for equivalence;
# - plan how many images and readers a margin needs;
# - compare a person, a discriminator and a metric on the same images;
# - find the cue that tells without any look at the anatomy.
#
# You need lessons 02 and 03. Take 70 minutes. Nothing here is for clinical
# use.

# %% [markdown]
# ## Setup
# All imports stand in one cell.

# %%
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from course_lib.autoencoders import Decoder, Encoder
from course_lib.checks import (
    check_chance_corrected,
    check_equivalence_p,
    check_images_a_side,
    check_pairs_to_d_prime,
    check_rank_area,
)
from course_lib.datasets import load_images
from course_lib.evaluation import evaluate
from course_lib.features import course_extractor
from course_lib.gans import Discriminator, Generator
from course_lib.plotting import (
    COLOURS,
    show_curves,
    show_figure,
    show_rows,
    show_table,
)
from course_lib.reader_study import (
    answers_from_scores,
    auc_difference,
    cohen_kappa,
    corrected_rate,
    difference_power,
    equivalence_power,
    find_cues,
    fleiss_kappa,
    images_needed,
    make_study,
    planned_se,
    read_answers,
    roc_auc,
    score_answers,
    simulate_reader,
    split_scores,
    tost,
    two_afc,
    write_answers,
    yes_no,
)
from course_lib.reader_widget import ReaderStudy
from course_lib.runtime import (
    per_budget,
    pick_device,
    print_facts,
    report,
    seed_everything,
)
from course_lib.training import load_weights
from course_lib.variational import VAE

# %% [markdown]
# The parameters of the lesson. `dataset` is one whose weights the course
# ships (the built-in `phantom`, `pneumoniamnist` at 28 px, or a file
# `mednist_64.npz` at 64 px), or one that you trained lessons 02 and 03 on.
# `trials` is the length of your own study, `margin` the d-prime that you would
# still call "the same". Choose the margin before you look at any answer.

# %% tags=["parameters"]
budget = os.environ.get("COURSE_BUDGET", "lab")
dataset = "phantom"
image_size = 32
seed = 0
trials = 20
margin = 0.5

# %% [markdown]
# What follows from them.

# %%
generator = seed_everything(seed)
rng = np.random.default_rng(seed)
device = pick_device()
studies = per_budget(budget, smoke=300, lab=3000, full=20_000)
most = per_budget(
    budget, smoke=600, lab=1200, full=5000
)  # images of each kind
permutations = per_budget(budget, smoke=99, lab=499, full=999)
label = f"{Path(dataset).stem}_{image_size}"  # in the names of weights

# %% [markdown]
# ## Data
# Real images are held-out ones: no model of this course has seen them. The
# generated ones come from the networks that lessons 02 and 03 trained. Nothing
# is trained here. We do not look at anything yet.

# %% tags=["nbval-ignore-output"]
real, _, card = load_images(dataset, "test", image_size)
real = real[torch.randperm(len(real), generator=generator)[:most]]
channels = real.shape[1]
gan = {
    "generator": Generator(64, 32, image_size, channels),
    "discriminator": Discriminator(32, image_size, channels),
}
gan = nn.ModuleDict(gan)
coder = Encoder(64, 24, image_size, channels)
vae = VAE(coder, Decoder(32, 24, image_size, channels), 32)
for name, net in (("dcgan", gan), ("vae", vae)):
    made = load_weights(f"{name}_{label}", net)
    net.to(device).eval()
    print(f"{name}_{label}: {made['data']}, `{made['command']}`")
print(f"{card.name}: {len(real)} held-out images. {card.licence}")
print(card.note)

# %% [markdown]
# As many generated images as real ones, straight from the prior, none picked.

# %%
with torch.no_grad():
    z = torch.randn(len(real), 64, generator=generator).to(device)
    generated = {
        "DCGAN": torch.cat([gan["generator"](part) for part in z.split(200)]),
        "VAE": vae.sample(len(real), generator),
    }
generated = {name: x.float().cpu() for name, x in generated.items()}

# %% [markdown]
# ### What could tell without a look at the anatomy?
# A blinded study hides the label. File names, order and size are easy to hide:
# `make_study` shuffles, and writes PNGs without metadata, all of one length.
# But the pixels carry more than anatomy. So before any person looks, six
# plain numbers look: how well does each *alone* tell the two kinds apart? An
# area (AUC) of 0.5 tells nothing, 0 and 1 tell everything.

# %% tags=["nbval-ignore-output"]


def cue_table(real, generated, note=""):
    """One row a cue, one column a model: the area of the cue alone."""
    cues = {name: find_cues(real, x) for name, x in generated.items()}
    rows = [
        (cue, *(f"{found[cue].value:.2f}" for found in cues.values()))
        for cue in next(iter(cues.values()))
    ]
    show_table(["AUC of", *cues], rows, note=note)
    return cues


raw_cues = cue_table(real[:300], {k: x[:300] for k, x in generated.items()})

# %% [markdown]
# On the phantom the grey of the border betrays every image of the DCGAN: air
# is *exactly* $-1$ in a real image, and a tanh never quite gets there. You
# would not see one grey level of 255; a bright screen or a machine does. It
# says nothing about anatomy, so we mend it, on **both** sides: everything that
# is nearly black becomes black.


# %%
def same_floor(x, floor=-0.94):
    """Pixels below the floor become -1, in real and generated images alike."""
    return torch.where(x < floor, -1.0, x)


real = same_floor(real)
generated = {name: same_floor(x) for name, x in generated.items()}

# %% [markdown]
# Look again.

# %% tags=["nbval-ignore-output"]
cues = cue_table(
    real[:300],
    {k: x[:300] for k, x in generated.items()},
    note="After mending the floor, 300 images of each kind.",
)

# %% [markdown]
# What is left (the VAE's lack of sharpness and contrast, say) is not a fault
# of the presentation but of the images: that is what a reader *should* find.
# Where to draw this line is a decision, to be made before the study and
# written down.

# %% tags=["nbval-check-output"]
border = cues["DCGAN"]["grey of the border"].value
print_facts(
    {
        "the border no longer tells": 0.4 < border < 0.6,
        "the VAE's contrast does": cues["VAE"]["contrast"].value < 0.4,
    }
)

# %% [markdown]
# Half of the real images are for people, the other half for machines that have
# to learn what real looks like: nobody is tested on what it learned from.

# %%
half = len(real) // 2
for_people, for_machines = real[:half], real[half:]
fakes = {name: x[:half] for name, x in generated.items()}
fakes_to_learn = generated["DCGAN"][half:]

# %% [markdown]
# ## Look
# ### You are the reader
# Real images and images of the DCGAN, as many of each, in random order. Rate
# each from 1 (surely real) to 5 (surely generated). Click into the frame,
# press Space, and use the keys 1 to 5; P pauses the clock. There is no
# feedback until the end, because with feedback you would learn during the
# study. (A saved page shows a still picture; the study runs in Jupyter.)

# %% tags=["nbval-ignore-output"]
study, key = make_study(for_people, fakes["DCGAN"], trials, seed=seed)
viewer = ReaderStudy(study, key, margin=margin)
viewer

# %% [markdown]
# And the same in pairs, **two-alternative forced choice** (2AFC), on the VAE:
# one of the two is generated, press the arrow key of its side. Which question
# do you find easier?

# %% tags=["nbval-ignore-output"]
pairs, pairs_key = make_study(
    for_people, fakes["VAE"], trials, "2afc", seed=seed + 1
)
pair_viewer = ReaderStudy(pairs, pairs_key, margin=margin)
pair_viewer

# %% [markdown]
# **When you are done, run the cells from here on again.** Until then simulated
# readers stand in for you, whose true d-prime is 1.


# %% tags=["nbval-ignore-output"]
def answers_of(viewer, key):
    """Who answered, and what: the person, or a reader of d-prime 1."""
    if viewer.finished:
        return "you", viewer.answers
    simulated = simulate_reader(key, 1.0, seed=seed)
    return "simulated reader, d-prime 1", simulated


who, answers = answers_of(viewer, key)
mine = score_answers(answers, key, margin=margin)
print(f"{who}, {card.name}, DCGAN:")
mine

# %% [markdown]
# Answers are kept as a table without identity: the hash of the study, a number
# for the reader, trial, answer, seconds. No name, no date, no truth: the key
# is another object, and `score_answers` brings them together at the end.

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "reader_1.csv"
    write_answers(path, answers)
    print(path.read_text("utf-8").splitlines()[0])
    again = read_answers(path)
print("comes back as it was:", again.given == answers.given)
print("the study's PNGs are of one length:", len({*map(len, study.trials[0])}))
print("key and study do not show the truth:", "closed" in repr(key))

# %% [markdown]
# ## Measure
# ### d-prime, in four lines
# A reader who calls everything generated finds every fake, and has found
# nothing out. So we count two things: **hits** (generated, called generated)
# and **false alarms** (real, called generated). Ratings of 4 and 5 count as
# "generated".

# %% tags=["nbval-ignore-output"]
said = np.array(answers.given) > 3
each = trials // 2
hits = int(said[key.generated].sum())
false_alarms = int(said[~key.generated].sum())
show_table(
    ["", 'said "generated"', 'said "real"'],
    [
        ("generated", hits, each - hits),
        ("real", false_alarms, each - false_alarms),
    ],
    note=f"{who}, {trials} images",
)

# %% [markdown]
# Signal detection theory (Green and Swets 1966) explains such a table by one
# number for what you *see* and one for what you *prefer to say*. Real images
# look like draws from one bell, generated ones like draws from another,
# $d'$ standard deviations away. You call generated what lies right of your
# **criterion** $c$. Then, with $z$ the inverse of the normal distribution,
#
# $$d' = z(H) - z(F), \qquad c = -\tfrac{1}{2}\left(z(H) + z(F)\right).$$


# %%
def d_prime(hit_rate: Any, false_alarm_rate: Any) -> Any:
    return norm.ppf(hit_rate) - norm.ppf(false_alarm_rate)


def criterion(hit_rate: Any, false_alarm_rate: Any) -> Any:
    return -(norm.ppf(hit_rate) + norm.ppf(false_alarm_rate)) / 2


# %% [markdown]
# The picture, for a $d'$ of 1 and three readers who see the same and say
# different things. Which of them is right most often?

# %% tags=["nbval-ignore-output"]
x = np.linspace(-4, 4, 400)
figure, axes = plt.subplots(
    1, 3, figsize=(8.6, 2.2), sharey=True, layout="constrained"
)
for axis, c in zip(axes, (-0.8, 0.0, 0.8), strict=True):
    for mean, name, colour in ((-0.5, "real", 0), (0.5, "generated", 1)):
        bell = norm.pdf(x, mean)
        axis.plot(x, bell, color=COLOURS[colour], label=name)
        axis.fill_between(
            x, bell, where=x > c, alpha=0.3, color=COLOURS[colour]
        )
    axis.axvline(c, color="k", ls="--", lw=1)
    right = (norm.sf(c - 0.5) + norm.cdf(c + 0.5)) / 2
    axis.set_title(f"c = {c:+.1f}: {right:.0%} right", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
names = axes[0].get_legend_handles_labels()
figure.legend(*names, loc="outside right", frameon=False, fontsize=8)
show_figure(figure, alt="Two bells, one d-prime apart, and three criteria")

# %% [markdown]
# The same eyes, three shares of right answers. $d'$ does not move, and that is
# why we report it. One more detail: a reader with 10 of 10 hits has
# $z(1) = \infty$. The **log-linear correction** (Hautus 1995) adds half a hit
# and one trial: $(k + 1/2) / (n + 1)$.

# %% tags=["nbval-check-output"]
readers = {c: (norm.sf(c - 0.5), norm.sf(c + 0.5)) for c in (-0.8, 0.0, 0.8)}
for rates in readers.values():
    print(f"H {rates[0]:.2f}, F {rates[1]:.2f}", end=": ")
    c = round(criterion(*rates), 2) + 0.0  # no minus before a zero
    print(f"d' {d_prime(*rates):.2f}, c {c:+.2f}")
print(f"10 of 10 hits, none of 10 false: d' {d_prime(1.0, 0.0)}")
perfect = corrected_rate(10, 10), corrected_rate(0, 10)
print(f"the same, corrected: d' {d_prime(*perfect):.2f}")

# %% [markdown]
# ### The interval
# Twenty images are few. A rate from $n$ images has the variance
# $p(1 - p)/n$, and $z$ stretches it by the slope $1 / \phi(z)$ (Gourevitch and
# Galanter 1967):


# %%
def d_prime_se(
    hit_rate: Any, false_alarm_rate: Any, n_generated: Any, n_real: Any
) -> Any:
    variance = 0.0
    for rate, n in ((hit_rate, n_generated), (false_alarm_rate, n_real)):
        density = norm.pdf(norm.ppf(rate))
        variance = variance + rate * (1 - rate) / (n * density**2)
    return variance**0.5


# %% [markdown]
# Is $d' \pm 1.96$ standard errors honest? Ask readers whose $d'$ we know:
# thousands of studies of unbiased readers with a true $d'$ of 1.


# %%
def many_studies(d, each, rng):
    """d-primes and standard errors of `studies` studies, (studies,) both."""
    h = rng.binomial(each, norm.cdf(d / 2), studies)
    f = rng.binomial(each, norm.cdf(-d / 2), studies)
    rates = corrected_rate(h, each), corrected_rate(f, each)
    return d_prime(*rates), d_prime_se(*rates, each + 1, each + 1)


# %% [markdown]
# Share of intervals that hold the truth, and how wide they are.

# %% tags=["nbval-ignore-output"]
held, rows = {}, []
for each_side in (10, 50, 200):
    found, se = many_studies(1.0, each_side, rng)
    held[each_side] = (abs(found - 1.0) < 1.96 * se).mean()
    width = np.median(1.96 * se)
    rows.append(
        (
            f"{each_side} + {each_side}",
            f"{held[each_side]:.1%}",
            f"{width:.2f}",
        )
    )
show_table(
    ["images", "hold the truth", "half the width"],
    rows,
    note=f"{studies:,} simulated studies a row, true d-prime 1",
)

# %% [markdown]
# The intervals are honest, and the first is wide: with 10 + 10 images, a
# reader of $d' = 1$ (who is right on 69 % of images) often cannot be told from
# one who guesses. Keep that for the claim check.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "nine in ten intervals and more hold the truth": min(held.values())
        > 0.9,
        "20 images leave more than one d-prime to each side": 1.96
        * d_prime_se(0.69, 0.31, 10, 10)
        > 1,
    }
)

# %% [markdown]
# ### Ratings draw a whole curve
# Five answers are four criteria at once: call generated what got a 5; a 4 or
# more; a 3 or more; and so on. Each gives a pair $(F, H)$, and together they
# are a **ROC curve**. Its area (AUC) is the chance that a generated image is
# rated above a real one, ties counted half (exercise E07.1).

# %% tags=["nbval-ignore-output"]
given = np.array(answers.given)
far, hit, _ = roc_curve(key.generated, given, drop_intermediate=False)
f = np.linspace(0, 1, 200)
show_curves(
    {
        f"{who}: AUC {mine.area.value:.2f}": (far, hit),
        "d' = 1": (f, norm.sf(norm.isf(f) - 1)),
        "d' = 2": (f, norm.sf(norm.isf(f) - 2)),
        "guessing": (f, f),
    },
    xlabel="false alarms F",
    ylabel="hits H",
    alt="ROC curve of the reader's ratings beside curves of known d-prime",
)

# %% [markdown]
# ### One question or the other: the area theorem
# In pairs there is no criterion: you pick the side with more evidence. Green's
# area theorem says that the share of right answers in pairs *equals* the area
# under the rating ROC. So $d' = \sqrt{2}\, z(\text{share right})$ from pairs
# (exercise E07.2). Test it: one kind of evidence, both questions.

# %% tags=["nbval-check-output"]
n = 4000
worst = 0.0
for d in (0.0, 0.5, 1.0, 2.0):
    evidence = rng.normal(size=(3, n)) + np.array([[0], [d], [0]])
    area = roc_auc(evidence[0, :1000], evidence[1, :1000]).value
    pairs_right = (evidence[1] > evidence[2]).mean()
    worst = max(
        worst, abs(area - pairs_right), abs(area - norm.cdf(d / 2**0.5))
    )
print("area, share right in pairs and Phi(d'/sqrt 2) agree:", worst < 0.05)

# %% [markdown]
# Your pairs, on the VAE:

# %% tags=["nbval-ignore-output"]
pair_who, pair_answers = answers_of(pair_viewer, pairs_key)
print(f"{pair_who}, {card.name}, VAE:")
score_answers(pair_answers, pairs_key, margin=margin)

# %% [markdown]
# Which question is cheaper? From $m$ real and $m$ generated images, ratings
# take $2m$ answers, pairs take $m$. The standard error of $d'$ near 0 is the
# same. But a reader who favours a side loses in pairs, ratings also give the
# whole curve, and a pair shows two images that need not be comparable.

# %% tags=["nbval-check-output"]
se_rating = yes_no(50, 100, 50, 100)[0].se
se_pairs = two_afc(50, 100).se
print(f"200 ratings: standard error {se_rating:.3f}")
print(f"100 pairs of the same images: {se_pairs:.3f}")

# %% [markdown]
# ### Do readers agree?
# Three simulated readers, each with a $d'$ of 1, on one long study. **Kappa**
# is agreement beyond chance: 1 is perfect, 0 is what two strangers reach who
# give their answers by lot (exercise E07.3). And two more readers who look at
# nothing but brightness.

# %%
long_study, long_key = make_study(
    for_people, fakes["DCGAN"], 200, seed=seed + 2
)
three = [
    simulate_reader(long_key, 1.0, seed=seed + i, reader=i + 1)
    for i in range(3)
]


def brightness(seed):
    """A reader who calls bright images generated, with unsteady eyes."""
    eye = np.random.default_rng(seed)
    return lambda x: x.mean(axis=(1, 2, 3)) + 0.01 * eye.normal(size=len(x))


two = [answers_from_scores(long_study, brightness(i)) for i in (1, 2)]

# %% [markdown]
# Before you look: which of the two groups has the higher kappa, and which is
# nearer to the truth?

# %% tags=["nbval-ignore-output"]
table = np.array([x.given for x in three]).T > 3
twins = np.array([x.given for x in two]).T > 3
agreement = {
    "three readers, d' = 1": fleiss_kappa(table),
    "two readers of brightness": cohen_kappa(*twins.T),
}
groups = {"three readers, d' = 1": three, "two readers of brightness": two}
truths = {
    name: [score_answers(x, long_key) for x in group]
    for name, group in groups.items()
}
rows = []
for name, kappa in agreement.items():
    ds = ", ".join(f"{result.d.value:.2f}" for result in truths[name])
    rows.append((name, str(kappa), ds))
show_table(
    ["", "kappa", "d-prime of each"],
    rows,
    note="200 trials; said 4 or 5, or not",
)

# %% [markdown]
# Agreement is not truth. Readers who share a wrong idea agree perfectly;
# readers who see a faint truth, each with independent noise, hardly agree, and
# their mean would be better than any of them. Report both.

# %% tags=["nbval-check-output"]
kappas = [kappa.value for kappa in agreement.values()]
steady = np.mean([r.d.value for r in truths["three readers, d' = 1"]])
print_facts(
    {
        "readers of brightness agree much more": kappas[1] > kappas[0] + 0.3,
        "they know less": np.mean(
            [r.d.value for r in truths["two readers of brightness"]]
        )
        < steady,
    }
)

# %% [markdown]
# ### Seconds
# Response times are skewed, so we give the median and quartiles, and name slow
# trials instead of dropping them. A reader who answers in 200 ms does not
# look; one who takes a minute for one image was called to the phone.

# %% tags=["nbval-ignore-output"]
print(f"{who}: {mine.times}")

# %% [markdown]
# ### Machines as readers
# Now the same images go to three machines, which get the pixels of the study
# and no label:
#
# - **D**, the discriminator that the DCGAN was trained against;
# - the **extractor** of the metrics: a linear reader on its features, trained
#   on the *other* halves;
# - the reader of **brightness**, for comparison.

# %%
extractor = course_extractor(dataset, image_size)


@torch.no_grad()
def by_d(x):
    """How generated D finds images. (N, C, H, W) -> (N,)."""
    parts = torch.as_tensor(x).split(200)
    return -torch.cat(
        [gan["discriminator"](p.to(device)) for p in parts]
    ).cpu()


n_learn = min(len(for_machines), len(fakes_to_learn))
features = torch.cat([for_machines[:n_learn], fakes_to_learn[:n_learn]])
linear = make_pipeline(
    StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
)
linear.fit(extractor(features), np.repeat([0, 1], n_learn))


def by_extractor(x):
    return linear.decision_function(extractor(torch.as_tensor(x)))


# %% [markdown]
# Each machine reads your 20 trials, and all the images that are left.

# %%
machines = {
    "D": by_d,
    "extractor": by_extractor,
    "brightness": brightness(seed),
}
truth = key.generated
area_here, area_all = {}, {}
for name, machine in machines.items():
    seen = split_scores(study, machine)[:, 0]
    area_here[name] = roc_auc(seen[~truth], seen[truth])
    scores = [
        np.asarray(machine(x.numpy())) for x in (for_people, fakes["DCGAN"])
    ]
    area_all[name] = roc_auc(*scores)
distance = evaluate(
    for_people,
    fakes["DCGAN"],
    extractor=extractor,
    name="DCGAN",
    permutations=permutations,
)

# %% [markdown]
# You, D, the extractor, and the distance between the two *sets* that lesson 06
# takes apart, in one table.

# %% tags=["nbval-ignore-output"]
rows = [(who, str(mine.area), "")]
for name in machines:
    rows.append((name, str(area_here[name]), str(area_all[name])))
first, value = next(iter(distance.scores.items()))
ratio = f"{value.same_n:.3g}, real against real {value.baseline:.3g}"
rows.append((first, "", f"{ratio} (p = {distance.p_value:.2g})"))
show_table(
    ["reader", f"AUC, the same {trials}", f"AUC, {half} + {half} images"],
    rows,
    note=f"{card.name}, DCGAN of lesson 03. AUC 0.5 is guessing.",
)

# %% [markdown]
# On 20 images the intervals are so wide that little can be said. On hundreds
# the two machines tell real from generated clearly, whatever you did. "I could
# not tell" and "it cannot be told" are two statements.
#
# Two readers of the *same* images are compared in pairs (DeLong et al. 1988):
# what was hard for both cancels.

# %% tags=["nbval-ignore-output"]
d_scores = split_scores(study, by_d)[:, 0]
gap = auc_difference(
    d_scores[~truth], d_scores[truth], given[~truth], given[truth]
)
print(f"AUC of D minus AUC of {who}, the same {trials} images: {gap}")

# %% [markdown]
# What holds on every data set of this course:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "D tells them apart": area_all["D"].low > 0.7,
        "the extractor tells them apart": area_all["extractor"].low > 0.5,
    }
)

# %% [markdown]
# ### How many images, how many readers?
# To show that two kinds are *the same* needs a margin: a $d'$ so small that
# you do not care. Then two one-sided tests (TOST) must both say no: it is not
# above the margin, and not below minus the margin (Schuirmann 1987, Lakens
# 2017; exercise E07.4). The planner gives the chance that this works, if
# $d'$ really is 0.

# %% tags=["nbval-ignore-output"]
n = np.unique(np.geomspace(10, 2000, 60).astype(int))


def power_curve(readers, m=margin):
    return [equivalence_power(m, planned_se(k, readers)) for k in n]


show_curves(
    {
        "1 reader, who speaks for one": (n, power_curve(1)),
        "3 readers": (n, power_curve(3)),
        "6 readers": (n, power_curve(6)),
        "12 readers": (n, power_curve(12)),
        "1 reader, half the margin": (n, power_curve(1, margin / 2)),
    },
    xlabel="real images, and as many generated",
    ylabel="power of the equivalence test",
    logx=True,
    alt="Power of the equivalence test against the number of images",
)

# %% [markdown]
# Three things to see. Half the margin takes four times the images. One reader
# speaks for one person; as soon as several stand for *all* readers, the spread
# between them counts too (0.3 is an assumption of the planner, not a
# measurement: estimate yours in a pilot). And that spread does not shrink with
# images: three readers level off below 0.8, however much they read.

# %% tags=["nbval-check-output"]
one = images_needed(0.5)
print("one reader, margin 0.5, power 80 %:", one, "images of each kind")
print("margin 0.25:", images_needed(0.25))
print("12 readers, margin 0.5:", images_needed(0.5, readers=12))
try:
    images_needed(0.5, readers=2)
except ValueError as error:
    print(str(error).split(":")[0])

# %% [markdown]
# ## Break it
# ### Unequal numbers
# 95 real images and 5 generated ones, and a reader who calls everything real.
# How many answers are right?

# %% tags=["nbval-check-output"]
lazy, lazy_bias = yes_no(0, 5, 0, 95)
print("right answers: 95 %")
print(f"d-prime {lazy.value:.2f}, interval {lazy.low:.1f} to {lazy.high:.1f}")
print("the interval holds 0:", lazy.holds(0))
wide, narrow = yes_no(3, 5, 30, 95)[0].se, yes_no(30, 50, 15, 50)[0].se
print("100 images: 5 + 95 cost over twice the error:", wide > 2 * narrow)

# %% [markdown]
# The share of right answers measures the mixture. The corrected $d'$ of about
# 1.2 is made by the correction alone, and the interval, as wide as it is,
# says so. Balance is not a nicety: it is where the information is.
#
# ### Order
# A reader who sees *no* difference at all ($d' = 0$), but becomes suspicious
# in the course of the session: the criterion falls from $+0.8$ to $-0.8$. Once
# the real images come first, once all are shuffled. What will $d'$ be?

# %% tags=["nbval-check-output"]
n = 4000  # so many that chance plays no part
falling = np.linspace(0.8, -0.8, n)
suspects = rng.normal(size=n) > falling  # guesses, with a moving criterion
in_blocks = np.repeat([False, True], n // 2)
orders = {"real first": in_blocks, "shuffled": rng.permutation(in_blocks)}
apparent = {}
for name, order in orders.items():
    counts = suspects[order].sum(), n // 2, suspects[~order].sum(), n // 2
    apparent[name] = yes_no(*counts)[0].value
print_facts(
    {
        "real first: d-prime above 0.5, out of nothing": apparent["real first"]
        > 0.5,
        "shuffled: d-prime about 0": abs(apparent["shuffled"]) < 0.2,
    }
)

# %% [markdown]
# Fatigue, learning and suspicion move every reader's criterion. Shuffled, they
# blur the result; in blocks, they *are* the result.
#
# ### A cue
# Somebody saved the generated images with another program, which draws a grey
# line around each. We build this study, and give it to a reader who knows
# nothing of anatomy: it measures how grey the edge is.


# %%
def framed(x, grey=-0.5):
    """Images with a frame of one pixel."""
    x = x.clone()
    x[..., [0, -1], :] = x[..., :, [0, -1]] = grey
    return x


def by_frame(x):
    """How near the edge is to that grey; it sees nothing else."""
    edge = np.concatenate(
        [x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], axis=-1
    )
    return -np.abs(edge + 0.5).mean(axis=(1, 2))


# %% [markdown]
# The first images of the spoilt study; could *you* resist?

# %% tags=["nbval-ignore-output"]
leaky, leaky_key = make_study(
    for_people, framed(fakes["DCGAN"]), 200, seed=seed
)
fair, fair_key = make_study(for_people, fakes["DCGAN"], 200, seed=seed)
show_rows(
    {
        name: s.pixels()[:8, 0]
        for name, s in (("fair", fair), ("framed", leaky))
    },
    size=0.7,
    caption=f"{card.name}, the same trials twice",
    alt="Eight trials of a fair study and of one with a grey frame",
)

# %% [markdown]
# The reader of frames, on both.

# %% tags=["nbval-ignore-output"]
spoilt = {}
for name, s, k in (("fair", fair, fair_key), ("framed", leaky, leaky_key)):
    spoilt[name] = score_answers(answers_from_scores(s, by_frame), k)
    print(f"{name:7} d-prime {spoilt[name].d}")
found = find_cues(for_people[:200], framed(fakes["DCGAN"][:200]))
print(f"find_cues, border: {found['grey of the border']}")

# %% [markdown]
# Nothing about the images changed. A study that reports $d' = 3$ may have
# measured its own software. Windowing, cropping, JPEG, interpolation and
# bit depth are such cues: send real images through the *same* path.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "fair: the reader of frames is near 0": abs(spoilt["fair"].d.value)
        < 0.8,
        "framed: d-prime above 2": spoilt["framed"].d.value > 2,
    }
)

# %% [markdown]
# ## Claim check
# ### "The images fool even the treating clinician"
# A reader looks at 20 images, the answers do not differ from chance
# ($p > 0.05$), and the paper says: *cannot be told from real*. What is the
# chance to read that sentence if the reader in truth has a $d'$ of 1? Say a
# number. The second column is what the planner asks for, the rows are two
# readers, and we ask both questions: "no difference found?" and
# "equivalent, margin 0.5?"

# %% tags=["nbval-ignore-output"]
verdicts, rows = {}, []
for d in (0.0, 1.0):
    for each_side in (10, one):
        found, se = many_studies(d, each_side, rng)
        same = [tost(*pair, 0.5) < 0.05 for pair in zip(found, se)]  # noqa: B905
        none = abs(found) < 1.96 * se
        verdicts[d, each_side] = none.mean(), np.mean(same)
        rows.append((f"{d:g}", 2 * each_side, f"{none.mean():.0%}"))
        rows[-1] += (f"{np.mean(same):.0%}",)
show_table(
    ["true d-prime", "images", '"no difference"', "equivalent (TOST)"],
    rows,
    note=f"{studies:,} simulated studies a row",
)

# %% [markdown]
# With 20 images, more than half of the readers who *do* see the difference are
# reported as fooled. The equivalence test says yes to neither: 20 images
# cannot show it. With what the planner asked for, it says yes to most readers
# who see nothing, and to none of those who do. Failing to find a difference is
# not finding that there is none.
#
# And even a passed test says what *this reader sees at this size*, not that an
# image is valid: a wrong lesion that looks right fools everybody. Your own
# study, as a claim that may be printed:

# %% tags=["nbval-ignore-output"]
print(f"{who}: {mine.sentence}")

# %% [markdown]
# The facts of it:

# %% tags=["nbval-check-output"]
print_facts(
    {
        "20 images, d' = 1: at least 4 in 10 read 'no difference'": verdicts[
            1.0, 10
        ][0]
        > 0.4,
        "20 images never show equivalence": max(
            verdicts[d, 10][1] for d in (0.0, 1.0)
        )
        < 0.02,
        "as planned, d' = 0: over 7 in 10 pass": verdicts[0.0, one][1] > 0.7,
        "as planned, d' = 1: hardly any passes": verdicts[1.0, one][1] < 0.05,
    }
)

# %% [markdown]
# ### "Samples with D > 0.7 are verified"
# If $D$ were a probability, then of the images with $D$ about 0.7, seven in
# ten would be real. And real images would be "verified". We ask $D$ about as
# many real as generated images.

# %% tags=["nbval-ignore-output"]
d_real, d_fake = (
    torch.as_tensor(by_d(x)).neg().sigmoid().numpy()
    for x in (for_people, fakes["DCGAN"])
)
edges = [0.0, 0.3, 0.5, 0.7, 1.0]
rows = []
for low, high in pairwise(edges):
    r, f = (((x > low) & (x <= high)).mean() for x in (d_real, d_fake))
    share = f"{r / (r + f):.0%}" if r + f else "none there"
    rows.append((f"{low:g} to {high:g}", f"{r:.0%}", f"{f:.0%}", share))
show_table(
    ["D says", "of the real", "of the generated", "real among them"],
    rows,
    note=f"{half} held-out real images, {half} of the DCGAN",
)

# %% [markdown]
# Most real images would not be "verified", and what passes is decided by how
# this $D$ stood against this $G$ when training stopped, not by 0.7. So take
# the fifth of the generated images that $D$ likes best, whatever it says.
# Are they harder to tell for a judge that is *not* $D$?

# %% tags=["nbval-ignore-output"]
best = np.argsort(-d_fake)[: half // 5]
judged = {
    x: by_extractor(y) for x, y in (("r", for_people), ("f", fakes["DCGAN"]))
}
area_best = roc_auc(judged["r"], judged["f"][best])
area_any = roc_auc(judged["r"], judged["f"])
print(f"the extractor's AUC on all generated images: {area_any}")
print(f"on the fifth that D likes best:              {area_best}")

# %% [markdown]
# Selection by $D$ selects for $D$. It changes which images you have, it may or
# may not make them better, and it cannot make them true. If you filter, score
# the filtered set by something else, and say that you filtered.

# %% tags=["nbval-check-output"]
print_facts(
    {
        "more than half of the real images fail D > 0.7": (d_real > 0.7).mean()
        < 0.5,
        "D's favourites are still told apart": area_best.value > 0.5,
    }
)

# %% [markdown]
# ## Exercises
# The checks say what is wrong, not only that it is. The lesson goes on with
# the library's versions.
#
# **E07.1** The area under the ROC curve, without drawing it.


# %%
def rank_area(real, generated):
    """The chance that a generated image is rated higher; a tie counts half.

    Ratings (M,), (N,) -> one number in [0, 1].
    """
    # solution E07.1
    higher = np.asarray(generated)[:, None] - np.asarray(real)
    return float((higher > 0).mean() + (higher == 0).mean() / 2)


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_rank_area(rank_area)

# %% [markdown]
# **E07.2** d-prime from pairs. Use the log-linear correction, so that a reader
# who is always right gets a finite number.


# %%
def pairs_to_d_prime(correct, n):
    """`correct` of n pairs -> d-prime, 0 for a reader who guesses."""
    # solution E07.2
    share = (correct + 0.5) / (n + 1)
    return float(2**0.5 * norm.ppf(share))


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_pairs_to_d_prime(pairs_to_d_prime)

# %% [markdown]
# **E07.3** Cohen's kappa. Chance is what two readers reach who keep their own
# shares of each answer, and give them by lot.


# %%
def chance_corrected(a, b):
    """Two readers' answers (N,), (N,) -> kappa: 1 all agree, 0 by chance."""
    # solution E07.3
    a, b = np.asarray(a), np.asarray(b)
    observed = (a == b).mean()
    kinds = np.union1d(a, b)
    by_lot = sum((a == kind).mean() * (b == kind).mean() for kind in kinds)
    return float((observed - by_lot) / (1 - by_lot))


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_chance_corrected(chance_corrected)

# %% [markdown]
# **E07.4** The equivalence test: two one-sided tests, each with its p; the
# answer is the p of both together.


# %%
def equivalence_p(value, se, margin):
    """Small where the truth is surely inside (-margin, margin)."""
    # solution E07.4
    not_below = norm.sf((value - -margin) / se)
    not_above = norm.cdf((value - margin) / se)
    return float(max(not_below, not_above))


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_equivalence_p(equivalence_p)

# %% [markdown]
# **E07.5** The planner for one reader. Near $d' = 0$ the variance of $d'$ is
# $\pi / n$ for $n$ images of each kind. With $\alpha = 0.05$ the test passes
# when both ends of the 90 % interval are inside; with power $1 - \beta$ each
# end may be outside with a chance of $\beta / 2$:
# $\text{margin} = (z_{1-\alpha} + z_{1-\beta/2}) \sqrt{\pi / n}$.


# %%
def images_a_side(margin, power=0.8):
    """The smallest whole n of each kind for this margin and power."""
    # solution E07.5
    reach = norm.ppf(0.95) + norm.ppf(1 - (1 - power) / 2)
    return int(np.ceil(np.pi * (reach / margin) ** 2))


# %% [markdown]
# The check:

# %% tags=["nbval-check-output"]
check_images_a_side(images_a_side)

# %% [markdown]
# ## Summary
# The headline numbers, with their baselines.

# %% tags=["nbval-ignore-output"]
report(
    reader=who,
    d_prime=mine.d.value,
    d_prime_low=mine.d.low,
    d_prime_high=mine.d.high,
    auc_reader=mine.area.value,
    auc_D=area_all["D"].value,
    auc_extractor=area_all["extractor"].value,
    auc_brightness=area_all["brightness"].value,
    images_a_kind=half,
    missed_by_20_images=verdicts[1.0, 10][0],
    images_for_margin=images_needed(margin),
)

# %% [markdown]
# What you have learned, computed:

# %% tags=["nbval-check-output"]
found_20 = difference_power(1.0, planned_se(10, d=1.0))
print_facts(
    {
        "20 images find a d-prime of 1 in less than 6 of 10 studies": found_20
        < 0.6,
        "equivalence at a margin of 0.5 takes over 200 images": 2 * one > 200,
        "a machine tells what a person may not": area_all["D"].low > 0.7,
        "readers can agree and know nothing": kappas[1] > 0.5,
        "order and cues make a d-prime out of nothing": apparent["real first"]
        > 0.5
        and spoilt["framed"].d.value > 2,
    }
)

# %% [markdown]
# A reader study measures readers. It answers whether these people, on these
# screens, at this size, in this order, see a difference; with an interval it
# also says how sure that is. Whether an image is *true* is another question,
# and no number of fooled clinicians answers it.
#
# ## References
# - Green and Swets 1966, Signal detection theory and psychophysics. Wiley
# - Macmillan and Creelman 2005, Detection theory: a user's guide. Erlbaum
# - Gourevitch and Galanter 1967, A significance test for one parameter
#   isosensitivity functions. Psychometrika
# - Hautus 1995, Corrections for extreme proportions and their biasing effects
#   on estimated values of d'. Behavior Research Methods
# - Hanley and McNeil 1982, The meaning and use of the area under a receiver
#   operating characteristic (ROC) curve. Radiology
# - DeLong, DeLong and Clarke-Pearson 1988, Comparing the areas under two or
#   more correlated receiver operating characteristic curves. Biometrics
# - Newcombe 2006, Confidence intervals for an effect size measure based on the
#   Mann-Whitney statistic, part 2. Statistics in Medicine
# - Cohen 1960, A coefficient of agreement for nominal scales; Fleiss 1971,
#   Measuring nominal scale agreement among many raters
# - Obuchowski and Rockette 1995, Hypothesis testing of diagnostic accuracy for
#   multiple readers and multiple tests. Communications in Statistics
# - Schuirmann 1987, A comparison of the two one-sided tests procedure and the
#   power approach. Journal of Pharmacokinetics and Biopharmaceutics
# - Lakens 2017, Equivalence tests: a practical primer for t tests,
#   correlations, and meta-analyses. Social Psychological and Personality
#   Science
