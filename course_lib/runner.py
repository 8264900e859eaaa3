"""Run lessons as papermill jobs, test the course, open JupyterLab."""

from __future__ import annotations

import ast
import atexit
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib import bootstrap
from course_lib.bootstrap import ROOT

BUDGETS = ("smoke", "lab", "full")  # as in runtime, which costs an import of torch


class RunError(ValueError):
    """A wrong request: said in one line before anything runs."""


def quiet_kernels() -> None:
    """Set what every kernel started from here inherits."""
    bootstrap.prepare_children()
    os.environ["COURSE_HEADLESS"] = "1"
    # A kernel named python3 in the user's own folder must not shadow this one.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # A profile of its own: a person's start-up files must not change a lesson, and
    # a kernel must not warn about loopback TCP at each start, nor complain when it is
    # stopped.
    home = tempfile.mkdtemp(prefix="course-ipython-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    profile = Path(home) / "profile_default"
    profile.mkdir()
    config = "c = get_config()\nc.Application.log_level = 50\n"
    (profile / "ipython_kernel_config.py").write_text(config, "utf-8")
    os.environ["IPYTHONDIR"] = home


# ---------------------------------------------------------------- what to run


def find_lessons(wanted: Sequence[str]) -> list[Path]:
    """The executed notebooks of `wanted` lessons ('01', '1' or a name), or of all."""
    notebooks = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise RunError("no notebooks found; run `python -m course_lib build` first")
    chosen = []
    for name in wanted:
        key = Path(name).stem
        key = key.zfill(2) if key.isdigit() else key
        matches = [
            path for path in notebooks if path.stem in (key, path.stem[:2] + key)
        ]
        matches = matches or [p for p in notebooks if p.stem.startswith(f"{key}_")]
        if not matches:
            known = ", ".join(path.stem for path in notebooks)
            raise RunError(f"unknown lesson {name!r}; there are {known}")
        chosen += [path for path in matches if path not in chosen]
    return chosen or notebooks


def parse_parameters(lines: Sequence[str]) -> dict[str, Any]:
    """['seed=1', 'dataset=phantom'] -> {'seed': 1, 'dataset': 'phantom'}."""
    values: dict[str, Any] = {}
    for line in lines:
        name, equals, text = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise RunError(f"-p {line!r}: write it as NAME=VALUE, for example seed=1")
        try:
            values[name.strip()] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name.strip()] = text.strip()
    return values


def check_parameters(path: Path, given: Mapping[str, Any]) -> None:
    """Raise RunError for a name that the lesson lacks or a value of another type.

    papermill itself only warns, and runs the lesson with what nobody asked for.
    """
    import papermill

    known = papermill.inspect_notebook(str(path))
    for name, value in given.items():
        if name not in known:
            names = ", ".join(known)
            raise RunError(f"{path.stem} has no parameter {name!r}; it has {names}")
        try:
            default = ast.literal_eval(known[name]["default"])
        except (ValueError, SyntaxError):
            continue  # an expression, such as os.environ.get(...)
        fits = isinstance(value, type(default)) and isinstance(
            value, bool
        ) == isinstance(default, bool)
        if isinstance(default, float) and type(value) is int:
            fits = True
        if default is not None and not fits:
            kind = type(default).__name__
            raise RunError(f"{path.stem}: {name}={value!r} must be of type {kind}")


def find_dataset(value: str, data: str | None) -> str:
    """The value of `dataset`, paths made absolute. RunError if it names nothing."""
    if data is not None:
        if not Path(data).is_dir():
            raise RunError(f"--data {data}: no such folder")
        os.environ["COURSE_DATA"] = str(Path(data).resolve())
    from course_lib.fetch import medmnist_records

    if value in ("phantom", *medmnist_records()):
        return value
    for folder in (Path.cwd(), Path(os.environ.get("COURSE_DATA", ROOT / "data"))):
        if (folder / value).exists():
            return str((folder / value).resolve())
    raise RunError(
        f"dataset={value!r} is neither phantom, a MedMNIST name (such as "
        "pneumoniamnist) nor a file or folder that exists"
    )


def fingerprint(path: Path, parameters: Mapping[str, Any]) -> str:
    """What a finished lesson must share with a new request to count as done."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = [cell["source"] for cell in cells]
    data = os.environ.get("COURSE_DATA", "")
    text = json.dumps([sources, parameters, data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------- running


def _device() -> str:
    """The device that the lessons will pick, in words."""
    import torch

    from course_lib.runtime import pick_device

    device = pick_device()
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def headline_numbers(path: Path) -> dict[str, Any]:
    """What the `report(...)` cells of an executed notebook recorded."""
    from course_lib.runtime import REPORT_MIME

    numbers: dict[str, Any] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            numbers |= output.get("data", {}).get(REPORT_MIME, {})
    return numbers


def execute(path: Path, output: Path, parameters: Mapping[str, Any]) -> str | None:
    """Execute one lesson into `output`. Returns None, or what went wrong."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            str(path),
            str(output),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(path.parent),
            # In a log file a bar would be one long line.
            progress_bar=sys.stderr.isatty() and {"desc": path.stem, "leave": False},
            store_widget_state=False,
        )
    except PapermillExecutionError as error:
        trace = "\n".join(error.traceback)
        return f"cell {error.exec_count} failed\n{trace}"
    except Exception as error:  # a kernel that died or did not start
        return f"{type(error).__name__}: {error}"
    return None


def run(
    wanted: Sequence[str],
    *,
    budget: str = "smoke",
    parameters: Sequence[str] = (),
    data: str | None = None,
    out: str | None = None,
    fresh: bool = False,
    time_limit: bool = True,
) -> int:
    """Execute lessons; executed copies, pages, an index and a report under `out`.

    Returns 0, or 1 if a lesson failed or took longer than its budget, 2 for a wrong
    request, 130 after Ctrl-C: finished lessons stay, and the next run continues.
    """
    quiet_kernels()
    os.environ["COURSE_PAGES"] = "1"  # widgets bring the form that lives in a page
    folder = Path(out or ROOT / "build").expanduser().resolve()
    try:
        if budget not in BUDGETS:
            choice = ", ".join(BUDGETS)
            raise RunError(f"unknown budget {budget!r}; choose from {choice}")
        lessons = find_lessons(wanted)
        given = parse_parameters(parameters)
        if given.pop("budget", budget) != budget:
            raise RunError("give the budget once, with --budget")
        dataset = find_dataset(str(given.get("dataset", "phantom")), data)
        if "dataset" in given:
            given["dataset"] = dataset
        given["budget"] = budget
        for path in lessons:
            check_parameters(path, given)
        folder.mkdir(parents=True, exist_ok=True)
    except (RunError, OSError) as problem:
        print(f"course_lib: {problem}", file=sys.stderr)
        return 2

    finished = {} if fresh else _finished(folder)
    rows: list[dict[str, Any]] = []
    print(f"{len(lessons)} lesson(s), budget {budget}, dataset {dataset}", flush=True)
    device = _device()
    interrupted = False
    for path in lessons:
        key = fingerprint(path, given)
        output = folder / path.name
        if key in finished and output.exists():
            rows.append(finished[key])
            print(f"  {path.stem}: done before the interruption", flush=True)
            continue
        started = time.monotonic()
        try:
            problem = execute(path, output, given)
        except KeyboardInterrupt:
            interrupted = True
            break
        row = {
            "lesson": path.stem,
            "status": "failed" if problem else "passed",
            "seconds": time.monotonic() - started,
            "budget": budget,
            "dataset": dataset,
            "device": device,
            "parameters": given,
            "numbers": headline_numbers(output) if output.exists() else {},
            "fingerprint": key,
        }
        limit = time_limits(path).get(budget)
        if problem is None and time_limit and limit and row["seconds"] > limit:
            problem = f"over its budget: {row['seconds']:.0f} s, allowed {limit:.0f} s"
            row["status"] = "over budget"
        row["problem"] = problem
        rows.append(row)
        _write_report(folder, rows, complete=False)
        print(f"  {path.stem}: {row['status']} in {row['seconds']:.0f} s", flush=True)
        if problem:
            print(problem, file=sys.stderr, flush=True)
    _write_report(folder, rows, complete=not interrupted)
    _write_pages(folder, rows)
    _print_report(rows)
    if interrupted:
        print("interrupted; the same command goes on after the finished lessons")
        return 130
    print(f"\nread it: {(folder / 'index.html').as_uri()}")
    return int(any(row["status"] != "passed" for row in rows))


def time_limits(path: Path) -> dict[str, float]:
    """{budget: seconds} that a lesson allows itself, from its notebook's metadata."""
    metadata = json.loads(path.read_text("utf-8"))["metadata"]
    minutes = metadata.get("course", {}).get("minutes", {})
    return {budget: 60.0 * float(value) for budget, value in minutes.items()}


def _finished(folder: Path) -> dict[str, dict[str, Any]]:
    """The passed lessons of a run that was interrupted, by fingerprint."""
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
        if report["complete"]:
            return {}
        rows = report["lessons"]
        return {row["fingerprint"]: row for row in rows if row["status"] == "passed"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_report(folder: Path, rows: list[dict[str, Any]], *, complete: bool) -> None:
    from course_lib.runtime import atomic_path

    with atomic_path(folder / "report.json") as temporary:
        text = json.dumps({"complete": complete, "lessons": rows}, indent=1)
        temporary.write_text(text, "utf-8")


def _write_pages(folder: Path, rows: list[dict[str, Any]]) -> None:
    from course_lib import pages

    pages.write_site(folder, rows)


def _print_report(rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{'lesson':<28}{'status':<13}{'seconds':>8}  headline numbers")
    for row in rows:
        numbers = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row["numbers"].items()
        )
        line = f"{row['lesson']:<28}{row['status']:<13}{row['seconds']:>8.1f}  "
        print(line + numbers)


# ---------------------------------------------------------------- test and lab


def test(only: str | None, arguments: Sequence[str]) -> int:
    """Lint, unit and drift tests, notebooks under nbval, a browser; 0 if all pass."""
    quiet_kernels()
    os.environ["COURSE_BUDGET"] = "smoke"
    os.environ.pop("COURSE_DATA", None)  # what is tested must not depend on it
    notebooks = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    students = sorted((ROOT / "notebooks" / "student").glob("*.ipynb"))
    pytest = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"]
    nbval = [
        "--nbval-current-env",
        "--nbval-cell-timeout=600",
        "-p",
        "no:cacheprovider",
    ]
    ruff = [sys.executable, "-m", "ruff"]
    parts = {
        "lint": [[*ruff, "check", "."], [*ruff, "format", "--check", "."]],
        "unit": [[*pytest, "tests", "--ignore=tests/browser"]],
        "notebooks": [
            [*pytest, "--nbval", *nbval, *map(str, notebooks)],
            [*pytest, "--nbval-lax", *nbval, *map(str, students)],
        ],
        # one JupyterLab for all of it; without a browser it says why it is skipped
        "browser": [[sys.executable, "-m", "pytest", "-rs", "tests/browser"]],
    }
    failed = []
    for part in [only] if only else parts:
        for command in parts[part]:
            started = time.monotonic()
            extra = list(arguments) if command[2] == "pytest" else []
            print(f"== {part}: {' '.join(command[2:5])} ...", flush=True)
            code = subprocess.run([*command, *extra], cwd=ROOT, check=False).returncode
            print(f"== {part}: {time.monotonic() - started:.0f} s", flush=True)
            if code:
                failed.append(part)
    print(f"failed: {', '.join(failed)}" if failed else "all parts passed", flush=True)
    return int(bool(failed))


def copy_lessons(source: Path, target: Path) -> list[str]:
    """Copy student lessons into a person's own folder; never touch their work.

    A copy that nobody edited follows the course. One that was edited stays, and the
    course's newer version is put beside it as `NN_name.new.ipynb`. Returns what
    happened, a line each.
    """
    target.mkdir(parents=True, exist_ok=True)
    record = target / ".course.json"
    try:
        given = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        given = {}
    told = []
    for path in sorted(source.glob("*.ipynb")):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        mine = target / path.name
        if given.get(path.name) == digest and mine.exists():
            continue
        edited = mine.exists() and (
            hashlib.sha256(mine.read_bytes()).hexdigest() != given.get(path.name)
        )
        if edited:
            shutil.copyfile(path, mine.with_suffix(".new.ipynb"))
            told.append(f"{path.stem}: yours kept; the newer one is {path.stem}.new")
        else:
            shutil.copyfile(path, mine)
        given[path.name] = digest
    record.write_text(json.dumps(given, indent=1), "utf-8")
    return told


def lab(arguments: Sequence[str]) -> int:
    """Open JupyterLab on the person's own copies of the student lessons."""
    mine = ROOT / "my_lessons"
    for line in copy_lessons(ROOT / "notebooks" / "student", mine):
        print(line)
    print(f"your lessons are in {mine}; what you change there stays yours")
    first = next(iter(sorted(mine.glob("[0-9][0-9]_*.ipynb"))), None)
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={mine}"]
    if first and not any("LabApp.default_url" in a for a in arguments):
        command.append(f"--LabApp.default_url=/lab/tree/{first.name}")
    process = subprocess.Popen([*command, *arguments], cwd=mine)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Jupyter asks whether it should stop
            continue
