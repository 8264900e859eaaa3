"""The translation viewer without a browser: its numbers, its values, its twin."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import metrics, pages, translation_viewer
from course_lib.runtime import LIVE_MIME


@pytest.fixture
def layers():
    torch.manual_seed(0)
    truth = torch.rand(3, 1, 16, 16) * 2 - 1
    return {
        "T1": torch.rand(3, 1, 16, 16) * 2 - 1,
        "close": (truth + 0.1).clamp(-1, 1),
        "far": (truth + 0.5).clamp(-1, 1),
        "T2": truth,
    }


@pytest.fixture
def lesions():
    mask = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    mask[0, 0, 4:8, 4:6] = True
    return mask


@pytest.fixture
def viewer(layers, lesions):
    return translation_viewer.TranslationViewer(layers, lesions=lesions)


def test_psnr_and_the_means_in_lesions_are_those_of_the_images(viewer, layers, lesions):
    close, far = viewer.facts
    for facts, name in ((close, "close"), (far, "far")):
        expected = metrics.psnr(layers["T2"], layers[name])
        found = [fact["psnr"] for fact in facts]
        np.testing.assert_allclose(found, expected, atol=0.1)
        inside = layers[name][lesions].mean().item()
        assert facts[0]["inside"] == pytest.approx(inside, abs=0.005)
        assert facts[1]["inside"] is None  # no lesion in this slice
    assert close[0]["truth_inside"] == far[0]["truth_inside"]


def test_equal_slices_have_no_infinite_psnr():
    one = np.zeros((1, 4, 4), np.uint8)
    assert translation_viewer.slice_facts(one, one)[0]["psnr"] == 99.0


def test_the_difference_is_white_where_equal_blue_where_dark_orange_where_bright():
    made = np.array([[100, 0, 255]], np.uint8)
    truth = np.array([[100, 200, 0]], np.uint8)
    equal, dark, bright = translation_viewer.difference_picture(made, truth)[0]
    assert equal.tolist() == [255, 255, 255]
    assert dark.tolist() == [0, 0x72, 0xB2] and bright.tolist() == [0xD5, 0x5E, 0]


def test_the_outline_runs_around_the_mask_and_nowhere_else():
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    picture = translation_viewer.outlined(
        np.zeros((8, 8), np.uint8), mask, 10, "#ffffff"
    )
    lit = np.asarray(picture)[..., 0] > 0
    rows, columns = lit.nonzero()
    assert (rows.min(), rows.max()) == (20, 50)
    assert (columns.min(), columns.max()) == (30, 60)
    assert not lit[25:45, 35:55].any()
    nothing = translation_viewer.outlined(
        np.zeros((8, 8), np.uint8), mask & False, 3, "red"
    )
    assert not np.asarray(nothing).any()


def test_the_browser_gets_plain_values_and_bytes(viewer):
    spec = json.loads(json.dumps(viewer.view.spec))
    assert spec["names"] == ["T1", "close", "far", "T2"] and spec["cases"] == 3
    assert len(viewer.view.pixels) == 4 * 3 * 16 * 16
    assert len(viewer.view.lesions) == 3 * 16 * 16
    assert sum(viewer.view.lesions) == 8


def test_the_twin_is_small_and_its_alt_text_says_what_happened_to_the_lesion(viewer):
    data, metadata = viewer._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert Image.open(io.BytesIO(data["image/png"])).width > 300
    assert len(data["image/png"]) < 20_000
    alt = metadata["image/png"]["alt"]
    assert "close: PSNR" in alt and "mean in the lesion" in alt and "(true" in alt


def test_without_lesions_it_says_nothing_of_them(layers, monkeypatch):
    monkeypatch.setenv("COURSE_PAGES", "1")
    viewer = translation_viewer.TranslationViewer(layers)
    data, _ = viewer._repr_mimebundle_()
    assert "lesion" not in viewer.alt() and viewer.view.lesions == b""
    assert not pages.needs_network(data[LIVE_MIME])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"T1": x["T1"], "T2": x["T2"]}, "at least one translation"),
        (lambda x: x | {"far": x["far"][:2]}, "one shape, got T1"),
        (lambda x: {k: v.repeat(1, 3, 1, 1) for k, v in x.items()}, "grey images"),
    ],
)
def test_wrong_layers_are_refused(layers, change, message):
    with pytest.raises(ValueError, match=message):
        translation_viewer.TranslationViewer(change(layers))


def test_titles_must_be_one_a_slice(layers):
    with pytest.raises(ValueError, match="3 slices, but 1 titles"):
        translation_viewer.TranslationViewer(layers, titles=["only"])
