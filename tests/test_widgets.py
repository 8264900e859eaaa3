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


def test_grey_and_white_matter_are_not_made_equal_by_making_both_black():
    late = mr_console.tissue_signals(tr=10000, te=250, field=7.0)
    assert abs(late["grey matter"] - late["white matter"]) < 0.02 * late["csf"]
    judged = mr_console.judge_tasks(late, noise=0.0)
    assert not judged["grey and white matter look the same"]


@pytest.mark.parametrize("field", mr_console.FIELDS)
def test_grey_and_white_matter_vanish_at_a_timing_of_each_field(field):
    solved = [
        tr
        for tr in range(100, 10001, 50)  # the steps of the knob
        if mr_console.judge_tasks(
            mr_console.tissue_signals(tr=tr, te=12, field=field),
            mr_console.noise_at(field),
        )["grey and white matter look the same"]
    ]
    assert 3 <= len(solved) <= 12
    for times, done in ((T1, False), (FLAIR, True)):  # CSF keeps its null
        signals = mr_console.tissue_signals(**times, field=field)
        judged = mr_console.judge_tasks(signals, mr_console.noise_at(field))
        assert judged["CSF is black"] is done
        assert not judged["grey and white matter look the same"]


def test_no_task_is_solved_where_noise_covers_it():
    signals = mr_console.tissue_signals(tr=1450, te=12)
    assert any(mr_console.judge_tasks(signals, 0.05).values())
    assert not any(mr_console.judge_tasks(signals, 0.07).values())


def test_at_1_5_tesla_the_tissues_are_those_of_the_data_set():
    assert mr_console.tissues_at(1.5) == phantoms.TISSUE_PROPERTIES
    assert mr_console.noise_at(1.5) == mr_console.NOISE


def test_the_field_lengthens_t1_and_shortens_t2_as_was_measured():
    low, high = mr_console.tissues_at(1.5), mr_console.tissues_at(7.0)
    ratio = {k: high[k].t1 / low[k].t1 for k in ("csf", "grey matter", "white matter")}
    # Rooney et al. 2007: 0.00116 (gamma B0)^0.376 and 0.00071 (gamma B0)^0.382 s
    expected = {"csf": 1, "grey matter": 1.78, "white matter": 1.80}
    assert ratio == pytest.approx(expected, abs=0.01)
    # Cox and Gowland 2010: white matter 80, 71 and 47 ms; grey 83.5, 72 and 46.5
    for field, white, grey in ((3.0, 71 / 80, 72 / 83.5), (7.0, 47 / 80, 46.5 / 83.5)):
        there = mr_console.tissues_at(field)
        at = {k: there[k].t2 / low[k].t2 for k in ("white matter", "grey matter")}
        assert at["white matter"] == pytest.approx(white)
        assert at["grey matter"] == pytest.approx(grey, abs=0.02)
    assert high["csf"].t2 == low["csf"].t2


def test_noise_falls_in_proportion_to_the_field_and_reaches_the_picture(maps):
    assert mr_console.noise_at(3.0) == mr_console.NOISE / 2
    grain = {}
    for field, noise in ((1.5, 0.0), (0.5, 0.02), (1.5, 0.02), (7.0, 0.02)):
        picture = mr_console.mr_image(maps, **T1, field=field, noise=noise)
        brightest = picture.astype(float)[8:, :8]  # white matter
        grain[field, noise] = brightest.std() / brightest.mean()
    assert grain.pop((1.5, 0.0)) == 0
    assert list(grain.values()) == sorted(grain.values(), reverse=True)


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
    assert "at 1.5 T, TR 500 ms" in text and "TI" not in text
    assert text.endswith("noise 0.0060.")
    assert "at 3 T" in (there := mr_console.describe(**T1, field=3.0, noise=0.02))
    assert there.endswith("noise 0.0100.")
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
