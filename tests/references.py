"""The well-kept packages that metrics are compared with, behind plain functions.

Tests and benchmarks only: the course imports neither torchmetrics nor torch-fidelity.
"""

import functools
import sys
import warnings

import numpy as np
import torch


@functools.cache
def _prepare() -> list:
    """Let torchmetrics be imported where torchvision's compiled part does not load.

    That is so beside a torch of another build, and the import fails at the schema of
    two operators that no metric here calls. Returns what must stay alive.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return []
    except (RuntimeError, OSError):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        return [library]
    return []


class Features(torch.nn.Module):
    """Stands in for Inception: its images are the features."""

    def __init__(self, d):
        super().__init__()
        self.num_features = d

    def forward(self, x):
        return x


def torchmetrics_frechet(real, fake):
    _prepare()
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item()


def torchmetrics_kid(real, fake, subsets, subset_size, seed):
    _prepare()
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings(action="ignore"):  # that it keeps all features
        metric = KernelInceptionDistance(
            feature=Features(real.shape[1]), subsets=subsets, subset_size=subset_size
        )
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return mean.item(), std.item()


def torchmetrics_ssim(x, y, data_range):
    _prepare()
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(
        x, y, data_range=data_range, reduction="none"
    )


def torchmetrics_memorisation(train, fake):
    _prepare()
    from torchmetrics.image.mifid import _compute_cosine_distance

    return _compute_cosine_distance(fake, train, cosine_distance_eps=2.0).item()


def fidelity_statistics(features):
    _prepare()
    from torch_fidelity.metric_fid import fid_features_to_statistics

    return fid_features_to_statistics(features)


def fidelity_frechet(statistics_real, fake):
    _prepare()
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    values = fid_statistics_to_metric(statistics_real, fidelity_statistics(fake), False)
    return values["frechet_inception_distance"]


def fidelity_kid(real, fake, subsets, subset_size):
    """Over one subset of all rows this is the full estimate."""
    _prepare()
    from torch_fidelity.metric_kid import kid_features_to_metric

    values = kid_features_to_metric(
        real, fake, kid_subsets=subsets, kid_subset_size=subset_size, verbose=False
    )
    return values["kernel_inception_distance_mean"]


def fidelity_inception_score(logits, splits):
    _prepare()
    from torch_fidelity.metric_isc import isc_features_to_metric

    values = isc_features_to_metric(logits, splits=splits, shuffle=False)
    return values["inception_score_mean"], values["inception_score_std"]


def fidelity_precision_recall(real, fake, k):
    _prepare()
    from torch_fidelity.metric_prc import prc_features_to_metric

    values = prc_features_to_metric(fake, real, prc_neighborhood=k, verbose=False)
    return values["precision"], values["recall"]


def skimage_ssim(x, y, data_range, **options):
    """(N, C, H, W) -> (N,); options of `structural_similarity`."""
    from skimage.metrics import structural_similarity

    return np.array(
        [
            structural_similarity(
                a.numpy(), b.numpy(), data_range=data_range, channel_axis=0, **options
            )
            for a, b in zip(x, y, strict=True)
        ]
    )
