"""The process that marks: it imports torch and the checks once, then forks.

`Template` starts it with an emptied environment; `serve` is what runs there. An answer
then costs milliseconds, and what a student wrote runs in forks alone (`sandbox`).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib import sandbox, submissions
from course_lib.answers import judge
from course_lib.base import ROOT
from course_lib.exercises import LessonError, exercises
from course_lib.sandbox import Limits
from course_lib.sources import Lesson, read_source
from course_lib.sources import select as select_lessons

READING = Limits(processor=20, clock=60)


def serve(seconds: str, *numbers: str) -> None:
    """The template process: a header and a notebook in, a mark out, until the end."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    sandbox.unshare_network()  # before a library starts a thread

    import torch

    from course_lib import checks

    torch.set_num_threads(1)
    lessons = select_lessons(numbers)
    sheets = {x.number: submissions.sheet(x) for x in lessons}
    known = checks.all_checks()
    for lesson in lessons:
        warm(lesson, sheets[lesson.number].names, known)
    gc.collect()
    gc.freeze()  # forks share what is here

    def reply(value: Any) -> None:
        replies.write(json.dumps(value).encode("ascii") + b"\n")
        replies.flush()

    reply({"barriers": sandbox.barriers()})
    while header := requests.readline():
        request = json.loads(header)
        data = requests.read(request["size"])
        reply(mark(data, request["lesson"], sheets, known, _judging(int(seconds))))


def _judging(seconds: int) -> Limits:
    """A busy machine may take much longer by the clock, which ends only who sleeps."""
    return Limits(processor=seconds, clock=30 + 3 * seconds)


def warm(
    lesson: Lesson, names: Mapping[str, Any], known: Mapping[str, Callable]
) -> None:
    """Run each check on its solution: it loads what forks would each load again."""
    notebook = read_source(lesson.source)
    for i, task in exercises(notebook):
        space = dict(names)
        exec(notebook.cells[i].source, space)
        if task.id not in known or not known[task.id](space[task.name]):
            raise LessonError(f"{task.id}: its check does not pass the solution")


def mark(
    data: bytes,
    lesson: str | None,
    sheets: Mapping[str, Any],
    known: Mapping[str, Callable],
    limits: Limits,
) -> dict[str, Any]:
    """{lesson, results: [{id, name, passed, message}], notes} of a notebook's bytes."""
    outcome = sandbox.run(lambda: submissions.read(data, sheets, lesson), READING)
    found = outcome.value or {"lesson": lesson, "answers": {}, "notes": []}
    notes = list(found["notes"])
    if outcome.problem:
        notes.append(f"The notebook could not be read: {outcome.problem}.")
    page = sheets.get(found["lesson"])
    results = []
    for task in page.tasks if page else ():
        passed, message = False, "there is no answer in the notebook."
        if source := found["answers"].get(task.id):
            outcome = sandbox.run(
                lambda source=source, task=task: judge(
                    source,
                    task.name,
                    known[task.id],
                    names=page.names,
                    modules=page.modules,
                    imports=found["imports"],
                ),
                limits,
            )
            value = outcome.value if isinstance(outcome.value, dict) else {}
            passed = value.get("passed") is True
            message = str(value.get("message") or f"stopped: {outcome.problem}.")
            if note := value.get("note") or outcome.problem:
                notes.append(f"{task.id}: {note}.")
        results.append(
            {"id": task.id, "name": task.name, "passed": passed, "message": message}
        )
    return {"lesson": page and page.number, "results": results, "notes": notes}


class TemplateEnded(RuntimeError):
    """The template process ended or fell silent."""


class Template:
    """A template process, asked by one thread at a time."""

    def __init__(self, numbers: Sequence[str], seconds: int) -> None:
        self._clock = READING.clock + 20 * _judging(seconds).clock
        self._folder = tempfile.TemporaryDirectory(prefix="course-grade-")
        environment = {
            "PATH": os.defpath,
            "HOME": self._folder.name,
            "MPLCONFIGDIR": self._folder.name,
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "COURSE_HEADLESS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "MPLBACKEND": "agg",
        }
        self._errors = open(Path(self._folder.name) / "errors", "w+b")  # noqa: SIM115
        code = "import sys; from course_lib.marking import serve; serve(*sys.argv[1:])"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(seconds), *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._folder.name,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends it
        )
        try:
            self.barriers = self._read(300)["barriers"]
        except TemplateEnded:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().split("\n")
            self.close()
            raise LessonError(f"the checks did not start: {lines[-1]}") from None

    def ask(self, data: bytes, lesson: str | None) -> dict[str, Any]:
        """The mark of a notebook. Raises TemplateEnded."""
        header = json.dumps({"size": len(data), "lesson": lesson}).encode("ascii")
        try:
            self._process.stdin.write(header + b"\n" + data)
            self._process.stdin.flush()
        except OSError:
            raise TemplateEnded from None
        return self._read(self._clock)

    def _read(self, seconds: float) -> dict[str, Any]:
        pipe, end, line = self._process.stdout.fileno(), time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = end - time.monotonic()
            if left < 0 or not select.select([pipe], [], [], left)[0]:
                raise TemplateEnded
            part = os.read(pipe, 2**16)
            if not part:
                raise TemplateEnded
            line += part
        return json.loads(line)

    def close(self) -> None:
        """End the process, and with it every fork of it."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._errors.close()
        self._folder.cleanup()
