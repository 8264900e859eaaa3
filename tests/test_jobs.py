"""Many runs: workers, grids, cards, limits, verdicts; nothing is lost."""

import csv
import json
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from scipy import stats
from small_lessons import REPORT, card_of, lesson

from course_lib import grids, jobs, run_cards, runner
from course_lib.runtime import note_use

# What is asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": ["sede=0,1"]}, "no parameter 'sede'; it has budget"),
        ({"grid": ["seed=0,one"]}, "seed='one' must be of type int"),
        ({"grid": ["dataset=phantom,nosuch"]}, "'nosuch' is neither phantom"),
        ({"grid": ["seed"]}, "write it as NAME=VALUE,VALUE"),
        ({"grid": ["seed=0,,1"]}, "write it as NAME=VALUE,VALUE"),
        ({"grid": ["seed=0,1,0"]}, "0 comes twice"),
        ({"grid": ["seed=0", "seed=1"]}, "seed comes twice"),
        ({"grid": ["budget=lab"]}, "give the budget once"),
        ({"grid": ["seed=0"], "parameters": ["seed=1"]}, "in -p and in --grid"),
        ({"workers": 0}, "--workers 0: at least 1"),
        ({"workers": 2, "dask": "tcp://x"}, "leave out --workers"),
        ({"memory": -1.0}, "--memory -1.0: GiB"),
    ],
)
def test_a_wrong_grid_is_said_in_one_line_before_anything_runs(
    one_lesson, quick, capsys, options, message
):
    _path, out = one_lesson
    assert runner.run([], out=str(out), **options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert quick == [] and not out.exists()


def test_a_grid_is_every_combination_of_its_values(one_lesson):
    todo = runner.plan([], grid=["seed=0,1,2", "dataset=phantom,pneumoniamnist"])
    assert len(todo) == 6 == len({job.name for job in todo})
    assert todo[1].values == {"seed": 0, "dataset": "pneumoniamnist"}
    assert todo[1].parameters == {**todo[1].values, "budget": "smoke"}
    assert todo[1].defaults == {"rate": 0.1}
    assert todo[1].name == "90_first-seed_0-dataset_pneumoniamnist"


def test_files_of_one_name_in_two_folders_are_two_jobs(one_lesson, tmp_path):
    paths = [tmp_path / name / "mine.npz" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    todo = runner.plan([], grid=[f"dataset={paths[0]},{paths[1]}"])
    assert len({job.name for job in todo}) == 2
    assert all("dataset_mine" in job.name for job in todo)


def test_a_job_takes_the_data_folder_along(one_lesson, tmp_path):
    assert runner.plan([])[0].environment == {}
    (job,) = runner.plan([], data=str(tmp_path))
    assert job.environment == {"COURSE_DATA": str(tmp_path.resolve())}


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [jobs.thread_share(n) for n in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # somebody wants fewer
    assert [jobs.thread_share(n) for n in (1, 2, 8)] == [3, 3, 1]


def test_with_half_the_cores_a_lesson_may_take_twice_as_long(one_lesson):
    path, _out = one_lesson
    nbformat.write(lesson("1", minutes={"smoke": 1.0}), path)
    (job,) = runner.plan([])
    given = [replace(job, threads=n).budget_seconds for n in (1, 2, 16)]
    assert given == [120, 60, 60]


# What a job leaves


def test_a_card_that_does_not_fit_the_schema_is_not_written(
    one_lesson, quick, tmp_path
):
    _path, out = one_lesson
    runner.run([], out=str(out))
    good = card_of(out)
    for change in ({"status": "fine"}, {"seed": "0"}, {"extra": 1}):
        with pytest.raises(ValueError, match="not a run card"):
            run_cards.write(tmp_path / "other", good | change)
    assert not (tmp_path / "other").exists()
    run_cards.write(tmp_path / "other", good | {"numbers": {"loss": float("nan")}})
    assert card_of(tmp_path / "other")["numbers"] == {"loss": None}


def test_uses_are_noted_only_for_a_card(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_USES", raising=False)
    note_use("data", "a", "1")
    monkeypatch.setenv("COURSE_USES", str(tmp_path / "uses"))
    note_use("data", "a", "1")
    note_use("data", "b", "2")
    with open(tmp_path / "uses", "a") as file:
        file.write('["weights", "c"')  # killed while it wrote
    assert run_cards.uses(tmp_path / "uses") == {"data": {"a": "1", "b": "2"}}
    assert run_cards.uses(tmp_path / "none") == {}


def test_loading_data_and_weights_is_noted(tmp_path, monkeypatch):
    from torch import nn

    from course_lib.checkpoints import load_weights, save_weights
    from course_lib.datasets import load_images
    from course_lib.runtime import pick_device

    monkeypatch.setenv("COURSE_USES", str(tmp_path / "uses"))
    _, _, card = load_images("phantom", "test", 32, n=8)
    manifest = dict.fromkeys(("command", "data", "budget", "seed", "metrics"), "x")
    made = save_weights(tmp_path / "a.safetensors", nn.Linear(2, 2), manifest=manifest)
    load_weights(tmp_path / "a.safetensors", nn.Linear(2, 2))
    device = pick_device()
    found = run_cards.uses(tmp_path / "uses")
    assert found["data"] == {"phantom, T1, test, 8x1x32x32": card.fingerprint}
    assert found["weights"] == {"a.safetensors": made["sha256"]}
    assert list(found["device"]) == [str(device)]


# Going on


def test_a_finished_job_of_a_grid_is_not_run_again(one_lesson, quick):
    path, out = one_lesson
    runner.run([], out=str(out), grid=["seed=0,1"])
    quick.clear()
    assert runner.run([], out=str(out), grid=["seed=0,1,2"]) == 0
    assert quick == ["90_first-seed_2"]
    quick.clear()
    runner.run([], out=str(out), grid=["seed=0,1"], fresh=True)
    assert len(quick) == 2
    quick.clear()
    runner.run([], out=str(out), grid=["seed=0,1"], parameters=["rate=0.2"])
    assert len(quick) == 2  # another request
    quick.clear()
    nbformat.write(lesson(REPORT, "1"), path)
    runner.run([], out=str(out), grid=["seed=0,1"], parameters=["rate=0.2"])
    assert len(quick) == 2  # another lesson


@pytest.mark.parametrize("break_it", ["card", "notebook", "code"])
def test_a_job_whose_card_or_notebook_is_broken_runs_again(
    one_lesson, quick, break_it, monkeypatch
):
    _path, out = one_lesson
    runner.run([], out=str(out), grid=["seed=0,1"])
    if break_it == "card":
        (out / "cards" / "90_first-seed_1.json").write_text('{"status": "pa')
    elif break_it == "notebook":
        (out / "90_first-seed_1.ipynb").unlink()
    else:
        monkeypatch.setattr(run_cards, "code_hash", lambda: "another library")
    quick.clear()
    runner.run([], out=str(out), grid=["seed=0,1"])
    seeds = "01" if break_it == "code" else "1"
    assert quick == [f"90_first-seed_{seed}" for seed in seeds]


def test_an_old_card_does_not_vouch_for_half_a_notebook(one_lesson, quick, monkeypatch):
    _path, out = one_lesson
    runner.run([], out=str(out), grid=["seed=0,1"])

    def cut_off(job, output, stop):
        output.write_text("{", "utf-8")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "perform", cut_off)
        assert runner.run([], out=str(out), grid=["seed=0,1"], fresh=True) == 130
    quick.clear()
    assert runner.run([], out=str(out), grid=["seed=0,1"]) == 0
    assert len(quick) == 2


def test_a_lesson_that_reports_a_list_gets_a_card_all_the_same(one_lesson):
    _path, out = one_lesson
    (job,) = runner.plan([])
    card = jobs.card(job, jobs.Done("passed"), 1.0, {"sizes": [1, 2], "psnr": 20.5})
    run_cards.write(out, card)
    assert card_of(out)["numbers"] == {"sizes": "[1, 2]", "psnr": 20.5}


@pytest.mark.parametrize("inside", ["", "class_a/1.png"])
def test_data_of_ones_own_that_changed_are_another_job(one_lesson, tmp_path, inside):
    data = tmp_path / "mine"
    (data / inside).parent.mkdir(parents=True, exist_ok=True)
    (data / inside).write_bytes(b"1")
    (before,) = runner.plan([], parameters=[f"dataset={data}"])
    assert runner.plan([], parameters=[f"dataset={data}"]) == [before]
    (data / inside).write_bytes(b"22")
    (after,) = runner.plan([], parameters=[f"dataset={data}"])
    assert after.fingerprint != before.fingerprint


# What goes wrong


@pytest.mark.parametrize(
    ("answer", "killed", "status"),
    [
        ({"error": None, "problem": None}, True, "passed"),
        (
            {"error": "cell", "problem": "x\nMemoryError: no room"},
            False,
            "out of memory",
        ),
        ({"error": "cell", "problem": "MemoryError\n1\n2\n3"}, False, "failed"),
        (
            {"error": "cell", "problem": "torch.OutOfMemoryError: CUDA out of memory"},
            False,
            "out of memory",
        ),
        ({"error": "DeadKernelError", "problem": ""}, False, "kernel died"),
        ({"error": "DeadKernelError", "problem": ""}, True, "out of memory"),
        ({"error": "other", "problem": "OSError: disk full"}, True, "failed"),
    ],
)
def test_want_of_memory_is_told_from_other_ends(answer, killed, status):
    assert jobs._verdict(answer, killed)[0] == status


# The table


def test_the_interval_is_student_s():
    values = [1.0, 2.0, 4.0]
    found = grids.interval(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found["mean"] == pytest.approx(7 / 3) and found["n"] == 3
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert grids.interval([2.0]) | {"sd": 0} == {
        "n": 1, "mean": 2.0, "sd": 0, "low": None, "high": None
    }  # fmt: skip


def a_card(seed, score, status="passed", **values):
    return {
        "lesson": "90_first",
        "values": {"seed": seed, **values},
        "status": status,
        "numbers": {} if score is None else {"score": score, "name": "text"},
    }


def test_seeds_are_repeats_and_what_failed_is_missing():
    cards = [
        a_card(0, 1.0, dataset="a"),
        a_card(1, 3.0, "over budget", dataset="a"),
        a_card(2, 99.0, "failed", dataset="a"),
        a_card(0, 5, dataset="b"),
        a_card(1, None, dataset="b"),
    ]
    first, second = grids.gather(cards)
    assert (first["group"], first["metric"]) == ({"dataset": "a"}, "score")
    assert (first["mean"], first["n"], first["missing"]) == (2.0, 2, 1)
    assert (second["mean"], second["n"], second["missing"]) == (5.0, 1, 1)


def test_combinations_of_one_number_stand_together_and_no_spread_is_told():
    cards = [a_card(seed, 2.0, rate=rate) for rate in (1, 2) for seed in (0, 1)]
    for card in cards:
        card["numbers"]["other"] = float(card["values"]["seed"])
    rows = grids.gather(cards)
    assert [(row["metric"], row["group"]["rate"]) for row in rows] == [
        ("score", 1), ("score", 2), ("other", 1), ("other", 2)
    ]  # fmt: skip
    assert grids._html(rows, ["rate"]).count("the same for each seed") == 2


def test_the_table_is_written_drawn_and_shown(one_lesson, quick):
    _path, out = one_lesson
    grid = ["seed=0,1,2", "rate=0.1,0.2"]
    assert runner.run([], out=str(out), grid=grid) == 0
    with open(out / "grid.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rate"] for row in rows] == ["0.1", "0.2"]
    assert float(rows[0]["mean"]) == 11 and rows[0]["n"] == "3"
    assert json.loads((out / "grid.json").read_text())[0]["values"] == [10, 11, 12]
    index = (out / "index.html").read_text("utf-8")
    assert 'src="grid.png" alt="Mean and 95 % interval' in index
    assert "8.516 to 13.48" in index and (out / "grid.png").stat().st_size > 3000


def test_a_grid_without_numbers_says_so(one_lesson, quick, monkeypatch):
    _path, out = one_lesson
    monkeypatch.setattr(
        jobs, "perform", lambda job, output, stop: jobs.Done("failed", "no")
    )
    assert runner.run([], out=str(out), grid=["seed=0,1"]) == 1
    assert "No job of the grid gave a number" in (out / "index.html").read_text()
