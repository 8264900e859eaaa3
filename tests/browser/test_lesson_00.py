"""Lesson 00: the knobs of the MR scanner, and what a person has solved."""

import csv
import re

import numpy as np
import pytest
from driving import ACTIVE, assert_usable, changes, slide

from course_lib import checks, mr_console, notebooks, phantoms
from course_lib.mr_widget import MRPhysics

WIDGET = ".mr"
DONE = "\N{BALLOT BOX WITH CHECK}"
PIXELS = """(c) => [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]
  .filter((_, i) => i % 4 === 0)"""


def put(console, knob, value):
    slider = console.get_by_role("slider", name=re.compile(f"^{re.escape(knob)}\\b"))
    slider.evaluate(
        "(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", value
    )


def use(console, note_latency, where):
    """Move every knob, solve two of the tasks, ask for what no scanner can do."""
    console.scroll_into_view_if_needed()
    picture, times = console.locator(".mr-picture"), []
    for protocol in ("T2", "PD", "FLAIR"):
        button = console.get_by_role("button", name=protocol, exact=True)
        changes(picture, button.click)
        assert button.get_attribute("aria-pressed") == "true"
    assert f"{DONE} CSF is black" in console.inner_text()
    put(console, "TE", 20)
    put(console, "TI", 400)
    for knob in ("TI", "TE", "TR"):
        slider = console.get_by_role("slider", name=f"{knob},")
        changes(picture, lambda slider=slider: slider.press("ArrowLeft"))
        times += slide(slider, picture)
        put(console, "TR", 9000)
        put(console, "TE", 20)
    note_latency(f"MR console, {where}, browser", times)
    field_and_noise(console, picture, note_latency, where)
    changes(picture, console.get_by_label("Inversion pulse first").click)
    assert console.get_by_role("slider", name="TI,").is_disabled()
    put(console, "TR", 1450)
    put(console, "TE", 12)
    assert f"{DONE} grey and white matter look the same" in console.inner_text()
    put(console, "TE", 290)
    put(console, "TR", 150)
    expected = mr_console.timing_problem(tr=150, te=290)
    assert console.locator("[role=alert]").inner_text() == expected
    console.get_by_role("button", name="T1", exact=True).click()
    assert console.locator("[role=alert]").is_hidden()
    assert_usable(console, pictures=3)


# Presses a button often, and a slider; ms until picture and curves are drawn.
PRESSED = """async (buttons, picture) => {
  const curves = document.querySelector(".mr-plots"), times = [];
  for (let i = 0; i < 12; i++) {
    const before = picture.toDataURL() + curves.innerHTML;
    const start = performance.now();
    buttons[i % buttons.length].click();
    times.push(performance.now() - start);
    if (picture.toDataURL() + curves.innerHTML === before) times.push(NaN);
    await new Promise(requestAnimationFrame);
  }
  return times;
}"""


def field_and_noise(console, picture, note_latency, where):
    """Turn the field and the noise: picture, curves and what is told follow."""
    curves = console.locator(".mr-plots")
    for tesla in ("0.5 T", "3 T", "7 T"):
        before = curves.inner_html()
        button = console.get_by_role("button", name=tesla, exact=True)
        changes(picture, lambda button=button: button.press("Enter"))
        assert button.get_attribute("aria-pressed") == "true"
        assert curves.inner_html() != before
        assert f"slice at {tesla}, TR" in picture.evaluate("(c) => c.ariaLabel")
    strengths = console.get_by_role("group", name="Field strength")
    buttons = strengths.get_by_role("button")
    times = buttons.evaluate_all(PRESSED, picture.element_handle())
    assert len(times) == 12, "the field changed and something stayed"
    note_latency(f"MR console field, {where}, browser", times)
    noise = console.get_by_role("slider", name="Noise at 1.5 T")
    before = curves.inner_html()
    changes(picture, lambda: noise.press("End"))
    assert curves.inner_html() != before
    strengths.get_by_role("button", name="0.5 T").click()
    assert DONE not in console.inner_text()  # at this noise nothing counts as seen
    note_latency(f"MR console noise, {where}, browser", slide(noise, picture))
    changes(picture, strengths.get_by_role("button", name="1.5 T").click)
    put(console, "Noise at 1.5 T", 0.6)


def test_the_console_of_lesson_00_in_jupyterlab(open_lesson, screenshots, note_latency):
    page = open_lesson("00")
    console = page.locator(WIDGET)
    console.locator(".mr-picture").click()
    before = page.evaluate(ACTIVE)
    use(console, note_latency, "lesson 00 in JupyterLab")
    assert page.evaluate(ACTIVE) == before  # its keys are not Jupyter's
    console.get_by_role("button", name="FLAIR", exact=True).click()
    console.screenshot(path=screenshots / "mr_console_00_lab.png")


def test_the_console_in_a_page_without_kernel_or_network(
    open_exported, screenshots, note_latency
):
    page = open_exported("00", color_scheme="dark")
    frame = page.locator('iframe[title="MR console"]')
    console = frame.content_frame.locator(WIDGET)
    use(console, note_latency, "page")
    assert frame.bounding_box()["height"] >= console.bounding_box()["height"]
    frame.screenshot(path=screenshots / "mr_console_00_page.png")


@pytest.fixture
def alone(open_page):
    """The console in a page with the network off, and the maps behind it."""
    maps = phantoms.subject_maps(24, 48, lesion="MS-like lesions")
    page = open_page(offline=True).page
    page.set_content(MRPhysics(maps).live_html())
    console = page.frame_locator("iframe").locator(WIDGET)
    console.wait_for()
    return console, maps


def test_the_browser_draws_what_the_reference_draws_for_every_protocol(alone):
    console, maps = alone
    for name, (tr, te, ti) in phantoms.PROTOCOLS.items():
        console.get_by_role("button", name=name, exact=True).click()
        picture = console.locator(".mr-picture")
        found = np.array(picture.evaluate(PIXELS))
        expected = mr_console.mr_image(maps, tr=tr, te=te, ti=ti).astype(int)
        away = np.abs(found.reshape(expected.shape) - expected)
        assert away.mean() < 1 and away.max() <= 4, name
        text = console.locator(".mr-key").inner_text()
        for tissue, signal in mr_console.tissue_signals(tr=tr, te=te, ti=ti).items():
            assert f"{mr_console.SHOWN[tissue][0]} {signal:.3f}" in text
        judged = mr_console.judge_tasks(mr_console.tissue_signals(tr=tr, te=te, ti=ti))
        assert console.get_by_text(DONE).count() == sum(judged.values())
        described = picture.evaluate("(c) => c.ariaLabel")
        assert described == mr_console.describe(tr=tr, te=te, ti=ti)


@pytest.mark.parametrize("field", mr_console.FIELDS)
def test_the_browser_draws_field_and_noise_as_the_reference_does(alone, field):
    console, maps = alone
    picture, noise = console.locator(".mr-picture"), 0.02
    console.get_by_role("button", name=f"{field:g} T", exact=True).click()
    put(console, "Noise at 1.5 T", 100 * noise)
    for name, (tr, te, ti) in phantoms.PROTOCOLS.items():
        console.get_by_role("button", name=name, exact=True).click()
        times = {"tr": tr, "te": te, "ti": ti, "field": field}
        expected = mr_console.mr_image(maps, **times, noise=noise).astype(int)
        found = np.array(picture.evaluate(PIXELS)).reshape(expected.shape)
        away = np.abs(found - expected)
        assert away.mean() < 1 and away.max() <= 4, name
        signals = mr_console.tissue_signals(**times)
        judged = mr_console.judge_tasks(signals, mr_console.noise_at(field, noise))
        assert console.get_by_text(DONE).count() == sum(judged.values())
        described = picture.evaluate("(c) => c.ariaLabel")
        assert described == mr_console.describe(**times, noise=noise)


# --- progress

# Writes a source into the first cell that holds a text, or with no text into a new one
# at the end, and runs it; its outputs.
WRITE = """async ([text, source]) => {
  const { shell, commands } = window.jupyterapp, notebook = shell.currentWidget.content;
  const all = notebook.widgets;
  const found = all.findIndex((cell) => text && cell.model.type === "code" &&
    cell.model.sharedModel.source.includes(text));
  notebook.activeCellIndex = found < 0 ? all.length - 1 : found;
  notebook.deselectAll();
  if (found < 0) await commands.execute("notebook:insert-cell-below");
  const cell = notebook.activeCell;
  cell.model.sharedModel.source = source;
  await commands.execute("notebook:run-cell");
  return JSON.stringify(cell.model.outputs.toJSON());
}"""
WRONG = "def null_time(t1, tr):\n    return t1 * np.log(2)"
RIGHT = "def null_time(t1, tr):\n    return t1 * np.log(2 / (1 + np.exp(-tr / t1)))"
CHECK = "check_null_time(null_time)"


def assert_readable(table):
    """A table by its roles: each column and row has a head, each mark a name.

    It has nothing to press, so that no key is needed and none is caught.
    """
    columns = table.get_by_role("columnheader").all_inner_texts()
    assert columns == ["lesson", "solved", "exercises"]
    heads = table.get_by_role("rowheader").all_inner_texts()
    assert heads == [f"lesson {lesson.number}" for lesson in notebooks.lessons()]
    row = table.get_by_role("row", name="lesson 00")
    assert row.get_by_role("img", name="solved", exact=True).count() == 1
    named = [row.get_by_role("img", name=name).count() for name in ("solved", "open")]
    exercises = [number for number in checks.all_checks() if number[:3] == "E00"]
    assert sum(named) == len(exercises)
    bars = table.get_by_role("progressbar")
    assert bars.count() == len(heads)
    snapshot = bars.first.aria_snapshot()
    assert 'progressbar "lesson 00, share solved"' in snapshot
    assert_usable(table, pictures=len(heads))
    assert table.locator("a, button, input, [tabindex]").count() == 0


def test_a_solved_exercise_is_kept_shown_and_exported(open_lesson, lab, screenshots):
    page = open_lesson("00")
    page.evaluate(WRITE, ["def null_time", WRONG])
    assert "E00.2 not yet" in page.evaluate(WRITE, [CHECK, CHECK])
    page.evaluate(WRITE, ["def null_time", RIGHT])
    said = page.evaluate(WRITE, [CHECK, CHECK])
    assert "E00.2 solved" in said and "1 of" in said
    names = "export_progress, show_progress"
    show = f"from course_lib.progress import {names}\nshow_progress()"
    assert "\N{CHECK MARK} E00.2 (2)" in page.evaluate(WRITE, ["", show])
    table = page.get_by_role("table", name="What you have solved").last
    assert "\N{CHECK MARK} E00.2 (2)" in table.inner_text()
    table.screenshot(path=screenshots / "progress.png")
    assert_readable(table)
    first = page.get_by_role("table", name="What you have solved").first
    assert "0 of" in first.inner_text()  # the cell of the lesson, from before
    page.evaluate(WRITE, ["show_progress()", "show_progress()"])
    page.get_by_text("\N{CHECK MARK} E00.2 (2)").first.wait_for()
    page.evaluate(WRITE, ["", "export_progress('mine.csv')"])
    with (lab.folder / "mine.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["exercise", "solved", "tries"]
    assert ["E00.2", "1", "2"] in rows
