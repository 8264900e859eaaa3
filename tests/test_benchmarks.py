"""What benchmarks measured: written, read, shown, and known to the lessons."""

import json
import re
from pathlib import Path

import pytest

from course_lib import benchmarks

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "DCGAN": {"distance": [1.0, 4.0, 2.5]},
    "PCA": {"distance": [10.0], "SSIM": [0.5]},
}


def saved(path, name="toy", **change):
    given = {"command": "python toy.py", "values": "seeds 0 1 2", "path": path} | change
    benchmarks.save_benchmark(name, "A toy", ROWS, **given)
    return path


def test_an_entry_comes_back_and_the_others_stay(tmp_path):
    path = saved(saved(tmp_path / "b.json", "first"), "second", centre="median")
    saved(path, "second", centre="median")
    assert list(json.loads(path.read_text("utf-8"))) == ["first", "second"]
    entry = benchmarks.read_benchmark("first", path)
    assert entry["rows"] == ROWS and entry["command"] == "python toy.py"
    assert entry["date"] and entry["torch"] and entry["python"]


def test_a_cell_is_the_mean_or_the_median_of_its_values(tmp_path):
    path = saved(saved(tmp_path / "b.json", "a"), "b", centre="median")
    cell = "DCGAN", "distance", path
    assert benchmarks.benchmark_value("a", *cell) == pytest.approx(2.5)
    path.write_text(path.read_text("utf-8").replace("4.0", "40.0"), "utf-8")
    assert benchmarks.benchmark_value("a", *cell) == pytest.approx(14.5)
    assert benchmarks.benchmark_value("b", *cell) == pytest.approx(2.5)


def test_what_is_not_there_fails_with_what_is(tmp_path):
    path = saved(tmp_path / "b.json")
    with pytest.raises(KeyError, match="there are toy"):
        benchmarks.read_benchmark("wgan", path)
    with pytest.raises(ValueError, match="at least one value"):
        benchmarks.save_benchmark(
            "x", "", {"a": {"b": []}}, command="", values="", path=path
        )
    with pytest.raises(ValueError, match="mean, median"):
        saved(path, centre="mode")


def test_a_table_of_single_runs_speaks_of_no_brackets(tmp_path):
    page = benchmarks.benchmarks_page(saved(tmp_path / "b.json"))
    assert "A toy: mean and, in brackets, seeds 0 1 2." in page
    one, path = {"a": {"b": [1.0]}}, tmp_path / "one.json"
    benchmarks.save_benchmark("x", "A toy", one, command="", values="a run", path=path)
    assert "A toy: a run." in benchmarks.benchmarks_page(path)


def test_the_page_of_all_tables_follows_the_file(tmp_path):
    page = benchmarks.PAGE.read_text("utf-8")
    assert page == benchmarks.benchmarks_page(), "run python -m course_lib.benchmarks"
    other = benchmarks.benchmarks_page(saved(tmp_path / "b.json"))
    assert other != page and "| DCGAN | 2.5 (1, 4, 2.5) |  |" in other
    assert "`python toy.py`" in other


def test_the_table_shows_every_value_its_source_and_a_gap(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        benchmarks, "show_table", lambda *args, note: shown.update(args=args, note=note)
    )
    benchmarks.show_benchmark("toy", saved(tmp_path / "b.json"))
    head, rows = shown["args"]
    assert head == ["", "distance", "SSIM"]
    assert rows == [["DCGAN", "2.5 (1, 4, 2.5)", ""], ["PCA", "10", "0.5"]]
    assert "python toy.py" in shown["note"] and "seeds 0 1 2" in shown["note"]


def test_what_lessons_show_was_measured_by_a_script_that_exists():
    known = json.loads(benchmarks.BENCHMARKS.read_text("utf-8"))
    sources = [p.read_text("utf-8") for p in (ROOT / "notebooks" / "src").glob("*.py")]
    call = r'(?:show_benchmark|benchmark_value)\(\s*"(\w+)"'
    asked = {name for source in sources for name in re.findall(call, source)}
    assert asked <= set(known) and known
    for entry in known.values():
        script = re.search(r"tests/benchmarks/\w+\.py", entry["command"])
        assert (ROOT / script[0]).is_file() and "--save" in entry["command"]
