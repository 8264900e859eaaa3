"""Students get no answer: what leaks is found, in cells, outputs and metadata."""

import copy
import re

import nbformat
import pytest

from course_lib.exercises import Exercise, exercises, leaks, student
from course_lib.sources import lessons, read_source

ANSWER = """\
    step = alpha * (fresh.detach() - kept).square().mean(dim=1)
    kept = kept + step.clamp(-1, 1)[:, None] * fresh.sign()
    return kept.lerp(fresh, alpha).view_as(fresh)"""
TASK = Exercise("E90.1", "follow", "", ANSWER)
RENAMED = ANSWER.replace("fresh", "new").replace("kept", "old").replace("alpha", "a")
SPACED = re.sub(r"([=+*(),])", r" \1  ", ANSWER).replace("\n    ", "\n\n  ")


def notebook(**cell):
    made = nbformat.v4.new_notebook()
    made.cells = [
        nbformat.v4.new_code_cell("x = 1"),
        nbformat.v4.new_code_cell("y = 2"),
    ]
    made.cells[1].update(cell)
    return made


def output(text, kind="stream"):
    if kind == "stream":
        return nbformat.v4.new_output("stream", text=text)
    return nbformat.v4.new_output("display_data", data={"text/html": text})


PLANTS = {
    "the code": notebook(source=ANSWER),
    "other spaces": notebook(source=SPACED),
    "other names": notebook(source=RENAMED),
    "other names and spaces": notebook(
        source=re.sub(r"([=+*(),])", r" \1 ", RENAMED).replace("\n    ", "\n")
    ),
    "in a line of its own": notebook(source=f"x = 1\n{RENAMED}  # try this\n"),
    "comments between": notebook(source=RENAMED.replace("\n", "  # so\n")),
    "in text": notebook(cell_type="markdown", source=f"Try `{RENAMED}`."),
    "in a printed output": notebook(outputs=[output(RENAMED)]),
    "in a page": notebook(outputs=[output(f"<b>{RENAMED}</b>", "page")]),
    "in a coloured page": notebook(
        outputs=[output(re.sub(r"(\w+)", r"<i class='k'>\1</i>", RENAMED), "page")]
    ),
    "in a cell's metadata": notebook(metadata={"hint": {"lines": RENAMED.split("\n")}}),
    "in an attachment": notebook(attachments={"a.txt": {"text/plain": RENAMED}}),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_answer_is_found(plant):
    found = leaks([TASK], PLANTS[plant])
    assert len(found) == 1 and "E90.1 stands outside its cell" in found[0]


def test_an_answer_in_the_notebooks_metadata_is_found():
    made = notebook()
    made.metadata["notes"] = [{"solution": RENAMED}]
    assert leaks([TASK], made)


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        "step = alpha * (fresh.detach() - kept).abs().sum(dim=0)\nreturn step",
        "kept = kept + 1\nreturn fresh.view_as(kept)",
    ],
)
def test_other_code_with_the_same_words_is_no_leak(source):
    assert leaks([TASK], notebook(source=source)) == []


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.number)
def test_a_leak_into_a_real_lesson_is_found(lesson):
    source = read_source(lesson.source)
    for i, task in exercises(source):
        made = copy.deepcopy(student(source))
        assert leaks([task], made) == []
        made.metadata["hint"] = re.sub(r"([=+*(),])", r" \1 ", source.cells[i].source)
        long_enough = len(task.solution.split("\n")) > 1
        assert leaks([task], made) or not long_enough, task.id
