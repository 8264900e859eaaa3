"""What only a GPU can show: recorded steps and bfloat16; elsewhere it is skipped."""

import pytest
import torch
from torch import nn

from course_lib import gans, wasserstein
from course_lib.training import autocast, capture_step
from course_lib.translation import linear_decay, with_schedules

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


@needs_gpu
def test_weights_that_move_within_autocast_are_seen_to_have_moved():
    line, x = nn.Linear(1, 1, bias=False, device="cuda"), torch.ones(1, 1).cuda()
    with autocast("cuda"):
        line(x).sum().backward()
        with torch.no_grad():
            line.weight.fill_(4.0)
        assert line(x).item() == 4.0
