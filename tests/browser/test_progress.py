"""What a person has solved: told by a check in lesson 00, shown and exported."""

import csv

SOLVED = """async ([stub, answer, check]) => {
  const { shell, commands } = window.jupyterapp, notebook = shell.currentWidget.content;
  const run = async (text, source) => {
    const cell = notebook.widgets.find((cell) => cell.model.type === "code" &&
      cell.model.sharedModel.source.includes(text));
    if (source) cell.model.sharedModel.source = source;
    notebook.activeCellIndex = notebook.widgets.indexOf(cell);
    notebook.deselectAll();
    await commands.execute("notebook:run-cell");
    return JSON.stringify(cell.model.outputs.toJSON());
  };
  await run(stub, answer);
  return await run(check);
}"""
WRONG = "def null_time(t1, tr):\n    return t1 * np.log(2)"
RIGHT = "def null_time(t1, tr):\n    return t1 * np.log(2 / (1 + np.exp(-tr / t1)))"


def test_a_solved_exercise_is_kept_shown_and_exported(
    open_lesson, open_cells, lab, screenshots
):
    page = open_lesson("00", "import numpy as np")
    check = "check_null_time(null_time)"
    said = page.evaluate(SOLVED, ["def null_time", WRONG, check])
    assert "E00.2 not yet" in said
    said = page.evaluate(SOLVED, ["def null_time", RIGHT, check])
    assert "E00.2 solved" in said and "1 of" in said
    shown = open_cells(
        "from course_lib.progress import export_progress, show_progress\n"
        "show_progress()",
        "export_progress('mine.csv')",
    )
    table = shown.locator("table")
    assert "\N{CHECK MARK} E00.2 (2)" in table.inner_text()
    table.screenshot(path=screenshots / "progress.png")
    with (lab.folder / "mine.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["exercise", "solved", "tries"]
    assert ["E00.2", "1", "2"] in rows
