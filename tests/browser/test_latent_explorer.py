"""The latent explorer where a person meets it: in JupyterLab, and in a page alone."""

import base64
import json

import numpy as np
import pytest
import torch

from course_lib import autoencoders, browser_model, gans, latent_explorer, variational

WIDGET = ".lx"
# every move of a slider: milliseconds until the canvas holds another picture
MOVE = """async (slider) => {
  const root = slider.closest(".lx"), canvas = root.querySelector(".lx-picture");
  const pixels = () => canvas.getContext("2d").getImageData(0, 0, canvas.width,
    canvas.height).data.join();
  const low = Number(slider.min), high = Number(slider.max), times = [];
  let same = 0;
  for (let i = 0; i < 30; i++) {
    const before = pixels();
    slider.value = low + ((high - low) * (i + 0.5)) / 30;
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    times.push(performance.now() - start);
    same += pixels() === before;
    await new Promise((go) => setTimeout(go, 20));
  }
  return { times, same };
}"""
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
    module = latent_explorer.LatentExplorer.module.read_text("utf-8")
    found = page.evaluate(
        DECODE, [module, model.description(), weights, codes.tolist()]
    )
    expected = np.moveaxis(browser_model.run(model, codes), 1, -1)  # rows, columns, C
    images = np.array(found["images"]).reshape(expected.shape)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    assert found["same"]
    arc = latent_explorer.slerp(codes[0], codes[1], 0.3)
    np.testing.assert_allclose(found["arc"], arc, rtol=1e-4)


def pixels(widget):
    return widget.locator(".lx-picture").evaluate(
        "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join()"
    )


def use(widget, note_latency, where):
    """Move every control of an explorer; each must change the picture."""
    widget.scroll_into_view_if_needed()
    page = widget.page
    canvas = widget.locator(".lx-picture")
    assert canvas.get_attribute("aria-label") or canvas.evaluate("(c) => c.ariaLabel")
    times = []
    for slider in widget.locator("input[type=range]").all():
        assert slider.evaluate("(s) => s.labels.length") == 1
        moved = slider.evaluate(MOVE)
        assert moved["same"] <= 1, "a slider moved and the picture stayed"
        times += moved["times"]
    assert note_latency(f"latent explorer, {where}", times) < 10

    def changes(act):
        before = pixels(widget)
        act()
        page.wait_for_timeout(60)
        assert pixels(widget) != before

    for name in ("To the middle", "Next image"):
        changes(widget.get_by_role("button", name=name).click)
    area = widget.locator(".lx-map")
    changes(lambda: area.click(position={"x": 80, "y": 250}))
    box = area.bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 250)
    page.mouse.down()
    changes(lambda: page.mouse.move(box["x"] + 240, box["y"] + 90, steps=6))
    page.mouse.up()
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowDown"):
        changes(lambda key=key: area.press(key))
    widget.get_by_role("button", name="Set B here").click()
    place = widget.locator(".lx-place")
    assert place.evaluate("(s) => Number(s.value)") == 1  # the point is B itself
    changes(lambda: place.press("Home"))
    changes(lambda: [place.press("PageUp") for _ in range(4)])
    for _ in range(2):  # line and arc, whichever is not chosen
        changes(widget.locator("input[type=radio]:not(:checked)").click)
    assert widget.locator("[role=alert]").is_hidden()
    page.wait_for_timeout(1500)  # the pictures under the map


def test_the_explorer_of_lesson_01_in_jupyterlab(
    open_lesson, screenshots, note_latency
):
    page = open_lesson("01")
    widget = page.locator(WIDGET).first
    widget.locator(".lx-map").click()
    cell = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    before = page.evaluate(cell)
    use(widget, note_latency, "lesson 01 in JupyterLab")
    assert page.evaluate(cell) == before  # arrow keys are the map's, not Jupyter's
    widget.screenshot(path=screenshots / "latent_explorer_01_lab.png")


def test_the_explorers_of_lesson_02_in_jupyterlab(
    open_lesson, screenshots, note_latency
):
    page = open_lesson("02")
    assert page.locator(WIDGET).count() == 2
    for k, widget in enumerate(page.locator(WIDGET).all()):
        use(widget, note_latency, f"lesson 02 in JupyterLab, {k + 1}")
        widget.get_by_role("button", name="Draw from N(0, I)").click()
        page.wait_for_timeout(1000)
        widget.screenshot(path=screenshots / f"latent_explorer_02_{k + 1}_lab.png")


def test_the_explorer_in_a_page_without_kernel_or_network(
    site, open_page, screenshots, note_latency
):
    watched = open_page(offline=True, color_scheme="dark")
    page = watched.page
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site("01").as_uri())
    frame = page.frame_locator('iframe[title="Latent explorer"]')
    widget = frame.locator(WIDGET)
    widget.wait_for()
    use(widget, note_latency, "page without kernel and network")
    inside = page.locator('iframe[title="Latent explorer"]').bounding_box()
    assert inside["height"] >= widget.bounding_box()["height"]  # nothing is cut off
    fetched = [url for url in asked if not url.startswith(("data:", "about:", "blob:"))]
    assert fetched == [site("01").as_uri()], json.dumps(fetched)
    page.locator('iframe[title="Latent explorer"]').screenshot(
        path=screenshots / "latent_explorer_01_page.png"
    )


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
