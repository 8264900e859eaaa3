"""The WGAN of lesson 04: exact distances, bounds on the slope, and one step of each."""

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from course_lib import wasserstein
from course_lib.gans import Discriminator, Generator
from course_lib.wasserstein import (
    LinearPieces,
    clip_weights,
    critic_loss,
    critic_step,
    generator_loss,
    generator_step,
    gradient_norm,
    gradient_penalty,
    interpolate,
    make_train_step,
    power_iteration,
    split_batch,
    wasserstein_1d,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(norm="none", classes=None, size=16):
    generator = Generator(8, 4, size, num_classes=classes)
    critic = Discriminator(4, size, num_classes=classes, norm=norm)
    opt_g = torch.optim.Adam(generator.parameters(), 1e-2, betas=(0.0, 0.9))
    opt_c = torch.optim.Adam(critic.parameters(), 1e-2, betas=(0.0, 0.9))
    return generator, critic, opt_g, opt_c


def images(n=8, size=16):
    return torch.rand(n, 1, size, size) * 2 - 1


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def test_w1_of_a_shifted_set_is_the_shift():
    x = torch.randn(101)
    assert wasserstein_1d(x, (x + 3)[torch.randperm(101)]).item() == pytest.approx(3)
    assert wasserstein_1d(x, x.flip(0)).item() == 0


def test_w1_agrees_with_scipy():
    from scipy.stats import wasserstein_distance

    x, y = torch.randn(200), 1 + 2 * torch.rand(200)
    expected = wasserstein_distance(x.numpy(), y.numpy())
    assert wasserstein_1d(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_w1_of_unequal_numbers_of_points_is_refused():
    with pytest.raises(ValueError, match="equally many"):
        wasserstein_1d(torch.zeros(3), torch.zeros(4))


def test_losses_of_critic_and_generator_have_opposite_signs_on_fakes():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    assert critic_loss(real, fake).item() == -1.5
    assert generator_loss(fake).item() == -0.5


def test_the_best_line_scores_the_distance_of_two_shifted_sets():
    x = torch.randn(50)
    assert -critic_loss(x + 2, x).item() == pytest.approx(2)  # f(x) = x has slope 1


def test_clipping_bounds_every_weight_and_leaves_small_ones_alone():
    critic = nn.Linear(50, 50)
    before = weights(critic)
    clip_weights(critic, 0.05)
    assert torch.equal(weights(critic), before.clamp(-0.05, 0.05))


def test_interpolates_lie_between_each_pair_at_one_place_an_image():
    mixed = interpolate(torch.ones(64, 1, 4, 4), torch.zeros(64, 1, 4, 4))
    share = mixed.flatten(1)
    assert (share == share[:, :1]).all() and share.min() >= 0 and share.max() <= 1
    assert share[:, 0].unique().numel() > 60


def test_gradient_norm_of_a_linear_critic_is_the_length_of_its_weights():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0))
    norm = gradient_norm(critic, torch.randn(5, 1, 4, 4))
    expected = critic[1].weight.norm().expand(5)
    torch.testing.assert_close(norm, expected)


def test_gradient_norm_agrees_with_finite_differences():
    critic = Discriminator(4, 16, norm="none").double()
    x = images(3).double()
    norm = gradient_norm(critic, x)
    for i in range(3):
        one = x[i : i + 1].clone().requires_grad_()
        (direction,) = torch.autograd.grad(critic(one).sum(), one)
        step = 1e-6 * direction / direction.norm()
        slope = (critic(x[i : i + 1] + step) - critic(x[i : i + 1] - step)) / 2e-6
        assert slope.item() == pytest.approx(norm[i].item(), rel=1e-4)


def test_penalty_can_be_differentiated_by_the_critics_weights():
    critic = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Flatten(0))
    penalty, norm = gradient_penalty(critic, torch.randn(6, 4), torch.randn(6, 4))
    length = critic[0].weight.norm()
    torch.testing.assert_close(penalty, (length - 1) ** 2)
    penalty.backward()
    expected = 2 * (length - 1) * critic[0].weight / length
    torch.testing.assert_close(critic[0].weight.grad, expected.detach())
    assert norm.shape == (6,)


def test_linear_pieces_change_no_number():
    found = []
    for spare in (False, True):
        torch.manual_seed(1)
        critic, x = Discriminator(4, 16, norm="none"), images(4)
        with LinearPieces() if spare else nullcontext():
            norm = gradient_norm(critic, x)
        (norm - 1).square().mean().backward()
        blank = torch.zeros(())
        grads = [p.grad if p.grad is not None else blank for p in critic.parameters()]
        found.append([norm.detach(), *grads])
    for exact, spared in zip(*found, strict=True):
        torch.testing.assert_close(spared.expand_as(exact), exact)


def test_linear_pieces_leave_the_default_slope_and_other_functions_alone():
    x = torch.randn(20)
    with LinearPieces():
        torch.testing.assert_close(F.leaky_relu(x), x.where(x > 0, 0.01 * x))
        torch.testing.assert_close(F.silu(x), x * x.sigmoid())


def test_penalty_does_not_reach_the_generator():
    generator, critic, _, _ = pair()
    fake = generator(torch.randn(4, 8))
    penalty, _ = gradient_penalty(critic, images(4), fake)
    penalty.backward()
    assert all(p.grad is None for p in generator.parameters())


def test_power_iteration_agrees_with_the_singular_values():
    weight = torch.randn(7, 12)
    expected = torch.linalg.matrix_norm(weight, 2)
    torch.testing.assert_close(power_iteration(weight, 200), expected)


def test_critics_step_moves_the_critic_alone():
    generator, critic, _, opt_c = pair()
    before_g, before_c = weights(generator), weights(critic)
    found = critic_step(generator, critic, opt_c, images())
    assert torch.equal(weights(generator), before_g)
    assert not torch.equal(weights(critic), before_c)
    assert set(found) == {"estimate", "slope"}
    assert not any(value.requires_grad for value in found.values())


def test_generators_step_moves_the_generator_alone_and_leaves_the_critic_trainable():
    generator, critic, opt_g, _ = pair()
    before_g, before_c = weights(generator), weights(critic)
    generator_step(generator, critic, opt_g, 8)
    assert not torch.equal(weights(generator), before_g)
    assert torch.equal(weights(critic), before_c)
    assert all(p.requires_grad and p.grad is None for p in critic.parameters())


def test_critics_steps_raise_the_estimate_and_bring_the_slope_to_one():
    generator = Generator(8, 4, 16)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(256, 1), nn.Flatten(0))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2, betas=(0.0, 0.9))
    found = [critic_step(generator, critic, optimizer, images(8)) for _ in range(40)]
    assert found[-1]["estimate"] > 5 * abs(found[0]["estimate"])
    assert found[-1]["slope"].item() == pytest.approx(1, abs=0.35)


def test_slope_at_the_optimum_is_one_plus_w1_over_twice_lambda():
    # f(x) = g x earns g W - lambda (g - 1)^2, most at g = 1 + W / (2 lambda)
    critic = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0))
    nn.init.ones_(critic[0].weight)
    optimizer = torch.optim.SGD(critic.parameters(), 0.02)
    real, fake = torch.full((8, 1), 4.0), torch.zeros(8, 1)
    for _ in range(100):
        penalty, _ = gradient_penalty(critic, real, fake)
        loss = critic_loss(critic(real), critic(fake)) + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert critic[0].weight.item() == pytest.approx(1 + 4 / 20, abs=1e-3)


def test_train_step_gives_the_critic_n_steps_for_one_of_the_generator(monkeypatch):
    calls = []
    step_c, step_g = wasserstein.critic_step, wasserstein.generator_step
    monkeypatch.setattr(
        wasserstein,
        "critic_step",
        lambda *a: calls.append(("c", len(a[3]))) or step_c(*a),
    )
    monkeypatch.setattr(
        wasserstein,
        "generator_step",
        lambda *a: calls.append(("g", a[3])) or step_g(*a),
    )
    train_step = make_train_step(*pair(), n_critic=3)
    losses = train_step(images(12))
    assert calls == [("c", 4), ("c", 4), ("c", 4), ("g", 4)]
    assert set(losses) == {"estimate", "slope", "loss_g"}
    assert all(math.isfinite(value) for value in losses.values())


def test_clipped_train_step_has_no_penalty_and_bounded_weights():
    nets = pair()
    losses = make_train_step(*nets, n_critic=2, lambda_gp=0, clip=0.01)(images(8))
    assert "slope" not in losses and weights(nets[1]).abs().max() <= 0.01


def test_penalty_on_a_part_of_the_batch_uses_that_part(monkeypatch):
    seen = []
    penalty = wasserstein.gradient_penalty
    monkeypatch.setattr(
        wasserstein,
        "gradient_penalty",
        lambda *a: seen.append([len(part) for part in a[1:]]) or penalty(*a),
    )
    batch = images(8), torch.zeros(8, dtype=torch.int64)
    make_train_step(*pair(classes=2), n_critic=1, gp_images=3)(batch)
    assert seen == [[3, 3, 3]]


def test_conditional_networks_train_on_images_with_labels():
    generator, critic, *optimizers = pair(classes=3)
    before = weights(generator), weights(critic)
    batch = images(12), torch.arange(12) % 3
    make_train_step(generator, critic, *optimizers, n_critic=2)(batch)
    assert not torch.equal(weights(generator), before[0])
    assert not torch.equal(weights(critic), before[1])
    z = torch.randn(1, 8).expand(2, 8)
    first, second = generator.eval()(z, torch.tensor([0, 1]))
    assert not torch.equal(first, second)


def test_spectral_norm_bounds_the_slope_of_linear_layers_by_one():
    layers = [spectral_norm(nn.Linear(16, 16)) for _ in range(3)]
    critic = nn.Sequential(*layers, spectral_norm(nn.Linear(16, 1)), nn.Flatten(0))
    for _ in range(50):  # each forward pass in training mode is one power iteration
        critic(torch.randn(4, 16))
    assert gradient_norm(critic.eval(), torch.randn(64, 16)).max() <= 1.01


def test_without_a_penalty_there_is_no_slope_to_report():
    losses = make_train_step(*pair("spectral"), lambda_gp=0)(images(10))
    assert set(losses) == {"estimate", "loss_g"}


def test_a_batch_that_cannot_be_shared_out_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"batch_size=3 \* images"):
        split_batch(images(8), 3)
    parts = split_batch((images(6), torch.arange(6)), 3)
    assert [(len(x), y.tolist()) for x, y in parts] == [
        (2, [0, 1]),
        (2, [2, 3]),
        (2, [4, 5]),
    ]


def test_batch_norm_lets_other_images_into_a_score_and_no_norm_does_not():
    x = images(6).requires_grad_()
    for norm, leaks in (("none", False), ("batch", True)):
        critic = Discriminator(4, 16, norm=norm)
        (gradient,) = torch.autograd.grad(critic(x)[0], x)
        assert bool(gradient[1:].abs().max() > 0) is leaks


def test_gpu_recipe_in_miniature_bf16_and_channels_last():
    generator, critic, opt_g, opt_c = pair(size=64)
    for net in (generator, critic):
        net.to(memory_format=torch.channels_last)
    train_step = make_train_step(generator, critic, opt_g, opt_c, n_critic=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = train_step(images(4, 64))
    assert all(math.isfinite(float(value)) for value in losses.values())


def test_slope_in_bf16_is_that_of_float32_within_three_per_cent():
    critic, x = Discriminator(8, 32, norm="none"), images(8, 32)
    exact = gradient_norm(critic, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gradient_norm(critic, x)
    assert (rough / exact - 1).abs().max() < 0.03
