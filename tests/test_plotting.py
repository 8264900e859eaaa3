"""Pictures: values, alt text, and nothing returned."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import plotting
from course_lib.training import History


@pytest.fixture
def shown(monkeypatch):
    """What reaches the front end: a list of (data, metadata)."""
    seen = []

    def display(data, metadata=None, raw=False):
        assert raw
        seen.append((data, metadata))

    monkeypatch.setattr("IPython.display.display", display)
    return seen


def history(values):
    record = History()
    for step, value in enumerate(values, start=1):
        record.record(step, {"loss": float(value)})
    return record


def pixels(data):
    content = data["image/png"]
    if isinstance(content, str):
        content = base64.b64decode(content)
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_images_keep_their_grey_values():
    images = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    assert plotting.to_uint8(images)[:, 0, 0].tolist() == [0, 128, 255]
    assert plotting.to_uint8(np.full((2, 3, 4, 4), 7, np.uint8)).shape == (2, 4, 4, 3)


def test_images_straight_from_a_network_in_training_are_shown():
    images = torch.zeros(1, 1, 2, 2, requires_grad=True)
    for made in (images, images.bfloat16()):
        assert plotting.to_uint8(made).tolist() == [[[128, 128]] * 2]


def test_images_that_are_not_finite_or_not_a_batch_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        plotting.to_uint8(torch.full((1, 1, 2, 2), float("nan")))
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        plotting.to_uint8(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="no images"):
        plotting.show_images(torch.zeros(0, 1, 4, 4))


def test_a_grid_shows_black_and_white_where_they_are(shown):
    images = torch.ones(2, 1, 8, 8)
    images[0] = -1
    result = plotting.show_images(images, labels=torch.tensor([3, 4]), alt="two tiles")
    assert result is None
    (data, metadata), *rest = shown
    assert rest == [] and metadata == {"image/png": {"alt": "two tiles"}}
    grey = pixels(data)
    middle = grey[grey.shape[0] * 2 // 3]
    assert middle[grey.shape[1] // 4] == 0 and middle[grey.shape[1] * 3 // 4] == 255


def test_a_pixel_becomes_a_square_of_the_screens_whole_pixels(shown):
    rng = np.random.default_rng(0)
    tile = (rng.integers(0, 2, (16, 16)) * 255).astype(np.uint8)
    plotting.show_rows({"a label": tile[None]}, size=0.6, alt="x", caption="above")
    grey = pixels(shown[0][0])
    large = tile.repeat(3, axis=0).repeat(3, axis=1)  # 0.6 in * 80 / 16 px = 3
    windows = np.lib.stride_tricks.sliding_window_view(grey, large.shape)
    assert (windows == large).all(axis=(2, 3)).any()


def test_rows_may_differ_in_length_and_a_grid_in_its_last_row(shown):
    plotting.show_rows(
        {"a": torch.zeros(3, 1, 4, 4), "b": torch.zeros(1, 1, 4, 4)}, alt="x"
    )
    plotting.show_images(torch.zeros(5, 3, 4, 4), titles=list("abcde"), columns=3)
    assert len(shown) == 2


def test_a_table_sets_numbers_to_the_right_and_words_to_the_left(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    rows = [("PCA", 8, "words"), ("VAE", -1.5, "3 words")]
    plotting.show_table(["model", "size", "remark"], rows, note="N = 2.")
    head, marks, *body = seen[0].data.splitlines()
    assert head == "| model | size | remark |" and marks == "| --- | --: | --- |"
    assert body == ["| PCA | 8 | words |", "| VAE | -1.5 | 3 words |", "", "N = 2."]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plotting.show_rows({"a": torch.zeros(2, 1, 4, 4)}, alt="x"),
        lambda: plotting.show_curves({"a": [1, 2]}, xlabel="x", ylabel="y", alt="x"),
        lambda: plotting.show_bars({"a": 1.0}, ylabel="y", alt="x", errors={"a": 0.1}),
        lambda: plotting.show_history(history(np.arange(9.0))),
    ],
)
def test_every_picture_has_alt_text_and_returns_nothing(shown, draw):
    assert draw() is None
    (_data, metadata), *rest = shown
    assert rest == [] and metadata["image/png"]["alt"]


def test_the_alt_text_of_a_history_says_where_the_loss_ended(shown):
    plotting.show_history(history(np.full(100, 0.25)), smooth=10)
    assert "loss 0.25" in shown[0][1]["image/png"]["alt"]


def test_no_figure_stays_open(shown):
    import matplotlib.pyplot as plt

    plotting.show_images(torch.zeros(1, 1, 4, 4))
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("last", "plain"), [(0.5, True), (50, False)])
def test_a_short_logarithmic_axis_has_plain_labels(monkeypatch, last, plain):
    figures = []
    monkeypatch.setattr(
        plotting, "show_figure", lambda figure, **_: figures.append(figure)
    )
    curve = {"a": ([0.03, last], [0.03, last])}
    logs = {"logx": True, "logy": True}
    plotting.show_curves(curve, xlabel="x", ylabel="y", alt="", **logs)
    for axis in (figures[0].axes[0].xaxis, figures[0].axes[0].yaxis):
        shown = {tick.get_text() for tick in axis.get_ticklabels(which="both")}
        assert ({"0.05", "0.1", "0.2", "0.5"} <= shown) == plain
        assert any("mathdefault" in label for label in shown) != plain


@pytest.mark.parametrize("many", [4, 5])
def test_the_names_of_many_curves_stand_beside_them(monkeypatch, many):
    figures = []
    monkeypatch.setattr(
        plotting, "show_figure", lambda figure, alt: figures.append(figure)
    )
    curves = {str(k): [k, k + 1] for k in range(many)}
    plotting.show_curves(curves, xlabel="x", ylabel="y", alt="")
    figures[0].canvas.draw()
    (axis,) = figures[0].axes
    left = axis.get_legend().get_window_extent().x0
    assert (left >= axis.get_window_extent().x1) == (many > 4)
