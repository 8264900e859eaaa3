"""Lessons as nbgrader assignments: generated, autograded and exported by nbgrader."""

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
from course_lib.sources import lessons, read_notebook, read_source, select, write

LESSON = select(["00"])[0]


def cell(notebook, name):
    return next(x for x in notebook.cells if x.id == name)


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.number)
def test_every_exercise_has_its_answer_and_its_check_marked(lesson):
    source = read_source(lesson.source)
    made = student(source)
    for _, task in exercises(source):
        number = task.id.replace(".", "-")
        answer = cell(made, f"exercise-{number}").metadata["nbgrader"]
        test = cell(made, f"check-{number}").metadata["nbgrader"]
        assert answer["grade_id"] == f"exercise-{number}" and answer["solution"]
        assert test["grade_id"] == f"check-{number}" and test["points"] == 1
        assert test["grade"] and test["locked"] and not answer["grade"]


def test_ids_are_stable_when_other_cells_change(course):
    path = course / "notebooks/src/00_means.py"
    before = [x.id for x in student(read_source(path)).cells]
    text = path.read_text("utf-8")
    edited = text.replace("Four numbers", "Many numbers").replace(
        "# %%\ndef mean", "# %%\nprint(seed)\n\n# %%\ndef mean"
    )
    path.write_text(edited.replace("    total = sum(", "    total = 0 + sum("), "utf-8")
    after = [x.id for x in student(read_source(path)).cells]
    assert "exercise-E00-1" in before and "exercise-E00-1" in after
    assert len(set(after)) == len(after) == len(before) + 1
    assert len(set(before) - set(after)) == 1  # the text that changed


def test_the_instructors_version_differs_from_the_students_in_the_answers_alone():
    source = read_source(LESSON.source)
    made, theirs = assignments.instructor_version(source), student(source)
    tasks = {f"exercise-{t.id.replace('.', '-')}": t for _, t in exercises(source)}
    for ours, other in zip(made.cells, theirs.cells, strict=True):
        task = tasks.get(ours.id)
        assert (ours.source == other.source) == (task is None)
        if task:
            assert task.solution in ours.source
            compile(ours.source, ours.id, "exec")


def test_a_check_raises_its_hint_in_nbgrader_alone(monkeypatch):
    check = checks.all_checks()["E00.1"]
    assert not check(lambda *given, **named: None)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(checks.NotSolved, match=r"E00\.1 not yet: it returns nothing"):
        check(lambda *given, **named: None)


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
