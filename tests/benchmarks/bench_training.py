"""What `fit` costs beside the eight plain lines of lesson 01.

    taskset -c 0,1 python tests/benchmarks/bench_training.py

Alternating pairs after a warm-up, median of the ratios of CPU time; leaves with 1
where it is over 1.03 with the lesson's network.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import nn

from course_lib.autoencoders import Autoencoder, reconstruction_loss
from course_lib.training import fit


def plain(train_step: Callable, batches: Iterable, steps: int) -> list[float]:
    """The loop as lesson 01 writes it."""
    losses, feed = [], iter(batches)
    for _ in range(steps):
        batch = next(feed, None)
        if batch is None:
            feed = iter(batches)
            batch = next(feed)
        losses.append(train_step(batch)["loss"].item())
    return losses


def stepper(model: nn.Module) -> Callable:
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def train_step(x: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = reconstruction_loss(x, model(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    return train_step


def compare(name: str, model: nn.Module, shape: tuple, steps: int, pairs: int) -> float:
    torch.manual_seed(0)
    data = [torch.rand(shape) * 2 - 1 for _ in range(8)]
    train_step = stepper(model)
    loops = (plain, fit)
    times: dict[Callable, list[float]] = {loop: [] for loop in loops}
    for pair in range(pairs + 1):
        for loop in loops if pair % 2 else loops[::-1]:
            start = time.process_time()  # not wall: other programs run beside this
            loop(train_step, data, steps)
            times[loop].append(time.process_time() - start)
    ratios = [f / p for p, f in zip(times[plain][1:], times[fit][1:], strict=True)]
    step = statistics.median(times[plain][1:]) / steps
    low, ratio, high = statistics.quantiles(ratios)
    print(
        f"{name:26} {step * 1e3:7.3f} ms a step, fit / plain {ratio:.3f} "
        f"(quartiles {low:.3f} to {high:.3f}), {(ratio - 1) * step * 1e6:+.0f} us"
    )
    return ratio


def main() -> int:
    torch.set_num_threads(1)
    compare("linear, batch 4", nn.Linear(16, 16), (4, 16), 2000, 15)
    compare(
        "narrow autoencoder, 16 px", Autoencoder(8, 4, 16), (16, 1, 16, 16), 200, 15
    )
    ratio = compare("autoencoder of lesson 01", Autoencoder(), (64, 1, 32, 32), 10, 25)
    return int(ratio > 1.03)


if __name__ == "__main__":
    sys.exit(main())
