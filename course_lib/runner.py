"""Run lessons as papermill jobs, test the course, open JupyterLab."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from course_lib import cluster, grids, jobs, pages, run_cards
from course_lib.base import BUDGETS, ROOT, atomic_path, data_dir, write_text
from course_lib.bootstrap import wait_for
from course_lib.jobs import Job, RunError, quiet_kernels

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
        matches = [p for p in notebooks if f"{p.stem}_".startswith(f"{key}_")]
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
        values[name.strip()] = grids.literal(text)
    return values


def check_parameters(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The lesson's own values of the parameters that are not `given`.

    Raises RunError for a name that the lesson lacks or a value of another type:
    papermill itself only warns, and runs the lesson with what nobody asked for.
    """
    known = _parameters(path, path.stat().st_mtime_ns)
    for name, value in given.items():
        if name not in known:
            names = ", ".join(known)
            raise RunError(f"{path.stem} has no parameter {name!r}; it has {names}")
        kind = type(known[name])
        fits = type(value) is kind or (type(value), kind) == (int, float)
        if known[name] is not None and not fits:
            raise RunError(
                f"{path.stem}: {name}={value!r} must be of type {kind.__name__}"
            )
    return {name: value for name, value in known.items() if name not in given}


@lru_cache
def _parameters(path: Path, _changed: int) -> dict[str, Any]:
    """{name: default} of a lesson; None for an expression (os.environ.get(...))."""
    import papermill

    values = {}
    for name, known in papermill.inspect_notebook(str(path)).items():
        try:
            values[name] = ast.literal_eval(known["default"])
        except (ValueError, SyntaxError):
            values[name] = None
    return values


def find_dataset(value: str, data: str | None) -> str:
    """The value of `dataset`, paths made absolute. RunError if it names nothing."""
    if data is not None:
        if not Path(data).is_dir():
            raise RunError(f"--data {data}: no such folder")
        os.environ["COURSE_DATA"] = str(Path(data).resolve())
    from course_lib.fetch import medmnist_records

    if value in ("phantom", *medmnist_records()):
        return value
    for folder in (Path.cwd(), data_dir()):
        if (folder / value).exists():
            return str((folder / value).resolve())
    raise RunError(
        f"dataset={value!r} is neither phantom, a MedMNIST name (such as "
        "pneumoniamnist) nor a file or folder that exists"
    )


def plan(
    wanted: Sequence[str],
    *,
    budget: str = "smoke",
    parameters: Sequence[str] = (),
    grid: Sequence[str] = (),
    data: str | None = None,
) -> list[Job]:
    """The jobs that a request comes to, each of them checked. Raises RunError."""
    if budget not in BUDGETS:
        choice = ", ".join(BUDGETS)
        raise RunError(f"unknown budget {budget!r}; choose from {choice}")
    lessons = find_lessons(wanted)
    given, varied = parse_parameters(parameters), grids.parse(grid)
    if both := given.keys() & varied.keys():
        raise RunError(f"{min(both)} stands in -p and in --grid; give it once")
    if "budget" in varied or given.pop("budget", budget) != budget:
        raise RunError("give the budget once, with --budget")
    given["budget"] = budget
    find_dataset("phantom", data)  # checks the folder
    home = os.environ.get("COURSE_DATA")
    place = {"COURSE_DATA": home} if home else {}  # for other machines
    todo = []
    for path in lessons:
        text = _without_outputs(path)
        for values in grids.combinations(varied):
            chosen = given | values
            if "dataset" in chosen:
                chosen["dataset"] = find_dataset(str(chosen["dataset"]), None)
            defaults = check_parameters(path, chosen)
            todo.append(
                Job(
                    lesson=path.stem,
                    name=grids.file_name(path.stem, values),
                    notebook=text,
                    title=grids.label(values),
                    parameters=chosen,
                    defaults=defaults,
                    values=values,
                    fingerprint=run_cards.fingerprint(path, chosen),
                    threads=jobs.thread_share(1),
                    seconds=time_limits(path).get(budget),
                    environment=place,
                )
            )
    return _with_own_names(todo)


def _without_outputs(path: Path) -> str:
    """The text of a notebook as it was before it ran: a tenth of the size."""
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook)


def _with_own_names(todo: Sequence[Job]) -> list[Job]:
    """Jobs whose files would share a name (two like-named paths) get longer ones."""
    count = Counter(job.name for job in todo)
    return [
        job
        if count[job.name] == 1
        else replace(job, name=f"{job.name}-{job.fingerprint[:6]}")
        for job in todo
    ]


# ---------------------------------------------------------------- running


def run(
    wanted: Sequence[str],
    *,
    budget: str = "smoke",
    parameters: Sequence[str] = (),
    grid: Sequence[str] = (),
    data: str | None = None,
    out: str | None = None,
    workers: int = 1,
    dask: str | None = None,
    memory: float | None = None,
    fresh: bool = False,
    time_limit: bool = True,
) -> int:
    """Execute lessons; notebooks, run cards, pages, an index and a report under `out`.

    Returns 0, or 1 if a lesson failed or took longer than its budget, 2 for a wrong
    request, 130 after Ctrl-C: finished lessons stay, and the next run continues. The
    finished jobs of a grid are never run again; a plain run that was completed is.
    Under torchrun each process executes the lessons, and they train together; the
    first one writes.
    """
    quiet_kernels()
    folder = Path(out or ROOT / "build").expanduser().resolve()
    team = int(os.environ.get("WORLD_SIZE", "1"))
    if int(os.environ.get("RANK", "0")) > 0:
        folder = Path(jobs.scratch_folder("course-rank-"))
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the first one speaks
    try:
        if team > 1 and (workers > 1 or dask):
            raise RunError("under torchrun give neither --workers nor --dask")
        if workers < 1:
            raise RunError(f"--workers {workers}: at least 1")
        if dask and workers > 1:
            raise RunError("--dask brings its own workers: leave out --workers")
        if memory is not None and memory <= 0:
            raise RunError(f"--memory {memory}: GiB for each kernel, such as 4")
        todo = plan(wanted, budget=budget, parameters=parameters, grid=grid, data=data)
        remote = cluster.Cluster(dask) if dask else None
        folder.mkdir(parents=True, exist_ok=True)
    except (RunError, OSError) as problem:
        print(f"course_lib: {problem}", file=sys.stderr)
        return 2
    # All of a team must run the same lessons, and only the first has cards.
    known = {} if fresh or team > 1 else run_cards.finished(folder)
    if not grid:
        known = {key: known[key] for key in _begun(folder) if key in known}
    cards = {job.name: known.get(job.fingerprint) for job in todo}
    cards = {name: card for name, card in cards.items() if card}
    open_jobs = [job for job in todo if job.name not in cards]
    workers = remote.slots if remote else min(workers, len(open_jobs) or 1)
    share = remote.threads if remote else jobs.thread_share(workers)
    open_jobs = [
        replace(
            job,
            threads=share,
            memory_gib=memory,
            seconds=job.seconds if time_limit else None,
            # in a log it is one long line
            bar=not remote and workers == 1 and sys.stderr.isatty(),
        )
        for job in open_jobs
    ]
    shown = f", {workers} workers, {share} thread(s) each" if workers > 1 else ""
    what = f"{len(todo)} job(s) of a grid" if grid else f"{len(todo)} lesson(s)"
    if "dataset" not in todo[0].values:
        what += f", dataset {todo[0].parameters.get('dataset', 'phantom')}"
    print(f"{what}, budget {budget}{shown}", flush=True)
    for name in cards:
        print(f"  {name}: done before", flush=True)
    for job in open_jobs:  # a card of an earlier run must not vouch for half a notebook
        (folder / "cards" / f"{job.name}.json").unlink(missing_ok=True)
    if remote:
        done = remote.run(open_jobs, folder)
    else:
        done = jobs.run_here(open_jobs, folder, workers)
    try:
        interrupted = _collect(done, folder, todo, cards)
    finally:
        done.close()
        if remote:
            remote.close()
    rows = [cards[job.name] for job in todo if job.name in cards]
    _write_report(folder, rows, complete=not interrupted)
    pages.write_site(folder, rows, grids.write(folder, rows) if grid else "")
    print(f"\n{run_cards.tell(rows)}")
    if interrupted:
        print("interrupted; the same command goes on after the finished lessons")
        return 130
    print(f"\nread it: {(folder / 'index.html').as_uri()}")
    return int(any(row["status"] != "passed" for row in rows))


def _collect(
    done: Iterable[dict[str, Any]],
    folder: Path,
    todo: Sequence[Job],
    cards: dict[str, dict[str, Any]],
) -> bool:
    """Keep and tell each card as it comes; whether Ctrl-C came before the last."""
    try:
        for card in done:
            run_cards.write(folder, card)
            cards[card["name"]] = card
            rows = [cards[job.name] for job in todo if job.name in cards]
            _write_report(folder, rows, complete=False)
            line = f"  {card['name']}: {card['status']} in {card['seconds']:.0f} s"
            print(line, flush=True)
            if card["problem"]:
                print(card["problem"], file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return True
    return False


def time_limits(path: Path) -> dict[str, float]:
    """{budget: seconds} that a lesson allows itself, from its notebook's metadata."""
    metadata = json.loads(path.read_text("utf-8"))["metadata"]
    minutes = metadata.get("course", {}).get("minutes", {})
    return {budget: 60.0 * float(value) for budget, value in minutes.items()}


def _begun(folder: Path) -> list[str]:
    """Fingerprints of the lessons that an interrupted run into `folder` had done."""
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
        rows = [] if report["complete"] else report["lessons"]
        return [row["fingerprint"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_report(folder: Path, rows: list[dict[str, Any]], *, complete: bool) -> None:
    text = json.dumps({"complete": complete, "lessons": rows}, indent=1)
    write_text(folder / "report.json", text + "\n")


# ---------------------------------------------------------------- test and lab


def test(only: str | None, arguments: Sequence[str]) -> int:
    """Each part of the tests, or one; 0 if all pass."""
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
        "unit": [
            [*pytest, "tests", "--ignore=tests/integration", "--ignore=tests/browser"]
        ],
        # real kernels, a cluster, torchrun, nbgrader, a sandbox, long trainings
        "integration": [[*pytest, "tests/integration"]],
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
            # two processes of unit tests share the cores; kernels have shares of theirs
            share = jobs.threads_environment(jobs.thread_share(2))
            environment = os.environ | (share if part == "unit" else {})
            code = subprocess.run(
                [*command, *extra], cwd=ROOT, env=environment, check=False
            ).returncode
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
        mine, before = target / path.name, given.get(path.name)
        newest = given[path.name] = _digest(path)
        have = _digest(mine) if mine.exists() else None
        if have in (None, before):
            _copy(path, mine)
        elif newest not in (have, before):
            _copy(path, mine.with_suffix(".new.ipynb"))
            told.append(f"{path.stem}: yours kept; the newer one is {path.stem}.new")
    write_text(record, json.dumps(given, indent=1))
    return told


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all: half a notebook would count as a person's own work."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


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
    return wait_for(subprocess.Popen([*command, *arguments], cwd=mine))
