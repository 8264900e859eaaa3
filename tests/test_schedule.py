"""The days of a class: read as spreadsheets write them, refused with the line."""

import datetime

import pytest

from course_lib import schedule
from course_lib.exercises import LessonError
from course_lib.sources import lessons


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "days.csv"
    path.write_text(text, encoding)
    return schedule.read(path, lessons())


def test_days_are_read_with_commas_semicolons_and_short_numbers(tmp_path):
    wanted = {
        "01": (datetime.date(2026, 10, 5), datetime.date(2026, 10, 12)),
        "02": (datetime.date(2026, 10, 12), None),
    }
    text = "lesson,release,due\n01,2026-10-05,2026-10-12\n\n02,2026-10-12,\n"
    assert read(tmp_path, text) == wanted
    excel = text.replace(",", ";").replace("01;", "1;").replace("\n", "\r\n")
    assert read(tmp_path, excel, "utf-8-sig") == wanted
    assert read(tmp_path, "Lesson, Release, Due\n2,2026-10-12") == {"02": wanted["02"]}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "the first line must be lesson,release,due"),
        ("lesson,release,due\n\n", "no lesson is named"),
        ("lesson,due\n", "the first line must be lesson,release,due"),
        (
            "lesson,release,due\n01,5.10.2026,",
            r"line 2: '5\.10\.2026' is no day; write",
        ),
        ("lesson,release,due\n01", "line 2: '' is no day"),
        ("lesson,release,due\n99,2026-10-05,", "line 2: no lesson '99'"),
        (
            "lesson,release,due\n1,2026-10-05,\n01,2026-10-06,",
            "line 3: lesson 01 stands twice",
        ),
        ("lesson,release,due\n1,2026-10-05,2026-10-04", "due before it is released"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, text, problem):
    with pytest.raises(LessonError, match=problem):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LessonError, match=r"--schedule .*none\.csv"):
        schedule.read(tmp_path / "none.csv", lessons())


def test_a_lesson_is_shown_from_its_day_and_answered_the_day_after_it_is_due():
    first, last = datetime.date(2026, 10, 5), datetime.date(2026, 10, 12)
    one = datetime.timedelta(days=1)
    dates = schedule.Dates(first, last)
    assert not dates.released(first - one) and dates.released(first)
    assert not dates.answered(last) and dates.answered(last + one)
    assert not schedule.Dates(first).answered(datetime.date.max)
    assert schedule.spoken(first) == "5 October 2026"
