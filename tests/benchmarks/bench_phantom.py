"""Seconds to make the phantom, and to read it from the cache.

    taskset -c 0,1 python tests/benchmarks/bench_phantom.py [n]

Alternating pairs over three seeds, medians; leaves with 1 where 6,000 slices at 32 px
take more than 30 s.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from course_lib.phantoms import make_phantom, subject_maps


def seconds(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main(n: int) -> int:
    print(f"template, prepared once  {seconds(partial(subject_maps, 0)):6.2f} s")
    for size in (28, 64, 32):
        made, read = [], []
        for seed in range(3):
            action = partial(make_phantom, n=n, size=size, seed=seed)
            made.append(seconds(action))
            read.append(seconds(action))
        a, b = median(made), median(read)
        print(
            f"{n} slices, {size} px: made {a:.2f} s, read {b:.3f} s, ratio {a / b:.0f}"
        )
    return int(a * 6000 / n > 30)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_CACHE"] = folder
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6000))
