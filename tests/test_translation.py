"""Translation: nets, losses, the pool, and what a step of training may touch."""

import itertools

import pytest
import torch
from torch import nn

from course_lib import translation
from course_lib.datasets import batches
from course_lib.training import EMA, autocast, fit, load_weights, save_weights
from course_lib.translation import (
    CycleGAN,
    ImagePool,
    PatchDiscriminator,
    ResnetGenerator,
    cycle_ramp,
    judges_loss,
    lesion_recall,
    make_cyclegan_step,
    receptive_field,
    translate,
    translators_loss,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, size=16, channels=1, seed=0):
    return torch.rand(n, channels, size, size, generator=rng(seed)) * 2 - 1


def small(**shape):
    torch.manual_seed(0)
    return CycleGAN(**{"width": 4, "n_blocks": 1, "d_width": 4} | shape)


def stepper(nets, **options):
    opt_g = torch.optim.Adam(nets.translators.parameters(), 1e-3)
    opt_d = torch.optim.Adam(nets.judges.parameters(), 1e-3)
    return make_cyclegan_step(nets, opt_g, opt_d, **options)


@pytest.mark.parametrize(
    "size, n_downs, channels", [(16, 1, 1), (28, 1, 3), (28, 2, 1)]
)
def test_a_translation_has_the_size_of_its_input_and_stays_in_range(
    size, n_downs, channels
):
    generator = ResnetGenerator(4, 1, n_downs, channels=channels)
    x = images(2, size, channels)
    assert generator(x).shape == x.shape
    assert generator(50 * x).abs().max() <= 1


def test_the_papers_generator_goes_down_twice_and_up_twice():
    net = ResnetGenerator(width=64, n_blocks=9, n_downs=2, kernel_size=7)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    ups = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.stride for m in convs].count((2, 2)) == 2
    assert [m.stride for m in ups] == [(2, 2)] * 2
    assert sum(isinstance(m, translation.ResidualBlock) for m in net.modules()) == 9
    # the published 9-block generator for colour has 11.378 million weights
    colour = ResnetGenerator(64, 9, 2, 7, channels=3)
    assert sum(p.numel() for p in colour.parameters()) == 11_378_179


def test_a_residual_block_that_adds_nothing_is_the_identity():
    block = translation.ResidualBlock(4)
    nn.init.zeros_(block.block[1].weight)
    nn.init.zeros_(block.block[1].bias)
    x = torch.randn(2, 4, 8, 8, generator=rng())
    assert torch.equal(block(x), x)


def test_receptive_field_is_what_a_gradient_reaches():
    judge = PatchDiscriminator(4, n_layers=2)
    # instance norm looks at the whole image: without it, the patch alone is left
    plain = [m for m in judge.layers if not isinstance(m, nn.InstanceNorm2d)]
    x = images(1, 64).requires_grad_()
    out = nn.Sequential(*plain)(x)
    out[0, 0, 7, 7].backward()
    reached = x.grad[0, 0].abs().sum(0).nonzero()
    convs = [m for m in plain if isinstance(m, nn.Conv2d)]
    shape = [(m.kernel_size[0], m.stride[0]) for m in convs]
    assert int(reached.max() - reached.min()) + 1 == receptive_field(shape) == 22


def test_receptive_field_of_the_papers_judge_is_70():
    assert receptive_field([(4, 2)] * 3 + [(4, 1)] * 2) == 70


def test_losses_are_zero_for_translators_that_do_nothing():
    nets = small()
    nets.g_ab = nets.g_ba = nn.Identity()
    reals = images(2), images(2, seed=1)
    weights = {"gan": 0.0, "cycle": 1.0, "identity": 1.0}
    total, losses, fakes = translators_loss(nets, reals, weights)
    assert total == losses["cycle"] == losses["identity"] == 0
    assert torch.equal(fakes[0], reals[1])


def test_the_cycle_loss_is_the_mean_absolute_difference_both_ways():
    nets = small()

    class Shift(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return x + self.by

    nets.g_ab, nets.g_ba = Shift(0.5), Shift(-0.2)
    _, losses, _ = translators_loss(
        nets, (images(2), images(2)), translation.PAPER_WEIGHTS
    )
    assert losses["cycle"].item() == pytest.approx(0.6, abs=1e-6)


def test_judges_want_one_on_real_and_zero_on_fake():
    nets = small()
    nets.d_a = nets.d_b = nn.Identity()  # says what it sees
    real, fake = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    assert judges_loss(nets, (real, real), [fake, fake]) == 0
    assert judges_loss(nets, (fake, fake), [real, real]) == 2


def test_the_judges_step_leaves_translators_alone_and_back():
    nets = small()
    before = [p.clone() for p in nets.parameters()]
    opt_g = torch.optim.SGD(nets.translators.parameters(), 0.0)
    opt_d = torch.optim.SGD(nets.judges.parameters(), 0.1)
    make_cyclegan_step(nets, opt_g, opt_d)((images(2), images(2, seed=1)))
    after = dict(zip(nets.named_parameters(), before, strict=True))
    for (name, now), old in after.items():
        moved = not torch.equal(now, old)
        # a bias before an instance norm has no effect and so no gradient
        assert moved == name.startswith("d_") or not name.endswith("weight"), name
    assert all(p.requires_grad for p in nets.parameters())


def test_the_translators_gradient_is_that_of_the_weighted_sum():
    nets = small()
    reals, weights = (images(2), images(2, seed=1)), {"gan": 0.5, "cycle": 3.0}
    total, losses, _ = translators_loss(nets, reals, weights)
    assert total.item() == pytest.approx(
        0.5 * losses["gan"].item() + 3 * losses["cycle"].item(), rel=1e-6
    )
    total.backward()
    wanted = [p.grad.clone() for p in nets.translators.parameters()]
    opt_g = torch.optim.SGD(nets.translators.parameters(), 0.0)
    opt_d = torch.optim.SGD(nets.judges.parameters(), 0.0)
    make_cyclegan_step(nets, opt_g, opt_d, weights)(reals)
    for p, grad in zip(nets.translators.parameters(), wanted, strict=True):
        assert torch.allclose(p.grad, grad, atol=1e-7)


def test_the_cycle_ramp_rises_to_one_and_stays():
    values = [cycle_ramp(step, 10) for step in range(13)]
    assert values[0] == 0.02 and values[10:] == [1.0] * 3
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert cycle_ramp(0, 0) == 1.0


def test_the_pool_fills_first_then_gives_back_half_of_them():
    pool, old = ImagePool(10, seed=0), 0
    for step in range(400):
        fakes = torch.full((1, 1, 1, 1), float(step), requires_grad=True)
        shown = pool(fakes)
        assert not shown.requires_grad
        assert len(pool.images) == min(step + 1, 10)
        assert step >= 10 or shown.item() == step
        old += shown.item() != step
    assert 0.4 < old / 390 < 0.6
    assert min(image.item() for image in pool.images) > 300


def test_a_pool_of_size_zero_gives_back_what_came_in():
    x = images(3)
    assert torch.equal(ImagePool(0)(x), x)


def test_the_same_seed_trains_the_same_network():
    def trained():
        nets = small()
        feed = batches(images(8), images(8, seed=1), batch_size=4)
        fit(stepper(nets, warm_up=2), feed, 3)
        return nets.g_ab(images(1)).detach()

    assert torch.equal(trained(), trained())


def test_training_lowers_the_cycle_loss():
    nets = small()
    feed = batches(images(4), -images(4, seed=1), batch_size=4)
    history = fit(stepper(nets), feed, 12)
    assert history["cycle"][-3:].mean() < 0.9 * history["cycle"][:3].mean()
    assert set(history) == {"gan", "cycle", "judges"}


def test_the_gpu_part_runs_in_miniature_on_the_cpu():
    nets = small(n_blocks=2, n_downs=2, n_layers=3)
    ema = EMA(nets)
    device = torch.device("cpu")
    step = stepper(nets, warm_up=1, precision=lambda: autocast(device))
    fit(step, batches(images(4, 32), images(4, 32), batch_size=2), 2, ema=ema)
    made = translate(ema.module.g_ab, images(3, 32), batch_size=2)
    assert made.shape == (3, 1, 32, 32) and not made.requires_grad


def test_bfloat16_around_the_networks_still_trains_float32_weights():
    nets = small()
    step = stepper(nets, precision=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    losses = step((images(2), images(2)))
    assert all(loss.isfinite() for loss in losses.values())
    assert {p.dtype for p in nets.parameters()} == {torch.float32}


def test_weights_are_kept_once_and_come_back(tmp_path):
    nets = small()
    manifest = dict.fromkeys(("command", "data", "budget", "seed", "metrics"), "x")
    saved = save_weights(tmp_path / "nets.safetensors", nets, manifest=manifest)
    assert saved["parameters"] == sum(p.numel() for p in nets.parameters())
    torch.manual_seed(1)
    other = CycleGAN(4, 1, d_width=4)
    load_weights(tmp_path / "nets.safetensors", other)
    assert torch.equal(other.g_ab(images(1)), nets.g_ab(images(1)))


def test_lesion_recall_counts_lesions_and_not_pixels():
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, :3], mask[1, 3, :2], mask[2, 3, 2:] = True, True, True
    lesions = [(0, m) for m in mask]
    picture = torch.zeros(1, 1, 4, 4)
    picture[0, 0][mask[0]] = 1.0
    assert lesion_recall(picture, lesions, 0.0, 1.0) == pytest.approx(1 / 3)
    assert lesion_recall(1 - picture, lesions, 1.0, 0.0) == pytest.approx(1 / 3)
    assert lesion_recall(picture + 1, lesions, 0.0, 1.0) == 1.0
