"""Every generator that the course ships, and all of them in one table.

The models of lessons 01 to 04 from their shipped weights, with two rows that need no
network beside them, under one protocol: equal N, the extractor of the data set, the
validation and test images as the reference. `scoreboard.json` holds it for three sets.
The translators of lesson 05 stand in tables of their own, by the same protocol: their
reference is what they translate to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from course_lib.autoencoders import Autoencoder, Decoder, Encoder, fit_pca, sample_codes
from course_lib.checkpoints import WEIGHTS, load_weights
from course_lib.domains import Domains
from course_lib.evaluation import Comparison, Report, compare, evaluate
from course_lib.features import course_extractor, dataset_stem
from course_lib.gans import Discriminator, Generator
from course_lib.metrics import psnr, ssim
from course_lib.translation import CycleGAN, ResnetGenerator, translate
from course_lib.variational import VAE, ConditionalVAE

BOARD = Path(__file__).with_name("scoreboard.json")
PLAIN = ("autoencoder", "vae", "dcgan", "wgan")  # how the weights' names begin
CONDITIONAL = ("cvae", "dcgan_classes", "wgan_conditional")
COPIES = "training images"  # the row of a generator that copies what it saw
UNTOUCHED = "untouched"  # the row of a translator that hands its input over
TRANSLATORS = {  # how the weights' names begin: the row
    "cyclegan": "CycleGAN",
    "cyclegan_paired": "trained on pairs",
    "cyclegan_patients": "CycleGAN, piles of patients",
    "cyclegan_volunteers": "CycleGAN, to volunteers",
    "cyclegan_ct": "CycleGAN",
    "cyclegan_well": "CycleGAN",
}
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]


def shipped_generators(
    dataset: str | Path, images: Tensor, labels: Tensor, kinds: tuple[str, ...] = PLAIN
) -> dict[str, Draw]:
    """{name: draw}; draw(n, rng) -> images (n, C, S, S), and labels (n,) or None.

    `images` (N, C, S, S) in [-1, 1] and `labels` (N,) are what the models trained on:
    the first two rows and the autoencoder's codes come from them, and the conditional
    ones draw classes as often as they occur there. `kinds`: of PLAIN and CONDITIONAL;
    those that the course does not ship for this data set and size are left out.
    """
    found: dict[str, Draw] = {COPIES: _copier(images, labels)}
    found["PCA-64 Gaussian"] = _pca_gaussian(images)
    size, channels = images.shape[-1], images.shape[1]
    for kind in kinds:
        name = _weights(kind, dataset, size)
        if (WEIGHTS / f"{name}.safetensors").is_file():
            network = _network(kind, size, channels, int(labels.max()) + 1)
            load_weights(name, network)
            network.eval().requires_grad_(False)
            found |= _draws(kind, network, images, labels)
    return found


def weights_used(
    dataset: str | Path, size: int, kinds: tuple[str, ...] = PLAIN + CONDITIONAL
) -> dict[str, str]:
    """{file: SHA-256} of the shipped weights that a table of this data set rests on."""
    names = [_weights(kind, dataset, size) for kind in kinds]
    manifests = [WEIGHTS / f"{name}.json" for name in names]
    return {
        path.stem: json.loads(path.read_text("utf-8"))["sha256"]
        for path in manifests
        if path.is_file()
    }


def score_generators(
    dataset: str | Path,
    images: Tensor,
    labels: Tensor,
    held_out: Tensor,
    *,
    kinds: tuple[str, ...] = PLAIN + CONDITIONAL,
    n: int = 1000,
    groups: int = 20,
    permutations: int = 499,
    seed: int = 0,
) -> Comparison:
    """The shipped generators of a data set against held-out images, in one table.

    `images`, `labels`, `kinds` as in `shipped_generators`; `held_out` (M, C, S, S):
    real images that neither the models nor the extractor learned from. N is `n`, or
    half of M where that is less, so that the floor, real against real, has the same N.
    The rest as in `evaluate`. Raises FileNotFoundError where there is no extractor.
    """
    n = min(n, len(held_out) // 2, len(images))
    protocol = {"n": n, "groups": groups, "permutations": permutations, "seed": seed}
    protocol["extractor"] = course_extractor(dataset, images.shape[-1])
    reports = {}
    for name, draw in shipped_generators(dataset, images, labels, kinds).items():
        fake, _ = draw(n, torch.Generator().manual_seed(seed))
        reports[name] = evaluate(held_out, fake, name=name, **protocol)
    return compare(reports)


@dataclass(frozen=True)
class Translations:
    """Translators of one pair of domains: as sets, and image by image.

    `sets`: what each made, against held-out images of the target. `pairs`: {row:
    {"SSIM" or "PSNR": (mean, low, high)}} against the truth, a 95 % interval over
    people; empty where nobody knows the truth.
    """

    sets: Comparison
    pairs: dict[str, dict[str, tuple[float, float, float]]]


def score_translators(
    dataset: str | Path,
    domains: Domains,
    kinds: Iterable[str],
    *,
    n: int = 1000,
    groups: int = 20,
    permutations: int = 499,
    seed: int = 0,
) -> Translations:
    """Shipped translators, and the untouched input, on images nobody learned from.

    `domains` are held out; `kinds` of TRANSLATORS. N is `n`, or half of B where that is
    less, as in `score_generators`, and at most the length of A.
    """
    size, channels = domains.a.shape[-1], domains.a.shape[1]
    n = min(n, len(domains.b) // 2, len(domains.a))
    protocol = {"n": n, "groups": groups, "permutations": permutations, "seed": seed}
    protocol["extractor"] = course_extractor(dataset, size)
    made = {UNTOUCHED: domains.a}
    for kind in kinds:
        network = _translator(kind, size, channels)
        load_weights(_weights(kind, dataset, size), network)
        network.eval().requires_grad_(False)
        one = network if isinstance(network, ResnetGenerator) else network.g_ab
        made[TRANSLATORS[kind]] = translate(one, domains.a)
    sets = {
        row: evaluate(domains.b, images, name=row, **protocol)
        for row, images in made.items()
    }
    pairs = {}
    if domains.truth is not None:
        for row, images in made.items():
            scores = {"SSIM": ssim, "PSNR": psnr}
            pairs[row] = {
                name: _by_person(score(images, domains.truth).numpy(), domains.people)
                for name, score in scores.items()
            }
    return Translations(compare(sets), pairs)


def read_scoreboard(path: Path = BOARD) -> tuple[dict[str, Comparison], dict]:
    """The shipped tables {title: Comparison}, and how they were made.

    The second holds "command", "date", "torch" and, by table in "sources", "dataset",
    "size", "md5" of the data and "weights" {file: SHA-256}; those of
    `read_translations` are among them.
    """
    content = json.loads(path.read_text("utf-8"))
    del content["translations"]
    tables = {
        title: _comparison(reports) for title, reports in content.pop("tables").items()
    }
    return tables, content


def read_translations(path: Path = BOARD) -> dict[str, Translations]:
    """The shipped tables of translators, {title: Translations}."""
    content = json.loads(path.read_text("utf-8"))
    return {
        title: Translations(
            _comparison(table["sets"]),
            {
                row: {name: tuple(score) for name, score in scores.items()}
                for row, scores in table["pairs"].items()
            },
        )
        for title, table in content["translations"].items()
    }


def _comparison(reports: dict[str, dict]) -> Comparison:
    return Comparison({name: Report.from_dict(one) for name, one in reports.items()})


def _weights(kind: str, dataset: str | Path, size: int) -> str:
    """The name of the shipped weights, as its lesson gives it.

    Lesson 05 leaves a size in the file's name out.
    """
    stem = dataset_stem(dataset) if kind in TRANSLATORS else Path(dataset).stem
    return f"{kind}_{stem}_{size}"


def _by_person(values: np.ndarray, people: np.ndarray) -> tuple[float, float, float]:
    """Mean over people, and its 95 % interval: slices of a head are not independent."""
    means = [values[people == one].mean() for one in np.unique(people)]
    mean, n = float(np.mean(means)), len(means)
    half = stdtrit(n - 1, 0.975) * np.std(means, ddof=1) / n**0.5  # Student's t
    return mean, float(mean - half), float(mean + half)


# --- the generators -------------------------------------------------------------------


def _copier(images: Tensor, labels: Tensor) -> Draw:
    def draw(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(images), generator=rng)[:n]
        return images[chosen], labels[chosen]

    return draw


def _pca_gaussian(images: Tensor) -> Draw:
    pca = fit_pca(images, 64)
    codes = pca.encode(images)

    def draw(n: int, rng: torch.Generator) -> tuple[Tensor, None]:
        return pca.decode(sample_codes(codes, n, rng)), None

    return draw


def _network(kind: str, size: int, channels: int, classes: int) -> nn.Module:
    """The network of a kind of weights, as its lesson builds it."""
    shape = (size, channels)
    if kind == "autoencoder":
        return Autoencoder(16, 24, *shape)
    if kind == "vae":
        return VAE(Encoder(64, 24, *shape), Decoder(32, 24, *shape), 32)
    if kind == "cvae":
        encoder = Encoder(32, 16, size, channels + classes)
        return ConditionalVAE(encoder, Decoder(16 + classes, 16, *shape), 16, classes)
    if kind == "wgan_conditional":
        return Generator(32, 24, *shape, classes)
    latent_dim, width, known, judge = {
        "dcgan": (64, 32, None, "discriminator"),
        "dcgan_classes": (64, 24, classes, "discriminator"),
        "wgan": (32, 24, None, "critic"),
    }[kind]
    norm = "none" if judge == "critic" else "batch"
    nets = {
        "generator": Generator(latent_dim, width, *shape, known),
        judge: Discriminator(width, *shape, known, norm),
    }
    return nn.ModuleDict(nets)


def _translator(kind: str, size: int, channels: int) -> nn.Module:
    """The network of a kind of translators, as lesson 05 builds it."""
    if kind == "cyclegan_paired":
        return ResnetGenerator(channels=channels)
    deep = {"width": 12, "n_downs": 2, "d_width": 24}
    return CycleGAN(channels=channels, **(deep if size > 32 else {}))


def _draws(
    kind: str, network: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, Draw]:
    """{name of the row: draw} of one network; the autoencoder has two."""
    if isinstance(network, nn.ModuleDict):
        network = network["generator"]
    if kind == "autoencoder":
        with torch.no_grad():
            codes = torch.cat([network.encoder(x) for x in images.split(256)])
        return {
            "autoencoder, N(0, I)": _decoded(network.decoder, _normal(16)),
            "autoencoder, fitted Gaussian": _decoded(
                network.decoder, lambda n, rng: sample_codes(codes, n, rng)
            ),
        }
    names = {"vae": "VAE", "dcgan": "DCGAN", "wgan": "WGAN-GP"}
    if kind in names:
        decode = network.decode if kind == "vae" else network
        return {names[kind]: _decoded(decode, _normal(network.latent_dim))}
    names = {"cvae": "VAE", "dcgan_classes": "DCGAN", "wgan_conditional": "WGAN-GP"}
    decode = network.decode if kind == "cvae" else network
    draw = _decoded(decode, _normal(network.latent_dim), labels)
    return {f"conditional {names[kind]}": draw}


def _normal(dim: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: torch.randn(n, dim, generator=rng)


def _decoded(
    decode: Callable[..., Tensor],
    codes: Callable[[int, torch.Generator], Tensor],
    labels: Tensor | None = None,
) -> Draw:
    """draw(n, rng): random codes, and labels as often as they occur, decoded."""

    @torch.no_grad()
    def draw(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        z, given = codes(n, rng), ()
        if labels is not None:
            given = (labels[torch.randint(len(labels), (n,), generator=rng)],)
        parts = zip(*(part.split(250) for part in (z, *given)), strict=True)
        images = torch.cat([decode(*part) for part in parts]).clamp(-1, 1)
        return images, (given[0] if given else None)

    return draw
