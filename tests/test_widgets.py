"""The MR console without a browser, and what all widgets share."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib import mr_console, pages, phantoms, widgets
from course_lib.mr_widget import MRPhysics
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
    return MRPhysics(maps)


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


def test_alt_text_names_the_settings_and_ranks_the_tissues():
    text = mr_console.describe(**T1)
    assert "TR 500 ms" in text and "TI" not in text
    places = [text.index(name) for name in ("white matter", "grey matter", "CSF")]
    assert places == sorted(places)


def test_every_protocol_lies_on_the_steps_of_the_knobs():
    steps = {"TR": 50, "TE": 1, "TI": 4}  # of the sliders, in ms
    written = (Path(mr_console.__file__).parent / "mr_console.js").read_text("utf-8")
    for name, step in steps.items():
        assert re.search(rf'\["{name}", "\w+", {step}\]', written)
    for times in phantoms.PROTOCOLS.values():
        for (name, step), value in zip(steps.items(), times, strict=True):
            low, high = mr_console.RANGES[name]
            assert value is None or (low <= value <= high and not (value - low) % step)


# --- what all widgets share


class Counter(widgets.LiveWidget):
    """The smallest widget: a slider, and a text that follows it."""

    def __init__(self):
        import ipywidgets as w

        self.slider = w.IntSlider(1, max=9, description="Count")
        self.view, self.message = w.HTML(), w.HTML()
        self.slider.observe(lambda change: self.redraw(), "value")
        self.box = w.VBox([self.slider, self.message, self.view])
        self.redraw()

    def alt(self):
        return f"{self.slider.value} counted"

    def static_png(self):
        return PNG

    def draw(self):
        if self.slider.value > 5:
            raise RuntimeError("no <number>")
        self.view.value = self.alt()
        return "More is <better>." if self.slider.value < 1 else None


PNG = b"\x89PNG, a picture"


def test_a_hint_is_shown_until_it_is_followed():
    counter = Counter()
    assert counter.message.value == ""
    counter.slider.value = 0
    assert 'role="alert"' in counter.message.value
    assert "More is &lt;better&gt;." in counter.message.value
    counter.slider.value = 2
    assert counter.message.value == "" and counter.view.value == "2 counted"


def test_an_error_in_a_callback_is_shown_to_the_person_and_raised():
    counter = Counter()
    with pytest.raises(RuntimeError):
        counter.slider.value = 6
    assert "RuntimeError: no &lt;number&gt;" in counter.message.value
    assert counter.view.value == "1 counted"
    counter.slider.value = 3
    assert counter.message.value == ""


def test_without_a_front_end_only_the_picture_is_shown():
    data, metadata = Counter()._repr_mimebundle_()
    assert data == {"image/png": PNG, "text/plain": "<Figure: 1 counted>"}
    assert metadata["image/png"]["alt"] == "1 counted"


def test_with_a_front_end_the_controls_come_with_the_picture(monkeypatch):
    monkeypatch.setattr(widgets, "has_front_end", lambda: True)
    counter = Counter()
    data, _ = counter._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == counter.box.model_id
    assert data["image/png"] == PNG


def test_the_names_of_sliders_are_given_by_a_module_that_the_package_carries():
    names = widgets.slider_names()
    assert "aria-label" in names._esm and "export default" in names._esm


# --- the console


def test_the_console_shows_the_protocol_t1_and_its_twin_is_small(console):
    assert console.alt() == mr_console.describe(**T1)
    picture = Image.open(io.BytesIO(console.static_png()))
    assert picture.width > 400 and len(console.static_png()) < 30_000


def test_in_a_run_the_form_that_lives_in_a_page_is_added(console, monkeypatch):
    assert LIVE_MIME not in console._repr_mimebundle_()[0]
    monkeypatch.setenv("COURSE_PAGES", "1")
    data, _ = console._repr_mimebundle_()
    assert data[LIVE_MIME].startswith('<iframe title="MR console"')
    assert not pages.needs_network(data[LIVE_MIME])


def test_the_browser_gets_the_maps_the_noise_and_what_is_shown(console):
    assert len(console.view.maps) == console.maps.size
    assert len(console.view.noise) == 2 * 16 * 16
    labels = [row["label"] for row in console.view.spec["shown"]]
    assert labels == [label for label, _, _ in mr_console.SHOWN.values()]
