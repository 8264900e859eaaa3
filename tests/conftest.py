"""Fixtures that several test files share: small made-up courses in a folder."""

import json
import signal
from pathlib import Path

import pytest

import course_lib  # noqa: F401 - sets how torch waits, before torch is imported

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what it puts in the background so, and it is inherited: programs
    # that tests end by Ctrl-C would not hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LESSON = '''\
# ---
# jupyter:
#   course:
#     minutes: {smoke: 0.5, lab: 4, full: 9}
# ---

# %% [markdown]
# # Means of pictures
#
# A lesson for tests: what a mean says, and what it hides.
#
# ## Goals
# You can take a mean.
#
# ## Setup
# All imports.

# %%
import os

# %% [markdown]
# The parameters of the lesson.

# %% tags=["parameters"]
budget = os.environ.get("COURSE_BUDGET", "lab")
dataset = "phantom"
image_size = 8
seed = 0

# %% [markdown]
# ## Data
# Four numbers with the mean $\\mu = 2.5$.

# %% tags=["nbval-check-output"]
pixels = [1, 2, 3, 4]
print(len(pixels), "pixels")

# %% [markdown]
# ## Measure
# How long is the budget?

# %% tags=["nbval-ignore-output"]
print("budget:", budget)

# %% [markdown]
# ## Break it
# The mean of nothing.

# %% tags=["nbval-check-output"]
try:
    sum([]) / len([])
except ZeroDivisionError as error:
    print(error)

# %% [markdown]
# ## Claim check
# ## Exercises
# Write the mean.

# %%
def mean(values):
    """Mean of numbers. Raises ZeroDivisionError for none."""
    # solution E00.1
    total = sum(float(value) for value in values)
    return total / len(values)


# %% [markdown] tags=["instructor"]
# Watch for integer division.

# %% [markdown]
# ## Summary
# What was learned.

# %% tags=["nbval-check-output"]
print("mean is 2.5:", mean(pixels) == 2.5)

# %% [markdown]
# ## References
# None.
'''


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """The root of a course with one lesson, 00_means, that nobody has built yet."""
    source = tmp_path / "notebooks" / "src" / "00_means.py"
    source.parent.mkdir(parents=True)
    source.write_text(LESSON, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run_root(tmp_path: Path, monkeypatch) -> Path:
    """The root of a course for `runner.run`; what `run` sets is put back afterwards."""
    from course_lib import runner

    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    names = ("COURSE_HEADLESS", "COURSE_PAGES", "JUPYTER_PREFER_ENV_PATH")
    for name in (*names, "COURSE_DATA", "IPYTHONDIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("COURSE_DATA")
    monkeypatch.delenv("IPYTHONDIR")  # empty, it would be the folder of a kernel
    return tmp_path


@pytest.fixture
def one_lesson(run_root: Path) -> tuple[Path, Path]:
    """A course of `run` with one small lesson: (its notebook, output folder)."""
    import nbformat
    from small_lessons import REPORT, lesson

    path = run_root / "notebooks" / "90_first.ipynb"
    nbformat.write(lesson(REPORT), path)
    return path, run_root / "build"


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Jobs without a process: each notes its name, and reports a score of its own."""
    from course_lib import jobs

    seen = []

    def perform(job, output, stop):
        seen.append(job.name)
        notebook = json.loads(job.notebook)
        seed = job.parameters.get("seed", 0)
        data = {"application/vnd.course.report+json": {"score": 10.0 + seed}}
        output_cell = {"output_type": "display_data", "data": data, "metadata": {}}
        notebook["cells"][-1]["outputs"] = [output_cell]
        output.write_text(json.dumps(notebook), "utf-8")
        return jobs.Done("passed")

    monkeypatch.setattr(jobs, "perform", perform)
    return seen
