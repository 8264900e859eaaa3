"""Feature extractors for distances between image sets, each with a name and a hash.

The course ships one small network a data set, trained on images that neither side of a
comparison uses; `python -m course_lib.features DATASET` trains one for your own. Only
Inception-v3 with the FID weights makes a Frechet distance an FID.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checkpoints import WEIGHTS, load_weights
from course_lib.feature_net import DIM, FeatureNet
from course_lib.pixels import to_bytes, to_float
from course_lib.runtime import cache_dir

ANTIALIASED = "bilinear, antialiased"
RESERVED = 4  # one training image in so many belongs to the extractor
INCEPTION = "inception-v3-fid"
KINDS = {"classifier": "extractor", "self-supervised": "contrastive"}  # file names


@dataclass(frozen=True, eq=False)
class Extractor:
    """Images (N, C, H, W) in [-1, 1] -> features (N, dim), float32 on the CPU.

    uint8 images are scaled; squares of another size are resized (`resize` names the
    filter); grey is repeated where the network wants colour. Raises ValueError on other
    ranges, NaN, colour for a grey network, images that are not square.
    """

    name: str
    sha256: str
    dim: int
    image_size: int
    channels: int
    network: nn.Module = field(repr=False)  # .features(images), .logits(features)
    classes: tuple[str, ...] = ()
    trained_on: str = ""
    resize: str = ANTIALIASED
    input_range: tuple[float, float] = (-1.0, 1.0)

    @property
    def frechet_name(self) -> str:
        """What a Frechet distance on these features is called: FID, or FD[name]."""
        return "FID" if self.name == INCEPTION else f"FD[{self.name}]"

    def __call__(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Features (N, dim), float32 on the CPU, without gradient."""
        return self._run(images, batch_size, self.network.features)

    def probabilities(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """p(class | image), (N, K), rows sum to 1; the classes are `classes`."""
        if not self.classes:
            raise ValueError(f"{self.name} is no classifier; use course_extractor()")

        def softmax(x: Tensor) -> Tensor:
            return self.network.logits(self.network.features(x)).softmax(dim=1)

        return self._run(images, batch_size, softmax)

    def _run(self, images: Tensor, batch_size: int, step) -> Tensor:
        _check_images(images, self.name, self.channels)
        device = next(self.network.parameters()).device
        parts = []
        with torch.inference_mode():
            for x in images.split(batch_size):
                x = to_float(x).to(device).expand(-1, self.channels, -1, -1)
                if self.resize == ANTIALIASED and x.shape[-1] != self.image_size:
                    size = (self.image_size, self.image_size)
                    x = F.interpolate(x, size, mode="bilinear", antialias=True)
                parts.append(step(x).float().cpu())
        return torch.cat(parts).clone()  # usable with autograd, unlike its parts


def _check_images(images: Tensor, name: str, channels: int) -> None:
    if images.ndim != 4 or len(images) == 0 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"expected square images (N, C, H, W), got {tuple(images.shape)}; "
            "datasets.load_images makes them, a single image is image[None]"
        )
    if images.shape[1] not in (1, channels):
        raise ValueError(
            f"{name} takes {channels} channel(s), got {images.shape[1]}; for grey use "
            "images.mean(dim=1, keepdim=True), on both sides of a comparison"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise ValueError(f"expected float in [-1, 1] or uint8, got {images.dtype}")
    low, high = images.aminmax()
    if not (low >= -1.001 and high <= 1.001):  # NaN fails too
        raise ValueError(
            f"expected images in [-1, 1], got [{low:.3g}, {high:.3g}]; use "
            "datasets.load_images, and images.clamp(-1, 1) for what a model made"
        )


# --- the course's networks ------------------------------------------------------------


def course_extractor(
    dataset: str | Path = "phantom",
    size: int = 32,
    *,
    kind: str = "classifier",
    device: torch.device | str = "cpu",
) -> Extractor:
    """The extractor for a data set's name or path, trained at the size nearest `size`.

    Shipped: phantom 32, pneumoniamnist 28, mednist 64; then those that you trained
    (`python -m course_lib.features`). `kind` is "classifier", or "self-supervised" for
    one that saw no labels. Raises FileNotFoundError where there is none.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    stem, prefix = dataset_stem(dataset), KINDS[kind]
    found = {}
    for folder in (cache_dir() / "extractors", WEIGHTS):  # the shipped one wins
        for path in folder.glob(f"{prefix}_{stem}_*.safetensors"):
            tail = path.stem.removeprefix(f"{prefix}_{stem}_")
            if tail.isdigit():
                found[int(tail)] = path
    if not found:
        shipped = sorted(path.stem for path in WEIGHTS.glob(f"{prefix}_*.safetensors"))
        raise FileNotFoundError(
            f"there is no {kind} extractor for {stem!r} (shipped: "
            f"{', '.join(shipped) or 'none'}). Train one in a few minutes: "
            f"python -m course_lib.features {dataset} --size {size} --kind {kind}"
        )
    trained = min(found, key=lambda other: (abs(other - size), other))
    return _load_extractor(found[trained], device)


def reserved_split(images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices (for_extractor, for_models) of training images (N, C, H, W).

    The protocol: the extractor of a data set learned from a quarter of its training
    split; models train on `for_models`, and real sets come from `for_models` or the
    test split. A hash of the pixels decides, so the order of a file, or a part of it,
    does not matter, and copies stay together; the size does: split at the size of the
    extractor. The phantom needs none of this (see `for_models`).
    """
    key = seed.to_bytes(8, "little")
    pixels = to_bytes(images).cpu().contiguous().numpy()
    hashes = (hashlib.blake2b(image, digest_size=8, key=key) for image in pixels)
    mine = torch.tensor([h.digest()[0] % RESERVED == 0 for h in hashes])
    return torch.nonzero(mine).flatten(), torch.nonzero(~mine).flatten()


def for_models(dataset: str | Path, images: Tensor) -> Tensor:
    """Indices of the training images that models may use: `reserved_split`'s second.

    All of the phantom, whose extractor saw another population of heads.
    """
    if dataset_stem(dataset) == "phantom":
        return torch.arange(len(images))
    return reserved_split(images)[1]


def dataset_stem(dataset: str | Path) -> str:
    """The short name of a set: "phantom", or "mednist" for folder/mednist_64.npz."""
    return re.sub(r"_\d+$", "", Path(dataset).stem.lower())


def _load_extractor(path: Path, device: torch.device | str) -> Extractor:
    arguments = json.loads(path.with_suffix(".json").read_text("utf-8"))["arguments"]
    network = FeatureNet(**arguments)
    manifest = load_weights(path, network)
    prefix, _, rest = path.stem.partition("_")
    made = {"extractor": "course", "contrastive": "course-simclr"}[prefix]
    return Extractor(
        name=f"{made}-{rest.replace('_', '-')}",
        sha256=manifest["sha256"],
        dim=DIM,
        image_size=arguments["size"],
        channels=arguments["channels"],
        network=network.to(device).eval().requires_grad_(False),
        classes=tuple(manifest["classes"]),
        trained_on=manifest["data"],
    )


if __name__ == "__main__":
    from course_lib.feature_training import main

    main()
