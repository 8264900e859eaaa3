"""The latent explorer without a browser: its functions, its values, its twin."""

import base64
import io
import json
import re

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import (
    autoencoders,
    browser_widget,
    latent_explorer,
    notebooks,
    pages,
    variational,
    widgets,
)
from course_lib.runtime import LIVE_MIME


@pytest.fixture
def codes():
    torch.manual_seed(0)
    return torch.randn(40, 5) * torch.tensor([5.0, 3, 1, 1, 1]) + 2


@pytest.fixture
def explorer(codes):
    torch.manual_seed(0)
    images = torch.rand(40, 1, 16, 16) * 2 - 1
    labels = torch.arange(40) % 2
    return latent_explorer.LatentExplorer(
        autoencoders.Decoder(5, 4, 16),
        codes,
        images=images,
        labels=labels,
        class_names=["well", "ill"],
        prior=True,
    )


# --- plain functions


def test_the_directions_are_those_of_pca_with_signs_that_stay_put(codes):
    axes = latent_explorer.principal_axes(codes.numpy())
    again = latent_explorer.principal_axes(codes.numpy()[::-1])
    values = np.linalg.eigvalsh(np.cov(codes.numpy().T, bias=True))[::-1]
    np.testing.assert_allclose(axes["scale"] ** 2, values, rtol=1e-4)
    np.testing.assert_allclose(axes["share"].sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(axes["components"], again["components"], atol=1e-6)


def test_two_dimensions_keep_their_own_axes(codes):
    axes = latent_explorer.principal_axes(codes.numpy()[:, :2])
    assert np.array_equal(axes["components"], np.eye(2))


def test_codes_that_span_no_map_are_refused():
    with pytest.raises(ValueError, match=r"got \(40, 1\)"):
        latent_explorer.principal_axes(np.zeros((40, 1)))


def test_both_ways_start_at_a_and_end_at_b_and_the_arc_is_that_of_lesson_02(codes):
    a, b = codes[:1], codes[1:2]
    for way in latent_explorer.WAYS:
        np.testing.assert_allclose(way(a[0].numpy(), b[0].numpy(), 0), a[0], atol=1e-5)
        np.testing.assert_allclose(way(a[0].numpy(), b[0].numpy(), 1), b[0], atol=1e-5)
    for t in (0.2, 0.5, 0.9):
        ours = latent_explorer.slerp(a[0].numpy(), b[0].numpy(), t)
        np.testing.assert_allclose(ours, variational.slerp(a, b, t)[0], rtol=1e-4)
    np.testing.assert_allclose(
        latent_explorer.slerp(a[0].numpy(), 0 * a[0].numpy(), 1), 0
    )


def test_the_far_pair_is_the_furthest(codes):
    i, j = latent_explorer.far_pair(codes.numpy())
    assert torch.cdist(codes, codes)[i, j] == pytest.approx(
        torch.cdist(codes, codes).max().item(), rel=1e-5
    )


def test_the_map_is_wide_enough_for_nearly_all_codes_and_a_and_b_stand_on_it():
    torch.manual_seed(0)
    assert latent_explorer.map_span(0.1 * torch.randn(100, 2).numpy()) == 3.2
    places = 2 * torch.randn(500, 2).numpy()
    span = latent_explorer.map_span(places)
    assert 4 < span < 7
    assert (np.abs(places).max(axis=1) <= span).mean() > 0.97
    codes = torch.randn(50, 3)
    codes[7] = 60.0  # far from all others
    explorer = latent_explorer.LatentExplorer(autoencoders.Decoder(3, 4, 16), codes)
    assert (np.abs(explorer.place(np.array(explorer.ends))) <= explorer.span).all()


def test_large_images_are_sent_smaller_as_means_of_their_pixels(monkeypatch):
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    assert latent_explorer.shrink(images, 2)[0].tolist() == [[2, 4], [10, 12]]
    assert np.array_equal(latent_explorer.shrink(images, 1), images)
    monkeypatch.setattr(latent_explorer, "MOST_IMAGES", 1000)
    explorer = latent_explorer.LatentExplorer(
        autoencoders.Decoder(3, 4, 16),
        torch.randn(9, 3),
        images=torch.zeros(9, 1, 16, 16),
    )
    assert explorer.view.spec["image_shape"] == [8, 8]
    assert len(explorer.view.images) == 9 * 8 * 8


def test_the_shell_of_the_prior_holds_90_percent_of_its_draws():
    low, high = latent_explorer.prior_range(32)
    norms = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0)).norm(
        dim=1
    )
    inside = ((norms > low) & (norms < high)).double().mean()
    assert inside == pytest.approx(0.9, abs=0.01)


# --- the shell


def test_the_browser_gets_plain_values_and_bytes(explorer):
    spec = json.loads(json.dumps(explorer.view.spec))
    assert spec["model"]["latent_dim"] == 5 and len(spec["labels"]) == 40
    assert len(explorer.view.codes) == 40 * 5 * 4
    assert len(explorer.view.images) == 40 * 16 * 16
    assert spec["prior"] and spec["axis_labels"][0].startswith("direction 1: ")
    assert set(explorer.view.trait_names(sync=True)) >= {"spec", "weights", "code"}


def test_the_code_can_be_read_and_set(explorer, codes):
    explorer.code = codes[3]
    np.testing.assert_allclose(explorer.code, codes[3], atol=1e-4)
    before = explorer.alt()
    explorer.view.code = [0.0] * 5  # as the browser sends it
    assert explorer.alt() != before and "norm 0.0" in explorer.alt()
    with pytest.raises(ValueError, match="a code has 5 numbers, got 2"):
        explorer.code = [1, 2]


def test_images_that_are_not_those_of_the_codes_are_refused(codes):
    with pytest.raises(ValueError, match="40 codes, but 3 images"):
        latent_explorer.LatentExplorer(
            autoencoders.Decoder(5, 4, 16), codes, images=torch.zeros(3, 1, 16, 16)
        )


def test_a_decoder_alone_is_enough_and_many_codes_are_thinned():
    explorer = latent_explorer.LatentExplorer(
        autoencoders.Decoder(3, 4, 16), torch.randn(300, 3)
    )
    assert len(explorer.codes) == latent_explorer.MOST_CODES
    assert explorer.view.images == b"" and explorer.view.spec["prior"] is None
    assert explorer.static_png().startswith(b"\x89PNG")


# --- what each viewer gets


def test_without_a_front_end_only_the_picture_is_shown(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == explorer.alt()
    assert Image.open(io.BytesIO(data["image/png"])).width > 400
    assert len(data["image/png"]) < 30_000


def test_the_twin_follows_the_point(explorer, codes):
    first = explorer.static_png()
    explorer.code = codes[5]
    assert explorer.static_png() != first


def test_with_a_front_end_the_widget_comes_with_the_picture(explorer, monkeypatch):
    monkeypatch.setattr(widgets, "has_front_end", lambda: True)
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["image/png"].startswith(b"\x89PNG") and LIVE_MIME not in data


def as_jupyter_stores(data):
    return data | {"image/png": base64.b64encode(data["image/png"]).decode()}


def test_in_a_run_the_live_form_is_added_and_a_page_shows_it(explorer, monkeypatch):
    monkeypatch.setenv("COURSE_PAGES", "1")
    data, metadata = explorer._repr_mimebundle_()
    live = data[LIVE_MIME]
    assert live.startswith("<iframe") and 'title="Latent explorer"' in live
    assert not pages.needs_network(live)
    data = as_jupyter_stores(data)
    output = {"output_type": "display_data", "data": data, "metadata": metadata}
    assert pages.output_html(output) == f'<div class="live">{live}</div>'


def test_a_live_form_that_would_fetch_something_gives_way_to_the_twin(
    explorer, monkeypatch, tmp_path
):
    module = tmp_path / "fetching.js"
    text = explorer.module.read_text("utf-8")
    module.write_text('import "https://cdn.example.org/d3.js";\n' + text, "utf-8")
    monkeypatch.setattr(type(explorer), "module", module)
    live = explorer.live_html()
    assert pages.needs_network(live)
    data = {LIVE_MIME: live, "image/png": "iVBORw0K", "text/plain": ""}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    assert pages.output_html(output).startswith("<img")


def test_the_live_form_carries_every_value_and_cannot_be_cut_short(explorer):
    page = browser_widget.live_page(
        explorer.module,
        {"spec": {"x": "</script>"}, "b": b"\x00\xff"},
        title="t",
        height=1,
    )
    assert "&lt;\\/script&gt;" in page and "AP8=" in page
    assert page.count("&lt;/script&gt;") == 2 and page.count("<") == 2


def test_a_committed_notebook_keeps_the_twin_alone(explorer, monkeypatch):
    monkeypatch.setenv("COURSE_PAGES", "1")
    data, _ = explorer._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", as_jupyter_stores(data))
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("explorer", outputs=[output])]
    )
    notebooks.tidy(notebook)
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"image/png", "text/plain"}


def test_the_module_imports_nothing():
    text = latent_explorer.LatentExplorer.module.read_text("utf-8")
    assert not re.search(r"^\s*import\b|\bimport\(|https?:", text, re.MULTILINE)
