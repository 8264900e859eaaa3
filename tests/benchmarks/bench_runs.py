"""Twelve jobs on two workers, one kernel killed; and whether two workers are quicker.

    python tests/benchmarks/bench_runs.py [LESSON] [--budget lab] [--part speed]

On two cores; needs nothing else to run. Prints a table for CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import psutil

from course_lib import runner

GRID = ["seed=0,1,2,3,4,5", "image_size=28,32"]


def run(
    lesson: str, budget: str, out: Path, grid: list[str], workers: int
) -> tuple[int, float]:
    """Exit code and seconds of a run whose output is kept from the terminal."""
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        code = runner.run(
            [lesson],
            budget=budget,
            grid=grid,
            out=str(out),
            workers=workers,
            time_limit=False,
        )
    return code, time.monotonic() - started


def kill_one_kernel(seconds: float, killed: list[int]) -> None:
    """Once `seconds` have passed, kill the first kernel below this process."""
    time.sleep(seconds)
    while not killed:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ipykernel_launcher" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.1)


def compare_workers(lesson: str, budget: str, folder: Path) -> None:
    """Seconds of four jobs with one worker and with two, in alternating order."""
    for workers in (1, 2, 2, 1):
        out = folder / f"{workers}-{time.monotonic()}"
        before = sum(os.times()[2:4])  # of the children: not disturbed by others
        code, seconds = run(lesson, budget, out, ["seed=0,1,2,3"], workers)
        cpu = sum(os.times()[2:4]) - before
        print(
            f"4 jobs, {workers} worker(s): {seconds:.1f} s, {cpu:.1f} s of CPU, "
            f"exit {code}, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def kill_in_a_grid(lesson: str, budget: str, folder: Path) -> None:
    """The table of twelve jobs of which one is killed, and the same command again."""
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_kernel, args=(20.0, killed))
    killer.start()
    out = folder / "grid"
    code, seconds = run(lesson, budget, out, GRID, 2)
    killer.join()
    cards = [json.loads(p.read_text()) for p in sorted((out / "cards").glob("*.json"))]
    status = [card["status"] for card in cards]
    print(f"12 jobs, 2 workers, a kernel killed: {seconds:.1f} s, exit {code}")
    print({name: status.count(name) for name in set(status)})
    first = os.path.getmtime(next((out / "cards").glob("*seed_5-image_size_32.json")))
    code, seconds = run(lesson, budget, out, GRID, 2)
    again = os.path.getmtime(next((out / "cards").glob("*seed_5-image_size_32.json")))
    print(f"the same command again: {seconds:.1f} s, exit {code}")
    print("finished jobs were not run again:", first == again)
    print((out / "grid.csv").read_text())
    print(f"look at {out / 'index.html'}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lesson", nargs="?", default="00")
    parser.add_argument("--budget", default="smoke")
    parser.add_argument("--part", choices=("speed", "grid"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    if options.part != "grid":
        compare_workers(options.lesson, options.budget, folder)
    if options.part != "speed":
        kill_in_a_grid(options.lesson, options.budget, folder)


if __name__ == "__main__":
    main()
