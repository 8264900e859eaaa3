"""Checks of lesson 03: the solution passes, the stub and each wrong answer fail."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import lesson_03
from course_lib.exercises import exercises
from course_lib.sources import read_source

SOURCE = Path(__file__).resolve().parents[1] / "notebooks/src/03_dcgan.py"
CHECKS = {
    check.exercise: check
    for name, check in vars(lesson_03).items()
    if name.startswith("check_")
}


def lesson_cells():
    """{exercise number: (name, solved cell, stub)} as they stand in the lesson."""
    notebook = read_source(SOURCE)
    return {
        task.id: (task.name, notebook.cells[i].source, task.stub)
        for i, task in exercises(notebook)
    }


CELLS = lesson_cells()


def run_cell(source, name):
    space = {"torch": torch, "nn": nn, "F": F}
    exec(source, space)
    return space[name]


def test_every_exercise_of_the_lesson_has_its_check():
    assert set(CELLS) == set(CHECKS) and len(CELLS) >= 4


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_the_lessons_solution_passes(number):
    name, source, _ = CELLS[number]
    verdict = CHECKS[number](run_cell(source, name))
    assert verdict, verdict
    assert verdict.message.startswith("right:")


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_the_stub_is_not_written_yet(number):
    name, _, stub = CELLS[number]
    verdict = CHECKS[number](run_cell(stub, name))
    assert not verdict and "not written yet" in verdict.message


def d_step(
    generator,
    discriminator,
    optimizer,
    real,
    z,
    *,
    detach=True,
    swap=1,
    zero=True,
    step=True,
    times=1,
    sign=1,
    reals=1,
):
    """One step of D that can be wrong in the usual ways."""
    for _ in range(times):
        fake = generator(z)
        fake = fake.detach() if detach else fake
        loss = reals * F.softplus(-swap * discriminator(real)).mean()
        loss = loss + F.softplus(swap * discriminator(fake)).mean()
        if zero:
            optimizer.zero_grad()
        (sign * loss).backward()
        if step:
            optimizer.step()
    return loss


def wrong_step(**flaw):
    return lambda g, d, optimizer, real, z: d_step(g, d, optimizer, real, z, **flaw)


def ema(old, new):
    """An EMA step whose shares of the old and the new are functions of decay."""

    @torch.no_grad()
    def step(mean_net, net, decay):
        for mean, weight in zip(mean_net.parameters(), net.parameters(), strict=True):
            mean.copy_(old(decay) * mean + new(decay) * weight)

    return step


def ema_rebinds(mean_net, net, decay):
    for mean, weight in zip(mean_net.parameters(), net.parameters(), strict=True):
        mean = decay * mean + (1 - decay) * weight


def ema_with_graph(mean_net, net, decay):
    for mean, weight in zip(mean_net.parameters(), net.parameters(), strict=True):
        mean.mul_(decay).add_(weight, alpha=1 - decay)


def ema_moves_the_net(mean_net, net, decay):
    ema(lambda a: a, lambda a: 1 - a)(net, mean_net, decay)


def init(conv=(0.0, 0.02), scale=(1.0, 0.02), kinds=(nn.Conv2d, nn.ConvTranspose2d)):
    def apply(layer):
        if isinstance(layer, kinds):
            nn.init.normal_(layer.weight, *conv)
        if isinstance(layer, nn.BatchNorm2d):
            if scale[1]:
                nn.init.normal_(layer.weight, *scale)
            nn.init.zeros_(layer.bias)

    return apply


def init_without_shift(layer):
    if isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    elif not isinstance(layer, nn.ReLU | nn.Sequential):
        nn.init.normal_(layer.weight, 0.0, 0.02)


# exercise number -> {a distinctive word of the hint: the wrong answer}
WRONG = {
    "E03.1": {
        "saturating": lambda a: F.logsigmoid(-a).mean(),
        "sign is turned": lambda a: F.logsigmoid(a).mean(),
        "called fake": lambda a: F.softplus(a).mean(),
        "for a probability": lambda a: (1 - a).mean(),
        "log is missing": lambda a: (1 - a.sigmoid()).mean(),
        "summed": lambda a: F.softplus(-a).sum(),
        "one number": lambda a: F.softplus(-a),
        "no gradient": lambda a: F.softplus(-a).mean().detach(),
        "minus infinity": lambda a: -a.sigmoid().log().mean(),
    },
    "E03.2": {
        "Detach": wrong_step(detach=False),
        "exchanged": wrong_step(swap=-1),
        "old gradient": wrong_step(zero=False),
        "did not move": wrong_step(step=False),
        "Minimise it, once": wrong_step(sign=-1),
        "return the loss": lambda *args: d_step(*args) and None,
        "on the reals plus": wrong_step(reals=0),
    },
    "E03.3": {
        "being fake": lambda p, q: q / (p + q),
        "odds": lambda p, q: p / q,
        "logit": lambda p, q: (p / q).log(),
        "decided": lambda p, q: (p > q).float(),
        "sum over all x": lambda p, q: p / (p + q).sum(),
        "data alone": lambda p, q: p,
        "one value for each": lambda p, q: (p / (p + q)).mean(),
    },
    "E03.4": {
        "share of the old mean": ema(lambda a: 1 - a, lambda a: a),
        "plain average": ema(lambda a: 0.5, lambda a: 0.5),
        "copies the network": ema(lambda a: 0, lambda a: 1),
        "add up to 1": ema(lambda a: a, lambda a: 1),
        "did not move": ema_rebinds,
        "no_grad": ema_with_graph,
        "only the mean": ema_moves_the_net,
    },
    "E03.5": {
        "around 0: each": init(scale=(0.0, 0.02)),
        "untouched": init(scale=(1.0, 0.0)),
        "not the variance": init(conv=(0.0, 0.02**0.5)),
        "of ConvTranspose2d have a spread": init(kinds=nn.Conv2d),
        "of Conv2d have a spread": init(kinds=nn.ConvTranspose2d),
        "have a mean": init(conv=(1.0, 0.02)),
        "standard deviation 0.02": init(scale=(1.0, 0.2)),
        "shifts": init_without_shift,
    },
}


@pytest.mark.parametrize(
    "number, word", [(number, word) for number in WRONG for word in WRONG[number]]
)
def test_each_wrong_answer_fails_with_its_own_hint(number, word):
    verdict = CHECKS[number](WRONG[number][word])
    assert not verdict and word in verdict.message, verdict


def test_no_two_hints_are_the_same():
    for number, answers in WRONG.items():
        hints = [CHECKS[number](answer).message for answer in answers.values()]
        # E03.2 has one sentence for a loss that is missing and one that is wrong
        assert len(set(hints)) >= len(hints) - (number == "E03.2"), number


def test_cross_entropy_with_logits_is_as_good_as_softplus():
    def bce(logits):
        ones = torch.ones_like(logits)
        return F.binary_cross_entropy_with_logits(logits, ones)

    assert lesson_03.check_non_saturating(bce)
