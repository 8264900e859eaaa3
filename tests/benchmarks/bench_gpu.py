"""The GPU parts of lessons 02 to 05: images a second, memory, seconds to a distance.

    python tests/benchmarks/bench_gpu.py [--save] [--weights] [name ...]

Needs a GPU; `--device cpu --quick` only tries the script. For each lesson the same step
in float32, in bfloat16, with the channels last in memory and as one CUDA graph: all
variants in turn, several rounds. Then the lesson's large network trains on the phantom
with all of it and is scored on the way. `--save` writes what was found to
course_lib/benchmarks.json, `--weights` ships the networks that draw (half precision);
both for the lessons to show where there is no GPU. `--pictures` needs none: it draws
with the shipped networks, for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from PIL import Image
from torch import Tensor, nn

from course_lib import gans, translation, variational, wasserstein
from course_lib.autoencoders import Decoder, Encoder
from course_lib.base import atomic_path
from course_lib.benchmarks import PAGE, save_benchmark
from course_lib.datasets import batches, load_images, load_pairs
from course_lib.features import course_extractor
from course_lib.metrics import frechet_distance, frechet_statistics, ssim
from course_lib.pixels import to_uint8
from course_lib.training import (
    EMA,
    autocast,
    capture_step,
    fit,
    linear_decay,
    load_weights,
    save_weights,
    with_schedules,
)

COMMAND = "python tests/benchmarks/bench_gpu.py"
WEIGHTS = Path(__file__).resolve().parents[2] / "course_lib" / "weights"
VARIANTS = {  # what each adds to the one before
    "float32": (),
    "bfloat16": ("bf16",),
    "and channels_last": ("bf16", "last"),
    "and one CUDA graph": ("bf16", "last", "graph"),
}
CYCLEGAN_VARIANTS = {  # two graphs: the image pools decide in Python what judges see
    "float32": (),
    "bfloat16": ("bf16",),
    "bfloat16, channels_last": ("bf16", "last"),
    "float32, two CUDA graphs": ("graph",),
    "bfloat16, two CUDA graphs": ("bf16", "graph"),
}
SHAPES = {  # the images of a step
    "vae": (128, 1, 64, 64),
    "dcgan": (128, 1, 64, 64),
    "wgan": (5 * 64, 1, 64, 64),
    "cyclegan": (4, 1, 128, 128),
}


@dataclass
class Run:
    """A network, its step, and what a batch of it is."""

    nets: nn.Module
    draws: nn.Module  # the part that is kept and scored
    step: Callable[[Any], dict[str, Tensor]]
    optimizers: list[torch.optim.Optimizer]
    latent_dim: int = 0  # of what draws
    pairs: bool = False
    dear: Tensor | None = None  # the factor of a VAE's KL


def adam(net: nn.Module, rate: float, betas: tuple = (0.5, 0.999)) -> Any:
    return torch.optim.Adam(net.parameters(), rate, betas=betas, fused=True)


def vae(device: torch.device, precision: Callable, layout: Any) -> Run:
    """Lesson 02: 64 px, width 64, 64 numbers of code, batches of 128."""
    nets = variational.VAE(Encoder(128, 64, 64), Decoder(64, 64, 64), 64)
    nets.to(device, memory_format=layout)
    optimizer = adam(nets, 1e-3, (0.9, 0.999))
    dear = torch.ones((), device=device)  # the KL's factor: a graph reads it anew

    def step(x: Tensor) -> dict[str, Tensor]:
        with precision():
            x_hat, mu, logvar = (part.float() for part in nets(x))
        nll, kl = variational.elbo_parts(x, x_hat, mu, logvar, nets.log_sigma)
        translation.descend(optimizer, (nll + dear * kl.sum(1)).mean())
        return {"-ELBO": (nll + kl.sum(1)).mean()}

    return Run(nets, nets.decoder, step, [optimizer], 64, dear=dear)


def dcgan(device: torch.device, precision: Callable, layout: Any) -> Run:
    """Lesson 03: 64 px, width 64, 128 numbers of noise, batches of 128."""
    pair = [gans.Generator(128, 64, 64), gans.Discriminator(64, 64)]
    nets = nn.ModuleList(pair).apply(gans.init_weights)
    nets.to(device, memory_format=layout)
    opts = [adam(net, 1e-3) for net in nets]
    step = gans.make_train_step(*nets, *opts)
    return Run(nets, nets[0], _within(precision, step), opts, 128)


def wgan(device: torch.device, precision: Callable, layout: Any) -> Run:
    """Lesson 04: 64 px, width 64, five critic steps on batches of 64."""
    pair = gans.Generator(64, 64, 64), gans.Discriminator(64, 64, norm="none")
    nets = nn.ModuleList(pair).to(device, memory_format=layout)
    opts = [adam(net, 5e-4, (0.0, 0.9)) for net in nets]
    step = wasserstein.make_train_step(*nets, *opts, n_critic=5)
    return Run(nets, nets[0], _within(precision, step), opts, 64)


def cyclegan(
    device: torch.device,
    precision: Callable,
    layout: Any,
    recorded: bool = False,
    warm_up: int = 0,
) -> Run:
    """Lesson 05: 128 px, width 24, six blocks, batches of 4 of either domain."""
    nets = translation.CycleGAN(24, n_blocks=6, n_downs=2, d_width=64, n_layers=3)
    nets.to(device, memory_format=layout)
    opts = [adam(nets.translators, 5e-4), adam(nets.judges, 2e-4)]
    make = translation.make_cyclegan_step
    if recorded:
        make = functools.partial(translation.make_recorded_step, record=capture_step)
    step = make(nets, *opts, warm_up=warm_up, precision=precision)
    return Run(nets, nets.g_ab, step, opts, pairs=True)


def _within(precision: Callable, step: Callable) -> Callable:
    def train_step(batch: Any) -> dict[str, Tensor]:
        with precision():
            return step(batch)

    return train_step


LESSONS = {"vae": vae, "dcgan": dcgan, "wgan": wgan, "cyclegan": cyclegan}


def variants_of(name: str) -> dict[str, tuple]:
    return CYCLEGAN_VARIANTS if name == "cyclegan" else VARIANTS


def build(
    name: str, variant: str, device: torch.device, data: Any = None, steps: int = 0
) -> tuple:
    """(run, its step in this variant, a batch): without `data` of noise.

    Over `steps`, if given, the rates fall to 0.
    """
    parts = variants_of(name)[variant]
    precision = functools.partial(autocast, device if "bf16" in parts else "cpu")
    layout = torch.channels_last if "last" in parts else torch.contiguous_format
    torch.manual_seed(0)
    recorded, options = "graph" in parts, {}
    if name == "cyclegan":  # it records itself, in two halves
        options = {"recorded": recorded, "warm_up": steps // 2}
    run = LESSONS[name](device, precision, layout, **options)
    if data is None:
        data = torch.rand(SHAPES[name], device=device) * 2 - 1
        data = (data, data.flip(3)) if run.pairs else data
    step, opts = run.step, run.optimizers
    rates = [linear_decay(opt, steps) for opt in opts if steps]
    if recorded and not options:
        step = capture_step(step, data, opts)
    return run, with_schedules(step, rates), data


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(name: str, device: torch.device, seconds: float, rounds: int) -> dict:
    """{variant: {column: values}}: images a second, and the most memory of a step."""
    steps, rows = {}, {}
    for variant in variants_of(name):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        run, step, batch = build(name, variant, device)
        for _ in range(5):
            step(batch)
        wait(device)
        rows[variant] = {"images/s": []}
        if device.type == "cuda":
            # a graph's memory is its own pool: reserved, not allocated step by step
            most = torch.cuda.max_memory_allocated() - before
            rows[variant]["MiB"] = [most / 2**20]
        steps[variant] = step, batch, run
    n = SHAPES[name][0] * (1 + run.pairs)
    for turn in range(rounds):
        for variant in list(steps) if turn % 2 else list(steps)[::-1]:
            step, batch, _ = steps[variant]
            done, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < seconds:
                for _ in range(10 if device.type == "cuda" else 1):
                    step(batch)
                    done += 1
                wait(device)
            rows[variant]["images/s"].append(done * n / spent)
    base = rows["float32"]["images/s"]
    for row in rows.values():
        pairs = zip(row["images/s"], base, strict=True)
        row["times float32"] = [ours / theirs for ours, theirs in pairs]
    for row in rows.values():
        for column in ("images/s", "times float32"):
            row[column] = statistics.quantiles(row[column])
        shown = {column: statistics.median(values) for column, values in row.items()}
        print(f"{name}: {shown}", flush=True)
    return rows


# --- training, and how far it comes ---------------------------------------------------

# The steps of each run. Two of the CycleGAN, which at this size may lose its way.
TRAININGS = {"vae": [8000], "dcgan": [20_000], "wgan": [6000], "cyclegan": [6000, 4000]}
TARGETS = {"vae": 8.0, "dcgan": 4.0, "wgan": 4.0, "cyclegan": 0.75}  # to reach
FD = "Frechet distance (course-phantom-64, N = 2000)"
PAIRED_SSIM = "SSIM of 200 translated test slices to their true T2"


def train(name: str, device: torch.device, steps: int, n: int, stages: int) -> tuple:
    """Train with everything on; (the mean network that draws, its row of numbers)."""
    if name == "cyclegan":
        piles = load_pairs(size=128, paired=False, n=n)[:2]
    else:
        piles = (load_images("phantom", "train", 64, n=3 * n)[0],)
    variant = list(variants_of(name))[-1]
    feed = batches(*piles, batch_size=SHAPES[name][0], seed=0, device=device)
    run, step, _ = build(name, variant, device, next(iter(feed)), steps)
    if run.pairs:
        score, floor = score_translator(device)
    else:
        score, floor = score_drawings(piles[0], run.latent_dim, device)
    unit = "SSIM" if run.pairs else "FD"
    ema, spent, row = EMA(run.draws), 0.0, {}
    for stage in range(stages):
        if run.dear is not None:  # the KL: dear in the beginning, as in lesson 02
            run.dear.fill_(50 ** max(0.0, 1 - stage / (0.6 * stages)))
        wait(device)
        start = time.perf_counter()
        fit(step, feed, steps // stages, ema=ema)
        wait(device)
        spent += time.perf_counter() - start
        value = score(ema.module)
        done = (stage + 1) * (steps // stages)
        print(f"{name}: step {done}, {spent:.1f} s: {value:.3f}", flush=True)
        if value > TARGETS[name] if run.pairs else value < TARGETS[name]:
            row.setdefault(f"seconds to {unit} {TARGETS[name]:g}", [spent])
    row |= {"seconds": [spent], f"{unit} at the end": [value]}
    return ema.module, row | floor


def score_drawings(
    images: Tensor, latent_dim: int, device: torch.device
) -> tuple[Callable[[nn.Module], float], dict]:
    """Frechet distance of 2000 drawn images to 2000 real ones; that of real ones."""
    extractor = course_extractor("phantom", 64, device=device)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    n = min(2000, len(images) // 2)
    real = frechet_statistics(extractor(images[order[:n]]))
    floor = frechet_distance(real, extractor(images[order[n : 2 * n]]))
    print(f"{extractor.frechet_name}, N = {n}, real against real {floor:.3f}")

    @torch.no_grad()
    def score(net: nn.Module) -> float:
        net.eval()
        z = torch.randn(n, latent_dim, generator=torch.Generator().manual_seed(1))
        fakes = [net(part).float() for part in z.to(device).split(250)]
        return frechet_distance(real, extractor(torch.cat(fakes).contiguous()))

    return score, {"FD, real against real": [floor]}


def score_translator(
    device: torch.device,
) -> tuple[Callable[[nn.Module], float], dict]:
    """SSIM of 200 translated T1 slices to their true T2; that of the T1 itself."""
    source, truth, _ = load_pairs("phantom", "test", 128, n=200)
    copied = ssim(source, truth).mean().item()

    @torch.no_grad()
    def score(net: nn.Module) -> float:
        net.eval()
        made = [net(part.to(device)).cpu() for part in source.split(50)]
        return ssim(torch.cat(made), truth).mean().item()

    return score, {"SSIM of the source": [copied]}


@torch.no_grad()
def draw(name: str) -> None:
    """docs/gpu_NAME_training.png: images of the shipped network, row by row.

    Sixteen draws; of a translator T1, the T2 that it makes of it, and the true T2.
    """
    run, _, _ = build(name, "float32", torch.device("cpu"))
    load_weights(shipped_name(name), run.draws)
    net = run.draws.eval()
    if run.pairs:
        source, truth, _ = load_pairs("phantom", "test", 128, n=12)
        rows = torch.stack([part[::2, 0] for part in (source, net(source), truth)])
    else:
        z = torch.randn(16, run.latent_dim, generator=torch.Generator().manual_seed(1))
        rows = net(z)[:, 0].unflatten(0, (2, 8))
    grid = rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (rows * S, columns * S)
    with atomic_path(PAGE.with_name(f"gpu_{name}_training.png")) as path:
        Image.fromarray(to_uint8(grid.numpy(), (-1, 1))).save(path)


def shipped_name(name: str) -> str:
    return f"{name}_large_phantom_{SHAPES[name][-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(LESSONS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--only", choices=["speed", "training"])
    parser.add_argument("--save", action="store_true", help="for the lessons to show")
    parser.add_argument("--weights", action="store_true", help="ship what was trained")
    parser.add_argument("--pictures", action="store_true", help="and nothing else")
    given = parser.parse_args()
    if given.pictures:
        for name in given.names or LESSONS:
            draw(name)
        return
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --device cpu --quick tries the script")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    print(card, torch.__version__)
    for name in given.names or LESSONS:
        what = LESSONS[name].__doc__.strip().removesuffix(".")
        options = {"command": f"{COMMAND} {name} --save", "centre": "median"}
        if given.only != "training":
            turns = (0.01, 2) if given.quick else (1.0, 5)
            rows = measure(name, device, *turns)
            if given.save:
                save_benchmark(
                    f"gpu_{name}_speed",
                    f"One training step on one {card}. {what}",
                    rows,
                    values=f"quartiles of {turns[1]} rounds in turn",
                    **options,
                )
        if given.only != "speed":
            n, stages = (150, 2) if given.quick else (2000, 20)
            trained = [
                (steps, *train(name, device, steps, n, stages))
                for steps in ([4] if given.quick else TRAININGS[name])
            ]
            pairs = name == "cyclegan"
            slices = f"{n:,} + {n:,}" if pairs else 3 * n
            score = PAIRED_SSIM if pairs else f"FD: {FD}"
            if given.save:
                save_benchmark(
                    f"gpu_{name}_training",
                    f"Training on one {card}, phantom, {slices} slices. {what}. "
                    f"{score}",
                    {f"{steps:,} steps": row for steps, _, row in trained},
                    values="one run a row",
                    **options,
                )
            if given.weights:
                steps, net, row = trained[0]
                manifest = {
                    "command": f"{COMMAND} {name} --weights",
                    "data": "phantom",
                    "budget": f"{steps} steps on one {card}",
                    "seed": 0,
                    "metrics": {key: values[0] for key, values in row.items()},
                }
                path = WEIGHTS / f"{shipped_name(name)}.safetensors"
                half = copy.deepcopy(net).cpu().half()
                save_weights(path, half, manifest=manifest)


if __name__ == "__main__":
    main()
