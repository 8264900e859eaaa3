"""Widgets without a front end: their plain functions, real callbacks, static twins."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from course_lib import mr_console, pages, phantoms, widgets
from course_lib.runtime import LIVE_MIME

T1 = dict(zip(("tr", "te", "ti"), phantoms.PROTOCOLS["T1"], strict=True))
FLAIR = dict(zip(("tr", "te", "ti"), phantoms.PROTOCOLS["FLAIR"], strict=True))


@pytest.fixture
def maps():
    """A made-up slice, 16 x 16: CSF, grey, white matter and lesion in quarters."""
    maps = np.zeros((len(phantoms.TISSUES), 16, 16), dtype=np.float32)
    quarters = ("csf", "grey matter", "white matter", "MS lesion")
    for index, name in enumerate(quarters):
        top, left = 8 * (index // 2), 8 * (index % 2)
        maps[phantoms.TISSUES.index(name), top : top + 8, left : left + 8] = 1
    return maps


@pytest.fixture
def console(maps):
    return widgets.MRPhysics(maps)


# --- plain functions


def test_the_console_uses_the_equation_that_makes_the_data():
    csf = phantoms.TISSUE_PROPERTIES["csf"]
    expected = csf.pd * (1 - np.exp(-500 / csf.t1)) * np.exp(-12 / csf.t2)
    signals = mr_console.tissue_signals(tr=500, te=12)
    assert signals["csf"] == pytest.approx(expected)
    assert set(mr_console.SHOWN) <= set(phantoms.TISSUES)


def test_each_curve_passes_through_the_chosen_point():
    for times in (T1, FLAIR):
        signals = mr_console.tissue_signals(**times)
        for axis, (values, curves) in mr_console.signal_curves(**times).items():
            for name, curve in curves.items():
                here = np.interp(times[axis.lower()], values, curve)
                assert here == pytest.approx(signals[name], abs=0.01)


def test_an_inversion_pulse_replaces_the_axis_of_tr_by_that_of_ti():
    assert set(mr_console.signal_curves(**T1)) == {"TR", "TE"}
    assert set(mr_console.signal_curves(**FLAIR)) == {"TI", "TE"}


def test_the_picture_is_that_of_the_renderer_with_the_brightest_tissue_white(maps):
    image = mr_console.mr_image(maps, **T1).astype(float)
    assert image.shape == (16, 16)
    quarters = [image[a : a + 8, b : b + 8].mean() for a in (0, 8) for b in (0, 8)]
    signals = list(mr_console.tissue_signals(**T1).values())
    assert quarters == pytest.approx(
        255 * np.array(signals) / (1.05 * max(signals)), abs=2
    )


def test_the_three_tasks_are_judged_and_each_can_be_solved_and_failed():
    flair = mr_console.judge_tasks(mr_console.tissue_signals(**FLAIR))
    t1 = mr_console.judge_tasks(mr_console.tissue_signals(**T1))
    equal = mr_console.judge_tasks(mr_console.tissue_signals(tr=1450, te=12))
    assert list(flair.values()) == [True, False, True]
    assert list(t1.values()) == [False, False, False]
    assert list(equal.values()) == [False, True, False]


def test_a_task_is_not_solved_by_drowning_the_picture_in_noise():
    weak = dict.fromkeys(mr_console.SHOWN, 0.001)
    assert not any(mr_console.judge_tasks(weak).values())


@pytest.mark.parametrize(
    ("times", "word"),
    [
        ({"tr": 100.0, "te": 200.0}, "raise TR"),
        ({"tr": 1000.0, "te": 50.0, "ti": 990.0}, "lower TI"),
    ],
)
def test_a_timing_that_no_scanner_could_run_says_what_to_move(times, word):
    assert word in mr_console.timing_problem(**times)


@pytest.mark.parametrize("name", phantoms.PROTOCOLS)
def test_every_protocol_of_the_data_can_be_run(name):
    tr, te, ti = phantoms.PROTOCOLS[name]
    assert mr_console.timing_problem(tr=tr, te=te, ti=ti) is None


def test_pixels_are_enlarged_to_sharp_squares():
    image = np.array([[0, 255], [128, 7]], dtype=np.uint8)
    png = np.asarray(Image.open(io.BytesIO(mr_console.to_png(image, 3))))
    assert np.array_equal(png, np.kron(image, np.ones((3, 3), dtype=np.uint8)))


def test_a_picture_that_is_not_grey_bytes_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        mr_console.to_png(np.zeros((4, 4)))


def test_alt_text_names_the_settings_and_ranks_the_tissues():
    text = mr_console.describe(**T1)
    assert "TR 500 ms" in text and "TI" not in text
    places = [text.index(name) for name in ("white matter", "grey matter", "CSF")]
    assert places == sorted(places)


# --- real callbacks


def test_moving_a_knob_changes_the_picture_and_leaves_the_protocol(console):
    before = console.view.value
    console.tr.value = 3000
    assert console.view.value != before
    assert "TR 3000 ms" in console.view.value
    assert console.preset.value is None


def test_a_protocol_sets_all_knobs_and_draws_once(console, monkeypatch):
    drawn = []
    draw = console.draw
    monkeypatch.setattr(console, "draw", lambda: drawn.append(1) or draw())
    console.preset.value = "FLAIR"
    assert console.settings == FLAIR and len(drawn) == 1
    assert not console.ti.disabled and console.preset.value == "FLAIR"
    console.preset.value = "T2"
    assert console.settings["ti"] is None and console.ti.disabled


def test_every_protocol_lies_on_the_steps_of_the_knobs(console):
    for protocol, times in phantoms.PROTOCOLS.items():
        console.preset.value = protocol
        assert tuple(console.settings.values()) == times
        for knob in (console.tr, console.te, console.ti):
            assert knob.min <= knob.value <= knob.max
            assert (knob.value - knob.min) % knob.step == 0, (
                protocol,
                knob.description,
            )


def test_the_inversion_pulse_wakes_its_knob_and_counts(console):
    console.preset.value = "T2"
    console.inversion.value = True
    assert not console.ti.disabled
    assert console.settings["ti"] == console.ti.value
    assert "TI" in console.alt()


def test_an_impossible_timing_is_explained_and_the_last_picture_stays(console):
    picture = console.view.value
    console.te.value = 290
    console.tr.value = 150
    assert (
        'role="alert"' in console.message.value and "raise TR" in console.message.value
    )
    assert console.view.value != "" and "TR 150" not in console.view.value
    console.preset.value = "T1"
    assert console.message.value == "" and console.view.value == picture


def test_an_error_in_a_callback_is_shown_to_the_person_and_raised(console, monkeypatch):
    def broken(*args, **times):
        raise RuntimeError("no <signal>")

    monkeypatch.setattr(mr_console, "to_html", broken)
    with pytest.raises(RuntimeError):
        console.te.value = 20
    assert "RuntimeError: no &lt;signal&gt;" in console.message.value
    monkeypatch.undo()
    console.te.value = 30
    assert console.message.value == ""


def test_every_control_has_a_label_and_the_keyboard_reaches_it(console):
    controls = [child for child in console.box.children if hasattr(child, "disabled")]
    assert len(controls) == 5
    assert all(control.description for control in controls)
    assert all(control.tabbable is not False for control in controls)


def test_the_live_view_is_one_image_with_alt_text_and_named_plots(console):
    page = console.view.value
    (image,) = re.findall(r"<img [^>]*>", page)
    assert f'alt="{console.alt()}"' in image
    assert page.count('role="img" aria-label="Signal against') == 2
    assert "<script" not in page and "http" not in page


# --- the static twin


def test_without_a_front_end_only_the_picture_is_shown(console):
    data, metadata = console._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == console.alt()
    assert Image.open(io.BytesIO(data["image/png"])).width > 400


def test_in_a_run_the_form_that_lives_in_a_page_is_added(console, monkeypatch):
    monkeypatch.setenv("COURSE_PAGES", "1")
    data, _ = console._repr_mimebundle_()
    assert data[LIVE_MIME].startswith('<iframe title="MR console"')
    assert not pages.needs_network(data[LIVE_MIME])
    values = mr_console.browser_values(console.maps)
    assert len(values["maps"]) == console.maps.size
    assert len(values["noise"]) == 2 * 16 * 16
    labels = [row["label"] for row in values["spec"]["shown"]]
    assert labels == [label for label, _, _ in mr_console.SHOWN.values()]


def test_with_a_front_end_the_controls_come_with_the_picture(console, monkeypatch):
    monkeypatch.setattr(widgets, "has_front_end", lambda: True)
    data, _ = console._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == console.box.model_id
    assert data["image/png"].startswith(b"\x89PNG")
    assert console.alt() in data["text/plain"]


def test_the_twin_follows_the_settings_and_is_small(console):
    first = console.static_png()
    console.preset.value = "FLAIR"
    assert console.static_png() != first
    assert len(first) < 30_000
