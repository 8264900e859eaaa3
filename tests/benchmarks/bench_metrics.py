"""Metrics against what a user would pick instead: same arrays, one process.

    taskset -c 0,1 python tests/benchmarks/bench_metrics.py [--save] [name ...]

Alternating pairs after a warm-up, medians, ratios with their targets; leaves with 1
where a ratio, a difference or the memory misses its target. --save writes the ratios
to course_lib/benchmarks.json.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch, for numpy's BLAS too
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import references  # noqa: E402
import torch  # noqa: E402

from course_lib import metrics  # noqa: E402
from course_lib.benchmarks import save_benchmark  # noqa: E402

D = 2048
ratios = {}  # of this run: {what: how many times as fast, pair by pair}


def features(n, seed):
    """(n, D) float32 as a network's: non-negative, correlated, decaying spectrum."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=generator) * torch.linspace(1, 0.01, D) ** 2
    generator.manual_seed(seed)
    return (torch.randn(n, D, generator=generator) @ mix.T / D**0.5 + 0.3 * seed).relu()


def compare(name, theirs, ours, target, rounds, tolerance=1e-4, settle=0.0):
    """Print medians and ratio of alternating runs; True where the targets are met."""
    expected, value = theirs(), ours()  # warm-up, and the agreement
    gap = abs(value - expected) / abs(expected)
    seconds = ([], [])
    for _ in range(rounds):
        for run, times in zip((theirs, ours), seconds, strict=True):
            time.sleep(settle)
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    slow, fast = (statistics.median(times) for times in seconds)
    pairs = [a / b for a, b in zip(*seconds, strict=True)]
    ratios[name] = {"times as fast": statistics.quantiles(pairs, n=4)}
    met = slow / fast >= target and gap <= tolerance
    print(
        f"{name:46} {slow * 1e3:9.1f} ms {fast * 1e3:8.1f} ms  x {slow / fast:5.1f} "
        f"(target {target:4}), difference {gap:.0e}{'' if met else '  MISSED'}",
        flush=True,
    )
    return met


def frechet(n, target, rounds):
    real, fake = features(n, 1), features(n, 2)
    return compare(
        f"Frechet, N {n}, d {D}: torchmetrics",
        lambda: references.torchmetrics_frechet(real, fake),
        lambda: metrics.frechet_distance(real, fake),
        target,
        rounds,
    )


def frechet_cached():
    real, fake = features(5000, 1), features(1000, 2)
    theirs, ours = (
        references.fidelity_statistics(real),
        metrics.frechet_statistics(real),
    )
    return compare(
        "Frechet, real side cached, 1000: torch-fidelity",
        lambda: references.fidelity_frechet(theirs, fake),
        lambda: metrics.frechet_distance(ours, fake),
        10,
        5,
        settle=0.1,  # the threads of SciPy's OpenBLAS spin on after its last product
    )


def kid():
    real, fake = features(2000, 1), features(2000, 2)
    return compare(
        "KID, N 2000, 100 subsets of 1000: torchmetrics",
        lambda: references.torchmetrics_kid(real, fake, 100, 1000, 0)[0],
        lambda: metrics.kid_subsets(real, fake, seed=0)[0],
        20,
        3,
    )


def ssim(size, target):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1000, 1, size, size, generator=generator) * 2 - 1
    y = x + 0.2 * torch.randn(x.shape, generator=generator)
    return compare(
        # torchmetrics averages the padded border too, so the values differ
        f"SSIM, 1000 pairs, {size} px: torchmetrics",
        lambda: references.torchmetrics_ssim(x, y, 2.0).mean().item(),
        lambda: metrics.ssim(x, y).mean().item(),
        target,
        9,
        tolerance=0.05,
    )


def precision_recall():
    real, fake = features(10_000, 1), features(10_000, 2)
    start = time.perf_counter()
    metrics.precision_recall(real, fake)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    print(
        f"precision/recall, 10000 x 10000, d {D}: {seconds:.1f} s, process peak "
        f"{peak:.2f} GiB (target 2){'' if peak <= 2 else '  MISSED'}",
        flush=True,
    )
    return peak <= 2


BENCHES = {
    "precision_recall": precision_recall,  # first: the peak is the whole process's
    "ssim_28": lambda: ssim(28, 20),
    "ssim_64": lambda: ssim(64, 10),
    "frechet_1000": lambda: frechet(1000, 15, 5),
    "frechet_5000": lambda: frechet(5000, 2.5, 3),
    "frechet_cached": frechet_cached,
    "kid": kid,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHES))
    parser.add_argument("--save", action="store_true", help="the ratios, of all names")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHES):
        parser.error(f"unknown {', '.join(unknown)}: choose from {', '.join(BENCHES)}")
    if given.save and given.names:
        parser.error("--save is for all of them: give no names")
    torch.set_num_threads(2)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    missed = [name for name in given.names or BENCHES if not BENCHES[name]()]
    if given.save:
        save_benchmark(
            "metrics",
            "The course's metrics against other packages, same arrays, two threads",
            ratios,
            command="python tests/benchmarks/bench_metrics.py --save",
            values="quartiles of alternating pairs",
            centre="median",
        )
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)
