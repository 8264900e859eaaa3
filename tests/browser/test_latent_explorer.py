"""The latent explorer of lessons 01 to 03: in JupyterLab, and in pages of `run`."""

import base64

import numpy as np
import pytest
import torch
from driving import ACTIVE, assert_usable, changes, slide

from course_lib import (
    autoencoders,
    browser_model,
    browser_widget,
    gans,
    latent_explorer,
    variational,
)

WIDGET = ".lx"
DECODE = """async ([module, description, weights, codes]) => {
  const address = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
  const explorer = await import(address);
  const bytes = Uint8Array.from(atob(weights), (c) => c.charCodeAt(0));
  // a view that starts at an odd place, as a DataView of Jupyter may
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  const view = new DataView(shifted.buffer, 3);
  const decode = explorer.makeDecoder(description, view);
  const again = explorer.makeDecoder(description, bytes);
  const images = codes.map((code) => [...decode(code)]);
  const same = codes.every((code, i) =>
    again(code).every((v, k) => v === images[i][k]));
  const arc = explorer.slerp(codes[0], codes[1], 0.3);
  return { images, same, arc };
}"""


@pytest.mark.parametrize(
    ("decoder", "latent_dim"),
    [
        (autoencoders.Decoder(6, 8, 28), 6),
        (autoencoders.Decoder(6, 8, 16, channels=3), 6),
        (gans.Generator(8, 8, 32), 8),
        (variational.mlp_vae(4, 32, 16).decoder, 4),
    ],
)
def test_the_browser_draws_what_the_reference_draws(open_page, decoder, latent_dim):
    torch.manual_seed(0)
    model = browser_model.export(decoder, latent_dim)
    codes = 2 * torch.randn(3, latent_dim).numpy()
    page = open_page().page
    page.goto("about:blank")
    weights = base64.b64encode(model.data).decode()
    module = browser_widget.source(latent_explorer.LatentExplorer.module)
    found = page.evaluate(
        DECODE, [module, model.description(), weights, codes.tolist()]
    )
    expected = np.moveaxis(browser_model.run(model, codes), 1, -1)  # rows, columns, C
    images = np.array(found["images"]).reshape(expected.shape)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    assert found["same"]
    arc = latent_explorer.slerp(codes[0], codes[1], 0.3)
    np.testing.assert_allclose(found["arc"], arc, rtol=1e-4)


def use(widget, note_latency, where):
    """Move every control of an explorer; each must change the picture."""
    widget.scroll_into_view_if_needed()
    page, picture = widget.page, widget.locator(".lx-picture")
    times = []
    for slider in widget.locator("input[type=range]").all():
        times += slide(slider, picture)
    note_latency(f"latent explorer, {where}, browser", times)

    for name in ("To the middle", "Next image"):
        changes(picture, widget.get_by_role("button", name=name).click)
    area = widget.locator(".lx-map")
    changes(picture, lambda: area.click(position={"x": 80, "y": 250}))
    box = area.bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 250)
    page.mouse.down()
    changes(picture, lambda: page.mouse.move(box["x"] + 240, box["y"] + 90, steps=6))
    page.mouse.up()
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowDown"):
        changes(picture, lambda key=key: area.press(key))
    widget.get_by_role("button", name="Set B here").click()
    place = widget.locator(".lx-place")
    assert place.evaluate("(s) => Number(s.value)") == 1  # the point is B itself
    changes(picture, lambda: place.press("Home"))
    changes(picture, lambda: [place.press("PageUp") for _ in range(4)])
    for _ in range(2):  # line and arc, whichever is not chosen
        changes(picture, widget.locator("input[type=radio]:not(:checked)").click)
    draw = widget.get_by_role("button", name="Draw from N(0, I)")
    if draw.count():
        changes(picture, draw.click)
    assert widget.locator("[role=alert]").is_hidden()
    assert_usable(widget, pictures=3)


def test_the_explorer_of_lesson_01_in_jupyterlab(
    open_lesson, screenshots, note_latency
):
    page = open_lesson("01")
    widget = page.locator(WIDGET)
    widget.locator(".lx-map").click()
    before = page.evaluate(ACTIVE)
    use(widget, note_latency, "lesson 01 in JupyterLab")
    assert page.evaluate(ACTIVE) == before  # arrow keys are the map's, not Jupyter's
    widget.screenshot(path=screenshots / "latent_explorer_01_lab.png")


@pytest.mark.parametrize(("number", "count"), [("02", 2), ("03", 1)])
def test_the_explorers_of_other_lessons_in_jupyterlab(
    open_lesson, screenshots, note_latency, number, count
):
    page = open_lesson(number)
    assert page.locator(WIDGET).count() == count
    for k, widget in enumerate(page.locator(WIDGET).all(), 1):
        use(widget, note_latency, f"lesson {number} in JupyterLab, {k}")
        widget.screenshot(path=screenshots / f"latent_explorer_{number}_{k}_lab.png")


@pytest.mark.parametrize(("number", "count"), [("01", 1), ("02", 2), ("03", 1)])
def test_the_explorers_in_a_page_without_kernel_or_network(
    open_exported, screenshots, note_latency, number, count
):
    page = open_exported(number, color_scheme="dark")
    frames = page.locator('iframe[title="Latent explorer"]')
    assert frames.count() == count
    for k, frame in enumerate(frames.all(), 1):
        widget = frame.content_frame.locator(WIDGET)
        use(widget, note_latency, f"page {number}, {k}")
        height = widget.bounding_box()["height"]
        assert frame.bounding_box()["height"] >= height  # nothing is cut off
        frame.screenshot(path=screenshots / f"latent_explorer_{number}_{k}_page.png")


def test_an_error_in_the_browser_is_shown_to_the_person(open_page):
    torch.manual_seed(0)
    explorer = latent_explorer.LatentExplorer(
        autoencoders.Decoder(3, 4, 16), torch.randn(9, 3)
    )
    watched = open_page()
    watched.page.set_content(explorer.live_html())
    frame = watched.page.frame_locator("iframe")
    frame.locator(WIDGET).wait_for()
    frame.locator(".lx-picture").evaluate(
        "(c) => { CanvasRenderingContext2D.prototype.putImageData = () => {"
        " throw new Error('no canvas'); }; }"
    )
    slider = frame.locator(".lx-direction").first
    slider.evaluate("(s) => { s.value = 1; s.dispatchEvent(new Event('input')); }")
    assert frame.locator("[role=alert]").inner_text() == "Error: no canvas"
    assert any("no canvas" in text for text in watched.complaints)
    watched.complaints.clear()  # it was wanted
