"""Wrong answers of lesson 07: each is a misconception, with words of its hint."""

import numpy as np
from scipy.stats import norm


def wins(real, generated):
    return np.asarray(generated)[:, None] > np.asarray(real)


def ties(real, generated):
    return np.asarray(generated)[:, None] == np.asarray(real)


def one_criterion(real, generated):
    return ((generated > 3).mean() + (real <= 3).mean()) / 2


def pairs(factor=2**0.5, corrected=True, z=norm.ppf):
    def d_prime(correct, n):
        share = (correct + 0.5) / (n + 1) if corrected else correct / n
        return factor * z(share)

    return d_prime


def kappa(chance, scale=None):
    """A kappa whose chance, and what it is divided by, can be wrong."""

    def value(a, b):
        kinds = np.union1d(a, b)
        p = np.array([(a == k).mean() for k in kinds])
        q = np.array([(b == k).mean() for k in kinds])
        by_lot = chance(p, q)
        return ((a == b).mean() - by_lot) / (scale or (lambda x: 1 - x))(by_lot)

    return value


def own(p, q):
    return (p * q).sum()


def two_answers_only(a, b):
    p, q = (a == 1).mean(), (b == 1).mean()
    by_lot = p * q + (1 - p) * (1 - q)
    return ((a == b).mean() - by_lot) / (1 - by_lot)


def sides(value, se, margin):
    return norm.sf((value + margin) / se), norm.cdf((value - margin) / se)


def difference(value, se, margin):
    return 2 * norm.sf(abs(value) / se)


def planner(a=0.95, tail=2, power=2, times=np.pi, up=np.ceil):
    def images(margin, chance=0.8):
        reach = norm.ppf(a) + (norm.ppf(1 - (1 - chance) / tail) if tail else 0)
        return up(times * (reach / margin) ** power)

    return images


WRONG = {
    "E07.1": {
        "ties are lost": lambda r, g: wins(r, g).mean(),
        "not a whole one": lambda r, g: (wins(r, g) | ties(r, g)).mean(),
        "turn it round": lambda r, g: (wins(g, r) + ties(g, r) / 2).mean(),
        "divide by the number": lambda r, g: (wins(r, g) + ties(r, g) / 2).sum(),
        "one criterion": one_criterion,
        "mean ratings": lambda r, g: g.mean() - r.mean(),
        "one number": wins,
    },
    "E07.2": {
        "factor is missing": pairs(1.0),
        "one image at a time": pairs(2.0),
        "divided by": pairs(2**-0.5),
        "correction is missing": pairs(corrected=False),
        "the share itself": pairs(z=lambda share: share),
        "other direction": pairs(z=norm.cdf),
    },
    "E07.3": {
        "plain share": lambda a, b: (a == b).mean(),
        "prefer one answer": kappa(lambda p, q: 1 / len(p)),
        "what is left above chance": kappa(own, lambda x: 1.0),
        "by the chance itself": kappa(own, lambda x: x),
        "the first reader's": kappa(lambda p, q: (p * p).sum()),
        "Scott's pi": kappa(lambda p, q: (((p + q) / 2) ** 2).sum()),
        "correlation": lambda a, b: np.corrcoef(a, b)[0, 1],
        "more than two answers": two_answers_only,
    },
    "E07.4": {
        "take the larger": lambda *x: min(sides(*x)),
        "proves nothing": difference,
        "margin must come": lambda *x: 1 - difference(*x),
        "tails are exchanged": lambda *x: max(1 - p for p in sides(*x)),
        "nothing is doubled": lambda *x: 2 * max(sides(*x)),
        "not added": lambda *x: sum(sides(*x)),
        "in standard errors": lambda v, se, m: max(sides(v, 1, m)),
        "only one side": lambda *x: sides(*x)[1],
        "not a verdict": lambda *x: max(sides(*x)) < 0.05,
    },
    "E07.5": {
        "shared by two ends": planner(tail=1),
        "1.96 is for": planner(a=0.975),
        "square is missing": planner(power=1),
        "both kinds together": planner(times=2 * np.pi),
        "power is missing": planner(tail=0),
        "pi is missing": planner(times=1),
        "round up": planner(up=np.floor),
        "the argument `power`": lambda margin, power=0.8: planner()(margin),
    },
}
