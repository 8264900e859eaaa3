"""Images a second of one epoch: medmnist + DataLoader against course_lib's batches.

    taskset -c 0,1 python tests/benchmarks/bench_data.py [--root FOLDER]

FOLDER holds pneumoniamnist.npz; without it a file of the same shape is made. Rounds
of all three in turn, medians; leaves with 1 where the ratio to medmnist with
torchvision's transforms, as its users write it, is less than 100.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import numpy as np  # noqa: E402
import references  # noqa: E402
import torch  # noqa: E402

from course_lib.datasets import batches, load_images  # noqa: E402
from course_lib.fetch import medmnist_records  # noqa: E402


def stand_in(folder: Path) -> Path:
    """A .npz with the shapes and counts of PneumoniaMNIST, and random pixels."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in medmnist_records()["pneumoniamnist"]["n_samples"].items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, 1), np.uint8)
    np.savez_compressed(folder / "pneumoniamnist.npz", **arrays)
    return folder


def lean_transform(image) -> torch.Tensor:
    """The least that turns a picture into a tensor in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image)).unsqueeze(0)
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def transforms() -> dict:
    """torchvision's, where it can be imported, and the lean one."""
    references._prepare()
    from torchvision.transforms import Compose, Normalize, ToTensor

    usual = Compose([ToTensor(), Normalize([0.5], [0.5])])
    return {"torchvision transforms": usual, "a lean transform": lean_transform}


def epoch_seconds(loader) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    from medmnist import PneumoniaMNIST
    from torch.utils.data import DataLoader

    size = arguments.batch_size
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the MD5 of a stand-in
        root = arguments.root or stand_in(Path(folder))
        sets = {
            name: PneumoniaMNIST("train", transform=transform, root=str(root))
            for name, transform in transforms().items()
        }
        images, labels, _ = load_images(
            "pneumoniamnist", size=28, root=root, download=False, dtype=torch.uint8
        )
    in_order = batches(images, labels, batch_size=size, shuffle=False, drop_last=False)
    for dataset in sets.values():
        theirs = DataLoader(dataset, batch_size=size)
        for (x, y), (a, b) in zip(theirs, in_order, strict=True):
            assert torch.allclose(x, a, atol=1e-6) and torch.equal(y[:, 0], b)

    loaders = {
        f"medmnist + DataLoader, {name}": DataLoader(
            dataset, batch_size=size, shuffle=True, drop_last=True
        )
        for name, dataset in sets.items()
    }
    loaders["course_lib batches"] = ours = batches(images, labels, batch_size=size)
    rounds = [
        [epoch_seconds(loader) for loader in loaders.values()]
        for _ in range(arguments.rounds)
    ]
    count = len(ours) * size
    print(f"{count} images of {tuple(images.shape[1:])}, batch {size}, equal values")
    ratios = []
    for column, name in enumerate(loaders):
        seconds = statistics.median(row[column] for row in rounds)
        ratios.append(statistics.median(row[column] / row[-1] for row in rounds))
        print(f"{name:46} {count / seconds:12,.0f} images/s  x {ratios[-1]:.0f}")
    print(f"ratio {ratios[0]:.0f}, target 100")
    return int(ratios[0] < 100)


if __name__ == "__main__":
    sys.exit(main())
