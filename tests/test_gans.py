"""The DCGAN of lesson 03: shapes, losses against closed forms, and who may move."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.gans import (
    KINDS,
    Discriminator,
    Generator,
    PointNet,
    Residual,
    diff_augment,
    discriminator_loss,
    generator_loss,
    init_weights,
    make_train_step,
    r1_penalty,
    ring_coverage,
    ring_of_gaussians,
    update_discriminator,
    update_generator,
    with_residuals,
)

LOGITS = torch.tensor([-3.0, -0.5, 0.0, 2.0])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(norm="batch", num_classes=None):
    shape = {"width": 4, "image_size": 16, "num_classes": num_classes}
    return Generator(8, **shape), Discriminator(norm=norm, **shape)


def sgd(net, rate=0.1):
    return torch.optim.SGD(net.parameters(), rate)


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Networks


@pytest.mark.parametrize("size", [16, 28, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_and_colour_goes_to_an_image_and_back_to_a_logit(size, channels):
    g = Generator(8, width=8, image_size=size, channels=channels)
    d = Discriminator(width=8, image_size=size, channels=channels)
    x = g(torch.randn(2, 8))
    assert x.shape == (2, channels, size, size) and x.abs().max() < 1
    assert d(x).shape == (2,)


@pytest.mark.parametrize("norm", ["batch", "none", "spectral", "instance"])
def test_labels_choose_the_image_and_the_logit_at_every_norm(norm):
    g, d = pair(norm, num_classes=3)
    g, d = g.eval(), d.eval()
    z = torch.randn(1, 8).expand(3, 8)
    x = g(z, torch.arange(3))
    assert (x[0] - x[1]).abs().max() > 1e-4
    same = x[:1].expand(3, -1, -1, -1)
    assert len(set(d(same, torch.arange(3)).tolist())) == 3


def test_another_size_or_norm_fails_with_what_may_be_chosen():
    with pytest.raises(ValueError, match="choose 28, 32, 64"):
        Generator(image_size=30)
    with pytest.raises(ValueError, match="batch, none, instance, spectral"):
        Discriminator(norm="layer")


def test_the_papers_rules_hold_in_the_networks():
    g, d = Generator(), Discriminator()
    in_g, in_d = ({type(m) for m in net.modules()} for net in (g, d))
    assert {nn.ReLU, nn.BatchNorm2d, nn.Tanh} <= in_g and nn.LeakyReLU not in in_g
    assert {nn.LeakyReLU, nn.BatchNorm2d} <= in_d and nn.ReLU not in in_d
    assert not {nn.MaxPool2d, nn.Dropout, nn.Dropout2d} & (in_g | in_d)
    assert isinstance(d.blocks[0][1], nn.Identity)  # no batch norm on the input layer


def test_without_batch_norm_a_logit_does_not_depend_on_the_rest_of_the_batch():
    x = torch.rand(4, 1, 16, 16)
    for norm, alone in {"none": True, "instance": True, "batch": False}.items():
        d = pair(norm)[1]
        assert torch.allclose(d(x)[:1], d(x[:1]), atol=1e-6) == alone


def test_spectral_norm_bounds_every_layer():
    d = pair("spectral")[1].eval()
    layers = [m for m in d.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for _ in range(30):  # power iterations
        d.train()(torch.rand(2, 1, 16, 16))
    d.eval()
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in layers]
    assert len(norms) == 3 and all(abs(n - 1) < 0.02 for n in norms)


def test_a_residual_adds_relu_of_batch_norm_of_a_convolution():
    layer, x = Residual(3), torch.randn(4, 3, 5, 6)
    h = F.conv2d(x, layer.conv.weight, padding=1)
    mean, variance = h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0)
    h = (h - mean[:, None, None]) / (variance + 1e-5)[:, None, None] ** 0.5
    assert torch.allclose(layer(x), x + h.clamp(min=0), atol=1e-5)


@pytest.mark.parametrize(("size", "found"), [(16, 1), (28, 1), (32, 2), (64, 3)])
def test_residuals_stand_behind_relu_before_all_up_convolutions_but_the_last(
    size, found
):
    g = with_residuals(Generator(8, width=8, image_size=size))
    order = [nn.BatchNorm2d, nn.ReLU, Residual, nn.ConvTranspose2d]
    *inner, last, tanh = g.blocks
    assert [[type(layer) for layer in block] for block in inner] == [order] * found
    assert len(last) == 3 and isinstance(tanh, nn.Tanh)
    assert g(torch.randn(2, 8)).shape == (2, 1, size, size)


def test_residuals_that_say_nothing_leave_the_image_as_it_was():
    g, z = Generator(8, width=8).eval(), torch.randn(2, 8)
    before = g(z)
    assert with_residuals(g) is g
    g.eval()
    assert not torch.allclose(g(z), before)
    for layer in g.modules():
        if isinstance(layer, Residual):
            nn.init.zeros_(layer.norm.weight)
    assert torch.equal(g(z), before)


def test_init_draws_weights_near_0_and_batch_norm_scales_near_1():
    g = Generator(width=32).apply(init_weights)
    scales = torch.cat([m.weight for m in g.modules() if type(m) is nn.BatchNorm2d])
    assert abs(scales.mean() - 1) < 0.01 and abs(scales.std() - 0.02) < 0.004
    convs = [m for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert all(abs(m.weight.std() - 0.02) < 0.002 for m in convs)
    d = Discriminator(norm="none").apply(init_weights)
    assert not any(m.bias.any() for m in d.modules() if isinstance(m, nn.Conv2d))


# Losses


def test_generator_losses_agree_with_probabilities():
    d = LOGITS.sigmoid()
    by_hand = {
        "saturating": (1 - d).log(),
        "non-saturating": -d.log(),
        "least-squares": (LOGITS - 1) ** 2 / 2,
        "hinge": -LOGITS,
    }
    for kind, value in by_hand.items():
        assert torch.allclose(generator_loss(LOGITS, kind), value.mean()), kind


def test_discriminator_loss_is_the_cross_entropy_and_smoothing_moves_its_minimum():
    real, fake = LOGITS, LOGITS.flip(0) - 1
    bce = F.binary_cross_entropy_with_logits
    for label in (1.0, 0.9):
        by_hand = bce(real, torch.full((4,), label)) + bce(fake, torch.zeros(4))
        mine = discriminator_loss(real, fake, real_label=label)
        assert torch.allclose(mine, by_hand)
    logit = torch.tensor([math.log(9.0)], requires_grad=True)  # D = 0.9
    discriminator_loss(logit, torch.zeros(1), real_label=0.9).backward()
    assert logit.grad.abs() < 1e-6


def test_the_logistic_loss_at_a_guess_is_2_log_2():
    loss = discriminator_loss(torch.zeros(5), torch.zeros(5))
    assert torch.allclose(loss, torch.tensor(2 * math.log(2)))


def test_both_generator_losses_pull_equally_at_one_half_and_one_dies_far_away():
    for logit, ratio in ((0.0, 1.0), (-10.0, math.exp(-10))):
        slopes = []
        for kind in ("saturating", "non-saturating"):
            a = torch.tensor([logit], requires_grad=True)
            generator_loss(a, kind).backward()
            slopes.append(a.grad.item())
        assert slopes[0] < 0 and slopes[1] < 0
        assert slopes[0] / slopes[1] == pytest.approx(ratio, rel=1e-4)


def test_no_loss_overflows():
    far = torch.tensor([-1e4, 1e4])
    for kind in KINDS:
        assert generator_loss(far, kind).isfinite()
        assert discriminator_loss(far, far, kind).isfinite()


def test_an_unknown_kind_fails_with_what_may_be_chosen():
    for loss in (generator_loss, lambda x, kind: discriminator_loss(x, x, kind)):
        with pytest.raises(ValueError, match="saturating, non-saturating"):
            loss(LOGITS, "wasserstein")


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weights():
    d = nn.Sequential(nn.Flatten(), nn.Linear(9, 1), nn.Flatten(0))
    penalty = r1_penalty(d, torch.randn(5, 1, 3, 3))
    weight = d[1].weight
    assert torch.allclose(penalty, weight.square().sum())
    penalty.backward()
    assert torch.allclose(weight.grad, 2 * weight)


# Steps


@pytest.mark.parametrize("kind", KINDS)
def test_ds_step_moves_d_alone_and_gs_step_g_alone(kind):
    g, d = pair()
    real, fake = torch.rand(6, 1, 16, 16), g(torch.randn(6, 8))
    of_g, of_d = weights(g), weights(d)
    update_discriminator(d, sgd(d), real, fake, kind=kind, r1=1.0)
    assert equal(of_g, weights(g)) and not equal(of_d, weights(d))
    assert all(p.grad is None for p in g.parameters())
    of_d = weights(d)
    d.zero_grad()
    update_generator(d, sgd(g), fake, kind=kind)
    assert equal(of_d, weights(d)) and not equal(of_g, weights(g))
    assert all(p.grad is None for p in d.parameters())
    assert all(p.requires_grad for p in d.parameters())


def test_a_step_is_the_plain_one_of_the_paper():
    g, d = pair("none")
    plain_g, plain_d = copy.deepcopy(g), copy.deepcopy(d)
    real = torch.rand(6, 1, 16, 16)
    torch.manual_seed(1)
    make_train_step(g, d, sgd(g), sgd(d))(real)
    torch.manual_seed(1)
    fake = plain_g(torch.randn(6, 8))
    opt_g, opt_d = sgd(plain_g), sgd(plain_d)
    bce = F.binary_cross_entropy_with_logits
    loss = bce(plain_d(real), torch.ones(6))
    loss = loss + bce(plain_d(fake.detach()), torch.zeros(6))
    loss.backward()
    opt_d.step()
    bce(plain_d(fake), torch.ones(6)).backward()
    opt_g.step()
    for a, b in zip(
        [*g.parameters(), *d.parameters()],
        [*plain_g.parameters(), *plain_d.parameters()],
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)


def test_r1_on_eight_images_changes_the_step_and_not_the_reported_loss():
    g, d = pair("none")
    twin = copy.deepcopy(d)
    real, fake = torch.rand(12, 1, 16, 16), g(torch.randn(12, 8))
    plain = update_discriminator(d, sgd(d), real, fake)
    with_r1 = update_discriminator(twin, sgd(twin), real, fake, r1=10.0)
    assert torch.equal(plain, with_r1) and not equal(weights(d), weights(twin))


def test_labels_reach_both_networks_in_a_step():
    g, d = pair(num_classes=3)
    step = make_train_step(g, d, sgd(g), sgd(d), r1=0.1)
    before = weights(g.project), weights(d.head)
    losses = step((torch.rand(6, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2])))
    assert set(losses) == {"loss_d", "loss_g"}
    assert not any(v.requires_grad for v in losses.values())
    assert not equal(before[0], weights(g.project))
    assert not equal(before[1], weights(d.head))


def test_training_brings_the_mean_of_the_fakes_to_the_data():
    g, d = Generator(4, width=4, image_size=16), Discriminator(4, image_size=16)
    step = make_train_step(
        g.apply(init_weights),
        d.apply(init_weights),
        torch.optim.Adam(g.parameters(), 5e-3, betas=(0.5, 0.999)),
        torch.optim.Adam(d.parameters(), 5e-3, betas=(0.5, 0.999)),
    )
    real = torch.full((16, 1, 16, 16), 0.6) + 0.05 * torch.randn(16, 1, 16, 16)
    for _ in range(60):
        step(real)
    mean = g(torch.randn(64, 4)).mean().item()
    assert abs(mean - 0.6) < 0.25


def test_bf16_and_channels_last_train_a_step_in_miniature_as_on_a_gpu():
    g, d = (net.to(memory_format=torch.channels_last) for net in pair("none"))
    step = make_train_step(g, d, sgd(g), sgd(d), r1=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = step(torch.rand(8, 1, 16, 16))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in g.parameters())


# DiffAugment


@pytest.mark.parametrize("policy", ["brightness", "translation", "cutout"])
def test_each_change_differs_between_images_and_lets_gradients_pass(policy):
    x = torch.rand(8, 2, 16, 16).requires_grad_()
    y = diff_augment(x, policy)
    assert y.shape == x.shape
    changes = (y - x).detach().flatten(1)
    assert len({round(c.abs().sum().item(), 4) for c in changes}) > 4
    y.sum().backward()
    assert (x.grad.flatten(1).sum(dim=1) > 0).all()


def test_brightness_adds_one_number_to_an_image():
    x = torch.rand(8, 2, 16, 16)
    change = (diff_augment(x, "brightness") - x).flatten(1)
    assert (change.std(dim=1) < 1e-6).all() and change.abs().max() <= 0.5


def test_translation_only_moves_pixels():
    x = torch.zeros(64, 1, 16, 16)
    x[:, :, 8, 8] = 1.0
    moved = diff_augment(x, "translation").flatten(1)
    assert (moved.sum(dim=1) == 1).all()
    place = moved.argmax(dim=1)
    reach = {(int(p) // 16 - 8, int(p) % 16 - 8) for p in place}
    assert max(max(abs(a), abs(b)) for a, b in reach) == 2 and len(reach) > 12


def test_cutout_sets_a_square_to_grey_and_leaves_the_rest():
    x = torch.rand(64, 1, 16, 16) + 1
    y = diff_augment(x, "cutout")
    hole = y == 0
    assert torch.equal(y[~hole], x[~hole])
    sizes = hole.flatten(1).sum(dim=1)
    assert sizes.max() <= 64 and sizes.min() >= 9


def test_an_unknown_change_fails_with_what_may_be_chosen():
    with pytest.raises(ValueError, match="brightness, translation, cutout"):
        diff_augment(torch.zeros(1, 1, 8, 8), "flip")


# The ring


def test_real_points_cover_all_modes_and_a_collapsed_set_one():
    rng = torch.Generator().manual_seed(0)
    points = ring_of_gaussians(2000, rng)
    found, share = ring_coverage(points)
    assert found == 8 and share > 0.98
    assert ring_coverage(points[:1].expand(500, -1)) == (1, 1.0)
    assert ring_coverage(torch.zeros(500, 2)) == (0, 0.0)


def test_a_mode_counts_from_a_fifth_of_its_fair_share_on():
    centre = torch.tensor([[1.0, 0.0]])
    for n, found in ((20, 2), (19, 1)):  # of 800: fair are 100
        points = torch.cat([centre.expand(n, -1), -centre.expand(800 - n, -1)])
        assert ring_coverage(points)[0] == found


def test_a_point_discriminator_gives_logits_and_trains_by_the_same_step():
    g, d = PointNet(2, 2, 8), PointNet(2, 1, 8)
    assert d(torch.zeros(5, 2)).shape == (5,)
    before = weights(g)
    make_train_step(g, d, sgd(g), sgd(d), r1=1.0)(torch.randn(16, 2))
    assert not equal(before, weights(g))
