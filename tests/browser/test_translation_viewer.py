"""The translation viewer of lesson 05: in JupyterLab, and in a page alone."""

import pytest

WIDGET = ".tv"
MOVE = """async (slider) => {
  const canvas = slider.closest(".tv").querySelector(".tv-main");
  const pixels = () => canvas.getContext("2d").getImageData(0, 0, canvas.width,
    canvas.height).data.join();
  const low = Number(slider.min), high = Number(slider.max), times = [];
  const many = Math.min(24, high - low + 1);
  let same = 0, before = pixels();
  for (let i = 0; i < many; i++) {
    slider.value = high - ((high - low) * i) / (many - 1);
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    times.push(performance.now() - start);
    const after = pixels();
    same += after === before;
    before = after;
    await new Promise((go) => setTimeout(go, 20));
  }
  return { times, same };
}"""


def pixels(widget, name=".tv-main"):
    return widget.locator(name).evaluate(
        "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join()"
    )


def to_the_middle(widget):
    widget.locator(".tv-swipe").evaluate(
        "(s) => { s.value = 50; s.dispatchEvent(new Event('input')); }"
    )


def use(widget, note_latency, where):
    """Move every control of a viewer; each must change the picture."""
    widget.scroll_into_view_if_needed()
    main, times = widget.locator(".tv-main"), []
    for slider in widget.locator("input[type=range]").all():
        assert slider.evaluate("(s) => s.labels.length") == 1
        moved = slider.evaluate(MOVE)
        assert moved["same"] <= 1, "a slider moved and the picture stayed"
        times += moved["times"]
    assert note_latency(f"translation viewer, {where}", times) < 10

    def changes(act, name=".tv-main"):
        before = pixels(widget, name)
        act()
        assert pixels(widget, name) != before

    to_the_middle(widget)
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "l", "1", "2", " ", " ", "l"):
        changes(lambda key=key: main.press(key))
    to_the_middle(widget)
    for name in ("Left", "Right"):
        choice = widget.get_by_label(f"{name} of the divider", exact=True)
        other = "0" if choice.input_value() != "0" else "2"
        changes(lambda choice=choice, other=other: choice.select_option(other))
    changes(widget.locator(".tv-layers button").last.click)
    changes(widget.get_by_label("lesion outline", exact=True).click)
    changes(widget.get_by_label("lesion outline", exact=True).click, ".tv-difference")
    changes(lambda: main.click(position={"x": 60, "y": 60}))
    assert widget.locator("[role=alert]").is_hidden()
    assert widget.locator("td").first.inner_text().replace(".", "").isdigit()
    to_the_middle(widget)
    main.focus()


def test_the_viewer_of_lesson_05_in_jupyterlab(open_lesson, screenshots, note_latency):
    page = open_lesson("05")
    widget = page.locator(WIDGET).first
    cell = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    widget.locator(".tv-main").click()
    before = page.evaluate(cell)
    use(widget, note_latency, "lesson 05 in JupyterLab")
    assert page.evaluate(cell) == before  # its keys are not Jupyter's
    widget.screenshot(path=screenshots / "translation_viewer_05_lab.png")


@pytest.fixture
def alone(open_page):
    """The viewer's live form, of made-up slices, in a page with the network off."""
    import torch

    from course_lib.translation_viewer import TranslationViewer

    torch.manual_seed(0)
    truth = torch.rand(4, 1, 16, 16) * 2 - 1
    lesions = torch.zeros(4, 16, 16, dtype=torch.bool)
    lesions[:, 3:7, 3:9] = True
    layers = {"source": -truth, "made": truth * 0.5, "other": truth**3, "truth": truth}
    page = open_page(offline=True, color_scheme="dark").page
    page.set_content(TranslationViewer(layers, lesions=lesions).live_html())
    widget = page.frame_locator("iframe").locator(WIDGET)
    widget.wait_for()
    return widget


def test_the_viewer_in_a_page_without_kernel_or_network(
    alone, screenshots, note_latency
):
    use(alone, note_latency, "page without kernel and network")
    alone.screenshot(path=screenshots / "translation_viewer_page.png")
