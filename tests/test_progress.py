"""What a person has solved: kept where somebody looks, without identity, exportable."""

import csv
import json
import threading
import warnings

import pytest

from course_lib import checks, progress


@pytest.fixture
def lessons(tmp_path, monkeypatch):
    """A folder that `lab` made, with somebody in front of it."""
    (tmp_path / ".course.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "has_front_end", lambda: True)
    monkeypatch.setattr(checks, "has_front_end", lambda: True)
    return tmp_path


@checks.exercise("E01.2", "right.")
def check_two(student):
    return None if student() == 2 else "not two."


def raises():
    raise NotImplementedError


def test_tries_count_until_it_is_solved_and_solved_stays_solved(lessons):
    for answer in (1, 3, 2, 1, 2):
        check_two(lambda answer=answer: answer)
    assert progress.read_progress() == {"E01.2": {"solved": True, "tries": 3}}


def test_what_is_not_written_yet_is_no_try(lessons):
    check_two(raises)
    assert progress.read_progress() == {}


def test_the_file_lies_among_the_persons_lessons_and_names_nobody(lessons):
    check_two(lambda: 2)
    path = lessons / ".progress.json"
    assert json.loads(path.read_text()) == {"E01.2": {"solved": True, "tries": 1}}


def test_elsewhere_it_lies_in_the_cache(lessons, monkeypatch, tmp_path):
    (lessons / ".course.json").unlink()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    check_two(lambda: 2)
    assert (tmp_path / "cache" / "progress.json").exists()


def test_nothing_is_kept_where_nobody_looks(lessons, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(lessons)
    assert check_two(lambda: 2)
    assert "of this lesson" not in check_two(lambda: 2)._repr_html_()
    assert not (lessons / ".progress.json").exists()


def test_the_answer_of_a_check_says_how_far_the_lesson_is(lessons):
    verdict = check_two(lambda: 2)
    solved, total = progress.solved_in_lesson("E01.2")
    assert solved == 1 and total >= 3
    assert f"1 of {total} of this lesson solved" in verdict._repr_html_()
    assert "lesson" not in repr(verdict)  # what nbval compares


def test_a_damaged_or_unwritable_file_does_not_break_a_check(lessons, monkeypatch):
    path = lessons / ".progress.json"
    path.write_text('{"E01.2": 3}')
    with pytest.warns(UserWarning, match="cannot be read"):
        assert check_two(lambda: 2)
    monkeypatch.setattr(
        progress, "progress_file", lambda: lessons / "no" / "such" / "x"
    )
    (lessons / "no").write_text("a file, not a folder")
    with pytest.warns(UserWarning, match="could not be kept"):
        assert check_two(lambda: 2)


def test_two_lessons_at_once_lose_nothing(lessons, monkeypatch):
    monkeypatch.setattr(progress, "WAIT_S", 600.0)

    def work(lesson):
        for place in range(1, 6):
            progress.keep(f"E{lesson:02}.{place}", True)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert len(progress.read_progress()) == 20


@pytest.fixture
def shown(monkeypatch):
    """What was displayed."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: found.append(data))
    return found


def test_the_table_has_every_exercise_with_its_state(lessons, monkeypatch, shown):
    monkeypatch.delenv("COURSE_HEADLESS", raising=False)
    check_two(lambda: 1)
    check_two(lambda: 2)
    progress.keep("E02.1", False)
    progress.show_progress()
    (data,) = shown
    lines = {line.split(":")[0]: line for line in data["text/plain"].splitlines()}
    assert lines["lesson 01"].startswith("lesson 01: 1 of ")
    assert "✓ E01.2 (2)" in lines["lesson 01"]
    assert "○ E02.1 (1)" in lines["lesson 02"]
    assert 'aria-label="solved">✓</span> E01.2 (2)' in data["text/html"]
    assert 'aria-label="open">○</span> E02.1 (1)' in data["text/html"]
    assert data["text/html"].count('aria-label="solved"') == 1
    for number in checks.all_checks():
        assert number in data["text/html"] and number in data["text/plain"]


def test_a_saved_notebook_carries_nobodys_record(lessons, monkeypatch, shown):
    progress.keep("E01.2", True)
    monkeypatch.setenv("COURSE_HEADLESS", "1")
    progress.show_progress()
    assert "✓ E" not in shown[0]["text/plain"]
    assert 'aria-label="solved"' not in shown[0]["text/html"]


def test_the_export_is_a_table_in_the_order_of_the_lessons(lessons):
    for number in ("E02.10", "E02.9", "E01.1"):
        progress.keep(number, number != "E02.9")
    path = progress.export_progress(lessons / "mine.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["exercise", "solved", "tries"],
        ["E01.1", "1", "1"],
        ["E02.9", "0", "1"],
        ["E02.10", "1", "1"],
    ]
