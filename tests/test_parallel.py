"""How several processes share one batch, without starting any."""

import pytest
import torch

from course_lib.parallel import Team


def test_a_batch_that_cannot_be_cut_is_an_error_with_the_fix():
    with pytest.raises(ValueError, match="batch of 9 cannot be cut into 2 equal parts"):
        Team(0, 2).part((torch.rand(9, 2), torch.rand(9)))


def test_parts_are_the_whole_batch_in_order():
    x, y = torch.arange(12).reshape(6, 2), torch.arange(6)
    teams = [Team(rank, 3) for rank in range(3)]
    parts = [team.part({"images": (x, y), "name": "a"}) for team in teams]
    assert torch.equal(torch.cat([part["images"][0] for part in parts]), x)
    assert torch.equal(torch.cat([part["images"][1] for part in parts]), y)
    assert parts[1]["name"] == "a"


def test_alone_nothing_changes():
    batch, losses = torch.rand(5), {"loss": torch.tensor(1.0)}
    assert Team().part(batch) is batch and Team().mean(losses) is losses
