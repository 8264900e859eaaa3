"""What this machine lacks for the course, and how to mend each: stdlib only."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from course_lib import bootstrap
from course_lib.base import ROOT, data_dir

OLD_LOCK = 365  # days


class Finding(NamedTuple):
    """One line of the doctor's answer; `level` is 'ok', 'note' or 'error'."""

    level: str
    subject: str
    fact: str
    fix: str = ""


def memory_gib() -> float | None:
    """Memory of this machine in GiB, or None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        pass
    try:
        kilobytes = ctypes.c_ulonglong()
        kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined]
        if kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes)):
            return kilobytes.value / 2**20
    except (AttributeError, OSError):
        pass
    return None


def writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`, or in the nearest one that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    yield Finding("ok", "Python", f"{version} ({sys.executable})")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            fix = "sudo apt install python3-venv (Debian, Ubuntu), or use conda"
            yield Finding("error", "Python", f"the module {module} is missing", fix)


def _packages() -> Iterator[Finding]:
    folder = bootstrap.venv_folder()
    lacking = bootstrap.missing()
    if not lacking:
        yield Finding("ok", "packages", f"all in {sys.prefix}")
    elif bootstrap.is_ready(folder, ()):
        yield Finding("ok", "packages", f"all in {folder}")
    else:
        names = ", ".join(lacking[:4]) + (", ..." if len(lacking) > 4 else "")
        fact = f"{len(lacking)} missing here ({names})"
        fix = "`python3 -m course_lib run` installs them into .venv"
        yield Finding("note", "packages", fact, fix)


def lock_date(text: str) -> date | None:
    """The day in the line `# Locked on 2026-11-27` of a lock, or None without one."""
    found = re.search(r"^# Locked on (\d{4}-\d\d-\d\d)\b", text, re.MULTILINE)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def _lock(today: date) -> Iterator[Finding]:
    """Whether the exact versions are more than a year old; no network is asked."""
    made = lock_date((ROOT / "requirements.lock").read_text("utf-8"))
    fix = "make a new one: CONTRIBUTING.md, 'A new lock'"
    if made is None:
        fact = "requirements.lock does not say on which day it was made"
        yield Finding("note", "lock", fact, fix)
        return
    age = (today - made).days
    old = age > OLD_LOCK
    fact = f"exact versions of {made}"
    if old:
        fact += f": they are {age // 30} months old, and miss a year of repairs"
    yield Finding("note" if old else "ok", "lock", fact, fix if old else "")


def _machine() -> Iterator[Finding]:
    folder = bootstrap.venv_folder()
    free = bootstrap.free_gib(folder)
    short = free < bootstrap.NEEDED_GIB and not bootstrap.is_ready(folder, ())
    fix = "free about 4 GB, or set COURSE_VENV to a folder on another disk"
    level = "error" if short else "ok"
    yield Finding(level, "disk", f"{free:.0f} GB free", fix if short else "")
    memory = memory_gib()
    if memory is not None:
        small = memory < 3.5
        fix = "close other programs; keep to image_size=32 and budget smoke"
        level = "note" if small else "ok"
        yield Finding(level, "memory", f"{memory:.0f} GB", fix if small else "")
    yield Finding("ok", "cores", str(os.cpu_count()))
    for name in ("build", "data/cache"):
        if not writable(ROOT / name):
            fix = {
                "build": "pass --out with a folder that you may write to",
                "data/cache": "set COURSE_CACHE to a folder that you may write to",
            }[name]
            yield Finding("note", "permission", f"cannot write {ROOT / name}", fix)


def _gpu() -> Iterator[Finding]:
    program = shutil.which("nvidia-smi")
    fix = "none needed: budgets smoke and lab are made for the CPU"
    if program is None:
        yield Finding("ok", "GPU", "none found; the CPU is used", fix)
        return
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, check=False, timeout=20
        )
        names = answer.stdout.strip().replace("\n", "; ")
    except (OSError, subprocess.TimeoutExpired):
        names = ""
    if not names or answer.returncode:
        fix = "see what `nvidia-smi` says; the driver may need a restart"
        yield Finding("note", "GPU", "nvidia-smi is there but does not answer", fix)
        return
    yield Finding("ok", "GPU", names)
    python = bootstrap.venv_python(bootstrap.venv_folder())
    if python.exists():
        code = "import torch; print(torch.cuda.is_available(), torch.__version__)"
        answer = subprocess.run(
            [str(python), "-c", code], capture_output=True, text=True, check=False
        )
        if answer.stdout.startswith("False"):
            fact = f"torch {answer.stdout.split()[-1]} does not see it"
            fix = "install a CUDA build into .venv: see pytorch.org/get-started"
            yield Finding("note", "GPU", fact, fix)


def _data(folder: str | None) -> Iterator[Finding]:
    ready = bool(importlib.util.find_spec("nilearn")) or bootstrap.is_ready(
        bootstrap.venv_folder(), ()
    )
    state = "built in" if ready else "built in, after set-up"
    yield Finding("ok", "data", f"phantom: {state}; nothing to download")
    home = Path(folder).expanduser() if folder else data_dir()
    if not home.is_dir():
        fix = "name an existing folder with --data or COURSE_DATA"
        yield Finding("error", "data", f"{home} is no folder", fix)
        return
    found = (path for path in home.rglob("*.npz") if path.parent.name != "phantom")
    if real := sorted({path.name for path in found}):  # the cache keeps the phantom
        yield Finding("ok", "data", f"in {home}: {', '.join(real)}")
    else:
        fix = (
            "a MedMNIST set is fetched when a lesson names it (-p dataset="
            "pneumoniamnist); offline, put its .npz into this folder"
        )
        yield Finding("note", "data", f"no real data set in {home}", fix)


def findings(data: str | None = None) -> list[Finding]:
    """Everything that the course needs of a machine, checked one by one."""
    lock = _lock(date.today())
    return [*_python(), *_packages(), *lock, *_machine(), *_gpu(), *_data(data)]


def main(data: str | None = None) -> int:
    """Print the findings; 1 if one of them stands in the way, else 0."""
    results = findings(data)
    marks = {"ok": "ok   ", "note": "note ", "error": "ERROR"}
    for level, subject, fact, fix in results:
        print(f"{marks[level]}  {subject:<10}  {fact}")
        if fix:
            print(f"{'':>19}-> {fix}")
    errors = sum(finding.level == "error" for finding in results)
    if errors:
        print(f"\n{errors} thing(s) to mend before the course can run.")
    else:
        print("\nThis machine can run the course.")
    return int(errors > 0)
