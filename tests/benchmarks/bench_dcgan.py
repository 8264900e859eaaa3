"""The DCGAN of lesson 03 beside the tutorial recipe: distance, and time of a step.

    taskset -c 0,1 python tests/benchmarks/bench_dcgan.py [--data DIR] [--seconds S]
    taskset -c 0,1 python tests/benchmarks/bench_dcgan.py --step [--torchgan]
    --save writes what was found to course_lib/benchmarks.json, for lesson 03

The tutorial recipe is the DCGAN paper's network as tutorials have it (32 px, width 64,
batch norm, N(0, 0.02), Adam 2e-4, beta1 0.5, cross-entropy of a sigmoid, DataLoader),
written here. Both train in turn for the same seconds of CPU time, by default what the
lesson takes at `lab`. The lesson has two rows: the paper's recipe, which it teaches,
and that with a residual layer in G, and R1 instead of batch norm and momentum in D.
They are scored with their mean generator, the tutorial against real images that went
the same way (32 px), each with the better of training and evaluation mode. `--step`:
the same networks and algorithm in alternating pairs. Leaves with 1 where the nearer of
the lesson's is over 1/5 of the tutorial's distance or not below a PCA-64 Gaussian, or
where the step is less than 1.15 times as fast (1.3 times torchgan 0.1.0, which must be
installed beside the course: pip install --no-deps torchgan==0.1.0).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import course_lib  # noqa: F401  sets the threads' wait policy before torch starts

# isort: split
import torch
from torch import Tensor, nn

from course_lib.autoencoders import fit_pca
from course_lib.benchmarks import save_benchmark
from course_lib.datasets import batches, load_images
from course_lib.features import course_extractor, for_models
from course_lib.gans import (
    Discriminator,
    Generator,
    init_weights,
    make_train_step,
    with_residuals,
)
from course_lib.metrics import frechet_distance, frechet_statistics
from course_lib.training import EMA

DATASET, SIZE, TUTORIAL_SIZE = "pneumoniamnist", 28, 32
SEEDS, SECONDS = [0, 1, 2], 60.0
TUTORIAL = "tutorial recipe"


# --- the tutorial recipe --------------------------------------------------------------


class TutorialGenerator(nn.Module):
    def __init__(self, nz: int = 100, width: int = 64) -> None:
        super().__init__()
        self.latent_dim = nz
        sizes = [nz, 4 * width, 2 * width, width]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise(sizes)):
            step = (1, 0) if i == 0 else (2, 1)  # 1 -> 4, then doubled
            layers += [
                nn.ConvTranspose2d(c_in, c_out, 4, *step, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(True),
            ]
        last = nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False)
        self.main = nn.Sequential(*layers, last, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z[:, :, None, None])


class TutorialDiscriminator(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 4, 2, 1, bias=False)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
        for c_in in (width, 2 * width):
            layers += [
                nn.Conv2d(c_in, 2 * c_in, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * c_in),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        last = nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False)
        self.main = nn.Sequential(*layers, last, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x).view(-1)


def tutorial_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def tutorial_step() -> tuple[nn.Module, Callable[[Tensor], dict[str, float]]]:
    """The generator, and a step as tutorials write it."""
    g = TutorialGenerator().apply(tutorial_init)
    d = TutorialDiscriminator().apply(tutorial_init)
    opt_g = torch.optim.Adam(g.parameters(), lr=2e-4, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(d.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCELoss()

    def step(real: Tensor) -> dict[str, float]:
        d.zero_grad()
        label = torch.full((len(real),), 1.0)
        error_real = criterion(d(real), label)
        error_real.backward()
        fake = g(torch.randn(len(real), g.latent_dim))
        label.fill_(0.0)
        error_fake = criterion(d(fake.detach()), label)
        error_fake.backward()
        opt_d.step()
        g.zero_grad()
        label.fill_(1.0)
        error_g = criterion(d(fake), label)
        error_g.backward()
        opt_g.step()
        return {"d": (error_real + error_fake).item(), "g": error_g.item()}

    return g, step


# --- the lesson's ---------------------------------------------------------------------

RATE = 1e-3


def lesson_step(
    size: int, width: int = 32, latent_dim: int = 64, rate: float = RATE
) -> tuple[nn.Module, Callable, list[torch.optim.Optimizer]]:
    """The generator, the step of lesson 03, and its optimisers."""
    pair = Generator(latent_dim, width, size), Discriminator(width, size)
    return prepared(*pair, rate, beta1=0.5)


def residual_step(
    size: int,
) -> tuple[nn.Module, Callable, list[torch.optim.Optimizer]]:
    """The same with one layer more in G, and R1 for batch norm and momentum in D."""
    pair = with_residuals(Generator(64, 32, size)), Discriminator(32, size, norm="none")
    return prepared(*pair, RATE, beta1=0.0, r1=1.0)


def prepared(
    g: nn.Module, d: nn.Module, rate: float, beta1: float, r1: float = 0.0
) -> tuple[nn.Module, Callable, list[torch.optim.Optimizer]]:
    for net in (g, d):
        net.apply(init_weights).to(memory_format=torch.channels_last)
    opts = [
        torch.optim.Adam(net.parameters(), rate, betas=(beta1, 0.999), fused=True)
        for net in (g, d)
    ]
    return g, make_train_step(g, d, *opts, r1=r1), opts


LESSON = {"lesson 03": lesson_step, "lesson 03, R1 and residual": residual_step}


# --- distance in the same seconds -----------------------------------------------------


def forever(data) -> Iterator[Tensor]:
    while True:
        for batch in data:
            yield batch[0] if isinstance(batch, list) else batch


def train_tutorial(images: Tensor, seconds: float) -> tuple[nn.Module, int]:
    g, step = tutorial_step()
    data = torch.utils.data.TensorDataset(images)
    feed = forever(torch.utils.data.DataLoader(data, 64, shuffle=True, drop_last=True))
    start, steps = time.process_time(), 0
    while time.process_time() - start < seconds:
        step(next(feed))
        steps += 1
    return g, steps


def train_lesson(
    images: Tensor, seconds: float, recipe: Callable
) -> tuple[nn.Module, int]:
    g, step, opts = recipe(SIZE)
    feed = forever(batches(images, batch_size=64, seed=torch.initial_seed() % 2**31))
    ema, steps = EMA(g), 0
    start = time.process_time()
    while (spent := time.process_time() - start) < seconds:
        for opt in opts:
            opt.param_groups[0]["lr"] = RATE * max(0.05, 1 - spent / seconds)
        step(next(feed))
        ema.update()
        steps += 1
    return ema.module, steps


@torch.no_grad()
def best_distance(generator: nn.Module, real: Any, extractor: Any, n: int) -> float:
    """The better of evaluation and training mode: tutorials sample in either."""
    rng = torch.Generator().manual_seed(1234)
    z = torch.randn(n, generator.latent_dim, generator=rng)
    found = []
    for training in (False, True):
        generator.train(training)
        fake = torch.cat([generator(part) for part in z.split(250)]).contiguous()
        found.append(frechet_distance(real, extractor(fake)))
    return min(found)


def distances(data: str | None, seconds: float, seeds: list[int], save: bool) -> bool:
    extractor = course_extractor(DATASET, SIZE)
    images = load_images(DATASET, "train", SIZE, root=data)[0]
    ours = for_models(DATASET, images)
    large = load_images(DATASET, "train", TUTORIAL_SIZE, root=data)[0][ours]
    images = images[ours]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    n = len(images) // 2
    half, other = order[:n], order[n : 2 * n]
    real = frechet_statistics(extractor(images[half]))
    real_large = frechet_statistics(extractor(large[half]))
    pca = fit_pca(images, 64)
    codes = pca.encode(images)
    rng = torch.Generator().manual_seed(0)
    drawn = codes.mean(0) + codes.std(0) * torch.randn(n, 64, generator=rng)
    floor = frechet_distance(real, extractor(images[other]))
    by_pca = frechet_distance(real, extractor(pca.decode(drawn)))
    print(f"{extractor.frechet_name}, N = {n}, {DATASET}, {seconds:.0f} s of CPU time")
    print(f"real, other half {floor:.2f}   PCA-64 Gaussian {by_pca:.2f}")
    found: dict[str, list[float]] = {name: [] for name in (TUTORIAL, *LESSON)}
    counts: dict[str, list[float]] = {name: [] for name in found}
    for seed in seeds:
        for name in found:
            torch.manual_seed(seed)
            if name == TUTORIAL:
                net, done = train_tutorial(large, seconds)
                far = best_distance(net, real_large, extractor, n)
            else:
                net, done = train_lesson(images, seconds, LESSON[name])
                far = best_distance(net, real, extractor, n)
            found[name].append(far)
            counts[name].append(done)
            print(f"seed {seed}  {name:28} {far:6.2f} ({done:5} steps)", flush=True)
    if save:
        table = {
            name: {"Frechet distance": found[name], "steps": counts[name]}
            for name in found
        }
        table["PCA-64 Gaussian"] = {"Frechet distance": [by_pca]}
        table["real, other half"] = {"Frechet distance": [floor]}
        given = " ".join(str(seed) for seed in seeds)
        save_benchmark(
            "dcgan" if seconds == SECONDS else f"dcgan_{seconds:.0f}",
            f"{DATASET}, {seconds:.0f} s of CPU time each, {extractor.name}, N = {n}",
            table,
            command="python tests/benchmarks/bench_dcgan.py --data DIR "
            f"--seconds {seconds:.0f} --seeds {given} --save",
            values=f"seeds {given}",
        )
    means = {name: statistics.mean(values) for name, values in found.items()}
    print(f"mean    {TUTORIAL:28} {means[TUTORIAL]:6.2f}")
    for name in LESSON:
        ratio = means[TUTORIAL] / means[name]
        print(f"mean    {name:28} {means[name]:6.2f}, {ratio:.1f} times nearer")
    best = min(LESSON, key=means.__getitem__)
    print(f"the nearest: {best}")
    return means[best] <= means[TUTORIAL] / 5 and means[best] < by_pca


# --- the step -------------------------------------------------------------------------


def torchgan_step() -> Callable[[Tensor], Any]:
    """One iteration of torchgan's own trainer, on its own networks, which are these."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from references import _prepare

    kept = _prepare()  # torchgan imports torchvision
    from torchgan import losses, models
    from torchgan.trainer import Trainer

    adam = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.5, 0.999)}}
    sizes = {"out_size": TUTORIAL_SIZE, "out_channels": 1, "step_channels": 64}
    g = {"name": models.DCGANGenerator, "args": sizes, "optimizer": adam}
    sizes = {"in_size": TUTORIAL_SIZE, "in_channels": 1, "step_channels": 64}
    d = {"name": models.DCGANDiscriminator, "args": sizes, "optimizer": adam}
    both = [losses.MinimaxGeneratorLoss(), losses.MinimaxDiscriminatorLoss()]
    nets, folder = {"generator": g, "discriminator": d}, tempfile.mkdtemp()
    places = {"checkpoints": f"{folder}/gan", "recon": folder, "log_dir": folder}
    trainer = Trainer(nets, both, device=torch.device("cpu"), **places)
    trainer.kept, trainer.batch_size, trainer.labels = kept, 64, None

    def step(real: Tensor) -> Any:
        trainer.real_inputs = real
        return trainer.train_iter()

    return step


def steps(pairs: int, torchgan: bool, save: bool) -> bool:
    """The same networks (32 px, width 64), in alternating pairs after a warm-up."""
    torch.manual_seed(0)
    data = [torch.rand(64, 1, TUTORIAL_SIZE, TUTORIAL_SIZE) * 2 - 1 for _ in range(4)]
    name, goal = ("torchgan 0.1.0", 1.3) if torchgan else ("the tutorial loop", 1.15)
    plain = torchgan_step() if torchgan else tutorial_step()[1]
    _, ours, _ = lesson_step(TUTORIAL_SIZE, width=64, latent_dim=100, rate=2e-4)
    ratios, times = [], {plain: [], ours: []}
    for pair in range(pairs + 1):
        for step in (plain, ours) if pair % 2 else (ours, plain):
            start = time.process_time()
            for batch in data:
                step(batch)
            times[step].append((time.process_time() - start) / len(data))
    ratios = [a / b for a, b in zip(times[plain][1:], times[ours][1:], strict=True)]
    low, ratio, high = statistics.quantiles(ratios)
    print(
        f"step, 32 px, width 64, batch 64: {name} "
        f"{1e3 * statistics.median(times[plain][1:]):.0f} ms, lesson 03 "
        f"{1e3 * statistics.median(times[ours][1:]):.0f} ms of CPU time, "
        f"{ratio:.2f} times as fast (quartiles {low:.2f} to {high:.2f})"
    )
    if save:
        entry = "dcgan_step_torchgan" if torchgan else "dcgan_step"
        how = "--step --torchgan" if torchgan else "--step"
        cells = {f"times as fast as {name}": [low, ratio, high]}
        save_benchmark(
            entry,
            "A training step at 32 px, width 64, batch 64, by CPU time",
            {"lesson 03": cells},
            command=f"python tests/benchmarks/bench_dcgan.py {how} --save",
            values=f"quartiles of {pairs} alternating pairs",
            centre="median",
        )
    return ratio >= goal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds pneumoniamnist.npz")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of CPU time each"
    )
    parser.add_argument("--step", action="store_true", help="time the step alone")
    parser.add_argument("--torchgan", action="store_true", help="beside torchgan")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--save", action="store_true", help="for lesson 03 to show")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.step:
        return int(not steps(given.pairs, given.torchgan, given.save))
    return int(not distances(given.data, given.seconds, given.seeds, given.save))


if __name__ == "__main__":
    sys.exit(main())
