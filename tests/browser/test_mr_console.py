"""The knobs of the MR scanner: answered by a kernel, and by a page alone."""

import numpy as np
import pytest

from course_lib import mr_console, phantoms, widgets

WIDGET = ".jp-OutputArea-output:has(.widget-toggle-buttons)"
# from a key press to another picture, by the browser's own clock
PRESS = """async (element) => {
  const area = element.closest(".jp-OutputArea-output");
  const source = () => area.querySelector("img").src;
  const before = source(), start = performance.now();
  const event = { key: "ArrowRight", code: "ArrowRight", keyCode: 39, bubbles: true };
  element.dispatchEvent(new KeyboardEvent("keydown", event));
  for (let i = 0; i < 2000 && source() === before; i++)
    await new Promise((go) => { const c = new MessageChannel();
      c.port1.onmessage = go; c.port2.postMessage(0); });
  for (let i = 0; i < 300 && source() === before; i++)
    await new Promise((go) => setTimeout(go, 10));
  return source() === before ? null : performance.now() - start;
}"""


@pytest.fixture
def widget(open_lesson):
    page = open_lesson("00")
    widget = page.locator(WIDGET).first
    widget.locator("img").wait_for()
    widget.scroll_into_view_if_needed()
    return widget


def test_every_knob_of_the_mr_console_changes_the_picture(
    widget, screenshots, note_latency
):
    page, image = widget.page, widget.locator("img").first

    def changes(act):
        before = image.get_attribute("src")
        act()
        page.wait_for_function(
            "([image, before]) => image.isConnected ? image.src !== before : true",
            arg=[image.element_handle(), before],
        )
        page.wait_for_timeout(150)

    for protocol in ("T2", "PD", "FLAIR", "T1"):
        changes(widget.get_by_role("button", name=protocol, exact=True).click)
    assert "TR 500 ms" in image.get_attribute("alt")
    handles = widget.locator(".noUi-handle")
    assert handles.count() == 3
    for k in range(2):  # TR and TE; TI sleeps without an inversion pulse
        times = [handles.nth(k).evaluate(PRESS) for _ in range(12)]
        assert None not in times, "a move of the slider did not change the picture"
        note_latency(f"MR console in JupyterLab, kernel asked, slider {k + 1}", times)
    changes(widget.get_by_role("button", name="FLAIR", exact=True).click)
    assert handles.nth(2).evaluate(PRESS) is not None
    changes(widget.get_by_label("Inversion pulse first").click)
    widget.screenshot(path=screenshots / "mr_console_lab.png")


PIXELS = """(c) => [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]
  .filter((_, i) => i % 4 === 0)"""
MOVE = """async ([slider, value]) => {
  slider.value = value;
  const start = performance.now();
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return performance.now() - start;
}"""


@pytest.fixture
def alone(open_page):
    """The console in a page with the network off, and the maps behind it."""
    maps = phantoms.subject_maps(24, 48, lesion="MS-like lesions")
    page = open_page(offline=True).page
    page.set_content(widgets.MRPhysics(maps).live_html())
    console = page.frame_locator("iframe").locator(".mr")
    console.wait_for()
    return console, maps


def test_the_page_draws_what_the_kernel_draws_for_every_protocol(alone, screenshots):
    console, maps = alone
    for name, (tr, te, ti) in phantoms.PROTOCOLS.items():
        console.get_by_role("button", name=name, exact=True).click()
        found = np.array(console.locator(".mr-picture").evaluate(PIXELS))
        expected = mr_console.mr_image(maps, tr=tr, te=te, ti=ti).astype(int)
        away = np.abs(found.reshape(expected.shape) - expected)
        assert away.mean() < 1 and away.max() <= 4, name
        text = console.locator(".mr-key").inner_text()
        for tissue, signal in mr_console.tissue_signals(tr=tr, te=te, ti=ti).items():
            assert f"{mr_console.SHOWN[tissue][0]} {signal:.3f}" in text
        done = console.get_by_text("\N{BALLOT BOX WITH CHECK}").count()
        judged = mr_console.judge_tasks(mr_console.tissue_signals(tr=tr, te=te, ti=ti))
        assert done == sum(judged.values())
    console.screenshot(path=screenshots / "mr_console_page.png")


def test_every_knob_of_the_page_changes_the_picture(alone, note_latency):
    console, _ = alone
    picture, times = console.locator(".mr-picture"), []
    console.get_by_role("button", name="FLAIR", exact=True).click()
    for knob, values in {"TR": (8000, 6000), "TE": (80, 20), "TI": (900, 400)}.items():
        slider = console.get_by_role("slider", name=f"{knob},")
        for value in values * 4:
            before = picture.evaluate(PIXELS)
            handle = slider.element_handle()
            times.append(handle.evaluate(f"(s) => ({MOVE})([s, {value}])"))
            assert picture.evaluate(PIXELS) != before
    assert note_latency("MR console, page without kernel and network", times) < 10
    before = picture.evaluate(PIXELS)
    console.get_by_label("Inversion pulse first").click()
    assert picture.evaluate(PIXELS) != before
    console.get_by_label("TE, echo (ms)").evaluate(f"(s) => ({MOVE})([s, 290])")
    console.get_by_label("TR, repetition (ms)").evaluate(f"(s) => ({MOVE})([s, 150])")
    expected = mr_console.timing_problem(tr=150, te=290)
    assert console.locator("[role=alert]").inner_text() == expected
