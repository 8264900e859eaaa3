"""`run --dask` with a real scheduler and two workers on loopback."""

import json
import os

import nbformat
import pytest
from test_jobs import REPORT, card_of, course, lesson  # noqa: F401 - fixture

from course_lib import cluster, run_cards, runner
from course_lib.bootstrap import ROOT

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def address():
    """The address of a scheduler with two workers of one thread, each a process."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # for the workers
    try:
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=":0",
        ) as local:
            yield local.scheduler_address
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def test_a_killed_worker_and_a_dead_kernel_lose_nothing(course, address):  # noqa: F811
    path, out = course
    flag = path.with_name("killed")
    code = (
        "import os, pathlib, psutil\n"
        f"flag = pathlib.Path({str(flag)!r})\n"
        "if seed == 1 and not flag.exists():\n"
        "    flag.touch()\n"
        "    worker = psutil.Process().parent().parent()\n"
        "    assert 'spawn_main' in ' '.join(worker.cmdline()), worker\n"
        "    worker.kill()\n"
        "    import time; time.sleep(600)\n"
        "if seed == 3: os.kill(os.getpid(), 9)"
    )
    nbformat.write(lesson(REPORT, code), path)
    options = {"grid": ["seed=0,1,2,3"], "dask": address}
    assert runner.run([], out=str(out), **options) == 1
    assert flag.exists()  # a worker was killed
    cards = [card_of(out, f"90_first-seed_{i}") for i in range(4)]
    status = [card["status"] for card in cards]
    assert status == ["passed", "passed", "passed", "kernel died"]
    assert [card["numbers"].get("score") for card in cards[:3]] == [0.0, 1.0, 2.0]
    assert all((out / f"{card['name']}.html").exists() for card in cards[:3])
    (row,) = json.loads((out / "grid.json").read_text("utf-8"))
    assert (row["n"], row["missing"], row["mean"]) == (3, 1, 1.0)


def test_a_worker_with_another_library_is_refused(
    course,  # noqa: F811
    address,
    monkeypatch,
    capsys,
):
    _path, out = course
    monkeypatch.setattr(run_cards, "code_hash", lambda: "mine")
    assert runner.run([], out=str(out), dask=address) == 2
    error = capsys.readouterr().err
    assert "has another version of course_lib" in error and error.count("\n") == 1


def test_an_address_that_does_not_answer_is_an_error_with_the_fix(
    course,  # noqa: F811
    capsys,
    monkeypatch,
):
    _path, out = course
    monkeypatch.setattr(cluster, "TO_ANSWER", 1)
    for wrong in ("tcp://127.0.0.1:9", "nonsense://x"):
        assert runner.run([], out=str(out), dask=wrong) == 2
        error = capsys.readouterr().err
        assert "no Dask scheduler answers" in error and "dask worker" in error
    assert not out.exists()


def test_a_missing_package_is_an_error_with_the_fix(course, capsys, monkeypatch):  # noqa: F811
    _path, out = course
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert runner.run([], out=str(out), dask="tcp://127.0.0.1:9") == 2
    assert 'pip install "distributed>=' in capsys.readouterr().err


def test_a_cluster_without_workers_is_an_error_with_the_fix(
    course,  # noqa: F811
    capsys,
    monkeypatch,
):
    _path, out = course
    monkeypatch.setattr(cluster, "FOR_WORKERS", 1)
    options = {"host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(n_workers=0, **options) as empty:
        assert runner.run([], out=str(out), dask=empty.scheduler_address) == 2
    error = capsys.readouterr().err
    assert "has no workers; start `dask worker" in error and error.count("\n") == 1
