"""The bar of `fit` in JupyterLab: seen while it trains, gone after, a clean console."""

from driving import wait_until

SHORT = """from pathlib import Path
import time, torch
from course_lib.training import fit
for _ in range(40):
    fit(lambda batch: {"loss": torch.tensor(0.5)}, [0], 1, desc="short")"""
LONG = """def wait(batch):
    while batch and not Path("seen_bar").exists(): time.sleep(0.05)
    return {"loss": torch.tensor(0.25)}
fit(wait, [0, 1], 4, desc="A long run")"""
# Starts a source in a new cell, and does not wait for it.
START = """async (source) => {
  const { shell, commands } = window.jupyterapp, notebook = shell.currentWidget.content;
  notebook.activeCellIndex = notebook.widgets.length - 1;
  await commands.execute("notebook:insert-cell-below");
  notebook.activeCell.model.sharedModel.source = source;
  window.training = commands.execute("notebook:run-cell");
}"""


def test_a_bar_is_seen_while_training_lasts_and_leaves_nothing(
    open_cells, lab, screenshots
):
    page = open_cells(SHORT)
    short = page.get_by_role("progressbar", name="short")
    wait_until(page, lambda: not short.count())
    page.evaluate(START, LONG)
    bar = page.get_by_role("progressbar", name="A long run")
    wait_until(page, lambda: bar.count() and bar.evaluate("(bar) => bar.value") == 1)
    output = page.locator(".jp-OutputArea-output", has=bar)
    assert "A long run 1/4" in output.inner_text()
    assert "steps/s, loss 0.25" in output.inner_text()
    output.screenshot(path=screenshots / "training_bar.png")
    (lab.folder / "seen_bar").touch()
    page.evaluate("window.training")
    wait_until(page, lambda: not bar.count())
