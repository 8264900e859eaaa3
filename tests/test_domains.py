"""Pairs of domains: nobody is in both, the truth is the truth, and heads match."""

import numpy as np
import pytest
import torch

from course_lib.domains import (
    HEAD_CT,
    brain_slices,
    heads_alike,
    sick_and_well,
    skull_ct,
    two_clinics,
)
from course_lib.phantoms import make_phantom

AIR = -0.8


def heads(n=4, size=64, table=True):
    """Skulls (bright rings) with brains, of several sizes and places, on a table."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    images = torch.full((n, 1, size, size), AIR)
    for i in range(n):
        radius = size * (0.30 + 0.01 * i)
        far = ((y - size / 2 + 1 + i % 3) ** 2 + (x - size / 2 - i % 2) ** 2).sqrt()
        images[i, 0][far < radius] = 1.0
        images[i, 0][far < radius - 3] = -0.1
    if table:
        images[:, :, -3, 5:-5] = 0.5
    return images


@pytest.mark.parametrize("target", ["T2", "skull CT"])
def test_the_clinics_share_nobody_and_the_truth_is_the_same_slice(target):
    found, data = two_clinics("val", target=target), make_phantom("val", 32)
    in_a = np.isin(data.subjects, found.people)
    assert len(found.a) == in_a.sum() == len(found.truth) == len(found.people)
    assert len(found.a) + len(found.b) == len(in_a)
    t1 = torch.from_numpy(data.images["T1"][in_a])[:, None] / 127.5 - 1
    assert torch.equal(found.a, t1) and found.names == ("T1", target)
    whole = (
        skull_ct(data, np.arange(len(in_a)))
        if target == "skull CT"
        else torch.from_numpy(data.images["T2"])[:, None] / 127.5 - 1
    )
    assert torch.equal(found.truth, whole[in_a])
    assert torch.equal(found.b, whole[~in_a])
    assert found.truth.min() >= -1 and found.truth.max() <= 1


def test_in_the_wide_window_the_brain_is_a_few_greys():
    data = make_phantom("val", 32, n=8)
    images = skull_ct(data, np.arange(8))
    brain = images[torch.from_numpy(np.isin(data.tissue, (2, 3)))[:, None]]
    assert images.max() - images.min() > 1.4
    assert brain.quantile(0.9) - brain.quantile(0.1) < 10 / 127.5


def test_the_phantoms_sick_have_tumours_and_its_well_have_no_lesion():
    found = sick_and_well("phantom", "val", 32)
    labels = make_phantom("val", 32).labels
    assert len(found.a) == (labels == 2).sum() and len(found.b) == (labels == 0).sum()
    assert found.names == ("tumour", "no lesion") and found.class_b == 0
    assert found.truth is None and found.people is None


def test_heads_come_out_alone_in_the_middle_and_of_one_size():
    made = heads_alike(heads(), AIR)
    assert made.shape == (4, 1, 64, 64)
    for image in made[:, 0]:
        rows = torch.nonzero((image > AIR + 0.2).any(dim=1)).flatten()
        columns = torch.nonzero((image > AIR + 0.2).any(dim=0)).flatten()
        for places in (rows, columns):
            assert abs(len(places) - 0.8 * 64) <= 3
            assert abs(places.float().mean() - 31.5) <= 1
    assert made[:, :, 0].sub(AIR).abs().max() < 1e-6


def test_without_a_table_the_head_is_the_same():
    alone = heads_alike(heads(table=False), AIR)
    assert torch.equal(heads_alike(heads(), AIR), alone)


def test_an_image_of_air_is_refused():
    with pytest.raises(ValueError, match="shows no head"):
        heads_alike(torch.full((1, 1, 64, 64), AIR), AIR)


def test_brain_slices_have_soft_tissue_inside_a_skull():
    images = heads(6)
    images[1, 0, 24:40, 24:40] = 1.0  # bone in the middle: the base of the skull
    images[2][images[2] > 0.9] = -0.1  # no skull
    images[3] = AIR
    kept = brain_slices(images)
    assert torch.equal(kept, images[[0, 4, 5]])


def test_mednists_file_gives_simulated_and_real_heads(tmp_path):
    pixels = ((heads(12) + 1) * 127.5).round().to(torch.uint8).numpy()[:, 0]
    pixels = np.concatenate([np.zeros_like(pixels), pixels])
    labels = np.repeat([0, HEAD_CT], 12)[:, None].astype(np.uint8)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays |= {f"{split}_images": pixels, f"{split}_labels": labels}
    path = tmp_path / "mednist_64.npz"
    np.savez_compressed(path, **arrays)
    found = sick_and_well(path, "test", 64, n_simulated=8)
    assert len(found.a) == 8 and len(found.b) == 12
    assert found.names == ("simulated CT", "real CT") and found.class_b == HEAD_CT
    for pile in (found.a, found.b):
        assert pile.min() >= AIR - 0.01 and pile.max() <= 1
        assert (pile[:, :, 0] - pile.min()).abs().max() < 0.01  # air at the border
