"""Lesson 05 over three seeds: T1 to T2, lesions by target pile, the cycle's ramp.

    taskset -c 0,1 python tests/benchmarks/bench_cyclegan.py [--steps 1000] [--seeds 3]

Prints three tables in Markdown, mean and every seed; leaves with 1 where a mean misses
its goal: SSIM gain 0.8 of paired training's, lesions found differ by 0.3. `--save`
writes the tables to course_lib/benchmarks.json, for lesson 05 to show.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from course_lib.benchmarks import save_benchmark
from course_lib.datasets import batches, load_pairs
from course_lib.metrics import psnr, ssim
from course_lib.phantoms import TISSUES, Phantom, make_phantom
from course_lib.training import fit, linear_decay, with_schedules
from course_lib.translation import (
    CycleGAN,
    ResnetGenerator,
    descend,
    lesion_recall,
    make_cyclegan_step,
    translate,
)

SIZE = 32
QUALITY = ("PSNR", "SSIM", "share of the gain")
FOUND = ("PSNR", "SSIM", "lesions found")


def unpaired(
    a: Tensor, b: Tensor, steps: int, seed: int, ramp: float = 0.5
) -> ResnetGenerator:
    """Train as the lesson does. -> the T1 to T2 translator."""
    torch.manual_seed(seed)
    nets = CycleGAN()
    opt_g = torch.optim.Adam(nets.translators.parameters(), 1e-3, (0.5, 0.999))
    opt_d = torch.optim.Adam(nets.judges.parameters(), 1e-3, (0.5, 0.999))
    step = make_cyclegan_step(nets, opt_g, opt_d, warm_up=int(ramp * steps))
    schedules = [linear_decay(opt_g, steps), linear_decay(opt_d, steps)]
    n = min(len(a), len(b))
    feed = batches(a[:n], b[:n], batch_size=4, seed=seed)
    fit(with_schedules(step, schedules), feed, steps)
    return nets.g_ab


def paired(source: Tensor, target: Tensor, steps: int, seed: int) -> ResnetGenerator:
    """The same generator by L1 on true pairs."""
    torch.manual_seed(seed)
    generator = ResnetGenerator()
    optimizer = torch.optim.Adam(generator.parameters(), 2e-3)
    schedule = linear_decay(optimizer, steps)

    def train_step(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        loss = (generator(batch[0]) - batch[1]).abs().mean()
        descend(optimizer, loss)
        schedule.step()
        return {"loss": loss}

    fit(train_step, batches(source, target, batch_size=8, seed=seed), steps)
    return generator


def recall(images: Tensor, truth: Tensor, test: Phantom) -> float:
    """Share of lesions found, as in the lesson."""
    mask = torch.from_numpy(test.lesion_mask)[:, None]
    white = torch.from_numpy(test.tissue == TISSUES.index("white matter"))[:, None]
    lesions = []
    for i, image_mask in enumerate(test.lesion_mask):
        spots, count = ndimage.label(image_mask)
        spots = [torch.from_numpy(spots == k) for k in range(1, count + 1)]
        lesions += [(i, spot) for spot in spots if spot.sum() >= 3]
    healthy, lesion = truth[white & ~mask].mean(), truth[mask].mean()
    return lesion_recall(images, lesions, float(healthy), float(lesion))


def table(title: str, rows: dict[str, list[tuple[float, ...]]], head: str) -> None:
    print(f"\n### {title}\n| | {head} |\n|---" + "|--:" * (head.count("|") + 1) + "|")
    for name, seeds in rows.items():
        cells = [
            f"{np.mean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})"
            for values in zip(*seeds, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> int:
    torch.set_num_threads(1)  # as the lesson: two wait for each other
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="for lesson 05 to show")
    options = parser.parse_args()
    t1, t2, _ = load_pairs(size=SIZE, paired=False)
    heads, test = make_phantom("train", SIZE), make_phantom("test", SIZE)
    test_t1, test_t2, _ = load_pairs("phantom", "test", SIZE)
    in_a = np.isin(heads.subjects, np.unique(heads.subjects)[::2])
    t2_of_a = torch.from_numpy(heads.images["T2"][in_a])[:, None] / 127.5 - 1
    sick_a, sick_b = heads.labels[in_a] > 0, heads.labels[~in_a] > 0
    piles = {"patients": t2[sick_b], "volunteers": t2[~sick_b]}
    n = min(sick_a.sum(), *map(len, piles.values()))

    quality: dict[str, list] = {"copy": [], "CycleGAN": [], "pairs": []}
    found: dict[str, list] = {name: [] for name in piles}
    ramps: dict[str, list] = {"with the ramp": [], "all at once": []}
    for seed in range(options.seeds):
        start = time.process_time()
        made = {"copy": test_t1}
        made["CycleGAN"] = translate(unpaired(t1, t2, options.steps, seed), test_t1)
        made["pairs"] = translate(paired(t1, t2_of_a, options.steps, seed), test_t1)
        level = {k: ssim(x, test_t2).mean().item() for k, x in made.items()}
        gained = level["pairs"] - level["copy"]
        for name, x in made.items():
            share = (level[name] - level["copy"]) / gained
            p = psnr(x, test_t2).mean().item()
            quality[name].append((p, level[name], share))
        for name, pile in piles.items():
            net = unpaired(t1[sick_a][:n], pile[:n], options.steps // 2, seed)
            x = translate(net, test_t1)
            scores = psnr(x, test_t2).mean().item(), ssim(x, test_t2).mean().item()
            found[name].append((*scores, recall(x, test_t2, test)))
        for name, ramp in (("with the ramp", 0.5), ("all at once", 0.0)):
            net = unpaired(t1, t2, options.steps // 2, seed, ramp)
            ramps[name].append((ssim(translate(net, test_t1), test_t2).mean().item(),))
        spent = time.process_time() - start
        print(f"seed {seed}: {spent:.0f} s of CPU", file=sys.stderr, flush=True)

    table(
        f"T1 to T2, {options.steps} steps",
        quality,
        " | ".join(QUALITY),
    )
    steps = options.steps // 2
    table(f"Target pile, {steps} steps", found, " | ".join(FOUND))
    table(f"Weight of the cycle, {steps} steps", ramps, "SSIM")
    if options.save:
        command = f"python tests/benchmarks/bench_cyclegan.py --steps {options.steps}"
        for name, title, rows, columns in (
            ("cyclegan", f"T1 to T2, {options.steps} steps", quality, QUALITY),
            ("cyclegan_lesions", f"Target pile, {steps} steps", found, FOUND),
            (
                "cyclegan_ramp",
                f"Weight of the cycle, T1 to T2, {steps} steps",
                ramps,
                ("SSIM",),
            ),
        ):
            by_column = {
                row: dict(zip(columns, zip(*seeds, strict=True), strict=True))
                for row, seeds in rows.items()
            }
            save_benchmark(
                name,
                f"{title}, against the truth that training never saw",
                by_column,
                command=f"{command} --seeds {options.seeds} --save",
                values=f"seeds 0 to {options.seeds - 1}",
            )
    share = np.mean([row[2] for row in quality["CycleGAN"]])
    apart = np.mean([row[2] for row in found["patients"]])
    apart -= np.mean([row[2] for row in found["volunteers"]])
    print(f"\nshare of the gain {share:.2f}, lesions found differ by {apart:.2f}")
    return int(share < 0.8 or apart < 0.3)


if __name__ == "__main__":
    sys.exit(main())
