"""The GAN lab without a front end: the game, its picture, real callbacks, the twin."""

import asyncio
import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import gan_lab, gan_lab_picture, gan_lab_widget, gans, runtime
from course_lib.gan_lab import LOSSES, Game, made_data
from course_lib.gan_lab_presets import PRESETS, play, preset_game
from course_lib.gan_lab_widget import DRAWN, FEATURES, GANLab


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


def small(**settings):
    return Game(made_data("ring"), **settings)


# --- the game


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
    loud = small(**PRESETS["D too strong"].settings | {"loss": "non-saturating"})
    loud.look()
    loud.advance(100, "D alone")
    loud.look()
    assert PRESETS["D too strong"].outcome(loud.history) == 2


def test_a_clipped_critic_is_flat_and_its_weights_lie_at_the_bound():
    game, look = play("clipped to death")
    assert PRESETS["clipped to death"].outcome(game.history) == 0
    assert look.numbers["at the bound"] > 0.3
    assert weights(game.d).abs().max() <= 0.01 + 1e-6


def test_a_penalty_mends_what_clipping_broke_as_the_lesson_says():
    game = small(loss=gan_lab.PENALTY, k=3, rate_g=1e-3, rate_d=1e-3)
    game.advance(800)
    numbers = game.look().numbers
    assert numbers["modes"] >= 7 and numbers["slope of D"] > 1
    expected = 1 + numbers["W1"] / (2 * gan_lab.LAMBDA_GP)
    assert numbers["slope of D"] == pytest.approx(expected, abs=0.6)


def test_d_learns_few_points_by_heart():
    game, _ = play("few data")
    assert game.history[0]["prefers what it saw"] < 0.6
    assert PRESETS["few data"].outcome(game.history) == 2


def test_what_a_preset_says_is_read_from_its_measurements():
    rows = [{"modes": m, "on a mode": 0.5} for m in (2.0, 3.0, 6.0, 7.0)]
    outcomes = [PRESETS["healthy"].outcome([row]) for row in rows]
    assert outcomes == [0, 1, 1, 2]
    assert "6 of 8 modes" in PRESETS["healthy"].found(rows[:3])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_moves_both_networks_and_every_number_is_finite(loss):
    game = small(loss=loss)
    before = weights(game.g), weights(game.d)
    game.advance(3)
    assert not torch.equal(weights(game.g), before[0])
    assert not torch.equal(weights(game.d), before[1])
    assert all(np.isfinite(x) for x in game.look().numbers.values())


@pytest.mark.parametrize(("who", "moved"), [("D alone", "d"), ("G alone", "g")])
def test_a_player_alone_leaves_the_other_where_it_is(who, moved):
    game = small()
    before = {"g": weights(game.g), "d": weights(game.d)}
    game.advance(2, who)
    changed = {
        n for n, w in before.items() if not torch.equal(w, weights(getattr(game, n)))
    }
    assert changed == {moved}


def test_slices_of_a_run_and_other_random_numbers_beside_it_change_nothing():
    whole, slices = small(seed=3), small(seed=3)
    whole.advance(6)
    for _ in range(3):
        slices.advance(2)
        torch.randn(5)
        slices.look()
    assert torch.equal(weights(whole.g), weights(slices.g))


def test_a_game_leaves_the_random_numbers_and_threads_of_the_lesson_alone():
    torch.manual_seed(7)
    expected, threads = torch.randn(3), torch.get_num_threads()
    torch.manual_seed(7)
    game = small()
    game.advance(2)
    game.look()
    assert torch.equal(torch.randn(3), expected)
    assert torch.get_num_threads() == threads


def test_a_rate_turned_while_it_trains_counts_from_the_next_step():
    game = small()
    game.advance(1)
    game.rate_g = game.rate_d = 0.0
    before = weights(game.g)
    game.advance(2)
    assert torch.equal(weights(game.g), before)


def test_k_is_the_number_of_steps_of_d_for_one_of_g():
    game, steps = small(k=4), {"d": 0, "g": 0}
    for name in steps:
        opt = getattr(game, f"opt_{name}")
        step = opt.step
        opt.step = lambda *a, s=step, n=name: steps.update({n: steps[n] + 1}) or s(*a)
    game.advance(2)
    assert steps == {"d": 8, "g": 2}


def test_ema_shows_the_mean_and_trains_the_same():
    game = small(ema=True)
    game.advance(20)
    mean = game.look().samples
    game.ema = False
    assert not np.allclose(game.look().samples, mean)
    assert len(game.history) == 1  # one moment, seen twice


def test_weights_that_are_no_numbers_stop_the_game_with_the_fix():
    game = small()
    with torch.no_grad():
        next(game.d.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower the learning rates"):
        game.advance(1)


def test_the_pull_is_the_fall_of_the_generators_loss_at_a_point():
    game = small()
    game.advance(5, "D alone")
    look = game.look(arrows=5)
    place = torch.tensor(look.places[7:8])
    ahead = place + 1e-3 * torch.tensor(look.pull[7:8])
    fall = game.loss_of_g(place) - game.loss_of_g(ahead)
    expected = 1e-3 * float((look.pull[7] ** 2).sum())
    assert fall.item() == pytest.approx(expected, rel=0.1)


def test_one_look_measures_against_the_exact_pairing():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    y = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    assert gan_lab.exact_w1(x, y) == pytest.approx(0.5)
    assert gan_lab.exact_w1(x, x.flip(0)) == pytest.approx(0.0, abs=1e-6)
    assert gan_lab.exact_w1(x, x * float("nan")) == float("inf")


def test_modes_anywhere_are_counted_as_on_the_ring():
    points = gans.ring_of_gaussians(500, torch.Generator().manual_seed(0))
    points = torch.cat([points[points[:, 0] > 0], torch.zeros(50, 2)])
    ring = gans.ring_coverage(points)
    assert gans.mode_coverage(points, gans.ring_centres(), 0.02) == ring
    assert ring[0] < 8


# --- data


def test_each_made_data_set_lies_in_the_picture_and_on_its_modes():
    for name, (draw, centres) in gan_lab.MADE.items():
        points = draw(500, torch.Generator().manual_seed(0))
        assert points.shape == (500, 2) and points.abs().max() < gan_lab.HALF
        if centres is not None:
            found, share = gans.mode_coverage(points, centres, gan_lab.SIGMA)
            assert found == len(centres) and share > 0.95, name


def test_few_points_are_the_same_again_and_again():
    data = made_data("ring", few=5)
    batch = data.batch(200, torch.Generator().manual_seed(0))
    assert len(torch.unique(batch, dim=0)) == 5 == len(data.seen)
    fresh = data.fresh(200, torch.Generator().manual_seed(0))
    assert len(torch.unique(fresh, dim=0)) == 200


def test_nothing_drawn_cannot_be_learned():
    with pytest.raises(ValueError, match="draw some points"):
        gan_lab.drawn_data([])


def test_drawn_points_are_learned_where_they_are():
    data = gan_lab.drawn_data([[0.5, -0.5]])
    batch = data.batch(100, torch.Generator().manual_seed(0))
    assert (batch - torch.tensor([0.5, -0.5])).abs().max() < 0.2


def test_features_keep_apart_what_their_main_direction_keeps_apart():
    features = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    features[::2, 3] += 30
    data = gan_lab.feature_data(features)
    x = data.batch(400, torch.Generator().manual_seed(0))[:, 0]
    assert ((x.abs() > 0.3).float().mean()) > 0.95 and (x > 0).any() and (x < 0).any()
    with pytest.raises(ValueError, match="N >= 4"):
        gan_lab.feature_data(features[:3])


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: made_data("circle"), "ring, grid, line"),
        (lambda: small(loss="wasserstein"), "Wasserstein, clipped"),
        (lambda: small().advance(1, "nobody"), "D alone"),
        (lambda: preset_game("sick"), "healthy"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(wrong, word):
    with pytest.raises(ValueError, match=word):
        wrong()


# --- the picture


def test_blue_is_real_orange_is_generated_and_up_is_up():
    look = small().look()
    heat = np.where(np.arange(48)[:, None] >= 24, 1.0, -1.0) * np.ones((48, 48))
    bare = gan_lab.Look(
        np.empty((0, 2)), np.empty((0, 2)), heat, look.places, 0 * look.pull, {}
    )
    pixels = gan_lab_picture.paint(bare, 96).astype(int)
    top, bottom = pixels[0, 0], pixels[-1, 0]
    assert top[2] > top[0] and bottom[0] > bottom[2]


def test_samples_and_data_stand_where_they_are_and_what_is_outside_is_left_out():
    look = small().look()
    places = np.array([[-1.0, 1.0], [99.0, 0.0], [np.nan, 0.0]])
    bare = gan_lab.Look(
        places, np.array([[1.0, -1.0]]), 0 * look.heat, look.places, 0 * look.pull, {}
    )
    pixels = gan_lab_picture.paint(bare, 320)
    assert tuple(pixels[60, 60]) == gan_lab_picture.SAMPLE
    assert tuple(pixels[260, 260]) == gan_lab_picture.DATA


def test_alt_text_and_curves_tell_the_measurements():
    game = small()
    game.advance(2)
    numbers = game.look().numbers
    text = gan_lab_picture.describe(game, numbers)
    assert "step 2" in text and f"{numbers['W1']:.2f}" in text and "of 8 modes" in text
    page = gan_lab_picture.curves(game)
    assert page.count('role="img" aria-label=') == 4
    assert "<script" not in page and "http" not in page


# --- real callbacks


@pytest.fixture
def lab():
    return GANLab()


async def played(lab, *, seen=True, seconds=600.0):
    """Wait until the lab stops by itself, as a page that paints every picture."""
    task = lab.task
    end = asyncio.get_running_loop().time() + seconds
    while not task.done() and asyncio.get_running_loop().time() < end:
        if seen:
            lab.plane.painted = lab.plane.frame
        await asyncio.sleep(0.002)
    assert task.done()
    await task


def test_a_preset_asks_first_and_then_says_what_was_measured(lab):
    async def story():
        lab.train.value = True
        assert "First say what you expect" in lab.message.value
        assert not lab.train.value and lab.task is None
        lab.answer.value = "7 or 8"
        lab.train.value = True
        await played(lab)

    asyncio.run(story())
    assert lab.game.steps == PRESETS["collapse"].steps and not lab.train.value
    assert "Not as you expected" in lab.question.value
    assert PRESETS["collapse"].found(lab.game.history) in lab.question.value
    assert lab.message.value == ""


def test_pause_stops_within_one_slice_and_goes_on_from_there(lab):
    lab.preset.value, lab.answer.value = "healthy", "7 or 8"

    async def story():
        lab.train.value = True
        task = lab.task
        await asyncio.sleep(0.05)
        lab.train.value = False
        await asyncio.wait([task])
        steps = lab.game.steps
        await asyncio.sleep(0.05)
        assert lab.game.steps == steps > 0
        lab.train.value = True
        await asyncio.sleep(0.05)
        assert lab.game.steps > steps
        lab.train.value = False

    asyncio.run(story())


def test_pause_and_train_in_one_breath_leave_one_run(lab):
    lab.loss.value = "hinge"

    async def story():
        lab.train.value = True
        first = lab.task
        await asyncio.sleep(0.05)
        lab.train.value = False
        lab.train.value = True
        await asyncio.wait([first])
        assert lab.train.value and lab.task is not first and not lab.task.done()
        lab.train.value = False

    asyncio.run(story())


def test_no_picture_is_sent_before_the_last_one_was_painted(lab, monkeypatch):
    monkeypatch.setattr(gan_lab_widget, "UNPAINTED_S", 600)
    monkeypatch.setattr(gan_lab_widget, "UNSEEN_S", 600)
    lab.loss.value = "hinge"  # a person's own settings: no end

    async def story():
        waiting = lab.plane.frame
        lab.train.value = True
        for _ in range(3):
            while lab.plane.frame == waiting:
                await asyncio.sleep(0.005)
            waiting += 1
            await asyncio.sleep(0.1)  # in which nothing may be sent
            assert lab.plane.frame == waiting
            lab.plane.painted = waiting
        lab.train.value = False

    asyncio.run(story())


def test_it_pauses_where_nobody_looks(lab, monkeypatch):
    monkeypatch.setattr(gan_lab_widget, "UNSEEN_S", 0.2)
    lab.loss.value = "hinge"

    async def story():
        lab.train.value = True
        await played(lab, seen=False)

    asyncio.run(story())
    assert not lab.train.value and "nobody was looking" in lab.message.value


def test_another_lab_stops_the_one_before(lab):
    lab.loss.value = "hinge"

    async def story():
        lab.train.value = True
        task = lab.task
        await asyncio.sleep(0)
        GANLab()
        await asyncio.wait([task])
        assert task.cancelled() and not lab.train.value

    asyncio.run(story())


def test_an_error_while_it_trains_is_shown_and_raised(lab, monkeypatch):
    lab.loss.value = "hinge"

    def broken(steps, who):
        raise RuntimeError("no <gradient>")

    monkeypatch.setattr(lab.game, "advance", broken)

    async def story():
        lab.train.value = True
        with pytest.raises(RuntimeError, match="gradient"):
            await played(lab)

    asyncio.run(story())
    assert "RuntimeError: no &lt;gradient&gt;" in lab.message.value
    assert not lab.train.value
    with pytest.raises(RuntimeError):
        lab.on_step()


def test_in_a_script_it_says_that_it_needs_a_notebook(lab):
    lab.loss.value = "hinge"
    lab.train.value = True
    assert not lab.train.value and "needs a notebook" in lab.message.value


def test_one_step_moves_the_game_by_one_and_shows_it(lab):
    lab.loss.value = "hinge"
    picture = lab.plane.picture
    lab.step.click()
    assert lab.game.steps == 1 and lab.plane.picture != picture
    lab.who.value = "D alone"
    before = weights(lab.game.g)
    lab.step.click()
    assert lab.game.steps == 2 and torch.equal(weights(lab.game.g), before)
    lab.restart.click()
    assert lab.game.steps == 0


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_lies_on_the_knobs_and_asks_its_question(lab, name):
    lab.preset.value = name
    preset = PRESETS[name]
    for knob, value in preset.settings.items():
        assert getattr(lab, knob).value == value
        if knob != "loss":
            assert getattr(lab.game, knob) == value
    assert lab.game.loss == preset.settings.get("loss", "non-saturating")
    assert (lab.game.data.seen is not None) == (preset.few is not None)
    assert preset.question in lab.question.value and lab.answer.value is None
    twin = preset_game(name)
    assert torch.equal(weights(twin.g), weights(lab.game.g))


def test_a_knob_that_acts_at_once_keeps_the_networks_and_leaves_the_preset(lab):
    game = lab.game
    lab.rate_d.value = 5e-4
    assert lab.game is game and game.rate_d == 5e-4
    assert lab.preset.value is None and lab.question.value == ""


def test_a_knob_of_another_game_starts_one(lab):
    game, picture = lab.game, lab.plane.picture
    lab.seed.value = 4
    assert lab.game is not game and lab.plane.picture != picture
    assert lab.preset.value == "collapse" and lab.answer.value is None
    lab.loss.value = gan_lab.CLIPPED
    assert lab.r1.disabled and not lab.clip.disabled
    lab.loss.value = "hinge"
    assert not lab.r1.disabled and lab.clip.disabled


def test_points_drawn_by_hand_are_learned_at_once(lab):
    lab.data.value = DRAWN
    assert lab.game is None and "draw some points" in lab.message.value
    assert lab.plane.drawing and lab.plane.alt == "An empty plane."
    lab.step.click()
    assert "draw some points" in lab.message.value
    lab.plane.points = [[0.5, 0.5]]
    assert lab.message.value == "" and lab.game.steps == 0
    lab.step.click()
    game = lab.game
    lab.plane.points = [[0.5, 0.5], [-1.0, -1.0]]
    assert lab.game is game and (game.real[:, 0] < 0).any()
    lab.clear.click()
    assert lab.game is None


def test_features_of_images_are_a_data_set_where_they_are_given(lab):
    assert FEATURES not in lab.data.options
    mine = GANLab(torch.randn(40, 6))
    mine.data.value = FEATURES
    assert mine.game.real.shape == (gan_lab.SHOWN, 2) and "modes" not in mine.plane.alt


def test_every_control_has_a_label_and_the_keyboard_reaches_it(lab):
    def inside(box):
        for child in getattr(box, "children", ()):
            yield child
            yield from inside(child)

    controls = [w for w in inside(lab.box) if hasattr(w, "disabled")]
    assert len(controls) == 18
    assert all(control.description for control in controls)
    assert all(control.tabbable is not False for control in controls)


# --- the static twin


def test_without_a_front_end_only_the_twin_is_shown(lab):
    data, metadata = lab._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    alt = metadata["image/png"]["alt"]
    assert "collapse: G covers" in alt and "healthy: G covers 8 of 8" in alt
    assert Image.open(io.BytesIO(data["image/png"])).width > 400
    assert len(data["image/png"]) < 30_000


def test_where_somebody_looks_the_controls_come_with_what_they_show(lab, monkeypatch):
    monkeypatch.setattr(runtime, "has_front_end", lambda: True)
    monkeypatch.setattr("course_lib.widgets.has_front_end", lambda: True)
    data, metadata = lab._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == lab.box.model_id
    assert data["image/png"] == lab.plane.picture
    assert metadata["image/png"]["alt"] == lab.plane.alt
