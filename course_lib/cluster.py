"""The same jobs on the workers of a Dask cluster.

Nothing is shared but the course: each worker needs this package, in this version. A
job carries its lesson there, and the executed notebook comes back with its card. A
cluster runs what it is sent, so connect to your own alone.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from course_lib import jobs, run_cards
from course_lib.base import write_text
from course_lib.jobs import Job, RunError

FIND_S = 30.0  # for the scheduler to answer
WORKERS_S = 30.0  # and then for its first worker
LOST = 3  # workers that may die under a job before it is given up


class Cluster:
    """A Dask cluster whose workers hold this course. Raises RunError with the fix."""

    def __init__(self, address: str):
        try:
            from distributed import Client
        except ImportError as error:
            raise RunError(
                "--dask needs the package distributed: python -m pip install "
                '"distributed>=2024.8"'
            ) from error
        try:
            self.client = Client(address, timeout=FIND_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RunError(
                f"no Dask scheduler answers at {address} ({type(error).__name__}); "
                "start `dask scheduler`, then `dask worker ADDRESS` on each machine, "
                "and give the address that the scheduler prints"
            ) from error
        try:
            self._look(address)
        except BaseException:
            self.close()
            raise

    def _look(self, address: str) -> None:
        """Find the workers; each must have this library."""
        try:
            self.client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            raise RunError(
                f"the scheduler at {address} has no workers; start `dask worker "
                f"{address}` in the environment of the course on each machine"
            ) from error
        try:
            found = self.client.run(_look_around)
        except Exception as error:
            raise RunError(
                f"a worker cannot import this course ({error}); start it with the "
                "course's Python and the course's folder on PYTHONPATH"
            ) from error
        for name, (code, _) in found.items():
            if code != run_cards.code_hash():
                raise RunError(f"{name} has another version of course_lib; update it")
        slots: Counter[str] = Counter()
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        for name, worker in workers.items():
            slots[_host(name)] += worker["nthreads"]
        self.slots = sum(slots.values())
        shares = (cores // slots[_host(name)] for name, (_, cores) in found.items())
        self.threads = max(1, min(shares))  # for each kernel, on the narrowest machine

    def run(
        self, todo: Sequence[Job], folder: Path
    ) -> Generator[dict[str, Any], None, None]:
        """Send jobs; yields each card when its notebook is here.

        A job whose worker dies is sent to another one, LOST times at most.
        """
        from distributed import as_completed

        waiting = {
            self.client.submit(_remote, job, pure=False, retries=LOST): job
            for job in todo
        }
        try:
            for future in as_completed(waiting, loop=self.client.loop):
                job = waiting[future]
                if future.status == "finished":
                    card, notebook = future.result()
                    if notebook is not None:
                        write_text(folder / f"{job.name}.ipynb", notebook)
                else:
                    card = jobs.card(job, jobs.Done("failed", _why(future)), 0.0)
                yield card
        finally:
            self.client.cancel(list(waiting))

    def close(self) -> None:
        """Leave the cluster; it goes on without us."""
        self.client.close()


def _host(address: str) -> str:
    """'tcp://10.0.0.2:4711' -> '10.0.0.2'."""
    return urlsplit(address).hostname or address


def _why(future: Any) -> str:
    """What became of a job that has no card."""
    error = future.exception() if future.status == "error" else None
    return f"the cluster gave it up ({future.status}): {error or 'no reason is known'}"


def _look_around() -> tuple[str, int]:
    """On a worker: which library it has, and how many cores."""
    return run_cards.code_hash(), jobs.cores()


def _remote(job: Job) -> tuple[dict[str, Any], str | None]:
    """Run a job on this worker; its card, and its notebook if there is one."""
    jobs.quiet_kernels()
    with tempfile.TemporaryDirectory(prefix="course-run-") as name:
        output = Path(name) / f"{job.name}.ipynb"
        card = jobs.execute(job, output)
        return card, output.read_text("utf-8") if output.exists() else None
