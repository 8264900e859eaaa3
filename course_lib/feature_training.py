"""Trains the course's feature extractors: `python -m course_lib.features DATASET`.

A classifier (and, for the phantom, the facts that its classes do not tell), or without
labels the contrastive way of SimCLR. On images that no comparison uses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checkpoints import save_weights
from course_lib.datasets import batches, load_images
from course_lib.feature_net import DIM, FeatureNet
from course_lib.features import KINDS, dataset_stem, reserved_split
from course_lib.phantoms import CLASS_NAMES, CONTRASTS, make_phantom
from course_lib.pixels import to_float
from course_lib.runtime import cache_dir, seed_everything
from course_lib.training import fit

POPULATION = 1  # seed of the phantom heads that extractors see; lessons use seed 0


def train_extractor(
    dataset: str | Path,
    size: int,
    *,
    kind: str = "classifier",
    root: str | Path | None = None,
    steps: int = 1500,
    seed: int = 0,
    out: str | Path | None = None,
) -> Path:
    """Train the extractor of a data set and write it to `out`; returns its path.

    On the reserved part of the training split, or on other phantom heads; `root` is
    the folder of the data. Same machine, same seed: the same bytes.
    """
    seed_everything(seed)
    if dataset_stem(dataset) == "phantom":
        images, labels, facts = _phantom_task(size, "train", 2000)
        val_images, val_labels, _ = _phantom_task(size, "val", 400)
        names, said = CLASS_NAMES, f"phantom, seed {POPULATION}, all contrasts"
    else:
        images, labels, card = load_images(dataset, "train", size, root=root)
        chosen, _ = reserved_split(images)
        images, labels, facts = images[chosen], labels[chosen], None
        val_images, val_labels, _ = load_images(dataset, "val", size, root=root)
        said = f"{dataset_stem(dataset)}, reserved quarter of train"
        names = card.class_names
    if labels.ndim != 1 and kind == "classifier":
        raise ValueError("an extractor needs one class an image; these have several")
    arguments = {
        "classes": len(names),
        "facts": 0 if facts is None else facts.shape[1],
        "channels": images.shape[1],
        "size": size,
    }
    if kind == "classifier":
        network = FeatureNet(**arguments)
        train_classifier(network, images, labels, facts, steps, seed)
        guess = predict(network, val_images)
        metrics = {"balanced accuracy, val": mean_recall(guess, val_labels)}
    else:
        names, arguments = (), arguments | {"classes": 0, "facts": 0}
        network = FeatureNet(**arguments)
        loss = _train_contrastive(network, images, steps, seed)
        metrics = {"contrastive loss at the end": loss}
    stem = f"{KINDS[kind]}_{dataset_stem(dataset)}_{size}"
    options = [Path(dataset).name, f"--size {size}"]
    options += [] if kind == "classifier" else [f"--kind {kind}"]
    options += [] if dataset_stem(dataset) == "phantom" else ["--data DIR"]
    folder = cache_dir() / "extractors" if out is None else Path(out)
    path = folder / f"{stem}.safetensors"
    manifest = {
        "command": " ".join(["python -m course_lib.features", *options]),
        "data": f"{said} ({len(images)} images)",
        "budget": f"{steps} steps of 64",
        "seed": seed,
        "arguments": arguments,
        "classes": list(names),
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
    }
    save_weights(path, network, manifest=manifest)
    return path


def _phantom_task(size: int, split: str, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (5 n, 1, S, S), classes and facts of n slices in all contrasts.

    A class of lesion says little of a T1 image, so the facts say the rest: the contrast
    (one of 5), the level of the slice and the fraction of each tissue.
    """
    data = make_phantom(split, size, n, seed=POPULATION)
    images = torch.cat([torch.from_numpy(data.images[name]) for name in CONTRASTS])
    tissue = F.one_hot(torch.from_numpy(data.tissue).long()).float().mean(dim=(1, 2))
    level = torch.from_numpy(data.level)[:, None]
    contrast = torch.eye(len(CONTRASTS)).repeat_interleave(n, dim=0)
    slices = torch.cat([level, tissue], dim=1).repeat(len(CONTRASTS), 1)
    labels = torch.from_numpy(data.labels).repeat(len(CONTRASTS))
    return to_float(images[:, None]), labels, torch.cat([contrast, slices], dim=1)


def train_classifier(
    network: FeatureNet,
    images: Tensor,
    labels: Tensor,
    facts: Tensor | None,
    steps: int,
    seed: int,
) -> None:
    """Fit `network` to labels (N,), and to facts (N, K) where it has a regressor."""
    if facts is None:
        facts = images.new_zeros(len(images), 0)
    else:
        facts = (facts - facts.mean(dim=0)) / facts.std(dim=0).clamp(min=1e-6)
    share = torch.bincount(labels, minlength=network.classifier.out_features).float()
    weight = (len(labels) / share.clamp(min=1)).sqrt()  # rare classes count for more
    weight = weight / weight[labels].mean()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)

    def train_step(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        x, y, wanted = batch
        features = network.features(_augment(x, generator))
        loss = F.cross_entropy(network.logits(features), y, weight)
        if network.regressor is not None:
            loss = loss + F.mse_loss(network.regressor(features), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss}

    data = batches(images, labels, facts, batch_size=64, seed=seed)
    fit(train_step, data, steps, desc="extractor")
    network.eval()


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts of up to 1/14 of the side, and a little contrast and brightness."""
    reach = x.shape[-1] // 14
    dy, dx = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    x = padded.roll((dy, dx), dims=(2, 3))[..., reach:-reach, reach:-reach]
    gain, offset = 0.1 * torch.randn(2, len(x), 1, 1, 1, generator=generator)
    return (x + 1) * (1 + gain) - 1 + offset


def predict(network: FeatureNet, images: Tensor) -> Tensor:
    """The class of each image, (N,) int64."""
    with torch.inference_mode():
        parts = [network.logits(network.features(x)) for x in images.split(256)]
    return torch.cat(parts).argmax(dim=1).clone()


def mean_recall(guess: Tensor, labels: Tensor) -> float:
    """Mean over the classes of the share that was recognised, in [0, 1]."""
    right = [(guess[labels == k] == k).float().mean() for k in labels.unique()]
    return torch.stack(right).mean().item()


def _train_contrastive(
    network: FeatureNet, images: Tensor, steps: int, seed: int
) -> float:
    """Two views of an image are to be alike, those of others not: Chen et al. 2020."""
    projector = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, 32))
    weights = [*network.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)

    def train_step(x: Tensor) -> dict[str, Tensor]:
        views = torch.cat([_view(x, generator), _view(x, generator)])
        z = F.normalize(projector(network.features(views)), dim=1)
        similar = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
        other = torch.arange(len(z)).roll(len(x))  # the other view of the same image
        loss = F.cross_entropy(similar, other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return {"loss": loss}

    data = batches(images, batch_size=64, seed=seed)
    history = fit(train_step, data, steps, desc="extractor")
    network.eval()
    return float(history["loss"][-50:].mean())


def _view(x: Tensor, generator: torch.Generator) -> Tensor:
    """A part of 80 to 100 % of the side, with other contrast and brightness."""
    n = len(x)
    zoom = 1 - 0.2 * torch.rand(n, generator=generator)
    offset = (1 - zoom)[:, None] * (2 * torch.rand(n, 2, generator=generator) - 1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = offset
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    gain, shade = 0.2 * torch.randn(2, n, 1, 1, 1, generator=generator)
    return (x + 1) * (1 + gain) - 1 + shade


def main() -> None:
    """python -m course_lib.features DATASET [--size S] [--data DIR] [--out DIR]"""
    parser = argparse.ArgumentParser(prog="course_lib.features", description=__doc__)
    parser.add_argument("dataset", help="phantom, a MedMNIST flag, or a path")
    parser.add_argument("--size", type=int, default=32, help="side of the images, px")
    parser.add_argument("--data", help="folder of the data set")
    parser.add_argument("--kind", choices=list(KINDS), default="classifier")
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder to write to (default: the cache)")
    given = parser.parse_args()
    path = train_extractor(
        given.dataset,
        given.size,
        kind=given.kind,
        root=given.data,
        steps=given.steps,
        seed=given.seed,
        out=given.out,
    )
    print(path, path.with_suffix(".json").read_text("utf-8"), sep="\n")
