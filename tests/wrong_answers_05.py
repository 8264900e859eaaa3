"""Wrong answers of lesson 05: each is a misconception, with words of its hint."""

import torch
from torch.nn.functional import softplus


def l1(x, y):
    return (x - y).abs().mean()


def squares(logits, target):
    return (logits - target).square().mean()


def fields(step):
    """The receptive field by a rule for one layer, from the output back."""

    def walk(layers):
        side = 1
        for kernel, stride in reversed(list(layers)):
            side = step(side, kernel, stride)
        return side

    return walk


right_field = fields(lambda side, k, s: (side - 1) * s + k)


def remembering(  # the memory with each usual slip as an option
    *,
    detach=True,
    copy=True,
    fill=True,
    bounded=True,
    keep_new=True,
    show=slice(2, None),
    first_in=False,
    anywhere=True,
    own_dice=False,
    everything=True,
):
    def step(memory, fakes, size, generator):
        fakes = fakes.detach() if detach else fakes
        shown = fakes.clone() if copy else fakes
        old = list(fakes if first_in else []) + list(memory)
        if memory:
            dice = None if own_dice else generator
            count = len(range(len(fakes))[show])
            places = torch.randint(len(old), (count,), generator=dice)
            if not anywhere:
                places = torch.arange(count)
            shown[show] = torch.stack(old)[places]
        if fill:
            memory.extend(fakes if everything else fakes[:2])
        if bounded:
            del memory[slice(-size) if keep_new else slice(size, None)]
        return shown

    return step


def means(images, lesions):
    return [images[i, 0][mask].mean() for i, mask in lesions]


def near(value, healthy, lesion):
    return float(abs(value - lesion) < abs(value - healthy))


def by_image(images, lesions, healthy, lesion):
    found = {}
    for i, mask in lesions:
        hit = near(images[i, 0][mask].mean(), healthy, lesion)
        found.setdefault(i, []).append(hit)
    return sum(sum(hits) / len(hits) for hits in found.values()) / len(found)


def recall(images, lesions, healthy, lesion):
    return sum(near(v, healthy, lesion) for v in means(images, lesions)) / len(lesions)


WRONG = {
    "E05.1": {
        "A to B and back": lambda g, f, a, b: l1(f(g(a)), a),
        "B to A and back": lambda g, f, a, b: l1(g(f(b)), b),
        "wrong order": lambda g, f, a, b: l1(g(f(a)), a) + l1(f(g(b)), b),
        "other heads": lambda g, f, a, b: l1(g(a), b) + l1(f(b), a),
        "forbids to translate": lambda g, f, a, b: l1(g(a), a) + l1(f(b), b),
        "squared": lambda g, f, a, b: squares(f(g(a)), a) + squares(g(f(b)), b),
        "not the sum": lambda g, f, a, b: (
            (f(g(a)) - a).abs().sum() + (g(f(b)) - b).abs().sum()
        ),
        "halves the weight": lambda g, f, a, b: (l1(f(g(a)), a) + l1(g(f(b)), b)) / 2,
        "stops halfway": lambda g, f, a, b: (
            l1(f(g(a).detach()), a) + l1(g(f(b).detach()), b)
        ),
        "no gradient": lambda g, f, a, b: (l1(f(g(a)), a) + l1(g(f(b)), b)).detach(),
    },
    "E05.2": {
        "swapped": lambda d, r, f: (squares(d(r), 0) + squares(d(f.detach()), 1)) / 2,
        "logistic": lambda d, r, f: softplus(-d(r)).mean() + softplus(d(f)).mean(),
        "translator minimises": lambda d, r, f: squares(d(f), 1),
        "never seen a real": lambda d, r, f: squares(d(f.detach()), 0),
        "must not cancel": lambda d, r, f: (
            ((d(r).mean() - 1) ** 2 + d(f.detach()).mean() ** 2) / 2
        ),
        "halve the sum": lambda d, r, f: squares(d(r), 1) + squares(d(f.detach()), 0),
        "being caught": lambda d, r, f: (squares(d(r), 1) + squares(d(f), 0)) / 2,
        "judge gets no gradient": lambda d, r, f: (
            (squares(d(r), 1) + squares(d(f), 0)).detach() / 2 + 0 * f.sum()
        ),
    },
    "E05.3": {
        "from the image to the output": lambda layers: right_field(layers[::-1]),
        "left out the strides": fields(lambda side, k, s: side + k - 1),
        "kernels overlap": lambda layers: sum(k for k, _ in layers),
        "(side - 1) * s": fields(lambda side, k, s: side * s + k),
        "sees 70 pixels": lambda layers: right_field(layers) + 1,
    },
    "E05.4": {
        "never sees": remembering(show=slice(0, 0)),
        "old fakes only": remembering(show=slice(None)),
        "wrong half": remembering(show=slice(0, 2)),
        "keeps gradients": remembering(detach=False),
        "more than its size": remembering(bounded=False),
        "stays empty": remembering(fill=False),
        "a second time": remembering(copy=False),
        "newest fakes are lost": remembering(keep_new=False),
        "came as old ones": remembering(first_in=True),
        "ever drawn": remembering(anywhere=False),
        "equal dice": remembering(own_dice=True),
        "the memory should be": remembering(everything=False),
        "as large as fakes": lambda m, f, n, g: remembering()(m, f, n, g)[:1],
    },
    "E05.5": {
        "outweighs": lambda x, lesions, h, t: (
            sum(
                (abs(v - t) < abs(v - h)).float().sum()
                for v in (x[i, 0][m] for i, m in lesions)
            )
            / sum(m.sum() for _, m in lesions)
        ),
        "any of its pixels": lambda x, lesions, h, t: (
            sum(float(x[i, 0][m].max() > (h + t) / 2) for i, m in lesions)
            / len(lesions)
        ),
        "above zero": lambda x, lesions, h, t: (
            sum(float(v >= 0) for v in means(x, lesions)) / len(lesions)
        ),
        "was lost": lambda *given: 1 - recall(*given),
        "returned a count": lambda *given: recall(*given) * len(given[1]),
        "over images": by_image,
        "which is brighter": lambda x, lesions, h, t: (
            sum(float(v > (h + t) / 2) for v in means(x, lesions)) / len(lesions)
        ),
        "stands beside the mask": lambda x, lesions, h, t: recall(
            x, [(min(i, 1), mask) for i, mask in lesions], h, t
        ),
        "no nearer": lambda x, lesions, h, t: (
            sum(float(abs(v - t) <= abs(v - h)) for v in means(x, lesions))
            / len(lesions)
        ),
    },
}
