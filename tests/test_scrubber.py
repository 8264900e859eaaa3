"""The training scrubber: what it keeps, its page without a kernel, its static twin."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from course_lib import scrubber as module
from course_lib.pages import needs_network
from course_lib.scrubber import Scrubber, gradient_norm, panels, strip_png


@pytest.fixture
def recorded():
    """Five frames of four images that get brighter, and numbers that fall."""
    run = Scrubber("A run")
    for k in range(5):
        images = torch.full((4, 1, 8, 8), k / 2 - 1)
        run.record(10 * k, images, loss_d=5 - k, loss_g=k + 1, coverage=k / 5)
    return run


def opened(frame):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(frame))).convert("L"))


# --- frames


def test_a_frame_is_the_images_side_by_side_within_half_a_grey_step():
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 5), dtype=np.uint8)
    strip = np.asarray(Image.open(io.BytesIO(strip_png(images))).convert("L"))
    assert strip.shape == (6, 40)
    assert np.abs(strip.astype(int) - np.concatenate(images, axis=1)).max() <= 9


def test_rows_are_filled_up_with_black():
    strip = Image.open(io.BytesIO(strip_png(torch.ones(5, 1, 4, 4), columns=3)))
    pixels = np.asarray(strip.convert("L"))
    assert pixels.shape == (8, 12)
    assert pixels[4:, 8:].max() == 0 and pixels[:, :8].min() == 255


def test_colours_stay_colours():
    red = torch.full((2, 3, 4, 4), -1.0)
    red[:, 0] = 1.0
    strip = Image.open(io.BytesIO(strip_png(red))).convert("RGB")
    assert strip.getpixel((0, 0)) == (255, 0, 0)


def test_no_images_make_no_frame():
    with pytest.raises(ValueError, match="no images"):
        strip_png(torch.zeros(0, 1, 8, 8))


def test_thirty_frames_of_noise_stay_below_the_budget():
    rng = np.random.default_rng(0)
    run = Scrubber("noise, which no PNG can make small")
    for k in range(30):
        images = rng.integers(0, 256, (8, 28, 28), dtype=np.uint8)
        run.record(k, images, loss_d=k, loss_g=k, D_on_real=k, coverage=k)
    assert len(run.steps) == 30
    assert len(run.live_html()) < 150_000


# --- numbers


def test_state_holds_each_frame_and_each_number_in_order(recorded):
    state = recorded.view.state
    assert state["steps"] == [0, 10, 20, 30, 40]
    assert state["curves"]["loss_d"] == [5, 4, 3, 2, 1]
    assert [opened(frame)[0, 0] for frame in state["frames"]] == [0, 68, 136, 187, 255]
    assert json.loads(json.dumps(state)) == state


def test_numbers_of_one_first_word_share_a_plot(recorded):
    assert panels(["loss_d", "loss_g", "coverage", "slope_of_D"]) == {
        "loss": ["loss_d", "loss_g"],
        "coverage": ["coverage"],
        "slope_of_D": ["slope_of_D"],
    }
    assert recorded.view.state["panels"]["loss"] == ["loss_d", "loss_g"]


def test_a_number_that_is_missing_or_not_finite_leaves_a_gap(recorded):
    recorded.record(50, torch.zeros(4, 1, 8, 8), loss_d=float("nan"), late=1.0)
    curves = recorded.view.state["curves"]
    assert curves["loss_d"][-1] is None and curves["coverage"][-1] is None
    assert curves["late"] == [None] * 5 + [1.0]
    assert "NaN" not in json.dumps(recorded.view.state)


def test_too_many_frames_are_thinned_and_the_ends_stay():
    run = Scrubber(most=4)
    for k in range(12):
        run.record(k, torch.zeros(2, 1, 4, 4), loss=k)
        assert run.steps[0] == 0 and run.steps[-1] == k and len(run.steps) <= 4
    assert len(run.frames) == len(run.numbers) == len(run.steps)
    assert [row["loss"] for row in run.numbers] == run.steps


def test_steps_must_grow_and_a_few_frames_must_fit(recorded):
    with pytest.raises(ValueError, match="after step 40"):
        recorded.record(40, torch.zeros(4, 1, 8, 8))
    with pytest.raises(ValueError, match="at least 3"):
        Scrubber(most=2)


def test_gradient_norm_is_that_of_the_last_backward_pass():
    net = nn.Linear(2, 1)
    assert gradient_norm(net) == 0
    net(torch.tensor([[3.0, 4.0]])).sum().backward()
    assert gradient_norm(net) == pytest.approx(26**0.5)


# --- the forms


def state_in(page):
    values = re.search(r'id="values">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(values)["plain"]["state"]


def test_the_page_is_one_frame_with_the_module_and_the_state_inside(recorded):
    page = recorded.live_html()
    (inner,) = re.findall(r'srcdoc="([^"]*)"', page)
    inner = html.unescape(inner)
    assert state_in(inner) == recorded.state()
    assert Scrubber.module.read_text("utf-8") in inner
    assert not needs_network(page) and not needs_network(inner)


def test_a_title_cannot_end_the_page_early():
    run = Scrubber('</script><img src="x"> & more')
    run.record(0, torch.zeros(2, 1, 4, 4), loss=1.0)
    inner = html.unescape(re.search(r'srcdoc="([^"]*)"', run.live_html())[1])
    assert inner.count("</script>") == 2
    assert state_in(inner)["title"] == run.title


def test_without_a_front_end_only_the_twin_is_shown(recorded):
    data, metadata = recorded._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == recorded.alt()
    assert Image.open(io.BytesIO(data["image/png"])).width > 400
    assert len(data["image/png"]) < 30_000


def test_where_somebody_looks_slider_and_exported_page_come_with_it(
    recorded, monkeypatch
):
    monkeypatch.setattr(module, "has_front_end", lambda: True)
    monkeypatch.setattr("course_lib.widgets.has_front_end", lambda: True)
    data, _ = recorded._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == recorded.box.model_id
    assert data["text/html"] == recorded.live_html()
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    assert "text/html" not in recorded._repr_mimebundle_()[0]


def test_alt_text_tells_the_steps_and_where_the_numbers_went(recorded):
    text = recorded.alt()
    assert "4 images at steps 0, 20, 40" in text and "loss d from 5 to 1" in text
    assert Scrubber("Empty").alt() == "Empty: nothing recorded yet."


def test_nothing_recorded_has_a_twin_too():
    data, _ = Scrubber("Empty")._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")


def test_it_appears_before_training_only_where_somebody_looks(recorded, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    recorded.show_live()
    assert shown == []
    monkeypatch.setattr(module, "has_front_end", lambda: True)
    recorded.show_live()
    assert shown == [recorded.box]
