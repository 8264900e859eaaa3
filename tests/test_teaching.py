"""Notes for who teaches: minutes, questions, usual wrong answers, from the lesson."""

import json

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from course_lib import checks, teaching
from course_lib.exercises import Exercise, LessonError
from course_lib.sources import ROOT, lessons, select


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.number)
def test_notes_hold_each_exercise_with_the_hints_of_its_check(lesson):
    text = teaching.notes(lesson)
    hints = teaching.hints_of(ROOT / f"course_lib/checks/lesson_{lesson.number}.py")
    numbers = [x for x in checks.all_checks() if x[1:3] == lesson.number]
    assert numbers and set(hints) == set(numbers)
    for number in numbers:
        assert f"### {number} `" in text and len(hints[number]) >= 2
        assert all(f"- {hint}" in text for hint in hints[number])
    assert text.count("?\n") >= 3


def test_hints_are_what_a_check_returns_or_keeps_in_its_table(tmp_path):
    path = tmp_path / "lesson_90.py"
    path.write_text(
        '@exercise("E90.1", "right: this is praise, not a hint.")\n'
        "def check_x(student):\n"
        "    wrong = {'you forgot the root of the mean.': 1}\n"
        "    if student:\n"
        "        return f'expected {1:.2f} for this small case, not {2}.'\n"
        "    return None if student else 'the last hint of them all.'\n"
        "def helper():\n    return 'this belongs to no exercise at all'\n"
    )
    assert teaching.hints_of(path) == {
        "E90.1": [
            "you forgot the root of the mean.",
            "expected ... for this small case, not ....",
            "the last hint of them all.",
        ]
    }


def test_notes_of_a_small_course(course):
    path = course / "notebooks/src/00_means.py"
    text = path.read_text("utf-8").replace(
        "# The mean of nothing.", "# Guess: what is the mean of nothing? Then run."
    )
    path.write_text(text.replace("# Write the mean.", "# Well?\n#\n# **E00.1** Do it."))
    (lesson,) = select([0], course)
    made = teaching.notes(lesson, course)
    assert "- lab: at most 4" in made and "`run 00` measures it" in made
    assert (
        "- **Measure** How long is the budget?\n- **Break it** Guess: what is" in made
    )
    assert "Watch for integer division." in made and "Well?" not in made
    assert "total = sum(float(value) for value in values)" in made
    report = course / "build" / "report.json"
    report.parent.mkdir()
    row = {"lesson": "00_means", "budget": "lab", "device": "cpu", "seconds": 90}
    report.write_text(json.dumps({"lessons": [row]}))
    assert "- measured, lab on cpu: 1.5" in teaching.notes(lesson, course)


def test_a_short_question_brings_the_sentence_before_it_and_its_section():
    cells = [
        "# A lesson\n\n## Look\n*All* of 0.5 mm are lost. Which?",
        "So. A question that is long enough to stand for itself, is it not?\n\n"
        "- one item, and what of it?\n- Well?\n\n## References\nWho wrote all of this?",
        "E90.1 asks: what is asked of a student?",
    ]
    notebook = new_notebook(cells=[new_markdown_cell(x) for x in cells])
    task = Exercise("E90.1", "f", "", "")
    assert teaching.questions(notebook, [task]) == [
        "**Look** A question that is long enough to stand for itself, is it not?",
        "**Look** one item, and what of it?",
    ]
    cells[0] = cells[0].replace("Which?", "Which of them?")
    notebook.cells[0].source = cells[0]
    found = teaching.questions(notebook, [task])[0]
    assert found == "**Look** *All* of 0.5 mm are lost. Which of them?"


def test_the_command_writes_one_file_a_lesson(course, tmp_path):
    assert teaching.notes_command([], tmp_path / "notes", course) == 0
    assert [x.name for x in (tmp_path / "notes").iterdir()] == ["00_means.md"]
    with pytest.raises(LessonError, match="no lesson '7'"):
        teaching.notes_command(["7"], tmp_path / "notes", course)
