"""The metric sandbox of lesson 06, whose every move is measured by the kernel."""

import pytest
from driving import assert_usable, changes, press

IMAGE = 'img[alt*="N ="]'


@pytest.fixture(scope="module")
def sandbox(open_lesson):
    page = open_lesson("06")
    output = page.locator(f".jp-OutputArea-output:has({IMAGE})").last
    output.locator("table").wait_for()
    output.scroll_into_view_if_needed()
    return output


def row(sandbox, metric):
    return sandbox.locator("tr", has_text=metric).inner_text()


def knob(sandbox, name):
    return sandbox.locator(".widget-hslider", has_text=name).locator(".noUi-handle")


def test_every_preset_shows_its_fault(sandbox, screenshots):
    picture = sandbox.locator(IMAGE)
    assert "blurred by 0.8 px" in picture.get_attribute("alt")  # where it starts
    assert "notices" in row(sandbox, "Fréchet distance").split("\t")
    sandbox.screenshot(path=screenshots / "metric_sandbox_06.png")
    told = {
        "noise": "noise of 0.16",
        "lost class": "100% of the rarest class missing",
        "copies": "100% copied",
        "resize": "halved and enlarged (nearest)",
        "window": "20% cut off",
        "range": "range [0, 1]",
        "real": "untouched",
    }
    for preset, text in told.items():
        button = sandbox.get_by_role("button", name=preset, exact=True)
        changes(picture, button.click)
        assert text in picture.get_attribute("alt"), preset
        noticed = "notices" in row(sandbox, "copies found").split("\t")
        assert noticed == (preset == "copies")
    assert "not notice" in row(sandbox, "Fréchet distance")


def test_every_knob_is_answered_by_the_kernel(sandbox, note_latency):
    picture = sandbox.locator(IMAGE)
    names = ("blur", "noise", "rarest class", "copies", "window")
    for name in names:
        times = press(knob(sandbox, name), IMAGE)
        note_latency(f"metric sandbox, lesson 06 in JupyterLab, {name}, kernel", times)
        changes(picture, lambda name=name: knob(sandbox, name).press("ArrowRight"))
    alt = picture.get_attribute("alt")
    assert "blurred by 0.1 px, noise of 0.02" in alt and "5% cut off" in alt
    for name in ("resize filter", "extractor"):
        menu = sandbox.get_by_label(name, exact=True)
        last = menu.locator("option").last.get_attribute("value")
        changes(picture, lambda menu=menu, last=last: menu.select_option(last))
    changes(picture, sandbox.get_by_label("fakes left in the range").click)
    changes(picture, lambda: knob(sandbox, "N, images").press("ArrowLeft"))
    assert "N = 100" in picture.get_attribute("alt")


def test_everybody_can_use_the_sandbox(sandbox):
    assert_usable(sandbox, pictures=7)
