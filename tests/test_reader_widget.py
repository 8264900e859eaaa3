"""The reader widget without a front end: blindness, real callbacks, the static twin."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from course_lib import reader_study as rs
from course_lib import reader_widget, widgets
from course_lib.base import ROOT
from course_lib.reader_answers import ANSWERS
from course_lib.reader_widget import ReaderStudy


def new_study(kind, n=8):
    noise = np.random.default_rng(0).integers(0, 120, (2, 10, 1, 16, 16), np.uint8)
    return rs.make_study(noise[0], noise[1] + np.uint8(100), n, kind, seed=2)


@pytest.fixture(params=["rating", "2afc"])
def study(request):
    return new_study(request.param)


@pytest.fixture
def viewer(study):
    return ReaderStudy(*study)


def send(viewer, rows):
    """What the browser does: a new state of the panel, through the real protocol."""
    viewer.panel.set_state({"answers": rows})


def right_answers(key):
    generated = key.generated
    if key.kind == "rating":
        return [[5 if x else 1, 0.5] for x in generated]
    return [[2 if x else 1, 0.5] for x in generated]


# --- blindness


def test_what_goes_to_the_browser_is_the_same_for_every_key(study):
    trials, key = study
    other = dataclasses.replace(key, truth=tuple(3 - t for t in key.truth))
    states = []
    for each in (key, other):
        state = ReaderStudy(trials, each).panel.get_state()
        states.append({k: v for k, v in state.items() if k not in ("layout", "_dom")})
    assert states[0] == states[1]
    assert states[0]["images"] == [png for trial in trials.trials for png in trial]


def test_the_panel_holds_no_key_in_any_attribute(viewer, study):
    _, key = study
    for value in viewer.panel.get_state().values():
        assert value != list(key.truth) and value is not key
    assert key not in vars(viewer.panel).values()


def test_an_image_is_shown_at_a_whole_number_of_screen_pixels(study):
    panel = ReaderStudy(*study, size=100).panel
    assert (panel.width, panel.height) == (96, 96)
    assert ReaderStudy(*study, size=3).panel.width == 16


def test_the_key_of_another_study_is_refused(study):
    trials, key = study
    with pytest.raises(ValueError, match="is not the key of"):
        ReaderStudy(trials, dataclasses.replace(key, code="other"))


# --- real callbacks


def test_the_result_waits_for_the_last_answer(viewer, study):
    rows = right_answers(study[1])
    assert viewer.show.disabled and viewer.again.disabled
    send(viewer, rows[:-1])
    assert viewer.show.disabled and not viewer.again.disabled
    viewer.show.click()
    assert viewer.view.value == "" and not viewer.finished
    with pytest.raises(ValueError, match="7 of 8"):
        viewer.result()
    send(viewer, rows)
    assert viewer.finished and not viewer.show.disabled
    viewer.show.click()
    assert viewer.result().sentence in viewer.view.value
    assert viewer.result().right == 1


def test_answers_keep_their_order_times_and_the_readers_number(study):
    viewer = ReaderStudy(*study, reader=4)
    send(viewer, [[2, 1.25], [1, 0.75]])
    expected = rs.Answers(study[0].code, study[0].kind, (2, 1), (1.25, 0.75), 4)
    assert viewer.answers == expected


def test_starting_again_forgets_answers_and_result(viewer, study):
    send(viewer, right_answers(study[1]))
    viewer.show.click()
    viewer.again.click()
    assert viewer.panel.answers == [] and viewer.view.value == ""
    assert viewer.show.disabled and viewer.again.disabled


def test_an_answer_that_cannot_be_is_shown_to_the_person_and_raised(viewer):
    with pytest.raises(ValueError, match="answer 9"):
        viewer.panel.answers = [[9, 1.0]]
    assert 'role="alert"' in viewer.message.value and "answer 9" in viewer.message.value
    viewer.panel.answers = [[1, 1.0]]
    assert viewer.message.value == ""


def test_answers_are_saved_and_read_again(viewer, study, tmp_path):
    send(viewer, right_answers(study[1]))
    viewer.save(tmp_path / "mine.csv")
    again = rs.read_answers(tmp_path / "mine.csv")
    assert again == viewer.answers
    assert rs.score_answers(again, study[1]) == viewer.result()


def test_the_margin_reaches_the_result(study):
    viewer = ReaderStudy(*study, margin=0.25)
    send(viewer, right_answers(study[1]))
    assert viewer.result().margin == 0.25


def test_the_buttons_have_labels_and_the_keyboard_reaches_them(viewer):
    for button in (viewer.show, viewer.again):
        assert button.description and button.tooltip and button.tabbable is not False


# --- the browser's part


def test_the_module_carries_everything_and_takes_every_answer(viewer, study):
    module = viewer.panel._esm
    assert module.endswith((ROOT / "course_lib" / "reader.js").read_text("utf-8"))
    assert "http" not in module and "import " not in module
    for answer in ANSWERS[study[0].kind]:
        assert f": {answer}" in module[: module.index("PLACES")]
    assert len(viewer.panel.choices) == len(ANSWERS[study[0].kind])


# --- the static twin


def test_without_a_front_end_only_the_picture_is_shown(viewer):
    data, metadata = viewer._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == viewer.alt()
    assert Image.open(io.BytesIO(data["image/png"])).width >= 640
    assert len(data["image/png"]) < 30_000


def test_with_a_front_end_the_panel_comes_with_the_picture(viewer, monkeypatch):
    monkeypatch.setattr(widgets, "has_front_end", lambda: True)
    data, _ = viewer._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == viewer.box.model_id
    assert viewer.panel in viewer.box.children


def test_the_twin_says_that_its_reader_is_simulated_until_somebody_answers(
    viewer, study
):
    assert "Nobody has answered" in viewer.alt() and "simulated" in viewer.alt()
    before = viewer.static_png()
    send(viewer, right_answers(study[1]))
    assert "simulated" not in viewer.alt()
    assert viewer.result().sentence in viewer.alt()
    assert viewer.static_png() != before


def test_the_twin_shows_the_first_trials_as_they_are(study):
    trials, _ = study
    page = Image.open(io.BytesIO(reader_widget.sheet(trials, "text"))).convert("L")
    first = trials.pixels()[0, 0]
    scale = round(76 / 16)
    part = np.asarray(page)[26 : 26 + 16 * scale : scale, 4 : 4 + 16 * scale : scale]
    assert np.abs(part.astype(int) - first).max() <= 8  # 43 greys, a palette
