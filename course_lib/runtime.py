"""What every lesson asks of the machine: seed, device, budget, folders, a report."""

from __future__ import annotations

import html
import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from course_lib.base import (
    LIVE_MIME,  # noqa: F401 - this one and others are found here by lessons' modules
    REPORT_MIME,
    ROOT,
    atomic_path,  # noqa: F401
    data_dir,  # noqa: F401
)

_T = TypeVar("_T")


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch, and return a CPU generator with the same seed.

    On the CPU the same seed on the same machine gives the same numbers.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries still draw from it
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def pick_device() -> torch.device:
    """The best device of this machine: CUDA where it is, else the CPU.

    `COURSE_DEVICE` (for example `cpu` or `cuda:1`) overrides the choice. Each process
    of torchrun takes a GPU of its own.
    """
    wanted = os.environ.get("COURSE_DEVICE")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted or best)
    if device == torch.device("cuda") and "LOCAL_RANK" in os.environ:
        local = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)  # what nccl talks through
    words = f"{device} ({torch.get_num_threads()} threads)"
    if device.type == "cuda":
        words = f"{device} ({torch.cuda.get_device_name(device)})"
    note_use("device", str(device), words)
    return device


def note_use(kind: str, name: str, value: str) -> None:
    """Tell the run card, if one is being made, what is used: data, weights, device.

    A line of JSON is added to the file that `COURSE_USES` names.
    """
    path = os.environ.get("COURSE_USES")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([kind, name, value]) + "\n")


def per_budget(budget: str, *, smoke: _T, lab: _T, full: _T) -> _T:
    """The value that belongs to `budget`. Raises ValueError on an unknown budget."""
    values = {"smoke": smoke, "lab": lab, "full": full}
    if budget not in values:
        raise ValueError(f"unknown budget {budget!r}; choose from {', '.join(values)}")
    return values[budget]


def cache_dir() -> Path:
    """A writable folder for made and fetched files, created on first use.

    `COURSE_CACHE`, else `data/cache` of the course; where that cannot be written (a
    shared, read-only clone), `course_lib` in the user's cache folder, with a warning.
    """
    wanted = os.environ.get("COURSE_CACHE")
    folder = Path(wanted).expanduser() if wanted else ROOT / "data" / "cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    fallback = Path(base or Path.home() / ".cache") / "course_lib"
    try:
        fallback.mkdir(parents=True, exist_ok=True)
    except OSError:
        fallback = Path(tempfile.gettempdir()) / "course_lib"
        fallback.mkdir(parents=True, exist_ok=True)
    warnings.warn(
        f"{folder} cannot be written; using {fallback}. "
        "Set COURSE_CACHE to a folder that you may write to.",
        stacklevel=2,
    )
    return fallback


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: what is small is slower on two, above all on busy cores.

    For answers to a person's move; the number of threads before is set again.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_notebook() -> bool:
    """True inside an IPython kernel, with or without somebody looking at it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def has_front_end() -> bool:
    """True where a person sees live output: a kernel that no runner has started.

    `run`, `build` and `test` set `COURSE_HEADLESS=1` in the kernels they start.
    """
    return in_notebook() and os.environ.get("COURSE_HEADLESS") != "1"


def makes_pages() -> bool:
    """True in a kernel of `run`, whose pages can show live forms of widgets.

    `run` alone sets `COURSE_PAGES=1`: committed notebooks stay small.
    """
    return os.environ.get("COURSE_PAGES") == "1"


def notice(text: str) -> None:
    """Show `text` in a box that cannot be overlooked; plain text without a notebook."""
    from IPython.display import display

    box = (
        '<div role="note" style="border-left:4px solid #d08700;padding:.6em 1em;'
        'background:rgba(208,135,0,.12)">' + html.escape(text) + "</div>"
    )
    if in_notebook():
        display({"text/html": box, "text/plain": f"NOTE: {text}"}, raw=True)
    else:
        print(f"NOTE: {text}")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print what was found as "statement: True", one line each; nbval compares them."""
    for statement, holds in facts.items():
        print(f"{statement}: {bool(holds)}")


def report(**numbers: float | int | str | bool) -> None:
    """Show the headline numbers of a lesson as a table, and record them for `run`.

    Each keyword is one row (underscores read as spaces). `run` gathers them from the
    executed notebook into `report.json` and the index page.
    """
    from IPython.display import display

    if not numbers:
        raise ValueError("report() needs at least one number, such as psnr=24.1")
    plain = {
        name: value.item() if hasattr(value, "item") else value
        for name, value in numbers.items()
    }
    shown = {
        name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else value
        for name, value in plain.items()
    }
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(str(name))}</th>'
        f'<td style="text-align:right">{html.escape(str(value))}</td></tr>'
        for name, value in shown.items()
    )
    text = "\n".join(f"{name}: {value}" for name, value in shown.items())
    if in_notebook():
        bundle = {
            REPORT_MIME: plain,
            "text/html": f"<table>{rows}</table>",
            "text/plain": text,
        }
        display(bundle, raw=True)
    else:
        print(text)
