"""Checks of lesson 03: the generator's loss, D's step, the best D, EMA, the start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks import exercise, is_near, seeded, which_mistake


@exercise(
    "E03.1",
    "right: with D(G(z)) near 0 its slope is -1 a logit, and G hears what to do.",
)
def check_non_saturating(student: Callable[[Tensor], Tensor]) -> str | None:
    logits = torch.tensor([-3.0, -1.0, 0.5, 2.0])
    answer = student(logits.clone().requires_grad_())
    if torch.as_tensor(answer).ndim:
        return "return one number for the batch: take the mean over the images."
    d = logits.sigmoid()
    wrong = {
        "this is the saturating loss, log(1 - D): flat exactly where G is bad.": (
            1 - d
        ).log(),
        "the sign is turned: G would minimise log D, and please D less and less.": (
            d.log()
        ),
        "this teaches G to be called fake: it is D's loss for fakes. G wants the "
        "label 1.": -(1 - d).log(),
        "you took the logit for a probability: log D needs D = sigmoid(logit).": 1
        - logits,
        "the log is missing: this is 1 - D, whose slope also dies where D is near 0.": 1
        - d,
    }
    for hint, value in wrong.items():
        if is_near(answer, value.mean()):
            return hint
    right = F.softplus(-logits)
    if is_near(answer, right.sum()):
        return "you summed over the batch; the learning rate would hang on its size."
    if not is_near(answer, right.mean()):
        return f"for logits {logits.tolist()} the loss is {right.mean():.4f}."
    far = torch.tensor([-1000.0], requires_grad=True)
    loss = student(far)
    if not loss.requires_grad:
        return "the loss has no gradient: leave out detach(), item() and no_grad()."
    (slope,) = torch.autograd.grad(loss, far)
    if not (is_near(loss.detach(), 1000.0, 1e-2) and is_near(slope, [-1.0])):
        return (
            "at a logit of -1000 the sigmoid is 0 and its log minus infinity: use "
            "F.softplus, or binary_cross_entropy_with_logits."
        )
    return None


class _Game:
    """A tiny generator and discriminator with data, all from fixed seeds."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.generator = nn.Linear(3, 4)
            self.discriminator = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        self.real = torch.randn(16, 4, generator=seeded(1)) + 1
        self.z = torch.randn(16, 3, generator=seeded(2))
        self.optimizer = torch.optim.SGD(self.discriminator.parameters(), lr=0.1)

    def loss(self, swapped: bool = False) -> Tensor:
        sign = -1 if swapped else 1
        real = self.discriminator(self.real)
        fake = self.discriminator(self.generator(self.z).detach())
        return F.softplus(-sign * real).mean() + F.softplus(sign * fake).mean()

    def play(self, student: Callable[..., Any]) -> Any:
        nets = self.generator, self.discriminator
        return student(*nets, self.optimizer, self.real, self.z)


@exercise(
    "E03.2",
    "right: detach() is the line between the two players.",
)
def check_learn_discriminator(student: Callable[..., Any]) -> str | None:
    game, expected = _Game(), _Game()
    before = copy.deepcopy(game.discriminator.state_dict())
    answer = game.play(student)
    if any(p.grad is not None for p in game.generator.parameters()):
        return (
            "a gradient reached the generator: it would be added to G's next step. "
            "Detach the fakes before D sees them."
        )
    moved = any(
        not torch.equal(before[k], v)
        for k, v in game.discriminator.state_dict().items()
    )
    if not moved:
        return "D's weights did not move: backward(), then optimizer.step()."
    right = expected.loss()
    if not torch.is_tensor(answer) or not is_near(answer.detach(), right.detach()):
        if torch.is_tensor(answer) and is_near(
            answer.detach(), expected.loss(swapped=True).detach()
        ):
            return (
                "the labels are exchanged: softplus(-logit) is the loss of an image "
                "that should be called real."
            )
        return (
            "return the loss: mean softplus(-logit) on the reals plus mean "
            "softplus(logit) on the fakes."
        )
    right.backward()
    expected.optimizer.step()
    if not _same(game, expected):
        return (
            "the loss is right, but the weights are not where one step down its slope "
            "leads. Minimise it, once."
        )
    for each in (game, expected):  # an old gradient must not be added to the new one
        for p in each.discriminator.parameters():
            p.grad = torch.ones_like(p)
    game.play(student)
    expected.optimizer.zero_grad()
    expected.loss().backward()
    expected.optimizer.step()
    if not _same(game, expected):
        return "an old gradient was added to the new one: optimizer.zero_grad() first."
    return None


def _same(a: _Game, b: _Game) -> bool:
    pairs = zip(a.discriminator.parameters(), b.discriminator.parameters(), strict=True)
    return all(is_near(x.detach(), y.detach()) for x, y in pairs)


@exercise(
    "E03.3",
    "right: 1/2 where both densities are equal, whatever their height.",
)
def check_optimal_d(student: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    p = torch.tensor([0.1, 0.4, 0.2, 1.5, 0.3])
    q = torch.tensor([0.1, 0.1, 0.8, 0.5, 1.2])
    answer = torch.as_tensor(student(p, q))
    if answer.shape != p.shape:
        return "return one value for each x: D(x) is chosen for each x on its own."
    right = p / (p + q)
    wrong = {
        "this is the probability of being fake; D says how likely an image is real.": 1
        - right,
        "this is the ratio of the densities, the odds: it grows beyond 1. Turn odds "
        "into a probability.": p / q,
        "this is the logit log(p / q) of the best D; its sigmoid is D.": (p / q).log(),
        "you decided, 0 or 1. The best D says how sure it can be: both densities are "
        "above 0.": (p > q).float(),
        "you divided by the sum over all x; the fraction is taken at each x.": p
        / (p + q).sum(),
        "this is the density of the data alone: where fakes are denser still, even "
        "likely data are probably fake.": p,
    }
    if hint := which_mistake(answer, wrong):
        return hint
    return None if is_near(answer, right) else f"expected {right.tolist()}."


@exercise(
    "E03.4",
    "right: most of the old mean, a little of the new weights, and no graph.",
)
def check_ema_step(student: Callable[..., Any]) -> str | None:
    mean, net = nn.Linear(2, 3), nn.Linear(2, 3)
    with torch.no_grad():
        for p, value in zip([*mean.parameters(), *net.parameters()], (2, 4, 10, 8)):  # noqa: B905
            p.fill_(value)
    kept = [p for p in mean.parameters()]
    net_before = copy.deepcopy(net.state_dict())
    try:
        student(mean, net, 0.75)
    except RuntimeError as error:
        if "leaf" in str(error):
            return (
                "weights of a network may change in place under torch.no_grad() only."
            )
        raise
    if any(not torch.equal(v, net_before[k]) for k, v in net.state_dict().items()):
        return "you changed the network itself: only the mean may move."
    values = [p.detach().flatten()[0].item() for p in mean.parameters()]
    if values == [2.0, 4.0]:
        return (
            "the mean did not move: change its weights in place (lerp_, copy_, mul_), "
            "an assignment inside the loop makes a new tensor."
        )
    wrong = {
        "decay is the share of the old mean; you gave it to the new weights.": [8, 7],
        "this is the plain average of both; the old mean has the share `decay`.": [
            6,
            6,
        ],
        "this copies the network: the past is gone.": [10, 8],
        "the shares must add up to 1: decay, and 1 - decay.": [11.5, 11],
    }
    for hint, expected in wrong.items():
        if values == expected:
            return hint
    if values != [4.0, 5.0]:
        return f"mean 2 and 4, weights 10 and 8, decay 0.75: 4 and 5, not {values}."
    now = list(mean.parameters())
    if any(a is not b or a.grad_fn is not None for a, b in zip(kept, now, strict=True)):
        return "the weights must stay the same objects: change them in place."
    return None


@exercise(
    "E03.5",
    "right: small convolutions, and batch-norm scales near 1, so that signals pass.",
)
def check_dcgan_init(student: Callable[[nn.Module], Any]) -> str | None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4),
            nn.BatchNorm2d(4096),
            nn.ReLU(),
            nn.Conv2d(16, 8, 4),
        )
        nn.init.ones_(net[1].bias)
        net.apply(student)
    scale = net[1].weight.detach()
    if abs(float(scale.mean())) < 0.1:
        return (
            "the batch-norm scales lie around 0: each such layer multiplies its signal "
            "by about 0.02. They are drawn around 1."
        )
    if float(scale.std()) == 0:
        return "the batch-norm scales are untouched: N(1, 0.02), a little of each."
    for layer, name in ((net[0], "ConvTranspose2d"), (net[3], "Conv2d")):
        spread = float(layer.weight.detach().std())
        if abs(spread - 0.02**0.5) < 0.01:
            return "0.02 is the standard deviation, not the variance."
        if abs(spread - 0.02) > 0.002:
            return f"the weights of {name} have a spread of {spread:.3f}, not 0.02."
        if abs(float(layer.weight.detach().mean())) > 0.002:
            return f"the weights of {name} have a mean; they are drawn around 0."
    if abs(float(scale.mean()) - 1) > 0.01 or abs(float(scale.std()) - 0.02) > 0.004:
        return "the batch-norm scales should have mean 1 and standard deviation 0.02."
    if float(net[1].bias.detach().abs().max()) > 0:
        return "the batch-norm shifts (bias) start at 0."
    return None
