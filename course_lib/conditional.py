"""Scores for generators that draw a chosen class: distance by class, and usefulness."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from course_lib.feature_net import FeatureNet
from course_lib.feature_training import mean_recall, predict, train_classifier
from course_lib.features import Extractor
from course_lib.metrics import frechet_distance, kid


@dataclass(frozen=True)
class ClassDistance:
    """Real against fake images of one class, `n` each; `frechet` None where n <= d."""

    n: int
    frechet: float | None
    kid: float


def class_distances(
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    *,
    extractor: Extractor,
    seed: int = 0,
) -> dict[int, ClassDistance]:
    """{class: distance}, over all classes of the real images, at equal n in each.

    Images (N, C, H, W), labels (N,). n differs between classes, and the Frechet
    distance with it: compare models within a class, not classes. Raises ValueError
    where a class has fewer than 2 images on either side.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for k in real_labels.unique().tolist():
        sides = []
        for images, labels in ((real, real_labels), (fake, fake_labels)):
            index = torch.nonzero(labels == k).flatten()
            order = torch.randperm(len(index), generator=generator)
            sides.append((images, index[order]))
        n = min(len(index) for _, index in sides)
        if n < 2:
            raise ValueError(f"class {k} has {n} images on one side; draw more of it")
        a, b = (extractor(images[index[:n]]) for images, index in sides)
        frechet = frechet_distance(a, b) if n > extractor.dim else None
        found[k] = ClassDistance(n, frechet, kid(a, b))
    return found


@dataclass(frozen=True)
class Usefulness:
    """Balanced accuracies of one small classifier, trained three ways.

    `real` and `fake`: trained on real or on fake images, tested on held-out real ones;
    `on_fake`: trained on real images, tested on the fakes. Chance is 1 / classes.
    """

    real: float
    fake: float
    on_fake: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for JSON."""
        return asdict(self)


def usefulness(
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    steps: int = 300,
    seed: int = 0,
) -> Usefulness:
    """Train on synthetic, test on real, and the other way round; beside real alone.

    The classification accuracy score of Ravuri & Vinyals 2019 (1905.10887), with the
    reverse of Shmelkov et al. 2018 (1807.09499). Equal numbers of real and fake images
    are used, as many as the smaller set has. Few seeds spread by a few per cent: repeat
    with others. Raises ValueError on a class that the real images lack.
    """
    classes = int(real_labels.max()) + 1
    for labels in (fake_labels, test_labels):
        if int(labels.max()) >= classes:
            raise ValueError(f"the real images lack class {int(labels.max())}")
    generator = torch.Generator().manual_seed(seed)
    n = min(len(real), len(fake))
    some_real = torch.randperm(len(real), generator=generator)[:n]
    some_fake = torch.randperm(len(fake), generator=generator)[:n]

    def trained(images: Tensor, labels: Tensor) -> FeatureNet:
        with torch.random.fork_rng(devices=[]):  # leave the caller's seed alone
            torch.manual_seed(seed)
            network = FeatureNet(classes, 0, images.shape[1], images.shape[-1])
            train_classifier(network, images, labels, None, steps, seed)
        return network

    by_real = trained(real[some_real], real_labels[some_real])
    by_fake = trained(fake[some_fake], fake_labels[some_fake])
    return Usefulness(
        real=mean_recall(predict(by_real, test), test_labels),
        fake=mean_recall(predict(by_fake, test), test_labels),
        on_fake=mean_recall(predict(by_real, fake), fake_labels),
    )
