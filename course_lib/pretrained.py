"""Networks with published weights: Inception-v3 for FID, and LPIPS.

torch-fidelity and torchmetrics carry the networks; their weights are large and are
fetched only when you say so. Both packages import torchvision, which must fit torch.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.features import INCEPTION, Extractor
from course_lib.pixels import to_bytes

FID_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
FID_FILES = (  # one file, under the names of torch-fidelity and of pytorch-fid
    "weights-inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.pth",
)
FID_SHA256 = "6726825d"  # how the hash of that file begins
BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
LPIPS_SIDE = 64  # smaller images vanish in AlexNet's strides


def inception_extractor(
    weights: str | Path | None = None,
    *,
    download: bool = False,
    device: torch.device | str = "cpu",
) -> Extractor:
    """Inception-v3 with the FID weights, 2048 features: the one whose distance is FID.

    `weights`, or the file in torch hub's folder, or with `download=True` fetched there
    (91 MB). Its own resize to 299 px, bilinear without antialiasing as in TensorFlow 1,
    is part of what FID means. Raises FileNotFoundError, ImportError (torch-fidelity),
    ValueError on another file.
    """
    path = _fid_weights(weights, download)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(FID_SHA256):
        raise ValueError(
            f"{path} is not the file of the FID weights (SHA-256 {digest[:8]}..., "
            f"expected {FID_SHA256}...); its distances would not be FID. Get {FID_URL}"
        )
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            FeatureExtractorInceptionV3,
        )
    except (ImportError, RuntimeError) as error:  # RuntimeError: a misfit torchvision
        raise ImportError(
            f"torch-fidelity cannot be imported ({error}); pip install torch-fidelity, "
            "with a torchvision that belongs to your torch"
        ) from error
    # The package unpickles without limits, so it reads what was read safely and
    # packed again here.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    packed = io.BytesIO()
    torch.save(state, packed)
    packed.seek(0)
    network = FeatureExtractorInceptionV3(INCEPTION, ["2048"], packed)
    return Extractor(
        name=INCEPTION,
        sha256=digest,
        dim=2048,
        image_size=299,
        channels=3,
        network=_Inception(network).to(device).eval(),
        classes=tuple(f"ImageNet {i}" for i in range(1008)),
        trained_on="ImageNet 2012 (TensorFlow's Inception of 2015-12-05)",
        resize="bilinear as in TensorFlow 1, not antialiased",
    )


class _Inception(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        return self.network(to_bytes(images))[0]

    def logits(self, features: Tensor) -> Tensor:
        # without the bias, as the Inception Score's original code has it
        return F.linear(features, self.network.fc.weight)


def lpips(x: Tensor, y: Tensor, net: str = "alex") -> Tensor:
    """LPIPS, per pair: smaller is more alike. (N, C, H, W) x 2 in [-1, 1] -> (N,).

    `net` "alex", "vgg" or "squeeze", never Inception; grey is repeated, and images
    below 64 px are enlarged to 64 (bilinear). The linear weights come with
    torchmetrics; the backbone's file must lie in torch hub's folder. Raises
    FileNotFoundError, ImportError, ValueError. Zhang et al. 2018, 1801.03924.
    """
    if net not in BACKBONES:
        raise ValueError(f"net is one of {', '.join(BACKBONES)}, not {net!r}")
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"expected two batches of one shape (N, 1 or 3, H, W), got "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    if min(x.amin(), y.amin()) < -1.001 or max(x.amax(), y.amax()) > 1.001:
        raise ValueError("expected images in [-1, 1]; use datasets.load_images")
    path = _hub() / BACKBONES[net]
    if not path.is_file():
        url = f"https://download.pytorch.org/models/{BACKBONES[net]}"
        raise FileNotFoundError(
            f"LPIPS needs the weights of its backbone. Put {url} into {_hub()}; "
            "nothing is downloaded on its own"
        )
    try:
        from torchmetrics.functional.image import (
            learned_perceptual_image_patch_similarity,
        )
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"torchmetrics cannot be imported ({error}); pip install torchmetrics, "
            "with a torchvision that belongs to your torch"
        ) from error
    pair = [_for_lpips(images) for images in (x, y)]
    with torch.inference_mode():
        values = learned_perceptual_image_patch_similarity(
            *pair, net_type=net, reduction="none"
        )
    return values.reshape(len(x)).clone()


def _for_lpips(images: Tensor) -> Tensor:
    images = images.detach().float().expand(-1, 3, -1, -1)
    if min(images.shape[2:]) < LPIPS_SIDE:
        images = F.interpolate(images, (LPIPS_SIDE, LPIPS_SIDE), mode="bilinear")
    return images.clamp(-1, 1)


def _hub() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _fid_weights(weights: str | Path | None, download: bool) -> Path:
    if weights is not None:
        if Path(weights).is_file():
            return Path(weights)
        raise FileNotFoundError(f"{weights} does not exist; get {FID_URL}")
    for name in FID_FILES:
        if (_hub() / name).is_file():
            return _hub() / name
    if download:
        _hub().mkdir(parents=True, exist_ok=True)
        path = _hub() / FID_FILES[0]
        torch.hub.download_url_to_file(FID_URL, str(path), FID_SHA256, progress=False)
        return path
    raise FileNotFoundError(
        "the FID weights of Inception-v3 (91 MB) are not on this machine. Call "
        f"inception_extractor(download=True), or put {FID_URL} into {_hub()}. Without "
        "them use course_extractor(), whose distance is called FD[name], not FID"
    )
