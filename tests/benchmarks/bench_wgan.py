"""WGAN-GP: the step against a plain loop, and the recipes of lesson 04 over seeds.

    taskset -c 0,1 python tests/benchmarks/bench_wgan.py               the step
    taskset -c 0,1 python tests/benchmarks/bench_wgan.py --seeds 0 1 2  the table
        [--data pneumoniamnist --size 28 --root FOLDER] [--seconds 60]
    --save writes what was found to course_lib/benchmarks.json, for lesson 04

The step: same networks, same algorithm (eq. 3 on the whole batch, five critic steps
for one of G), alternating pairs, medians of CPU time; leaves with 1 under 1.25. The
table: each recipe trains for the same CPU seconds; Frechet distance at equal N.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from course_lib import gans, wasserstein
from course_lib.benchmarks import save_benchmark
from course_lib.datasets import batches, load_images
from course_lib.features import course_extractor, for_models
from course_lib.gans import Discriminator, Generator
from course_lib.metrics import frechet_distance
from course_lib.training import EMA

N_CRITIC, BATCH, PAIRS = 5, 64, 12


def plain_step(
    generator: nn.Module, critic: nn.Module, opt_g: object, opt_c: object
) -> Callable[[Tensor], None]:
    """A WGAN-GP step as it stands in collections of GANs, in our own writing.

    Fakes keep their graph in the critic's step, so its backward pass runs through the
    generator too, and G's step computes gradients of the critic's weights.
    """

    def train_step(batch: Tensor) -> None:
        for real in batch.chunk(N_CRITIC):
            opt_c.zero_grad()
            fake = generator(torch.randn(len(real), generator.latent_dim))
            real_score, fake_score = critic(real), critic(fake)
            alpha = torch.rand(len(real), 1, 1, 1)
            mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
            score = critic(mixed)
            gradient = torch.autograd.grad(
                outputs=score,
                inputs=mixed,
                grad_outputs=torch.ones_like(score),
                create_graph=True,
                retain_graph=True,
                only_inputs=True,
            )[0]
            norm = gradient.view(len(real), -1).norm(2, dim=1)
            penalty = ((norm - 1) ** 2).mean()
            loss = -real_score.mean() + fake_score.mean() + 10 * penalty
            loss.backward()
            opt_c.step()
        opt_g.zero_grad()
        loss = -critic(generator(torch.randn(len(real), generator.latent_dim))).mean()
        loss.backward()
        opt_g.step()

    return train_step


def networks(size: int, width: int, channels_last: bool, channels: int = 1) -> tuple:
    torch.manual_seed(0)
    generator = Generator(32, width, size, channels)
    critic = Discriminator(width, size, channels, norm="none")
    for net in (generator, critic):
        if channels_last:
            net.to(memory_format=torch.channels_last)
    betas = (0.0, 0.9)
    opt_g = torch.optim.Adam(generator.parameters(), 1e-4, betas=betas)
    opt_c = torch.optim.Adam(critic.parameters(), 1e-4, betas=betas)
    return generator, critic, opt_g, opt_c


def compare_steps(size: int, width: int, pairs: int) -> dict[str, list[float]]:
    """{way: quartiles of how many times as fast as the plain loop it is}."""
    batch = torch.rand(N_CRITIC * BATCH, 1, size, size) * 2 - 1
    plain = plain_step(*networks(size, width, False))
    nets = networks(size, width, True)
    ours = wasserstein.make_train_step(*nets, n_critic=N_CRITIC)
    quarter = wasserstein.make_train_step(*nets, n_critic=N_CRITIC, gp_images=16)
    steps = {"plain": plain, "ours": ours, "ours, 16 pairs": quarter}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(pairs + 1):
        for name in list(steps) if pair % 2 else list(steps)[::-1]:
            start = time.process_time()  # not wall: other programs run beside this
            steps[name](batch)
            times[name].append(time.process_time() - start)
    ratios = {}
    for name in ("ours", "ours, 16 pairs"):
        pairs_of = zip(times["plain"][1:], times[name][1:], strict=True)
        low, ratio, high = statistics.quantiles([p / o for p, o in pairs_of])
        ratios[name] = [low, ratio, high]
        step = statistics.median(times[name][1:])
        print(
            f"{size} px, width {width}: {name} {step * 1e3:.0f} ms of CPU, "
            f"plain / {name} = {ratio:.2f} (quartiles {low:.2f} to {high:.2f})"
        )
    return ratios


def recipe(kind: str, size: int, channels: int) -> tuple[nn.Module, Callable, tuple]:
    """Generator, train_step and optimisers of lesson 04."""
    norm = {"DCGAN": "batch", "spectral norm, hinge": "spectral"}.get(kind, "none")
    g = Generator(32, 24, size, channels)
    c = Discriminator(24, size, channels, norm=norm)
    nets = nn.ModuleDict({"g": g, "c": c})
    if kind == "DCGAN":
        nets.apply(gans.init_weights)
    nets.to(memory_format=torch.channels_last)

    def adam(net: nn.Module, lr: float, betas: tuple = (0.0, 0.9)):
        return torch.optim.Adam(net.parameters(), lr, betas=betas)

    if kind == "DCGAN":
        betas = (0.5, 0.999)
        both = adam(g, 1e-3, betas), adam(c, 1e-3, betas)
        return g, gans.make_train_step(g, c, *both), both
    if kind == "spectral norm, hinge":
        both = adam(g, 1e-3), adam(c, 1e-3)
        return g, gans.make_train_step(g, c, *both, kind="hinge"), both
    bound = {"n_critic": 1, "gp_images": 16}
    both = adam(g, 2e-3), adam(c, 2e-3)
    if kind == "WGAN, clipped":
        bound = {"n_critic": 1, "lambda_gp": 0, "clip": 0.03}
        both = tuple(torch.optim.RMSprop(n.parameters(), 2e-4) for n in (g, c))
    return g, wasserstein.make_train_step(g, c, *both, **bound), both


KINDS = ("DCGAN", "WGAN, clipped", "WGAN-GP", "spectral norm, hinge")


def table(
    data: str, size: int, root: str | None, seeds: list[int], seconds: float, save: bool
) -> None:
    images, _, _ = load_images(data, "train", size, root=root)
    images = images[for_models(data, images)]
    extractor = course_extractor(data, size)
    n = min(1000, len(images) // 2)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    real = extractor(images[order[:n]])
    floor = frechet_distance(real, extractor(images[order[n : 2 * n]]))
    print(f"{extractor.frechet_name}, N = {n}, real against real {floor:.3f}")
    unit = f"Frechet distance ({extractor.name}, N = {n})"
    rows: dict[str, dict[str, list[float]]] = {kind: {unit: []} for kind in KINDS}
    rows["WGAN-GP"]["slope on interpolates"] = []
    for seed in seeds:
        for kind in KINDS:
            torch.manual_seed(seed)
            generator, step, both = recipe(kind, size, images.shape[1])
            rates = [optimizer.param_groups[0]["lr"] for optimizer in both]
            ema, spent, steps, slope = EMA(generator), 0.0, 0, []
            feed = batches(images, batch_size=BATCH, seed=seed)
            while spent < seconds:
                for batch in feed:
                    fall = min(1.0, 4.0 * (1 - spent / seconds) + 0.1)
                    for optimizer, rate in zip(both, rates, strict=True):
                        optimizer.param_groups[0]["lr"] = rate * fall
                    start = time.process_time()
                    losses = step(batch)
                    ema.update()
                    spent += time.process_time() - start
                    steps += 1
                    if "slope" in losses:
                        slope.append(losses["slope"].item())
                    if spent >= seconds:
                        break
            with torch.no_grad():
                z = torch.randn(n, 32, generator=torch.Generator().manual_seed(1))
                fake = torch.cat([ema.module(part) for part in z.split(250)])
            rows[kind][unit].append(frechet_distance(real, extractor(fake)))
            if slope:
                rows[kind]["slope on interpolates"].append(statistics.mean(slope[-50:]))
            last = {
                column: round(values[-1], 3) for column, values in rows[kind].items()
            }
            print(f"seed {seed}, {kind}: {steps} steps, {last}", flush=True)
    rows["real, other half"] = {unit: [floor]}
    for kind, columns in rows.items():
        values = columns[unit]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{kind}: {statistics.mean(values):.2f} +- {spread:.2f}")
    if save:
        given = " ".join(str(seed) for seed in seeds)
        where = "" if data == "phantom" else f" --data {data} --size {size} --root DIR"
        save_benchmark(
            "wgan",
            f"{data}, {size} px, {seconds:.0f} s of CPU time each",
            rows,
            command=f"python tests/benchmarks/bench_wgan.py --seeds {given}{where} "
            f"--seconds {seconds:.0f} --save",
            values=f"seeds {given}",
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--root")
    parser.add_argument("--seconds", type=float, default=60, help="of CPU, each run")
    parser.add_argument("--save", action="store_true", help="for lesson 04 to show")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.seeds:
        table(
            given.data, given.size, given.root, given.seeds, given.seconds, given.save
        )
        return 0
    sides = {(32, 24): "32 px, width 24", (28, 32): "28 px, width 32"}
    ratios = {name: compare_steps(*side, PAIRS) for side, name in sides.items()}
    if given.save:
        save_benchmark(
            "wgan_step",
            "How many times as fast as a plain loop of WGAN-GP, same networks and "
            "algorithm (the last column: the penalty on 16 pairs of 64)",
            ratios,
            command="python tests/benchmarks/bench_wgan.py --save",
            values=f"quartiles of {PAIRS} alternating pairs",
            centre="median",
        )
    return int(min(row["ours"][1] for row in ratios.values()) < 1.25)


if __name__ == "__main__":
    sys.exit(main())
