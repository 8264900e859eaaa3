"""Lessons as nbgrader assignments: what marks answers and checks in a notebook."""

import pytest

from course_lib import assignments, checks
from course_lib.exercises import exercises, student
from course_lib.sources import lessons, read_source, select

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
