"""`run` as a person meets it: requests, reports, failures, interruptions."""

import json
import subprocess

import nbformat
import pytest
from small_lessons import lesson

from course_lib import jobs, runner


@pytest.fixture
def course(run_root):
    """A course folder with two small lessons; returns (folder, output folder)."""
    for name in ("90_first", "91_second"):
        nbformat.write(lesson("1 + 1"), run_root / "notebooks" / f"{name}.ipynb")
    return run_root, run_root / "build"


def report(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("wanted", "options", "message"),
    [
        (["99"], {}, "unknown lesson '99'; there are 90_first, 91_second"),
        ([], {"budget": "huge"}, "unknown budget 'huge'; choose from smoke"),
        ([], {"parameters": ["sede=1"]}, "no parameter 'sede'; it has budget"),
        ([], {"parameters": ["seed=big"]}, "must be of type int"),
        ([], {"parameters": ["seed=1.5"]}, "must be of type int"),
        ([], {"parameters": ["seed"]}, "write it as NAME=VALUE"),
        ([], {"parameters": ["dataset=nosuch"]}, "neither phantom, a MedMNIST name"),
        ([], {"parameters": ["budget=lab"]}, "give the budget once"),
        ([], {"data": "/no/such/folder"}, "no such folder"),
    ],
)
def test_a_wrong_request_is_said_in_one_line_before_anything_runs(
    course, quick, capsys, wanted, options, message
):
    _root, out = course
    assert runner.run(wanted, out=str(out), **options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert quick == [] and not out.exists()


def test_a_lesson_is_found_by_number_or_name(course):
    for wanted in ("91", "91_second", "91_second.ipynb", "notebooks/91_second.ipynb"):
        assert [path.stem for path in runner.find_lessons([wanted])] == ["91_second"]
    assert len(runner.find_lessons([])) == 2
    assert len(runner.find_lessons(["91", "91_second"])) == 1


def test_parameters_are_literals_or_text():
    lines = ["seed=1", "rate=1e-3", "dataset=phantom", "name='7'", "on=True"]
    expected = {"seed": 1, "rate": 1e-3, "dataset": "phantom", "name": "7", "on": True}
    assert runner.parse_parameters(lines) == expected


def test_a_whole_number_is_welcome_where_a_fraction_is_expected(course):
    root, _out = course
    path = root / "notebooks" / "90_first.ipynb"
    runner.check_parameters(path, {"rate": 1, "dataset": "x"})
    with pytest.raises(runner.RunError, match="of type float"):
        runner.check_parameters(path, {"rate": True})


def test_a_dataset_may_be_a_file_in_the_data_folder(course, tmp_path, monkeypatch):
    file = tmp_path / "mine.npz"
    file.touch()
    assert runner.find_dataset("mine.npz", str(tmp_path)) == str(file.resolve())
    assert runner.find_dataset("pneumoniamnist", None) == "pneumoniamnist"
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    monkeypatch.setenv("COURSE_DATA", "~")
    assert runner.find_dataset("mine.npz", None) == str(file.resolve())


def test_a_lesson_over_its_time_budget_fails(course, quick, capsys):
    root, out = course
    slow = lesson("1", minutes={"smoke": 1e-9, "lab": 4})
    nbformat.write(slow, root / "notebooks" / "90_first.ipynb")
    assert runner.run(["90"], out=str(out)) == 1
    assert report(out)["lessons"][0]["status"] == "over budget"
    assert runner.run(["90"], out=str(out), time_limit=False) == 0


def run_until_ctrl_c(out, monkeypatch):
    """A run of both lessons that ends while the second one is executed."""
    good = jobs.perform

    def interrupted(job, output, stop):
        if job.lesson == "91_second":
            raise KeyboardInterrupt
        return good(job, output, stop)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "perform", interrupted)
        assert runner.run([], out=str(out)) == 130
    assert not report(out)["complete"]


def test_after_ctrl_c_the_next_run_goes_on_behind_the_finished_lessons(
    course, quick, monkeypatch
):
    _root, out = course
    run_until_ctrl_c(out, monkeypatch)
    quick.clear()
    assert runner.run([], out=str(out)) == 0
    assert quick == ["91_second"]
    assert [row["lesson"] for row in report(out)["lessons"]] == [
        "90_first",
        "91_second",
    ]
    quick.clear()
    assert runner.run([], out=str(out)) == 0  # a finished run is not continued
    assert quick == ["90_first", "91_second"]


@pytest.mark.parametrize("options", [{"parameters": ["rate=0.2"]}, {"fresh": True}])
def test_an_interrupted_run_is_not_continued_by_another_request(
    course, quick, monkeypatch, options
):
    _root, out = course
    run_until_ctrl_c(out, monkeypatch)
    quick.clear()
    runner.run([], out=str(out), **options)
    assert quick == ["90_first", "91_second"]


def test_a_broken_report_does_not_stop_a_run(course, quick):
    _root, out = course
    out.mkdir()
    (out / "report.json").write_text('{"complete": false, "lessons": [', "utf-8")
    assert runner.run(["90"], out=str(out)) == 0


def test_own_copies_follow_the_course_until_they_are_edited(tmp_path):
    source, mine = tmp_path / "student", tmp_path / "mine"
    source.mkdir()
    (source / "01_a.ipynb").write_text("one", "utf-8")
    assert runner.copy_lessons(source, mine) == []
    (source / "01_a.ipynb").write_text("two", "utf-8")
    assert runner.copy_lessons(source, mine) == []
    assert (mine / "01_a.ipynb").read_text("utf-8") == "two"
    (mine / "01_a.ipynb").write_text("my work", "utf-8")
    assert runner.copy_lessons(source, mine) == []  # nothing new in the course
    (source / "01_a.ipynb").write_text("three", "utf-8")
    assert len(runner.copy_lessons(source, mine)) == 1
    assert (mine / "01_a.ipynb").read_text("utf-8") == "my work"
    assert (mine / "01_a.new.ipynb").read_text("utf-8") == "three"
    assert runner.copy_lessons(source, mine) == []


def test_a_lost_record_makes_nobody_an_author(tmp_path):
    """As after Ctrl-C in the first copy: what equals the course is not edited."""
    source, mine = tmp_path / "student", tmp_path / "mine"
    source.mkdir()
    (source / "01_a.ipynb").write_text("one", "utf-8")
    runner.copy_lessons(source, mine)
    (mine / ".course.json").unlink()
    assert runner.copy_lessons(source, mine) == []
    (source / "01_a.ipynb").write_text("two", "utf-8")
    assert runner.copy_lessons(source, mine) == []
    assert (mine / "01_a.ipynb").read_text("utf-8") == "two"


def test_the_browser_tests_run_once_and_last(course, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "")  # put back afterwards
    ran = []

    def note(command, **options):
        ran.append(" ".join(command))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    assert runner.test(None, []) == 0
    assert ran[-1].endswith("tests/browser") and " -n " not in ran[-1]
    unit = "tests --ignore=tests/integration --ignore=tests/browser"
    assert [x for x in ran[:-1] if x.endswith(unit)]
    assert [x for x in ran[:-1] if x.endswith("tests/integration")]
    ran.clear()
    assert runner.test("browser", ["-x"]) == 0
    assert [x.endswith("tests/browser -x") for x in ran] == [True]
