"""A pretend class of 200 is graded: how long, and as expected?

    python tests/benchmarks/bench_grading.py [STUDENTS]

Solutions, stubs, half-finished work, mutants and hostile notebooks of one lesson.
Prints the seconds and a table of expected against given grades. Goal: 200 in under 15
minutes on two cores, no grade other than expected.
"""

import csv
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mutants
import pretend_class
import torch

from course_lib import checks, grading
from course_lib.exercises import exercises
from course_lib.sources import read_source


def make_class(folder: Path, students: int) -> dict[str, tuple[str, int]]:
    """{student: (kind, points)} of the notebooks written into `folder`."""
    rng, expected = random.Random(0), {}
    found = {n: x for n, x in mutants.course().items() if n in pretend_class.ALL}
    known = checks.all_checks()
    stubs = {t.id: t.stub for _, t in exercises(read_source(pretend_class.SOURCE))}
    hostile = sorted(pretend_class.cases().items())
    for i in range(students):
        if i < len(hostile):
            kind = hostile[i][0]
            content, solved, _ = hostile[i][1]
            points = len(solved)
        else:
            kind = rng.choice(["solutions", "half done", "mutants", "mutants"])
            answers, points = dict(pretend_class.SOLUTIONS), len(pretend_class.ALL)
            for number in rng.sample(sorted(answers), rng.randint(1, len(answers))):
                if kind == "half done":
                    answers[number], points = stubs[number], points - 1
                elif kind == "mutants":
                    names, some = found[number]
                    mutant = rng.choice(some)
                    answers[number] = mutant.source
                    points -= mutants.killed(mutant, names, known[number])
            content = pretend_class.as_bytes(pretend_class.notebook(answers))
        (folder / f"student {i:03d}.ipynb").write_bytes(content)
        expected[f"student {i:03d}"] = (kind, points)
    return expected


def main(students: int) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "class", Path(name) / "out"
        folder.mkdir()
        expected = make_class(folder, students)
        start = time.perf_counter()
        grading.grade(folder, lesson=pretend_class.LESSON, out=out)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        grading.grade(folder, lesson=pretend_class.LESSON, out=out)
        again = time.perf_counter() - start
        with (out / "gradebook.csv").open(encoding="utf-8", newline="") as file:
            given = {row["student"]: int(row["points"]) for row in csv.DictReader(file)}
    table = Counter((points, given[name]) for name, (_, points) in expected.items())
    print(f"\n{students} notebooks in {seconds:.0f} s, again in {again:.1f} s")
    print("expected  given  notebooks")
    for (wanted, got), count in sorted(table.items()):
        print(f"{wanted:8d}  {got:5d}  {count:9d}")
    wrong = {
        name: (kind, points, given[name])
        for name, (kind, points) in expected.items()
        if points != given[name]
    }
    print(f"not as expected: {wrong or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
