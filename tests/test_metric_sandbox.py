"""The metric sandbox: its plain functions, real callbacks, its static twin."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import metric_sandbox, sandbox_widget, widgets
from course_lib.evaluation import jackknife_widths
from course_lib.features import course_extractor
from course_lib.metric_sandbox import PRESETS, Reading, Sandbox, Setting
from course_lib.phantoms import make_phantom


@pytest.fixture(scope="module")
def sandbox():
    """420 simulated heads in three parts of 140, with two extractors."""
    data = make_phantom("train", 32, n=420)
    images = torch.from_numpy(data.images["FLAIR"])[:, None].float() / 127.5 - 1
    labels = torch.from_numpy(data.labels)
    extractors = {
        "classifier": course_extractor("phantom", 32),
        "self-supervised": course_extractor("phantom", 32, kind="self-supervised"),
    }
    return Sandbox(images, labels, extractors)


@pytest.fixture
def shell(sandbox):
    return sandbox_widget.MetricSandbox(sandbox)


def at(preset, n=140):
    return replace(PRESETS[preset], n=n)


# --- faults


def test_blur_keeps_the_mean_and_lowers_the_contrast():
    x = 2 * torch.rand(3, 1, 16, 16) - 1
    soft = metric_sandbox.blurred(x, 1.0)
    assert soft.shape == x.shape and soft.std() < 0.7 * x.std()
    assert torch.equal(metric_sandbox.blurred(x, 0), x)
    constant = torch.full((1, 1, 8, 8), 0.4)
    assert torch.allclose(metric_sandbox.blurred(constant, 2), constant)


def test_noise_has_its_standard_deviation_and_stays_in_range():
    noisy = metric_sandbox.noisy(torch.zeros(8, 1, 32, 32), 0.1)
    assert noisy.std().item() == pytest.approx(0.1, rel=0.05)
    assert metric_sandbox.noisy(torch.ones(1, 1, 4, 4), 0.5).max() <= 1


@pytest.mark.parametrize("kind", metric_sandbox.RESIZES)
def test_each_resize_keeps_shape_range_and_constants(kind):
    x = 2 * torch.rand(2, 1, 15, 15) - 1
    found = metric_sandbox.resized(x, kind)
    assert found.shape == x.shape and found.abs().max() <= 1
    assert torch.equal(found, x) == (kind == "none")
    flat = torch.full((1, 1, 8, 8), 0.3)
    assert torch.allclose(metric_sandbox.resized(flat, kind), flat, atol=1e-6)


def test_a_window_clips_both_ends_and_stretches_the_rest():
    x = torch.tensor([-1, -0.8, -0.4, 0, 0.8]).view(1, 1, 1, 5)
    found = metric_sandbox.windowed(x, 0.1).flatten().tolist()
    assert found == pytest.approx([-1, -1, -0.5, 0, 1])


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda x: metric_sandbox.blurred(x, -1), "sigma"),
        (lambda x: metric_sandbox.noisy(x, -1), "sd"),
        (lambda x: metric_sandbox.resized(x, "lanczos"), "choose from"),
        (lambda x: metric_sandbox.windowed(x, 0.5), "cut"),
    ],
)
def test_what_makes_no_sense_is_refused(call, hint):
    with pytest.raises(ValueError, match=hint):
        call(torch.zeros(1, 1, 8, 8))


# --- the sandbox


@pytest.mark.parametrize("preset", ["real", "blur"])
def test_the_fast_interval_is_that_of_the_report(sandbox, preset):
    setting, n = at(preset), 140
    extractor = sandbox.extractors["classifier"]
    fake = extractor(sandbox.fakes(setting)).double()
    real = extractor(sandbox.reference[:n]).double()
    widths, _ = jackknife_widths(real, fake, True, metric_sandbox.GROUPS, 0, 0)
    for key, reading in sandbox.readings(setting).items():
        if key in widths and reading.low > 0:
            half = reading.value - reading.low
            assert half == pytest.approx(widths[key], rel=1e-4), key
    assert sandbox.readings(at("blur"))["frechet"].low > 0


def test_by_default_the_fakes_are_the_fresh_images(sandbox):
    fakes = sandbox.fakes(Setting(n=50))
    assert torch.equal(fakes, sandbox.fresh[:50])


def test_all_copies_are_training_images_and_a_share_is_a_share(sandbox):
    copies = sandbox.fakes(Setting(n=100, copies=1.0))
    assert torch.equal(copies, sandbox.train[:100])
    changed = (sandbox.fakes(Setting(n=100, copies=0.3)) != sandbox.fresh[:100]).any(
        dim=(1, 2, 3)
    )
    assert changed.sum() == 30


def test_a_lost_class_is_replaced_by_images_of_other_classes(sandbox):
    n = 140
    was_rare = sandbox.labels[:n] == sandbox.rare
    fakes = sandbox.fakes(Setting(n=n, dropped=1.0))
    changed = (fakes != sandbox.fresh[:n]).any(dim=(1, 2, 3))
    assert was_rare.any() and torch.equal(changed, was_rare)
    rare = sandbox.fresh[sandbox.labels == sandbox.rare]
    assert not any((fake == rare).all(dim=(1, 2, 3)).any() for fake in fakes)


def test_real_against_real_is_noticed_by_no_metric(sandbox):
    readings = sandbox.readings(at("real"))
    assert set(readings) == set(metric_sandbox.SHOWN)
    assert not any(reading.notices for reading in readings.values())
    for reading in readings.values():
        assert reading.low <= reading.value <= reading.high


@pytest.mark.parametrize("preset", ["blur", "noise", "range"])
def test_blur_noise_and_range_are_noticed_by_all_but_the_search_for_copies(
    sandbox, preset
):
    readings = sandbox.readings(at(preset))
    assert not readings.pop("copies").notices
    assert all(reading.notices for reading in readings.values())


def test_copies_are_noticed_by_the_search_for_copies_alone(sandbox):
    readings = sandbox.readings(at("copies"))
    assert readings.pop("copies").notices
    assert not any(reading.notices for reading in readings.values())


def test_a_lost_class_costs_recall_and_not_precision(sandbox):
    real, lost = (sandbox.readings(at(name)) for name in ("real", "lost class"))
    assert not lost["precision"].notices
    assert lost["recall"].value < real["recall"].value
    assert lost["frechet"].value > 1.5 * real["frechet"].value


def test_without_enough_images_the_frechet_distance_is_left_out(sandbox):
    assert "frechet" not in sandbox.readings(Setting(n=60))


def test_another_extractor_gives_other_numbers(sandbox):
    one, two = (
        sandbox.readings(replace(at("blur"), extractor=name))["frechet"].value
        for name in sandbox.extractors
    )
    assert one != pytest.approx(two, rel=0.1)


def test_the_place_of_a_value_is_worse_to_the_right_and_has_an_end():
    falls = Reading(0.5, 0.4, 0.6, 0.9, 0.1, worse_is_more=False)
    rises = Reading(9.0, 8.0, 1e9, 1.0, 1.0, worse_is_more=True)
    assert falls.place(0.5) > falls.place(0.9) == 0 > falls.place(1.0)
    assert rises.place(9.0) > 0 and rises.place(1e9) < 7
    assert falls.notices and rises.notices
    assert not replace(falls, high=0.95).notices


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        (Setting(n=10_000), "n must be"),
        (Setting(n=100, extractor="inception"), "choose from"),
    ],
)
def test_a_setting_that_cannot_be_says_what_can(sandbox, setting, hint):
    with pytest.raises(ValueError, match=hint):
        sandbox.readings(setting)


def test_few_images_are_refused():
    with pytest.raises(ValueError, match="300"):
        Sandbox(torch.zeros(40, 1, 8, 8), torch.zeros(40).long(), {})


def test_the_words_say_what_was_done_and_who_noticed(sandbox):
    text = metric_sandbox.describe(sandbox, at("copies"))
    assert "100% copied from the training set" in text
    assert "Noticed by copies found; not noticed by Fréchet distance" in text
    assert metric_sandbox.said(Setting()) == "Real images, untouched"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_known_again_whatever_n_and_extractor(name):
    setting = replace(PRESETS[name], n=300, extractor="self-supervised")
    assert metric_sandbox.preset_of(setting) == name
    assert metric_sandbox.preset_of(replace(setting, blur=1.7, noise=0.5)) is None


# --- real callbacks


def test_between_the_images_the_page_shines_through_and_the_still_picture_is_white(
    sandbox,
):
    page = metric_sandbox.to_html(sandbox, Setting(n=100))
    pixels = base64.b64decode(page.split("base64,")[1].split('"')[0])
    alpha = np.array(Image.open(io.BytesIO(pixels)).getchannel("A"))
    side = sandbox.fresh.shape[-1]
    assert (alpha[:side, :side] == 255).all()
    assert (alpha[side : side + 2] == 0).all()
    assert (alpha[:, side : side + 2] == 0).all()
    still = Image.open(io.BytesIO(metric_sandbox.to_figure(sandbox, Setting(n=100))))
    still = np.array(still.convert("RGB"))
    assert (still[:, :6] == 255).all()  # no label touches the edge
    assert (still[:, -6:] == 255).all()


def test_moving_a_knob_changes_picture_and_numbers_and_leaves_the_preset(shell):
    before = shell.view.value
    shell.blur.value = 1.2
    assert shell.view.value != before and "blurred by 1.2 px" in shell.view.value
    assert shell.preset.value is None and "notices" in shell.view.value
    shell.blur.value = 0.0
    assert shell.view.value == before and shell.preset.value == "real"


@pytest.mark.parametrize("name", Setting.__annotations__)
def test_every_knob_changes_what_is_measured(shell, name):
    before, knob = shell.view.value, shell.knobs[name]
    if hasattr(knob, "options"):
        knob.value = knob.options[1]
    elif isinstance(knob.value, bool):
        knob.value = True
    else:
        knob.value = knob.min if knob.value > knob.min else knob.max
    if name != "n" or knob.max > knob.min:
        assert shell.view.value != before
    assert shell.message.value == ""


def test_a_preset_sets_all_knobs_and_draws_once(shell, monkeypatch):
    drawn, draw = [], shell.draw
    monkeypatch.setattr(shell, "draw", lambda: drawn.append(1) or draw())
    shell.noise.value, shell.resize.value = 0.2, "bicubic"
    drawn.clear()
    shell.preset.value = "copies"
    assert len(drawn) == 1 and shell.preset.value == "copies"
    assert shell.setting == replace(
        PRESETS["copies"], n=shell.n.value, extractor="classifier"
    )


def test_every_preset_lies_on_the_steps_of_the_knobs(shell):
    for name, preset in PRESETS.items():
        shell.preset.value = name
        assert metric_sandbox.preset_of(shell.setting) == name
        for key in ("blur", "noise", "dropped", "copies", "window"):
            knob = shell.knobs[key]
            steps = (getattr(preset, key) - knob.min) / knob.step
            assert steps == pytest.approx(round(steps)) and knob.max >= knob.value


def test_it_starts_from_the_preset_that_was_asked_for(sandbox):
    shell = sandbox_widget.MetricSandbox(sandbox, start="lost class")
    assert shell.dropped.value == 1.0 and "rarest class missing" in shell.view.value


def test_an_error_in_a_callback_is_shown_to_the_person_and_raised(shell, monkeypatch):
    def broken(*args, **settings):
        raise RuntimeError("no <features>")

    monkeypatch.setattr(metric_sandbox, "to_html", broken)
    with pytest.raises(RuntimeError):
        shell.blur.value = 0.5
    assert "RuntimeError: no &lt;features&gt;" in shell.message.value
    monkeypatch.undo()
    shell.blur.value = 0.6
    assert shell.message.value == ""


def test_every_control_has_a_label_and_the_keyboard_reaches_it(shell):
    controls = [shell.preset, *shell.knobs.values()]
    assert len(controls) == 10
    assert all(control.description for control in controls)
    assert all(control.tabbable is not False for control in controls)


def test_the_live_view_is_one_image_with_alt_text_and_named_plots(shell):
    page = shell.view.value
    (image,) = re.findall(r"<img [^>]*>", page)
    assert f'alt="{shell.alt()}"' in image
    assert page.count('role="img" aria-label="') == 6
    assert page.count('scope="row"') == 6 and page.count('scope="col"') == 6
    assert "<script" not in page and "http" not in page


# --- the static twin


def test_without_a_front_end_only_the_picture_is_shown(shell):
    data, metadata = shell._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == shell.alt()
    assert Image.open(io.BytesIO(data["image/png"])).width > 400


def test_with_a_front_end_the_controls_come_with_the_picture(shell, monkeypatch):
    monkeypatch.setattr(widgets, "has_front_end", lambda: True)
    data, _ = shell._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == shell.box.model_id


def test_the_twin_follows_the_settings_and_is_small(shell):
    first = shell.static_png()
    shell.preset.value = "blur"
    assert shell.static_png() != first
    assert len(first) < 40_000
