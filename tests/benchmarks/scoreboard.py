"""The scoreboard that the course ships: every generator, three data sets, one protocol.

    python tests/benchmarks/scoreboard.py --data DIR [--out course_lib/scoreboard.json]

DIR holds pneumoniamnist.npz and mednist_64.npz, in it or in subfolders. Takes about
five minutes on two cores.
"""

import argparse
import datetime
import hashlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

from course_lib.datasets import load_images  # noqa: E402
from course_lib.features import for_models  # noqa: E402
from course_lib.runtime import atomic_path  # noqa: E402
from course_lib.scoreboard import (  # noqa: E402
    BOARD,
    CONDITIONAL,
    PLAIN,
    score_generators,
    weights_used,
)

EVERY = PLAIN + CONDITIONAL
TABLES = {  # title: file or name, side, kinds of generators, contrast
    "phantom, T1, 32 px": ("phantom", 32, PLAIN, "T1"),
    "phantom, FLAIR, 32 px": ("phantom", 32, CONDITIONAL, "FLAIR"),
    "PneumoniaMNIST, 28 px": ("pneumoniamnist.npz", 28, EVERY, "T1"),
    "MedNIST, 64 px": ("mednist_64.npz", 64, EVERY, "T1"),
}


def find(name, folder):
    """The file `name` somewhere under `folder`; "phantom" is made, not found."""
    if name == "phantom":
        return name
    found = sorted(Path(folder).rglob(name))
    if not found:
        sys.exit(f"{name} is not under {folder}")
    return found[0]


def md5(dataset):
    """Which file it was; "" for the phantom, which is made by the course itself."""
    if dataset == "phantom":
        return ""
    return hashlib.md5(Path(dataset).read_bytes()).hexdigest()


def load(dataset, size, contrast):
    """What models may learn from, its labels, and what nobody learned from."""
    images, labels, _ = load_images(dataset, "train", size, contrast=contrast)
    kept = for_models(dataset, images)
    parts = [
        load_images(dataset, split, size, contrast=contrast)[0]
        for split in ("val", "test")
    ]
    return images[kept], labels[kept], torch.cat(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the two .npz files")
    parser.add_argument("--out", default=str(BOARD), help="the JSON file to write")
    parser.add_argument("--n", type=int, default=1000, help="images a side, at most")
    given = parser.parse_args()
    tables, sources = {}, {}
    for title, (name, size, kinds, contrast) in TABLES.items():
        dataset = find(name, given.data)
        sets = load(dataset, size, contrast)
        table = score_generators(dataset, *sets, kinds=kinds, n=given.n)
        print(f"\n{title}: {table}", flush=True)
        tables[title] = table.to_dict()
        used = weights_used(dataset, size, kinds)
        sources[title] = {"dataset": name, "size": size, "weights": used}
        sources[title]["md5"] = md5(dataset)
    content = {
        "command": "python tests/benchmarks/scoreboard.py --data DIR",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "sources": sources,
        "tables": tables,
    }
    with atomic_path(given.out) as temporary:
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        temporary.write_text(text, "utf-8")
    print(f"\nwrote {given.out}")


if __name__ == "__main__":
    main()
