"""Lesson 00 in JupyterLab: the knobs of the MR scanner, which a kernel answers."""

import pytest

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
    assert "TR 500 ms" in image.get_attribute("alt") or "TR" in image.get_attribute(
        "alt"
    )
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
