"""Grading: a class with solutions, stubs and hostile notebooks gets what stands."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pretend_class
import pytest

from course_lib import grading, marking, submissions
from course_lib.exercises import LessonError
from course_lib.sources import select

pytestmark = pytest.mark.skipif(os.name != "posix", reason="grade says so on Windows")
CASES = pretend_class.cases()


def write_class(folder, cases):
    for name, (content, _, _) in cases.items():
        (folder / f"{name}.ipynb").write_bytes(content)


def rows_of(out):
    with (out / "gradebook.csv").open(encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def grade(folder, out, **options):
    options = {"lesson": pretend_class.LESSON, "workers": 2, "seconds": 1} | options
    return grading.grade(folder, out=out, **options)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """(folder of submissions, folder of grades) of the pretend class, graded once."""
    folder = tmp_path_factory.mktemp("class")
    write_class(folder, CASES)
    with (folder / "a gigabyte.ipynb").open("wb") as file:
        file.truncate(2**30)
    (folder / "a link.ipynb").symlink_to(folder / "solutions.ipynb")
    (folder / "an empty folder").mkdir()
    os.mkfifo(folder / "a pipe.ipynb")
    (folder / "in a folder").mkdir()
    copy = folder / "in a folder" / f"{pretend_class.SOURCE.stem}.ipynb"
    copy.write_bytes(CASES["solutions"][0])
    (folder / "=1+1.ipynb").write_bytes(CASES["solutions"][0])
    out = tmp_path_factory.mktemp("grades")
    assert grade(folder, out) == 0
    return folder, out


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_student_gets_the_points_that_stand(graded, name):
    _, solved, told = CASES[name]
    row = rows_of(graded[1])[name]
    assert {x for x in pretend_class.ALL if row[x] == "1"} == solved, row
    assert (row["points"], row["of"]) == (str(len(solved)), str(len(pretend_class.ALL)))
    page = (graded[1] / "feedback" / f"{name.replace(' ', '_')}.html").read_text(
        "utf-8"
    )
    assert told is None or re.search(told, row["notes"] + page.replace("&#x27;", "'"))


@pytest.mark.parametrize(
    "name, points, told",
    [
        ("a gigabyte", "0", "1024 MB, more than 16"),
        ("a link", "0", "cannot be read"),
        ("a pipe", "0", "no plain file"),
        ("an empty folder", "0", "There is no notebook"),
        ("in a folder", "6", ""),
        ("'=1+1", "6", ""),
    ],
)
def test_files_that_are_no_notebooks_are_told(graded, name, points, told):
    row = rows_of(graded[1])[name]
    assert row["points"] == points and told in row["notes"]


def test_feedback_escapes_and_names_the_check_of_the_course(graded):
    page = (graded[1] / "feedback" / "wrong_answer.html").read_text("utf-8")
    assert "<h2>Lesson 02: 5 of 6" in page and "E02.1 not yet" in page
    assert page.count('role="status"') == 6
    quoted = (graded[1] / "feedback" / "fills_the_disk.html").read_text("utf-8")
    assert "name &#x27;open&#x27; is not defined" in quoted


def test_a_second_run_grades_nothing_again_and_gives_the_same_book(
    graded, tmp_path, monkeypatch
):
    folder, out = graded
    before = (out / "gradebook.csv").read_bytes()

    def forbidden(*given):
        raise AssertionError("a template was started")

    monkeypatch.setattr(grading, "Template", forbidden)
    assert grade(folder, out) == 0
    assert (out / "gradebook.csv").read_bytes() == before


def test_a_fresh_run_gives_the_same_grades(graded, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    few = {x: CASES[x] for x in ("wrong answer", "deep recursion", "lost ids", "stubs")}
    write_class(folder, few)
    assert grade(folder, tmp_path / "out", workers=1) == 0
    old, new = rows_of(graded[1]), rows_of(tmp_path / "out")
    assert {x: old[x] for x in new} == new and set(new) == set(few)


def test_an_interrupted_run_keeps_what_is_graded(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "out"
    folder.mkdir()
    for i in range(3):
        (folder / f"a{i}.ipynb").write_bytes(CASES["solutions"][0])
    write_class(folder, {"b": CASES["endless loop"]})
    for i in range(3):
        (folder / f"c{i}.ipynb").write_bytes(CASES["stubs"][0])
    code = (
        "import sys\nfrom course_lib import grading\nask = grading.Template.ask\n"
        "def noted(*given):\n    print('asked', flush=True)\n    return ask(*given)\n"
        "grading.Template.ask = noted\n"
        "sys.exit(grading.grade(sys.argv[1], out=sys.argv[2], workers=1, seconds=600))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(out)], stdout=subprocess.PIPE
    )
    # a0 is marked, a1 and a2 are the same again, and b has no end
    assert [process.stdout.readline().strip() for _ in "ab"] == [b"asked"] * 2
    process.send_signal(signal.SIGINT)
    told = process.communicate()[0].decode()
    assert process.returncode == 130 and "grades the rest" in told
    assert set(rows_of(out)) == {"a0", "a1", "a2"}


def test_lessons_are_found_by_name_or_metadata(tmp_path):
    lessons = select(None)
    name = pretend_class.SOURCE.stem
    for path in (
        f"ann_{name}.ipynb",
        f"bob/{name}.ipynb",
        "cy.ipynb",
        ".x.ipynb",
        f"di/{name}/{name}.ipynb",  # as nbgrader collects
        f"di/.ipynb_checkpoints/{name}-checkpoint.ipynb",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).touch()
    (tmp_path / "ed").mkdir()
    (tmp_path / "ed" / "not mine").symlink_to(tmp_path / "bob")
    found = [(x.student, x.lesson) for x in grading.find(tmp_path, lessons)]
    wanted = [("ann", "02"), ("bob", "02"), ("cy", None), ("di", "02"), ("ed", None)]
    assert sorted(found) == wanted


def test_wrong_requests_are_told_in_one_line(tmp_path, capsys):
    assert grading.grade(tmp_path / "none") == 2
    assert grading.grade(tmp_path) == 2
    (tmp_path / "a.ipynb").touch()
    assert grading.grade(tmp_path, lesson="77") == 2
    said = capsys.readouterr().err
    assert "is no folder" in said and "no notebook" in said and "no lesson '77'" in said


def test_windows_is_told_what_would_not_hold(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grading, "CAN_FORK", False)
    assert grading.grade("x", out="y") == 2
    assert "WSL" in capsys.readouterr().err


def test_a_check_that_refuses_its_solution_stops_the_grading(monkeypatch):
    lesson = select([2])[0]
    names = submissions.sheet(lesson).names
    with pytest.raises(LessonError, match="does not pass the solution"):
        marking.warm(lesson, names, {"E02.1": lambda answer: False})


def test_a_template_that_ends_is_started_again_and_told(tmp_path, monkeypatch):
    class Ended:
        barriers = {}  # noqa: RUF012

        def __init__(self, *given):
            pass

        def ask(self, *given):
            raise grading.TemplateEnded

        def close(self):
            pass

    monkeypatch.setattr(grading, "Template", Ended)
    write_class(tmp_path, {"a": CASES["solutions"]})
    assert grade(tmp_path, tmp_path / "out") == 0
    row = rows_of(tmp_path / "out")["a"]
    assert row["points"] == "0" and "look at it yourself" in row["notes"]
    assert not list(Path(tmp_path / "out").glob(".graded/*.json"))


def test_results_are_plain_json(graded):
    for path in graded[1].glob(".graded/*.json"):
        result = json.loads(path.read_text("utf-8"))
        assert set(result) == {"lesson", "results", "notes"}
