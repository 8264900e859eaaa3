"""What only a GPU can show: recorded steps and bfloat16; elsewhere it is skipped."""

import functools

import pytest
import torch
from torch import nn

from course_lib import gans, translation, wasserstein
from course_lib.training import autocast, capture_step, linear_decay, with_schedules

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)


def pair(device, norm="batch"):
    torch.manual_seed(0)
    nets = gans.Generator(8, 8, 16), gans.Discriminator(8, 16, norm=norm)
    opts = []
    for net in nets:
        net.to(device, memory_format=torch.channels_last)
        opts.append(torch.optim.Adam(net.parameters(), 1e-3, fused=True))
    return nets, opts


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_without_a_gpu_a_step_comes_back_as_it_is():
    def step(batch):
        return {"loss": batch.mean()}

    assert capture_step(step, torch.zeros(2), []) is step


@needs_gpu
def test_a_recorded_step_moves_weights_as_the_plain_one():
    line = nn.Linear(3, 1, device="cuda")
    ends = []
    for recorded in (False, True):
        nn.init.ones_(line.weight), nn.init.zeros_(line.bias)
        optimizer = torch.optim.Adam(line.parameters(), 1e-2, fused=True)

        def step(x, optimizer=optimizer):
            loss = (line(x) - 2).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        batches = torch.arange(60.0, device="cuda").view(10, 2, 3) / 60
        schedule = linear_decay(optimizer, 10)
        if recorded:
            step = capture_step(step, batches[0], [optimizer])
        else:
            for _ in range(3):  # what it takes to warm up
                step(batches[0])
        step = with_schedules(step, [schedule])
        for x in batches:
            step(x)
        ends.append(flat(line))
    assert torch.allclose(*ends, atol=1e-6)


@needs_gpu
def test_each_replay_draws_other_noise_and_gives_its_own_losses():
    def step(x):
        return {"noise": torch.randn(3, device="cuda").sum() + x.sum()}

    replay = capture_step(step, torch.zeros(1, device="cuda"), [])
    found = [replay(torch.full((1,), 100.0 * i, device="cuda")) for i in range(3)]
    assert float(found[-1]["noise"]) == pytest.approx(200, abs=20)
    noise = [float(replay(torch.zeros(1, device="cuda"))["noise"]) for _ in range(5)]
    assert len(set(noise)) == 5


@needs_gpu
@pytest.mark.parametrize("kind", ["dcgan", "wgan"])
def test_the_steps_of_the_lessons_can_be_recorded_in_bfloat16(kind):
    (g, d), opts = pair("cuda", "none" if kind == "wgan" else "batch")
    module = wasserstein if kind == "wgan" else gans
    plain = module.make_train_step(g, d, *opts)

    def step(x):
        with autocast("cuda"):
            return plain(x)

    batch = torch.rand(20, 1, 16, 16, device="cuda")
    replay, before = capture_step(step, batch, opts), flat(g)
    losses = replay(batch)
    assert all(value.isfinite() for value in losses.values())
    assert not torch.equal(flat(g), before)


def cyclegan_losses(device, steps, record):
    """What a small CycleGAN says on its way; its pools are full after 7 steps."""
    torch.manual_seed(0)
    nets = translation.CycleGAN(4, n_blocks=1, d_width=4).to(device)
    both = nets.translators, nets.judges
    opts = [torch.optim.Adam(net.parameters(), 1e-3) for net in both]
    make = translation.make_cyclegan_step
    if record:
        make = functools.partial(translation.make_recorded_step, record=record)
    step = make(nets, *opts, warm_up=steps)
    feed = torch.rand(steps, 2, 8, 1, 16, 16).to(device) * 2 - 1
    return [
        {name: value.item() for name, value in step(tuple(reals)).items()}
        for reals in feed
    ]


def like_a_graph(half, batch, optimizers):
    """What a recording does, without a GPU: it writes over its results of before."""
    kept = {}

    def replay(batch):
        for name, value in half(batch).items():
            kept.setdefault(name, torch.empty_like(value)).copy_(value.detach())
        return kept

    return replay


def test_a_step_in_two_halves_that_write_over_their_results_is_the_step():
    plain = cyclegan_losses("cpu", 20, None)
    halves = cyclegan_losses("cpu", 20, like_a_graph)
    for before, after in zip(plain, halves, strict=True):
        assert before == pytest.approx(after, rel=0.01)


@needs_gpu
def test_a_recorded_cyclegan_goes_the_same_way():
    # a recording takes three steps more on the first batch: the ways part a little
    plain = cyclegan_losses("cuda", 60, None)
    replayed = cyclegan_losses("cuda", 60, capture_step)
    for name in plain[0]:
        means = [sum(row[name] for row in way[-10:]) for way in (plain, replayed)]
        assert means[1] == pytest.approx(means[0], rel=0.25), name


@needs_gpu
def test_weights_that_move_within_autocast_are_seen_to_have_moved():
    line, x = nn.Linear(1, 1, bias=False, device="cuda"), torch.ones(1, 1).cuda()
    with autocast("cuda"):
        line(x).sum().backward()
        with torch.no_grad():
            line.weight.fill_(4.0)
        assert line(x).item() == 4.0
