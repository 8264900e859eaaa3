import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from course_lib import anatomy, phantoms, template
from course_lib.phantoms import (
    CLASS_NAMES,
    CONTRASTS,
    PROTOCOLS,
    TISSUE_PROPERTIES,
    TISSUES,
    make_phantom,
    render,
    render_ct,
    spin_echo,
    subject_maps,
    window,
    windowed_ct,
)

N = 80  # 20 subjects: 12 without lesion, 5 with MS-like lesions, 3 with a tumour


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(n=N, cache=False)


@pytest.fixture(scope="module")
def fine_phantom():  # pixels of one tissue: at 32 px cortex is half CSF
    return make_phantom(size=128, n=8, cache=False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    make_phantom(n=1, cache=False)  # the template, before its folder changes
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    return tmp_path / "phantom"


def as_arrays(phantom):
    fields = {f.name: getattr(phantom, f.name) for f in dataclasses.fields(phantom)}
    return fields.pop("images") | fields


def assert_equal(a, b, n=None):
    for name, array in as_arrays(a).items():
        np.testing.assert_array_equal(array[:n], as_arrays(b)[name], err_msg=name)


# --- physics


def test_spin_echo_with_no_echo_time_and_full_recovery_is_proton_density():
    assert spin_echo(0.86, 833, 83, tr=np.inf, te=0) == 0.86


def test_spin_echo_follows_recovery_and_decay():
    assert spin_echo(1, 500, 70, tr=500, te=0) == pytest.approx(1 - np.exp(-1))
    assert spin_echo(1, 500, 70, tr=np.inf, te=70) == pytest.approx(np.exp(-1))


def test_inversion_time_t1_ln2_nulls_a_tissue_at_long_tr():
    ti = 2569 * np.log(2)
    assert spin_echo(1, 2569, 329, tr=np.inf, te=0, ti=ti) == pytest.approx(
        0, abs=1e-15
    )
    assert spin_echo(1, 500, 70, tr=np.inf, te=0, ti=ti) > 0.9


def test_inversion_recovery_is_a_magnitude():
    assert spin_echo(1, 1000, 100, tr=np.inf, te=0, ti=0) == pytest.approx(1)


def test_flair_protocol_nulls_csf_only():
    tr, te, ti = PROTOCOLS["FLAIR"]
    signal = {
        name: float(spin_echo(row.pd, row.t1, row.t2, tr=tr, te=te, ti=ti))
        for name, row in TISSUE_PROPERTIES.items()
    }
    assert signal["csf"] < 0.003
    assert signal["grey matter"] > signal["white matter"] > 0.09


def test_window_maps_its_borders_to_0_and_1_and_clips():
    np.testing.assert_array_equal(window([-5, 0, 40, 80, 99], 0, 80), [0, 0, 0.5, 1, 1])
    with pytest.raises(ValueError, match="swap"):
        window([1.0], 80, 0)


def test_render_of_half_and_half_is_the_mean_of_the_pure_signals():
    def image(*names):
        maps = np.zeros((len(TISSUES), 1, 1))
        for name in names:
            maps[TISSUES.index(name)] = 1 / len(names)
        return render(maps, tr=500, te=12).item()

    mixed = image("csf", "white matter")
    assert mixed == pytest.approx((image("csf") + image("white matter")) / 2)


def test_noise_in_the_background_has_the_rayleigh_mean():
    maps = np.zeros((len(TISSUES), 100, 100))
    maps[0] = 1
    noisy = render(maps, tr=500, te=12, noise=0.1, rng=np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)


def test_ct_of_pure_tissue_is_its_hounsfield_value():
    maps = np.eye(len(TISSUES))[:, None, :]
    expected = [row.hu for row in TISSUE_PROPERTIES.values()]
    np.testing.assert_array_equal(render_ct(maps)[0], expected)
    np.testing.assert_array_equal(windowed_ct(maps)[0], window(expected, 0, 80))


def test_render_refuses_maps_without_the_tissue_axis():
    with pytest.raises(ValueError, match="subject_maps"):
        render(np.zeros((32, 32)), tr=500, te=12)


# --- anatomy


@pytest.mark.parametrize("lesion", CLASS_NAMES)
@pytest.mark.parametrize("size", [28, 37, 100])
def test_tissue_fractions_are_a_partition(lesion, size):
    maps = subject_maps(3, size, lesion=lesion)
    assert maps.shape == (len(TISSUES), size, size)
    assert maps.min() > -1e-6
    np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)


def test_displacement_is_bounded_by_its_nodes():
    nodes = np.random.default_rng(0).uniform(-1, 1, (2, 5, 7, 7))
    points = np.linspace(0, 1, 50)
    moved = anatomy._displacement(nodes, points, points[::10])
    assert np.abs(moved).max() <= 1
    ones = anatomy._displacement(np.ones((2, 5, 7, 7)), points, points[::10])
    np.testing.assert_allclose(ones, 1)


def test_a_lesion_changes_nothing_far_from_it():
    without = subject_maps(11, 64, level=18.0, lesion=0)
    with_spots = subject_maps(11, 64, level=18.0, lesion=1)
    changed = np.abs(with_spots - without).max(0) > 0
    lesion = with_spots[TISSUES.index("MS lesion")] > 0
    assert lesion.any()
    np.testing.assert_array_equal(changed, lesion)


def test_the_head_fills_the_frame_and_leaves_its_corners_empty(phantom):
    head = phantom.tissue > 0
    height = head.any(2).sum(1)
    assert height.mean() > 0.85 * 32
    assert not head[:, :2, :2].any()
    assert not head[:, -2:, -2:].any()


def test_heads_differ_and_the_same_number_is_the_same_head():
    a, b = subject_maps(5, 32, level=12.0), subject_maps(6, 32, level=12.0)
    assert np.abs(a - b).mean() > 0.01
    np.testing.assert_array_equal(a, subject_maps(5, 32, level=12.0))


# --- the data set


def test_shapes_types_and_class_shares(phantom):
    assert tuple(phantom.images) == CONTRASTS
    for image in (*phantom.images.values(), phantom.tissue):
        assert image.shape == (N, 32, 32)
        assert image.dtype == np.uint8
    assert phantom.lesion_mask.dtype == bool
    assert phantom.labels.dtype == phantom.subjects.dtype == np.int64
    assert phantom.level.dtype == np.float32
    np.testing.assert_array_equal(np.bincount(phantom.labels), [48, 20, 12])


def test_mask_is_empty_without_lesion_and_has_three_pixels_with_one(phantom):
    pixels = phantom.lesion_mask.sum((1, 2))
    assert (pixels[phantom.labels == 0] == 0).all()
    assert (pixels[phantom.labels > 0] >= 3).all()


def test_mask_and_tissue_map_are_those_of_subject_maps(phantom):
    lesions = [TISSUES.index(name) for name in ("MS lesion", "oedema", "tumour")]
    for i in (0, 9, *np.flatnonzero(phantom.labels)[::5]):
        maps = subject_maps(phantom.subjects[i], 32, phantom.level[i])
        np.testing.assert_array_equal(phantom.tissue[i], maps.argmax(0))
        np.testing.assert_array_equal(
            phantom.lesion_mask[i], maps[lesions].sum(0) >= 0.5
        )


def mean_where(phantom, contrast, name):
    return phantom.images[contrast][phantom.tissue == TISSUES.index(name)].mean()


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        ("T1", ("csf", "grey matter", "white matter")),
        ("T2", ("white matter", "grey matter", "csf")),
        ("FLAIR", ("csf", "grey matter")),
        ("CT", ("csf", "white matter", "grey matter", "bone")),
    ],
)
def test_tissues_are_ordered_as_in_the_clinic(fine_phantom, contrast, order):
    means = [mean_where(fine_phantom, contrast, name) for name in order]
    assert all(b > a + 3 for a, b in itertools.pairwise(means)), means


def test_cortex_is_brighter_than_white_matter_on_flair():
    tr, te, ti = PROTOCOLS["FLAIR"]
    maps = subject_maps(0, 128)
    flair = render(maps, tr=tr, te=te, ti=ti)
    csf, grey, white = (flair[maps[index] > 0.9].mean() for index in (1, 2, 3))
    assert csf < 0.2 * white
    assert grey > 1.1 * white


@pytest.mark.parametrize("name", ["MS lesion", "oedema", "tumour"])
def test_lesions_are_bright_on_t2_and_flair_and_dark_on_t1(phantom, name):
    for contrast, sign in (("T2", 1), ("FLAIR", 1), ("T1", -1)):
        lesion = mean_where(phantom, contrast, name)
        assert sign * (lesion - mean_where(phantom, contrast, "white matter")) > 15


def test_ms_lesions_hide_on_ct(phantom):
    lesion = mean_where(phantom, "CT", "MS lesion")
    assert abs(lesion - mean_where(phantom, "CT", "white matter")) < 12


def test_fat_of_the_scalp_does_not_outshine_the_brain(phantom):
    for contrast in PROTOCOLS:
        fat = mean_where(phantom, contrast, "fat")
        assert fat < mean_where(phantom, contrast, "grey matter")


def test_splits_share_no_subject():
    kept = [set(make_phantom(split, n=9, cache=False).subjects) for split in
            phantoms.SPLITS]  # fmt: skip
    assert len(set.union(*kept)) == sum(map(len, kept)) == 9


# --- the same bytes, the cache


def test_a_smaller_set_is_a_prefix(phantom):
    assert_equal(phantom, make_phantom(n=10, cache=False), n=10)


def test_seed_changes_the_images(phantom):
    other = make_phantom(n=4, seed=1, cache=False)
    assert (other.images["T1"] != phantom.images["T1"][:4]).any()


def test_another_process_with_another_thread_count_makes_the_same_bytes(
    phantom, tmp_path
):
    code = (
        "import sys, numpy; from course_lib.phantoms import make_phantom\n"
        "made = make_phantom(n=12, cache=False)\n"
        "numpy.savez(sys.argv[1], mask=made.lesion_mask, **made.images)"
    )
    threads = "1" if os.environ.get("OMP_NUM_THREADS") != "1" else "2"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other.npz")],
        env=os.environ | {"OMP_NUM_THREADS": threads},
        cwd=Path(__file__).parent.parent,
        check=True,
    )
    other = np.load(tmp_path / "other.npz")
    np.testing.assert_array_equal(other["mask"], phantom.lesion_mask[:12])
    for contrast in CONTRASTS:
        expected = phantom.images[contrast][:12]
        np.testing.assert_array_equal(other[contrast], expected)


def test_cache_serves_the_same_set_and_its_prefixes(cache, monkeypatch):
    made = make_phantom(n=8)
    monkeypatch.setattr(phantoms, "_generate", None)  # a second making would fail
    assert_equal(made, make_phantom(n=8))
    assert_equal(made, make_phantom(n=5), n=5)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]  # no leftovers


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_cache_file_is_made_anew(cache, damage):
    made = make_phantom(n=4)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(
        {
            "flip": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
            "cut": good[:middle],
            "empty": b"",
            "text": b"no archive",
        }[damage]
    )
    with pytest.warns(UserWarning, match="made anew"):
        assert_equal(made, make_phantom(n=4))
    assert_equal(made, make_phantom(n=4))  # without a warning


def test_a_cache_file_of_another_form_is_made_anew(cache):
    made = make_phantom(n=4)
    (path,) = cache.iterdir()
    np.savez(path, T1=np.zeros(3))
    assert_equal(made, make_phantom(n=4))


def test_an_unwritable_cache_warns_and_works(cache, phantom):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="COURSE_CACHE"):
        assert_equal(phantom, make_phantom(n=4), n=4)


def test_the_cache_is_keyed_by_the_code(cache, monkeypatch):
    make_phantom(n=1)
    monkeypatch.setattr(phantoms, "version", lambda *modules: "other")
    make_phantom(n=1)
    assert len(list(cache.iterdir())) == 2
    assert template.version("template") != template.version("template", "anatomy")


def test_the_prepared_template_is_read_from_the_cache(cache, monkeypatch):
    voxels = np.arange(4 * np.prod(template._SHAPE)).astype(np.int16).reshape(-1, 4)
    prepared = (voxels, *np.arange(18.0).reshape(3, 2, 3))
    monkeypatch.setattr(template, "_prepare", lambda: prepared)
    made = template._template.__wrapped__()
    monkeypatch.setattr(template, "_prepare", None)  # a second making would fail
    for a, b in zip(made, template._template.__wrapped__(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"size": 27}, "28..128"),
        ({"size": 129}, "28..128"),
        ({"split": "training"}, "train"),
        ({"n": 0}, "leave n out"),
    ],
)
def test_bad_arguments_name_the_fix(arguments, fix):
    with pytest.raises(ValueError, match=fix):
        make_phantom(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"lesion": 3}, {"lesion": "stroke"}, {"level": 80.0}, {"size": 200}]
)
def test_subject_maps_refuses_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"choose|28\.\.128"):
        subject_maps(0, **{"size": 32} | arguments)
