"""From a bare Python to an environment that holds the packages: stdlib only.

The active interpreter is used where it already has them; else `.venv` beside the
course is made and filled. Everything a person may want to change is an environment
variable: COURSE_VENV (where the environment lies), COURSE_DEPENDENCIES=newest (the
ranges of pyproject.toml instead of the exact lock), and pip's own settings
(PIP_EXTRA_INDEX_URL for an index of CPU builds, PIP_NO_INDEX, ...).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from course_lib.base import ROOT, write_text

NEEDED_GIB = 4.0  # packages, pip's own copies while it unpacks, and room to work
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)")


class SetupError(RuntimeError):
    """Set-up cannot go on; the message says what to do."""


def requirements(extras: tuple[str, ...] = ()) -> dict[str, str]:
    """{package name: version range} of pyproject.toml, with those of `extras`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {match[1]: match[2].strip() for match in map(_REQUIREMENT.match, lines)}


def _release(version: str) -> tuple[int, ...]:
    """'2.13.0+cpu' -> (2, 13): the numbers, without the zeros at the end."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else [0]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def satisfies(version: str, specifier: str) -> bool:
    """Whether `version` lies in a range such as '>=2.6,<3' (>=, >, <=, <, ==, !=)."""
    have = _release(version)
    tests = {
        ">=": lambda want: have >= want,
        "<=": lambda want: have <= want,
        "==": lambda want: have == want,
        "!=": lambda want: have != want,
        ">": lambda want: have > want,
        "<": lambda want: have < want,
    }
    for part in filter(None, (part.strip() for part in specifier.split(","))):
        sign = re.match(r"[<>=!]+", part)
        if sign is None or sign[0] not in tests:
            raise ValueError(f"cannot read the version range {specifier!r}")
        if not tests[sign[0]](_release(part[sign.end() :].strip())):
            return False
    return True


def missing(extras: tuple[str, ...] = ()) -> list[str]:
    """What the running interpreter lacks, as lines such as 'torch>=2.6 (have 2.1)'."""
    lacking = []
    for name, specifier in requirements(extras).items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking.append(f"{name}{specifier}")
            continue
        if not satisfies(version, specifier):
            lacking.append(f"{name}{specifier} (have {version})")
    return lacking


def venv_folder() -> Path:
    """Where the environment of the course lies: COURSE_VENV, else `.venv`."""
    return Path(os.environ.get("COURSE_VENV") or ROOT / ".venv").expanduser().absolute()


def venv_python(folder: Path) -> Path:
    """The interpreter inside an environment, on every system."""
    if os.name == "nt":
        return folder / "Scripts" / "python.exe"
    return folder / "bin" / "python"


def free_gib(folder: Path) -> float:
    """Free GiB on the disk of `folder`, which need not exist yet."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(nearest).free / 2**30


def _stamp(extras: tuple[str, ...]) -> dict[str, object]:
    """What an environment must have been made from to count as finished."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "requirements.lock"):
        digest.update((ROOT / name).read_bytes().replace(b"\r\n", b"\n"))
    digest.update(os.environ.get("COURSE_DEPENDENCIES", "lock").encode())
    return {"made_from": digest.hexdigest(), "root": str(ROOT), "extras": list(extras)}


def is_ready(folder: Path, extras: tuple[str, ...]) -> bool:
    """Whether the environment in `folder` is finished and up to date."""
    try:
        have = json.loads((folder / "course.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    want = _stamp(extras)
    return (
        venv_python(folder).exists()
        and all(have.get(key) == want[key] for key in ("made_from", "root"))
        and set(extras) <= set(have.get("extras", []))
    )


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that the system frees when the process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as handle:
        waited = False
        while True:
            try:
                if os.name == "nt":
                    import msvcrt

                    handle.seek(0)
                    msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
                else:
                    import fcntl

                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not waited:
                    say("another set-up of this course is running; waiting for it")
                waited = True
                time.sleep(0.5)
        yield  # closing the file frees the lock


def say(text: str) -> None:
    """One line of set-up, told as it happens."""
    print(f"[set-up] {text}", flush=True)


def _make_venv(folder: Path) -> None:
    say(f"making {folder} with Python {sys.version.split()[0]}")
    if folder.exists():
        shutil.rmtree(folder)
    command = [sys.executable, "-m", "venv", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(
            f"Python could not make an environment in {folder}:\n"
            f"{(done.stdout + done.stderr).strip()}\n"
            "On Debian and Ubuntu: sudo apt install python3-venv. Elsewhere: install "
            "Python from python.org, or run this command inside a conda environment "
            "made from environment.yml."
        )


def _pip(python: Path, target: str, log: Path, lock: Path | None) -> bool:
    """Run pip, say each package as it comes, keep its whole output in `log`."""
    command = [str(python), "-m", "pip", "install", "--no-input", "-e", target]
    command += ["--disable-pip-version-check"] + (["-c", str(lock)] if lock else [])
    seen: set[str] = set()
    with open(log, "w", encoding="utf-8") as record:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        for line in process.stdout:
            record.write(line)
            found = re.match(r"Collecting ([\w.-]+)|Processing \S*[/\\]([\w.]+)", line)
            name = found and (found[1] or found[2])
            if name and name not in seen:
                seen.add(name)
                say(f"  package {len(seen)}: {name}")
            elif line.startswith("Installing collected"):
                say(f"  unpacking {len(seen)} packages (this is the long part)")
        return process.wait() == 0


# What pip says where a version of the lock does not exist for this Python.
NO_LOCK = re.compile("No matching distribution|ResolutionImpossible")


def _install(folder: Path, extras: tuple[str, ...]) -> None:
    """Fill the environment. Starts afresh after an install that was cut off."""
    unfinished = folder / "course-unfinished"
    python = venv_python(folder)
    if unfinished.exists() or not python.exists():
        if unfinished.exists():
            say("the last set-up was cut off; starting afresh (downloads are kept)")
        _make_venv(folder)
    unfinished.touch()
    target = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    log = folder / "install.log"
    newest = os.environ.get("COURSE_DEPENDENCIES") == "newest"
    say("installing the packages of pyproject.toml" + (", newest" if newest else ""))
    done = _pip(python, target, log, None if newest else ROOT / "requirements.lock")
    if not done and not newest and NO_LOCK.search(log.read_text("utf-8")):
        say("no exact lock for this Python; taking the ranges of pyproject.toml")
        done = _pip(python, target, log, None)
    if not done:
        tail = "\n".join(log.read_text("utf-8").splitlines()[-12:])
        raise SetupError(
            f"pip could not install the packages:\n{tail}\n(all of it: {log})\n"
            "Look at the last lines: no network (connect once, later runs need none), "
            "no space (about 4 GB), or a proxy (set PIP_PROXY). Then run the same "
            "command again."
        )
    write_text(folder / "course.json", json.dumps(_stamp(extras)))
    unfinished.unlink()


def ensure(extras: tuple[str, ...] = ()) -> str:
    """The interpreter that has the packages of `extras`, setting it up if need be.

    Raises SetupError with the way out where that cannot be done.
    """
    folder = venv_folder()
    inside = Path(sys.prefix).resolve() == folder.resolve()
    if not inside and not missing(extras):
        return sys.executable
    if is_ready(folder, extras):
        return str(venv_python(folder))
    if inside and os.name == "nt":  # Windows cannot replace a running interpreter
        raise SetupError("leave the environment (deactivate), then run this again")
    try:
        with _only_one(folder.with_name(folder.name + ".lock")):
            if is_ready(folder, extras):  # another process was quicker
                return str(venv_python(folder))
            started = time.monotonic()
            free = free_gib(folder)
            if free < NEEDED_GIB and not folder.exists():
                raise SetupError(
                    f"{free:.1f} GB free at {folder.parent}, about {NEEDED_GIB:.0f} "
                    "needed; free some, or set COURSE_VENV to a folder on another disk"
                )
            _install(folder, extras)
            say(f"ready in {time.monotonic() - started:.0f} s")
    except PermissionError as error:
        raise SetupError(
            f"no permission to write {error.filename}; clone the course into a folder "
            "of your own, or set COURSE_VENV to one"
        ) from error
    return str(venv_python(folder))


def prepare_children() -> None:
    """Let every process started from here import this course_lib, in UTF-8."""
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if str(ROOT) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *path])
    os.environ.setdefault("PYTHONUTF8", "1")


def without_iri_grammars() -> None:
    """Before nbformat is imported: have jsonschema do without its check of IRIs.

    No notebook needs it, and what it asks compiles 39 grammars whenever it is imported:
    over a second of every command, and again of every lesson that a command runs.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # so the import raises ImportError


def is_running(python: str) -> bool:
    """Whether `python` is the interpreter of this process."""
    # Links are not resolved: the python of a venv is a link to the one it came from.
    here, there = Path(sys.executable).absolute(), Path(python).absolute()
    return os.path.normcase(here) == os.path.normcase(there) or (
        Path(sys.prefix).resolve() == there.parent.parent.resolve()
    )


def hand_over(python: str, arguments: list[str]) -> int:
    """Run `python -m course_lib ARGUMENTS` and return its exit code."""
    command = [python, "-m", "course_lib", *arguments]
    if os.name != "nt":
        sys.stdout.flush()
        os.execv(python, command)
    return wait_for(subprocess.Popen(command))


def wait_for(process: subprocess.Popen) -> int:
    """The exit code of a process that gets Ctrl-C too, and cleans up or asks."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
