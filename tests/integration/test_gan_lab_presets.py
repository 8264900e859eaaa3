"""The GAN lab's presets, played to their ends: what they show is what they say."""

import asyncio
import io
from functools import cache

import pytest
from PIL import Image

from course_lib import gan_lab, gan_lab_picture, gan_lab_presets, gan_lab_widget
from course_lib.gan_lab import Game, made_data
from course_lib.gan_lab_presets import PRESETS
from course_lib.gan_lab_widget import GANLab

play = cache(gan_lab_presets.play)  # twin and tests look at the same games


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_preset_collapse_covers_at_most_two_of_eight_modes(seed):
    game, look = play("collapse", seed)
    assert look.numbers["modes"] <= 2
    assert look.numbers["W1"] > 3 * game.floor
    assert PRESETS["collapse"].outcome(game.history) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_preset_healthy_covers_at_least_seven_of_eight_modes(seed):
    game, look = play("healthy", seed)
    assert look.numbers["modes"] >= 7
    assert look.numbers["W1"] < 2.5 * game.floor
    assert PRESETS["healthy"].outcome(game.history) == 2


def test_a_strong_d_silences_the_saturating_loss_and_not_the_other():
    game, _ = play("D too strong")
    assert PRESETS["D too strong"].outcome(game.history) == 0
    settings = PRESETS["D too strong"].settings | {"loss": "non-saturating"}
    loud = Game(made_data("ring"), **settings)
    loud.look()
    loud.advance(100, "D alone")
    loud.look()
    assert PRESETS["D too strong"].outcome(loud.history) == 2


def test_a_clipped_critic_is_flat_and_its_weights_lie_at_the_bound():
    game, look = play("clipped to death")
    assert PRESETS["clipped to death"].outcome(game.history) == 0
    assert look.numbers["at the bound"] > 0.3
    assert all(p.abs().max() <= 0.01 + 1e-6 for p in game.d.parameters())


def test_a_penalty_mends_what_clipping_broke_as_the_lesson_says():
    data = made_data("ring")
    game = Game(data, loss=gan_lab.PENALTY, k=3, rate_g=1e-3, rate_d=1e-3)
    game.advance(800)
    numbers = game.look().numbers
    assert numbers["modes"] >= 7 and numbers["slope of D"] > 1
    expected = 1 + numbers["W1"] / (2 * gan_lab.LAMBDA_GP)
    assert numbers["slope of D"] == pytest.approx(expected, abs=0.6)


def test_d_learns_few_points_by_heart():
    game, _ = play("few data")
    assert game.history[0]["prefers what it saw"] < 0.6
    assert PRESETS["few data"].outcome(game.history) == 2


def test_a_preset_asks_first_and_then_says_what_was_measured(monkeypatch):
    monkeypatch.setattr(gan_lab_widget, "UNSEEN_S", float("inf"))
    lab = GANLab()

    async def story():
        lab.train.value = True
        assert "First say what you expect" in lab.message.value
        assert not lab.train.value and lab.task is None
        lab.answer.value = "7 or 8"
        lab.train.value = True
        task = lab.task
        while not task.done():  # as a page that paints every picture
            lab.plane.painted = lab.plane.frame
            await asyncio.sleep(0.002)
        await task

    asyncio.run(story())
    assert lab.game.steps == PRESETS["collapse"].steps and not lab.train.value
    assert "Not as you expected" in lab.question.value
    assert PRESETS["collapse"].found(lab.game.history) in lab.question.value
    assert lab.message.value == ""


def test_without_a_front_end_only_the_twin_is_shown(monkeypatch):
    monkeypatch.setattr(gan_lab_picture, "play", play)
    data, metadata = GANLab()._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    alt = metadata["image/png"]["alt"]
    assert "collapse: G covers" in alt and "healthy: G covers 8 of 8" in alt
    assert Image.open(io.BytesIO(data["image/png"])).width > 400
    assert len(data["image/png"]) < 30_000
