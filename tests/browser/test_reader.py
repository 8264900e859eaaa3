"""The reader studies of lesson 07 in JupyterLab: two whole studies by keyboard alone.

The "reader" cheats: it asks the kernel for the key, since nothing in the page could
tell it, which is tested.
"""

import re
import time

import pytest
from driving import ask_kernel, assert_usable, wait_until

TRIALS = 20
PAUSE = 1.5  # seconds
NAMES = {"rating": ("viewer", "key"), "2afc": ("pair_viewer", "pairs_key")}
MEAN = """(image) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const grey = data.filter((_, i) => i % 4 === 0);
  return grey.reduce((a, b) => a + b, 0) / grey.length;
}"""


CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .map((cell) => cell.model.type).join(" ")"""
# Runs the first cell that holds this text.
RUN_CELL = """async (text) => {
  const { shell, commands } = window.jupyterapp, notebook = shell.currentWidget.content;
  notebook.activeCellIndex = notebook.widgets.findIndex((cell) =>
    cell.model.type === "code" && cell.model.sharedModel.source.includes(text));
  notebook.deselectAll();
  await commands.execute("notebook:run-cell");
}"""


@pytest.fixture(scope="module")
def page(open_lesson):
    page = open_lesson("07")
    assert page.locator(".course-reader").count() == 2
    return page


def plain(html):
    """The DOM without what must change: the trial's number, progress, blob names."""
    html = re.sub(r"blob:[^\"]+", "BLOB", html)
    return re.sub(r"Trial \d+|value=\"\d+\"", "N", html)


def is_asked(reader, trial):
    text = f"Trial {trial + 1} of {TRIALS}"
    return (
        text in reader.inner_text()
        and reader.locator("img").count() > 0
        and reader.locator("button:disabled").count() == 0
    )


@pytest.mark.parametrize("kind", ["rating", "2afc"])
def test_a_whole_study_is_answered_by_keyboard_alone(page, kind, screenshots):
    viewer, key = NAMES[kind]
    output = page.locator(".jp-OutputArea-output:has(.course-reader)")
    output = output.nth(list(NAMES).index(kind))
    reader, keys = output.locator(".course-reader"), page.keyboard
    truth = ask_kernel(page, f"[bool(x) for x in {key}.generated]")
    pixels = f"{viewer}.study.pixels()"
    means = ask_kernel(page, f"{pixels}.mean(axis=(2, 3)).tolist()")
    cells = page.evaluate(CELLS)
    reader.scroll_into_view_if_needed()
    reader.focus()
    assert reader.locator("img").count() == 0  # nothing is seen before the clock runs
    width = reader.evaluate("node => getComputedStyle(node).outlineWidth")
    assert width == "3px"
    doms, given, since = set(), [], 0.0
    keys.press("Space")
    for trial in range(TRIALS):
        wait_until(page, lambda trial=trial: is_asked(reader, trial))
        seen = [image.evaluate(MEAN) for image in reader.locator("img").all()]
        assert seen == pytest.approx(means[trial], abs=0.01)  # the images of this trial
        doms.add(plain(reader.evaluate("node => node.outerHTML")))
        if trial == 2:
            keys.press("p")
            assert reader.locator("img").count() == 0
            keys.press("1" if kind == "rating" else "ArrowLeft")
            page.wait_for_timeout(1000 * PAUSE)
            assert "clock stands still" in reader.inner_text()
            keys.press("Space")
            wait_until(page, lambda: is_asked(reader, 2))
        if trial == 3:
            assert_usable(reader, pictures=2)
            output.screenshot(path=screenshots / f"reader_07_{kind}.png")
            reader.focus()
        before, since = since, time.monotonic()
        if kind == "rating":
            given.append(5 if truth[trial] else 1)
            keys.press(str(given[-1]))
        else:
            given.append(2 if truth[trial] else 1)
            keys.press("ArrowRight" if truth[trial] else "ArrowLeft")
        if trial == 2:  # from the answer before to this one, all told
            looked = time.monotonic() - before - PAUSE
    assert len(doms) == 1, "the page of one trial differs from that of another"
    (dom,) = doms
    assert not re.search(r"\.png|\.jpg|data-truth|fake", dom)
    wait_until(page, lambda: "All trials are answered" in reader.inner_text())
    show = output.get_by_role("button", name="Show my result")
    wait_until(page, show.is_enabled)
    keys.press("Tab")
    assert show.evaluate("node => node === document.activeElement")
    keys.press("Enter")
    output.get_by_text("This reader told real from generated").wait_for()
    output.screenshot(path=screenshots / f"reader_07_{kind}_result.png")

    assert ask_kernel(page, f"list({viewer}.answers.given)") == given
    assert ask_kernel(page, f"{viewer}.result().right") == 1
    seconds = ask_kernel(page, f"[float(s) for s in {viewer}.answers.seconds]")
    assert min(seconds) > 0
    assert seconds[2] <= looked + 0.01  # the pause is not in it
    # the key 1 would make a heading of a cell
    assert page.evaluate(CELLS) == cells
    if kind == "rating":  # the lesson goes on with the person's own answers
        page.evaluate(RUN_CELL, "def answers_of")
        wait_until(page, lambda: ask_kernel(page, "who") == "you")
