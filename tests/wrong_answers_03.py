"""Wrong answers of lesson 03: each is a misconception, with words of its hint."""

import torch
import torch.nn.functional as F
from torch import nn


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
