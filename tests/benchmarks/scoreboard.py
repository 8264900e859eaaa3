"""The scoreboard that the course ships: every model, three data sets, one protocol.

    python tests/benchmarks/scoreboard.py --data DIR [--out course_lib/scoreboard.json]

DIR holds pneumoniamnist.npz and mednist_64.npz, in it or in subfolders. Takes about a
minute on two cores.
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

import numpy as np  # noqa: E402
import torch  # noqa: E402

from course_lib.base import write_text  # noqa: E402
from course_lib.datasets import load_images  # noqa: E402
from course_lib.domains import Domains, sick_and_well, two_clinics  # noqa: E402
from course_lib.features import for_models  # noqa: E402
from course_lib.scoreboard import (  # noqa: E402
    BOARD,
    CONDITIONAL,
    PLAIN,
    score_generators,
    score_translators,
    weights_used,
)

EVERY = PLAIN + CONDITIONAL
TABLES = {  # title: file or name, side, kinds of generators, contrast
    "phantom, T1, 32 px": ("phantom", 32, PLAIN, "T1"),
    "phantom, FLAIR, 32 px": ("phantom", 32, CONDITIONAL, "FLAIR"),
    "PneumoniaMNIST, 28 px": ("pneumoniamnist.npz", 28, EVERY, "T1"),
    "MedNIST, 64 px": ("mednist_64.npz", 64, EVERY, "T1"),
}
UNPAIRED = ("cyclegan", "cyclegan_patients", "cyclegan_volunteers", "cyclegan_paired")
TRANSLATIONS = {  # title: file or name, side, kinds of translators, target
    "T1 to T2, phantom, 32 px": ("phantom", 32, UNPAIRED, "T2"),
    "T1 to skull CT, phantom, 32 px": ("phantom", 32, ["cyclegan_ct"], "skull CT"),
    "tumour to none, phantom, 32 px": ("phantom", 32, ["cyclegan_well"], None),
    "pneumonia to normal, 28 px": ("pneumoniamnist.npz", 28, ["cyclegan_well"], None),
    "simulated to real CT, 64 px": ("mednist_64.npz", 64, ["cyclegan_well"], None),
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


def source(name, dataset, size, kinds):
    """What a table rests on."""
    used = weights_used(dataset, size, kinds)
    return {"dataset": name, "size": size, "weights": used, "md5": md5(dataset)}


def load(dataset, size, contrast):
    """What models may learn from, its labels, and what nobody learned from."""
    images, labels, _ = load_images(dataset, "train", size, contrast=contrast)
    kept = for_models(dataset, images)
    parts = [
        load_images(dataset, split, size, contrast=contrast)[0]
        for split in ("val", "test")
    ]
    return images[kept], labels[kept], torch.cat(parts)


def load_domains(dataset, size, target):
    """The two domains of a translation, validation and test images together."""
    parts = [
        two_clinics(split, size, target=target)
        if target
        else sick_and_well(dataset, split, size)
        for split in ("val", "test")
    ]

    def together(name, join):
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else join(found)

    return Domains(
        *(together(name, torch.cat) for name in ("a", "b")),
        parts[0].names,
        parts[0].class_b,
        together("truth", torch.cat),
        together("people", np.concatenate),
    )


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
        sources[title] = source(name, dataset, size, kinds)
    translations = {}
    for title, (name, size, kinds, target) in TRANSLATIONS.items():
        dataset = find(name, given.data)
        domains = load_domains(dataset, size, target)
        found = score_translators(dataset, domains, kinds, n=given.n)
        print(f"\n{title}: {found.sets}\n{found.pairs or 'no truth'}", flush=True)
        translations[title] = {"sets": found.sets.to_dict(), "pairs": found.pairs}
        sources[title] = source(name, dataset, size, kinds)
    content = {
        "command": "python tests/benchmarks/scoreboard.py --data DIR",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "sources": sources,
        "tables": tables,
        "translations": translations,
    }
    write_text(given.out, json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(f"\nwrote {given.out}")


if __name__ == "__main__":
    main()
