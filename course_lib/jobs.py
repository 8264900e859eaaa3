"""One lesson, one job: papermill in a process of its own, watched from outside.

The process that asked sees to the limits of time and memory, so a cell that hangs and
a kernel that dies end as one line of the report, and the other jobs go on. What a job
needs travels inside it, so it runs as well on another machine of a Dask cluster.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from course_lib import bootstrap, run_cards
from course_lib.base import ROOT, write_text

KERNEL = 300  # seconds for a kernel to answer: a busy machine may take a minute
GRACE = 30.0  # seconds to start a kernel, on top of what a lesson may take
LATE = 2.0  # times its budget: then a lesson is stopped
MEASURED_ON = 2  # cores that the minutes in a lesson's header are for
EVERY = 0.5  # seconds between two looks at the memory of a kernel
NO_MEMORY = ("MemoryError", "OutOfMemoryError", "can't allocate memory")


@dataclass(frozen=True)
class Job:
    """One lesson with its parameters, and what it may use."""

    lesson: str
    name: str  # of its files
    notebook: str  # the text of the .ipynb, without outputs
    title: str
    parameters: Mapping[str, Any]  # for papermill
    defaults: Mapping[str, Any]  # of the parameters that were not given
    values: Mapping[str, Any]  # those that a grid varies
    fingerprint: str
    threads: int
    seconds: float | None = None  # its time budget on MEASURED_ON cores
    memory_gib: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    bar: bool = False

    @property
    def budget_seconds(self) -> float | None:
        """Its time budget with its share of the cores."""
        if self.seconds is None:
            return None
        return self.seconds * max(1.0, MEASURED_ON / self.threads)


class RunError(ValueError):
    """A wrong request: said in one line before anything runs."""


class Stopped(Exception):
    """The person who asked for the run has ended it."""


def quiet_kernels() -> None:
    """Set what every kernel started from here inherits."""
    bootstrap.prepare_children()
    os.environ["COURSE_HEADLESS"] = "1"
    # A kernel named python3 in the user's own folder must not shadow this one.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # A profile of its own: a person's start-up files must not change a lesson, and
    # a kernel must not warn about loopback TCP at each start, nor complain when it is
    # stopped.
    home = scratch_folder("course-ipython-")
    profile = Path(home) / "profile_default"
    profile.mkdir()
    config = "c = get_config()\nc.Application.log_level = 50\n"
    (profile / "ipython_kernel_config.py").write_text(config, "utf-8")
    os.environ["IPYTHONDIR"] = home


def scratch_folder(prefix: str) -> str:
    """A folder that goes when this process ends."""
    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_share(workers: int) -> int:
    """Threads for each of `workers` kernels that share this machine."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    most = min(cores(), int(wanted)) if wanted.isdigit() else cores()
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of torchrun
    return max(1, min(most, cores() // (workers * beside)))


def threads_environment(threads: int) -> dict[str, str]:
    """What holds NumPy, SciPy and torch of a child to its threads.

    Without the wait policy two torch processes on two cores spin against each other.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names} | {"OMP_WAIT_POLICY": "PASSIVE"}


# ---------------------------------------------------------------- one job


def execute(
    job: Job, output: Path, stop: threading.Event | None = None
) -> dict[str, Any]:
    """Run `job` into the notebook `output`; returns its run card, whatever happened.

    Raises Stopped where `stop` was set before it was done.
    """
    clock = time.monotonic()
    done = perform(job, output, stop or threading.Event())
    seconds = time.monotonic() - clock
    try:
        numbers = run_cards.headline_numbers(output) if output.exists() else {}
    except ValueError:  # stopped while papermill wrote it
        numbers = {}
    return card(job, done, seconds, numbers)


def card(
    job: Job, done: Done, seconds: float, numbers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The run card of a job that has just ended."""
    started = datetime.now(UTC) - timedelta(seconds=seconds)
    status, problem, allowed = done.status, done.problem, job.budget_seconds
    if status == "passed" and allowed is not None and seconds > allowed:
        status = "over budget"
        problem = f"over its budget: {seconds:.0f} s, allowed {allowed:.0f} s"
    parameters = {**job.defaults, **job.parameters}
    data, weights = done.used.get("data", {}), done.used.get("weights", {})
    devices = list(done.used.get("device", {}).values())
    seed = parameters.get("seed")
    return run_cards.plain(
        {
            "schema": 1,
            "name": job.name,
            "lesson": job.lesson,
            "title": job.title,
            "status": status,
            "problem": problem,
            "parameters": parameters,
            "values": job.values,
            "budget": parameters["budget"],
            "dataset": str(parameters.get("dataset", "phantom")),
            "seed": seed if type(seed) is int else None,
            "versions": run_cards.versions(),
            "machine": f"{platform.system()} {platform.machine()}, {cores()} cores",
            "device": devices[-1] if devices else f"cpu ({job.threads} threads)",
            "threads": job.threads,
            "data": data,
            "data_hash": run_cards.digest(data),
            "weights": weights,
            "weights_hash": run_cards.digest(weights),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "peak_memory_mb": round(done.peak / 1e6),
            "numbers": {k: _scalar(x) for k, x in (numbers or {}).items()},
            "fingerprint": job.fingerprint,
        }
    )


def _scalar(value: Any) -> Any:
    """A headline number as a card may hold it; a list or the like becomes text."""
    known = value is None or isinstance(value, (bool, int, float, str))
    return value if known else json.dumps(value)


class Done(NamedTuple):
    """How the process of a job ended; `peak` in bytes, `used` as `run_cards.uses`."""

    status: str
    problem: str | None = None
    peak: int = 0
    used: Mapping[str, Mapping[str, str]] = {}


def perform(job: Job, output: Path, stop: threading.Event) -> Done:
    """Start the process of a job, watch it, and say how it ended."""
    if stop.is_set():
        raise Stopped
    with tempfile.TemporaryDirectory(
        prefix="course-job-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        killed = _killed_for_memory()
        try:
            verdict, peak = _watch(_start(job, output, folder), job, stop)
        except OSError as error:  # no process, no disk
            return Done("failed", f"{type(error).__name__}: {error}")
        if verdict is None:
            verdict = _verdict(_answer(folder), _killed_for_memory() > killed)
        return Done(*verdict, peak, run_cards.uses(folder / "uses.jsonl"))


def _start(job: Job, output: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process that executes `job`; `folder` is for what both say."""
    lesson = folder / f"{job.lesson}.ipynb"
    lesson.write_text(job.notebook, "utf-8")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)  # of an earlier run: it would look like this one's
    request = {
        "lesson": str(lesson),
        "output": str(output),
        "parameters": dict(job.parameters),
        "bar": job.bar and {"desc": job.lesson, "leave": False},
    }
    (folder / "request.json").write_text(json.dumps(request), "utf-8")
    environment = os.environ | job.environment
    if job.threads < cores():  # alone it may choose, as torch does by physical cores
        environment |= threads_environment(job.threads)
    environment |= {
        "COURSE_USES": str(folder / "uses.jsonl"),
        "COURSE_JOB": job.fingerprint,
        "COURSE_PAGES": "1",  # widgets bring the form that lives in a page
    }
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "course_lib.jobs", str(folder)],
            stdin=subprocess.PIPE,  # its end tells the child that nobody waits for it
            stdout=log,
            stderr=None if job.bar else log,
            cwd=ROOT / "notebooks",
            env=environment,
            # Ctrl-C is for this process, which then ends the others in order.
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def _watch(
    process: subprocess.Popen[bytes], job: Job, stop: threading.Event
) -> tuple[tuple[str, str] | None, int]:
    """Wait for the process; (status and problem if it was stopped, peak memory).

    The memory is that of the kernel and its children, in bytes.
    """
    allowed = job.budget_seconds
    limit = None if allowed is None else LATE * allowed + GRACE
    clock, peak = time.monotonic(), 0
    verdict = None
    try:
        while verdict is None:
            try:
                process.wait(EVERY)
                return None, peak
            except subprocess.TimeoutExpired:
                pass
            memory = _memory(process.pid)
            peak = max(peak, memory)
            seconds = time.monotonic() - clock
            if stop.is_set():
                raise Stopped
            if limit is not None and seconds > limit:
                verdict = "time over", f"time over: stopped after {seconds:.0f} s"
            elif job.memory_gib and memory > job.memory_gib * 2**30:
                used = f"{memory / 2**30:.1f} GiB, allowed {job.memory_gib:g} GiB"
                verdict = "out of memory", f"out of memory: stopped at {used}"
        return verdict, peak
    finally:
        _end(process)


def _memory(pid: int) -> int:
    """Resident bytes of the processes below `pid`: the kernel and its children."""
    import psutil

    total = 0
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return 0
    for child in children:
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything below it, if it still runs."""
    import psutil

    try:
        if process.poll() is None:
            tree = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in tree:
                try:
                    child.kill()
                except psutil.Error:
                    continue
            psutil.wait_procs(tree, timeout=10)
            process.wait()
    except psutil.Error:
        process.kill()
        process.wait()
    finally:
        if process.stdin:
            process.stdin.close()


def _answer(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "answer.json").read_text("utf-8"))
    except (OSError, ValueError):
        try:
            log = (folder / "log.txt").read_text("utf-8", "replace").strip()
        except OSError:
            log = ""
        return {"error": "lost", "problem": log or "its process ended without a word"}


def _verdict(answer: Mapping[str, Any], memory_kill: bool) -> tuple[str, str | None]:
    """(status, problem) from what the process of a job said."""
    error, problem = answer["error"], answer["problem"]
    if error is None:
        return "passed", None
    last = "\n".join((problem or "").splitlines()[-3:])  # the exception, no code
    if error == "cell" and any(sign in last for sign in NO_MEMORY):
        return "out of memory", problem
    if error in ("DeadKernelError", "lost"):
        if memory_kill:
            return "out of memory", f"the system ended it for want of memory\n{problem}"
        return "kernel died", f"kernel died: {problem}"
    return "failed", problem


def _killed_for_memory() -> int:
    """How many processes Linux has ended for want of memory; 0 where it is not said."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


# ---------------------------------------------------------------- many jobs


def run_here(
    todo: Sequence[Job], folder: Path, workers: int
) -> Generator[dict[str, Any], None, None]:
    """Run jobs on this machine, `workers` at a time; yields each card when it is done.

    Closing the iterator ends what runs. The cards of finished jobs have been yielded.
    """
    stop = threading.Event()
    pool = futures.ThreadPoolExecutor(workers, "job")
    waiting = {
        pool.submit(execute, job, folder / f"{job.name}.ipynb", stop) for job in todo
    }
    try:
        while waiting:  # in short waits, which Ctrl-C can end on every system
            done, waiting = futures.wait(waiting, 0.5, futures.FIRST_COMPLETED)
            # what has failed comes last: the cards of the others are not lost with it
            for future in sorted(done, key=lambda f: f.exception() is not None):
                yield future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------- the process of a job


def _follow_parent() -> None:
    """End this process when nobody waits for its answer: a worker was killed."""
    while os.read(0, 2**16):  # not sys.stdin, whose lock must be free at the end
        pass
    os._exit(1)  # the kernel ends itself when its parent is gone


def _register_engine() -> str:
    """papermill's own, but it writes the notebook once a code cell, as that begins.

    papermill writes at the start and the end of every cell, text too: a fifth of the
    time of a lesson at smoke, and no output more for whoever kills the job.
    """
    from papermill.engines import NBClientEngine, papermill_engines

    class Seldom(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            save = nb_man.save
            codes = [cell for cell in nb_man.nb.cells if cell.cell_type == "code"]

            def seldom(**_):
                if any(c.metadata.papermill.status == nb_man.RUNNING for c in codes):
                    save()

            nb_man.save = seldom
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **options)
            finally:
                save()

    papermill_engines.register("seldom", Seldom)
    return "seldom"


def main(folder: Path) -> None:
    """Execute the job that lies in `folder`, and leave the answer there."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    bootstrap.without_iri_grammars()
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    request = json.loads((folder / "request.json").read_text("utf-8"))
    answer: dict[str, Any] = {"error": None, "problem": None}
    try:
        papermill.execute_notebook(
            request["lesson"],
            request["output"],
            parameters=request["parameters"],
            engine_name=_register_engine(),
            kernel_name="python3",
            start_timeout=KERNEL,
            cwd=str(ROOT / "notebooks"),
            progress_bar=request["bar"],
            store_widget_state=False,
        )
    except PapermillExecutionError as error:
        trace = "\n".join(error.traceback)
        problem = f"cell {error.exec_count} failed\n{trace}"
        answer = {"error": "cell", "problem": problem}
    except DeadKernelError as error:
        answer = {"error": "DeadKernelError", "problem": str(error)}
    except Exception as error:  # a kernel that did not start, a full disk
        problem = f"{type(error).__name__}: {error}"
        answer = {"error": "other", "problem": problem}
    write_text(folder / "answer.json", json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
