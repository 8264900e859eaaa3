"""The translation viewer of lesson 05: in JupyterLab, and in the page of `run`."""

from driving import ACTIVE, assert_usable, changes, slide

WIDGET = ".tv"


def to_the_middle(widget):
    widget.locator(".tv-swipe").evaluate(
        "(s) => { s.value = 50; s.dispatchEvent(new Event('input')); }"
    )


def use(widget, note_latency, where):
    """Move every control of a viewer; each must change the picture."""
    widget.scroll_into_view_if_needed()
    main, times = widget.locator(".tv-main"), []
    for slider in widget.locator("input[type=range]").all():
        times += slide(slider, main)
    note_latency(f"translation viewer, {where}, browser", times)

    to_the_middle(widget)
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "l", "1", "2", " ", " ", "l"):
        changes(main, lambda key=key: main.press(key))
    to_the_middle(widget)
    for name in ("Left", "Right"):
        choice = widget.get_by_label(f"{name} of the divider", exact=True)
        other = "0" if choice.input_value() != "0" else "2"
        changes(main, lambda choice=choice, other=other: choice.select_option(other))
    changes(main, widget.locator(".tv-layers button").last.click)
    outline = widget.get_by_label("lesion outline", exact=True)
    changes(main, outline.click)
    changes(widget.locator(".tv-difference"), outline.click)
    changes(main, lambda: main.click(position={"x": 60, "y": 60}))
    assert widget.locator("[role=alert]").is_hidden()
    assert widget.locator("td").first.inner_text().replace(".", "").isdigit()
    to_the_middle(widget)
    assert_usable(widget, pictures=2)
    main.focus()


def test_the_viewer_of_lesson_05_in_jupyterlab(open_lesson, screenshots, note_latency):
    page = open_lesson("05")
    widget = page.locator(WIDGET)
    widget.locator(".tv-main").click()
    before = page.evaluate(ACTIVE)
    use(widget, note_latency, "lesson 05 in JupyterLab")
    assert page.evaluate(ACTIVE) == before  # its keys are not Jupyter's
    widget.screenshot(path=screenshots / "translation_viewer_05_lab.png")


def test_the_viewer_in_a_page_without_kernel_or_network(
    open_exported, screenshots, note_latency
):
    page = open_exported("05", color_scheme="dark")
    widget = page.frame_locator('iframe[title="Translation viewer"]').locator(WIDGET)
    use(widget, note_latency, "page")
    widget.screenshot(path=screenshots / "translation_viewer_05_page.png")
