"""Lessons in real kernels: built, run, stopped, interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jsonschema
import nbformat
import psutil
import pytest
from small_lessons import REPORT, card_of, lesson

from course_lib import jobs, notebooks, run_cards, runner, sources
from course_lib.bootstrap import ROOT
from course_lib.lint import lint
from course_lib.notebooks import LessonError


def report(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))


def test_a_real_job_leaves_a_card_of_all_that_made_its_numbers(one_lesson, monkeypatch):
    path, out = one_lesson
    flag = path.with_name("measured")
    code = (
        "from course_lib.runtime import note_use\n"
        "note_use('data', 'phantom, T1', 'abc')\nnote_use('weights', 'w', 'def')\n"
        "keep = bytearray(700_000_000)\nimport pathlib, time\n"
        f"flag = pathlib.Path({str(flag)!r})\n"
        "for _ in range(6000):\n    if not flag.exists(): time.sleep(0.1)\n"
        "threads = int(os.environ['OMP_NUM_THREADS'])\n"
        "policy = os.environ['OMP_WAIT_POLICY']\n"
        "display({MIME: {'threads': threads, 'policy': policy}}, raw=True)"
    )
    nbformat.write(lesson(REPORT, code), path)
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    large, look = set(), jobs._memory

    def measure(pid):
        """Both kernels wait until both have been measured with all that they hold."""
        found = look(pid)
        large.update([pid] if found > 700_000_000 else [])
        if len(large) == 2:
            flag.touch()
        return found

    monkeypatch.setattr(jobs, "_memory", measure)
    assert runner.run([], out=str(out), grid=["seed=3,4"], workers=2) == 0
    card = card_of(out, "90_first-seed_3")
    jsonschema.validate(card, run_cards.schema())
    assert card["parameters"] == {
        "budget": "smoke", "dataset": "phantom", "rate": 0.1, "seed": 3
    }  # fmt: skip
    assert card["numbers"] == {
        "score": 3.0, "name": "x", "threads": 1, "policy": "PASSIVE"
    }  # fmt: skip
    assert (card["seed"], card["threads"], card["status"]) == (3, 1, "passed")
    assert card["data"] == {"phantom, T1": "abc"} and card["weights"] == {"w": "def"}
    assert card["data_hash"] == run_cards.digest(card["data"])
    assert card["versions"] == run_cards.versions()
    assert 700 < card["peak_memory_mb"] < 2000 and card["seconds"] > 0.5
    assert [row["seed"] for row in report(out)["lessons"]] == [3, 4]
    assert (out / "90_first-seed_4.html").exists()


def test_a_dead_kernel_and_a_hanging_cell_are_named_and_the_others_go_on(
    one_lesson, monkeypatch, capfd
):
    path, out = one_lesson
    before = set(psutil.Process().children())  # of other tests
    code = (
        "import os, time\n"
        "if seed == 0: os.kill(os.getpid(), 9)\n"
        "if seed == 1: keep = bytearray(900_000_000); time.sleep(3600)"
    )
    nbformat.write(lesson(REPORT, code), path)
    hanging = lesson("import time; time.sleep(3600)", minutes={"smoke": 0.01})
    nbformat.write(hanging, path.with_name("91_hanging.ipynb"))
    monkeypatch.setattr(jobs, "GRACE", 3.0)
    # what else runs on this machine may be ended for want of memory meanwhile
    monkeypatch.setattr(jobs, "_killed_for_memory", lambda: 0)
    options = {"grid": ["seed=0,1,2"], "workers": 2, "memory": 0.6}
    assert runner.run(["90"], out=str(out), **options) == 1
    assert runner.run(["91"], out=str(out)) == 1
    names = [*(f"90_first-seed_{i}" for i in range(3)), "91_hanging"]
    status = [card_of(out, name)["status"] for name in names]
    assert status == ["kernel died", "out of memory", "passed", "time over"]
    assert "allowed 0.6 GiB" in card_of(out, names[1])["problem"]
    for seed, name in enumerate(names[:3]):  # what was shown before the end is there
        assert card_of(out, name)["numbers"] == {"score": seed, "name": "x"}
    assert "time over: stopped after" in capfd.readouterr().err
    assert "time over" in (out / "index.html").read_text("utf-8")
    assert set(psutil.Process().children()) <= before


def test_a_job_that_ends_without_a_word_is_lost_and_named(one_lesson):
    _path, out = one_lesson
    (job,) = runner.plan([])
    broken = replace(job, environment={"PYTHONHOME": str(out)})  # no Python there
    card = jobs.execute(broken, out / "a.ipynb")
    assert card["status"] == "kernel died" and "encodings" in card["problem"]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C of another process")
def test_ctrl_c_ends_the_kernels_and_keeps_finished_jobs(one_lesson):
    path, out = one_lesson
    flags = path.parent
    code = (
        "import pathlib, time\n"
        "if seed:\n"
        f"    (pathlib.Path({str(flags)!r}) / f'begun{{seed}}').touch()\n"
        "    time.sleep(3600)"
    )
    nbformat.write(lesson(REPORT, code), path)
    program = (
        "import sys\nfrom pathlib import Path\nfrom course_lib import runner\n"
        f"runner.ROOT = Path({str(out.parent)!r})\n"
        f"sys.exit(runner.run([], out={str(out)!r}, grid=['seed=0,1,2'], workers=2))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while not (  # one job is done and told, the other two have begun
        (flags / "begun1").exists()
        and (flags / "begun2").exists()
        and (out / "report.json").exists()
    ):
        assert process.poll() is None
        time.sleep(0.1)
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert below and not psutil.wait_procs(below, timeout=300)[1]
    told = report(out)
    assert not told["complete"] and card_of(out, "90_first-seed_0")
    assert [row["name"] for row in told["lessons"]] == ["90_first-seed_0"]


def test_run_executes_a_lesson_and_reports_its_numbers(one_lesson, capfd):
    path, out = one_lesson
    code = (
        "from course_lib.runtime import report\n"
        "report(psnr=20.5, images=seed)\nprint(budget, dataset)"
    )
    nbformat.write(lesson(code), path)
    assert runner.run(["90"], out=str(out), parameters=["seed=28"]) == 0
    row = report(out)["lessons"][0]
    assert row["numbers"] == {"psnr": 20.5, "images": 28}
    assert (row["status"], row["budget"], row["dataset"]) == (
        "passed",
        "smoke",
        "phantom",
    )
    assert report(out)["complete"] and row["seconds"] > 0
    executed = nbformat.read(out / "90_first.ipynb", 4)
    assert "smoke phantom" in str(executed.cells[-1].outputs)
    page = (out / "90_first.html").read_text("utf-8")
    assert "A summary." in page
    assert "90_first.html" in (out / "index.html").read_text("utf-8")
    shown = capfd.readouterr().out
    assert "psnr 20.5" in shown and (out / "index.html").as_uri() in shown


def test_a_failing_cell_is_shown_and_the_others_go_on(one_lesson, capfd):
    path, out = one_lesson
    nbformat.write(lesson("1 / 0"), path)
    nbformat.write(lesson("1 + 1"), path.with_name("91_second.ipynb"))
    assert runner.run([], out=str(out)) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert [row["status"] for row in report(out)["lessons"]] == ["failed", "passed"]


def test_build_executes_with_budget_and_keeps_outputs_without_noise(course):
    executed, student = notebooks.build([0], budget="smoke", root=course)
    notebook = sources.read_notebook(executed)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [x.text for cell in code for x in cell.outputs]
    assert "budget: smoke\n" in texts and "mean is 2.5: True\n" in texts
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "version" not in notebook.metadata.language_info
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert lint(executed) == []
    cells = sources.read_notebook(student).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_failing_cell_is_shown_and_overwrites_nothing(course):
    notebooks.build(execute=False, root=course)
    (source,) = (course / "notebooks" / "src").glob("*.py")
    text = source.read_text("utf-8")
    failing = text.replace("pixels = [1, 2, 3, 4]", 'raise KeyError("slice 7")')
    source.write_text(failing, "utf-8")
    before = {path: path.read_bytes() for path in course.rglob("*.ipynb")}
    assert len(before) == 2 and failing != text
    with pytest.raises(LessonError, match=r"(?s)slice 7") as failure:
        notebooks.build(root=course)
    assert "\x1b" not in str(failure.value) and source.stem in str(failure.value)
    assert {path: path.read_bytes() for path in course.rglob("*.ipynb")} == before
