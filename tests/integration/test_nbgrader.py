"""A lesson in the real nbgrader: generated, autograded and exported."""

import copy
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib import assignments, checks
from course_lib.exercises import exercises, leaks, student
from course_lib.sources import read_notebook, read_source, select, write

LESSON = select(["00"])[0]


def cell(notebook, name):
    return next(x for x in notebook.cells if x.id == name)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """nbgrader's folder after generate_assignment, autograde and export."""
    folder = tmp_path_factory.mktemp("hub")
    assignments.write_source([LESSON.number], folder)
    home = tmp_path_factory.mktemp("home")
    scripts = str(Path(sys.executable).parent)  # nbgrader calls alembic by name
    environment = os.environ | {
        "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
        "HOME": str(home),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "COURSE_BUDGET": "smoke",
        "COURSE_HEADLESS": "1",
        "PYTHONPATH": str(Path(checks.__file__).parents[2]),
    }
    environment.pop("NBGRADER_EXECUTION", None)

    def nbgrader(*words):
        command = [sys.executable, "-m", "nbgrader", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    nbgrader("generate_assignment", LESSON.name)
    source = read_source(LESSON.source)
    solved = {
        f"exercise-{t.id.replace('.', '-')}": source.cells[i].source
        for i, t in exercises(source)
    }
    some = copy.deepcopy(student(source))  # what the course gives, three of it solved
    for name in list(solved)[:3]:
        cell(some, name).source = solved[name]
    for name, made in {"ann": some, "bob": None}.items():
        path = folder / "submitted" / name / LESSON.name / f"{LESSON.name}.ipynb"
        path.parent.mkdir(parents=True)
        if made:
            write(path, made)
        else:
            release = folder / "release" / LESSON.name / path.name
            shutil.copyfile(release, path)
    nbgrader("autograde", LESSON.name)
    nbgrader("export")
    return folder


@pytest.mark.skipif(os.name == "nt", reason="nbgrader is for Linux and macOS")
def test_nbgrader_grades_the_students_notebook_as_it_is(graded):
    source = read_source(LESSON.source)
    release = read_notebook(graded / f"release/{LESSON.name}/{LESSON.name}.ipynb")
    assert leaks([task for _, task in exercises(source)], release) == []
    assert "BEGIN SOLUTION" not in str(release)
    with (graded / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    count = len(exercises(source))
    assert {name: float(row["score"]) for name, row in rows.items()} == {
        "ann": 3,
        "bob": 0,
    }
    assert {float(row["max_score"]) for row in rows.values()} == {count}
