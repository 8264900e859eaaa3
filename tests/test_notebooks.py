"""Build, student form, adoption and rules of lessons, on a small made-up course."""

import nbformat
import pytest

from course_lib import exercises, notebooks, sources
from course_lib.lint import lint
from course_lib.notebooks import LessonError

NAME = "00_means"


def source_of(course):
    return course / "notebooks" / "src" / f"{NAME}.py"


def edit(course, old, new):
    """Replace one text in the source; fails when it is not there."""
    text = source_of(course).read_text("utf-8")
    assert old in text
    source_of(course).write_text(text.replace(old, new, 1), "utf-8")


def edit_notebook(course, change):
    """Apply `change` to the built notebook, as a person in JupyterLab does."""
    path = course / "notebooks" / f"{NAME}.ipynb"
    notebook = sources.read_notebook(path)
    change(notebook)
    sources.write(path, notebook)


@pytest.fixture
def built(course):
    """The course with its notebooks made, without running a kernel."""
    notebooks.build(execute=False, root=course)
    return course


def test_two_builds_of_one_source_give_equal_bytes(built):
    files = sorted(built.rglob("*.ipynb"))
    first = [path.read_bytes() for path in files]
    notebooks.build(execute=False, root=built)
    assert [path.read_bytes() for path in files] == first and len(files) == 2


def test_build_without_execution_keeps_outputs_while_code_is_unchanged(built):
    def run_first_cell(notebook):
        notebook.cells[1].execution_count = 1

    edit_notebook(built, run_first_cell)
    edit(built, "Four numbers", "Four values")
    notebooks.build(execute=False, root=built)
    path = built / "notebooks" / f"{NAME}.ipynb"
    assert sources.read_notebook(path).cells[1].execution_count == 1
    assert "Four values" in path.read_text("utf-8")
    before = path.read_bytes()
    edit(built, "[1, 2, 3, 4]", "[1, 2, 3]")
    notebooks.build(execute=False, root=built)
    assert path.read_bytes() == before, "a stale executed notebook must stay as it is"


def test_widget_views_leave_nothing_but_their_static_form():
    view = {notebooks.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider(value=1)"}
    outputs = [
        nbformat.v4.new_output("display_data", data=view),
        nbformat.v4.new_output("display_data", data=view | {"image/png": "aa"}),
    ]
    cell = nbformat.v4.new_code_cell(outputs=outputs, metadata={"collapsed": True})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"a": 1}})
    notebooks.tidy(notebook)
    assert [set(x.data) for x in cell.outputs] == [{"image/png", "text/plain"}]
    assert "widgets" not in notebook.metadata and cell.metadata == {}


def test_lessons_are_read_with_title_summary_and_minutes(course):
    (lesson,) = notebooks.lessons(course)
    assert (lesson.number, lesson.name) == ("00", NAME)
    assert lesson.title == "Means of pictures"
    assert lesson.summary.startswith("A lesson for tests")
    assert lesson.minutes == {"smoke": 0.5, "lab": 4, "full": 9}


def test_unknown_lesson_is_refused_with_the_known_ones(course):
    with pytest.raises(LessonError, match=f"'7'.*{NAME}"):
        notebooks.build(["7"], root=course)


def test_cell_ids_are_stable_unique_and_follow_the_content(course):
    edit(course, "# ## References\n# None.", "# None.\n\n# %% [markdown]\n# None.")
    first = [cell.id for cell in notebooks.read_source(source_of(course)).cells]
    edit(course, "Four numbers", "Four values")
    second = [cell.id for cell in notebooks.read_source(source_of(course)).cells]
    assert len(set(first)) == len(first)
    assert sum(a != b for a, b in zip(first, second, strict=True)) == 1
    assert "exercise-E00-1" in first


# Exercises


def test_student_reads_the_stub_and_no_solution(built):
    path = built / "notebooks" / "student" / f"{NAME}.ipynb"
    (cell,) = [x for x in sources.read_notebook(path).cells if x.id.startswith("exerc")]
    assert cell.source == (
        "def mean(values):\n"
        '    """Mean of numbers. Raises ZeroDivisionError for none."""\n'
        '    raise NotImplementedError("E00.1")'
    )
    text = path.read_text("utf-8")
    assert "sum(float" not in text and "integer division" not in text


def test_cut_ends_with_the_function_body_and_keeps_what_follows():
    source = '''class Net:
    def encode(self, x):
        """Doc."""
        y = x  # given
        # solution E02.13
        text = """
not indented
"""
        if y:
            return text

        return y
        # a last word on the solved code

    def decode(self, z):
        return z'''
    task = exercises.exercise(source)
    assert (
        task.stub
        == '''class Net:
    def encode(self, x):
        """Doc."""
        y = x  # given
        raise NotImplementedError("E02.13")

    def decode(self, z):
        return z'''
    )
    assert (task.id, task.name) == ("E02.13", "Net")
    assert "text =" in task.solution and "a last word" in task.solution


@pytest.mark.parametrize(
    "source, message",
    [
        ("def f(x):\n    # solution\n    return x", "write `# solution E02.1`"),
        ("def f(x):\n    return x  # solution E02.1", "on a line of its own"),
        ("def f(x):\n    # Solution E02.1\n    return x", "write `# solution E02.1`"),
        ("# solution E02.1\nx = 1", "indented"),
        ("def f(x):\n    return x\n    # solution E02.1", "nothing to cut"),
        ("def f(x):\n    # solution E02.1\n    pass", "nothing to cut"),
        ("if 1:\n    # solution E02.1\n    x = 1", "nothing to cut"),
        ("def f(x):\n    if x:\n        # solution E02.1\n        x = 1", "nothing"),
        ('def f(x):\n    """\n    # solution E02.1\n    """\n    return x', "nothing"),
        ("def f(x):\n    # solution E02.1\n    return (", "not plain Python"),
        (
            "def f(x):\n    # solution E02.1\n    return x\n"
            "def g(x):\n    # solution E02.2\n    return x",
            "one exercise",
        ),
    ],
)
def test_malformed_exercise_is_refused_with_the_fix(source, message):
    with pytest.raises(LessonError, match=message):
        exercises.exercise(source)


@pytest.mark.parametrize(
    "number, message", [("E00.1", "used twice"), ("E03.1", "not of lesson 00")]
)
def test_exercise_numbers_are_unique_and_of_the_lesson(course, number, message):
    again = f"def again():\n    # solution {number}\n    return 1\n\n\n"
    edit(course, "# %% [markdown]\n# ## Summary", f"# %%\n{again}# %% [markdown]\n# ##")
    with pytest.raises(LessonError, match=message):
        notebooks.build(execute=False, root=course)


def test_answer_repeated_outside_its_cell_is_refused(course):
    hint = "# ```\n# total = sum(float(value) for value in values)\n"
    edit(course, "# Write the mean.", f"{hint}# return total / len(values)\n# ```")
    with pytest.raises(LessonError, match=r"E00\.1 stands outside its cell"):
        notebooks.build(execute=False, root=course)


# Adopt


def test_adopting_an_edit_changes_those_lines_of_the_source_alone(built):
    before = source_of(built).read_text("utf-8")

    def change(notebook):
        notebook.cells[5].source += "\nprint(max(pixels))"
        notebook.cells[5].metadata["collapsed"] = True
        notebook.cells.append(nbformat.v4.new_code_cell("answer = 42"))

    edit_notebook(built, change)
    notebooks.adopt(0, root=built)
    expected = before.replace('"pixels")', '"pixels")\nprint(max(pixels))')
    assert source_of(built).read_text("utf-8") == expected + "\n# %%\nanswer = 42\n"


def test_adopt_and_build_are_inverse(built):
    edit_notebook(built, lambda x: x.cells[0].update(source="# A new title"))
    notebooks.adopt(0, root=built)
    text = source_of(built).read_bytes()
    notebooks.build(execute=False, root=built)
    edit_notebook(built, lambda x: x.cells[0].update(source="# Another title"))
    notebooks.adopt(0, root=built)
    edit_notebook(built, lambda x: x.cells[0].update(source="# A new title"))
    notebooks.adopt(0, root=built)
    assert source_of(built).read_bytes() == text


def test_adopt_refuses_when_nothing_changed(built):
    with pytest.raises(LessonError, match="nothing to adopt"):
        notebooks.adopt("00", root=built)


def test_adopt_refuses_to_lose_changes_of_the_source_unless_forced(built):
    edit(built, "Four numbers", "Four values")
    edit_notebook(built, lambda x: x.cells[0].update(source="# A new title"))
    text = source_of(built).read_bytes()
    with pytest.raises(LessonError, match="--force"):
        notebooks.adopt(0, root=built)
    assert source_of(built).read_bytes() == text
    notebooks.adopt(0, force=True, root=built)
    assert "Four numbers" in source_of(built).read_text("utf-8")


# Rules


def test_good_lesson_has_no_findings(course):
    assert lint(source_of(course)) == []


@pytest.mark.parametrize(
    "old, new, finding",
    [
        ("# ## Measure\n", "", "`## Measure` is missing"),
        ("# ## Break it", "# ## On a GPU", "parts out of order"),
        ("import os\n", "class A(nn.Module):\n    pass\n", "`## Loss` is missing"),
        ("seed = 0", "seed = len('a')", "no `name = literal`"),
        ("seed = 0\n", "", "lacks `seed`"),
        (' tags=["parameters"]', "", "0 cells have the tag `parameters`"),
        (' tags=["nbval-ignore-output"]', "", "shows something; tag it"),
        ('["nbval-ig', '["nbval-check-output", "nbval-ig', "both nbval tags"),
        ('["nbval-check-output"]', '["nbval-ignore-output"]', "2 cells have the tag"),
        ('tags=["nbval-check-output"]\nprint("mean', '\nprint("mean', "Summary has no"),
        ("print(error)\n", "print(error)\nshow_images(x)\n", "ends in the picture"),
        ("import os\n", "import os\n" + "x = 1\n" * 26, "27 lines"),
        ("# %% [markdown]\n# The parameters of the lesson.\n", "", "no text before it"),
        ("A lesson for tests:", "A lesson for tests!", "exclamation mark"),
        ("Four numbers", "In /home/me/data, four numbers", "a path of one machine"),
        ("import os\n", "import os\n!ls\n", "not plain Python"),
        ("\\mu", "\\nosuch", "cannot convert the formula"),
        ("solution E00.1", "solution", "write `# solution E02.1`"),
    ],
)  # fmt: skip
def test_rule_finds_its_breakage(course, old, new, finding):
    edit(course, old, new)
    assert any(finding in x for x in lint(source_of(course))), lint(source_of(course))


@pytest.mark.parametrize(
    "line",
    [
        "# Factorial $n!$ and ``x != y`` and ![a picture](a.png) <!-- n! -->",
        "# ```python\n# assert a != b, 'no!'\n# ```",
        "# The ratio and/or https://example.org/home/x and a \\$5 note",
    ],
)
def test_code_formulas_and_pictures_are_no_prose(course, line):
    edit(course, "# Write the mean.", line)
    assert lint(source_of(course)) == []


def test_all_imports_stand_in_one_cell_however_many(course):
    edit(course, "import os\n", "import os\n" * 40)
    assert lint(source_of(course)) == []


@pytest.mark.parametrize(
    "output, tags, finding",
    [
        ({"data": {"text/plain": "3"}}, [], "has output; tag it"),
        (None, ["nbval-check-output"], "and no output"),
        ({"data": {"text/plain": "<A at 0x7f00aa00bb>"}}, [], "one machine only"),
        ({"data": {"text/plain": "/home/me/x.npz"}}, [], "one machine only"),
        ({"data": {"image/png": "aaaa"}}, [], "without alt text"),
    ],
)
def test_rule_on_outputs_finds_its_breakage(built, output, tags, finding):
    def change(notebook):
        made = [nbformat.v4.new_output("display_data", **output)] if output else []
        notebook.cells[1].update(outputs=made, metadata={"tags": tags})
        other = nbformat.v4.new_output("stream", text="x")
        notebook.cells[5].update(outputs=[other])

    edit_notebook(built, change)
    assert any(finding in x for x in lint(built / "notebooks" / f"{NAME}.ipynb"))
