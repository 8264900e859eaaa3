"""Wrong answers of lesson 00: each is a misconception, with words of its hint."""

import math

import numpy as np


def echo(recovery, fading, invert=None, power=1.0):
    """A student's spin echo from parts; `invert` None ignores TI."""

    def spin_echo(pd, t1, t2, *, tr, te, ti=None):
        part = recovery(tr, t1, t2)
        if ti is not None and invert is not None:
            part = invert(tr, ti, t1)
        return pd**power * part * fading(te, t1, t2)

    return spin_echo


def right(tr, t1, t2):
    return 1 - np.exp(-tr / t1)


def fade(te, t1, t2):
    return np.exp(-te / t2)


def inversion(tr, ti, t1):
    return np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1))


def with_math(pd, t1, t2, *, tr, te, ti=None):
    recovery = 1 - math.exp(-tr / t1)
    if ti is not None:
        recovery = abs(1 - 2 * math.exp(-ti / t1) + math.exp(-tr / t1))
    return pd * recovery * math.exp(-te / t2)


def without_pd(pd, t1, t2, *, tr, te, ti=None):
    return (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


SPIN_ECHO = {
    "t1_and_t2_swapped": (
        echo(
            lambda tr, t1, t2: 1 - np.exp(-tr / t2), lambda te, t1, t2: np.exp(-te / t1)
        ),
        "swapped",
    ),
    "te_over_t1": (
        echo(right, lambda te, t1, t2: np.exp(-te / t1), inversion),
        "fading",
    ),
    "tr_over_t2": (
        echo(lambda tr, t1, t2: 1 - np.exp(-tr / t2), fade, inversion),
        "Does TR stand over T1",
    ),
    "recovery_as_decay": (
        echo(lambda tr, t1, t2: np.exp(-tr / t1), fade, inversion),
        "very long TR all signal is gone",
    ),
    "recovery_reversed": (
        echo(lambda tr, t1, t2: np.exp(-tr / t1) - 1, fade, inversion),
        "negative",
    ),
    "exponents_positive": (
        echo(lambda tr, t1, t2: 1 - np.exp(np.minimum(tr / t1, 700)), fade),
        "without bound",
    ),
    "pd_forgotten": (without_pd, "PD does not count"),
    "ti_ignored": (echo(right, fade), "changes nothing"),
    "no_magnitude": (
        echo(
            right,
            fade,
            lambda tr, ti, t1: 1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1),
        ),
        "|S|",
    ),
    "tr_taken_as_endless": (
        echo(right, fade, lambda tr, ti, t1: np.abs(1 - 2 * np.exp(-ti / t1))),
        "TR is finite",
    ),
    "finite_tr_with_wrong_sign": (
        echo(
            right,
            fade,
            lambda tr, ti, t1: np.abs(1 - 2 * np.exp(-ti / t1) - np.exp(-tr / t1)),
        ),
        "added",
    ),
    "pulse_as_90_degrees": (
        echo(
            right,
            fade,
            lambda tr, ti, t1: np.abs(1 - np.exp(-ti / t1) + np.exp(-tr / t1)),
        ),
        "the 2 is missing",
    ),
    "numbers_only": (with_math, "np.exp"),
    "nothing_returned": (lambda pd, t1, t2, *, tr, te, ti=None: None, "`return`"),
}

NULL_TIME = {
    "finite_tr_forgotten": (lambda t1, tr: t1 * np.log(2), "endless"),
    "sign_of_the_logarithm": (
        lambda t1, tr: t1 * np.log((1 + np.exp(-tr / t1)) / 2),
        "negative",
    ),
    "logarithm_to_base_10": (
        lambda t1, tr: t1 * np.log10(2 / (1 + np.exp(-tr / t1))),
        "log10",
    ),
    "sign_of_the_finite_tr": (
        lambda t1, tr: t1 * np.log(2 / (1 - np.exp(-tr / t1))),
        "sign of exp",
    ),
    "factor_2_forgotten": (
        lambda t1, tr: t1 * np.log(1 + np.exp(-tr / t1)),
        "the 2 is missing",
    ),
    "factor_t1_forgotten": (
        lambda t1, tr: np.log(2 / (1 + np.exp(-tr / t1))),
        "factor T1",
    ),
    "half_of_t1": (lambda t1, tr: t1 / 2, "is still"),
    "numbers_only": (
        lambda t1, tr: t1 * math.log(2 / (1 + math.exp(-tr / t1))),
        "TypeError",
    ),
}

WINDOW_HU = {
    "not_clipped": (lambda hu, level, width: (hu - level + width / 2) / width, "clip"),
    "level_as_black_end": (
        lambda hu, level, width: np.clip((hu - level) / width, 0, 1),
        "middle",
    ),
    "width_on_each_side": (
        lambda hu, level, width: np.clip((hu - level + width) / (2 * width), 0, 1),
        "half of it",
    ),
    "read_as_black_and_white": (
        lambda hu, low, high: np.clip((hu - low) / (high - low), 0, 1),
        "not black and white",
    ),
    "in_256_greys": (
        lambda hu, level, width: np.clip((hu - level + width / 2) / width, 0, 1) * 255,
        "0 to 255",
    ),
    "in_the_range_of_a_model": (
        lambda hu, level, width: np.clip(2 * (hu - level) / width, -1, 1),
        "range of a model",
    ),
    "negative": (
        lambda hu, level, width: np.clip((level + width / 2 - hu) / width, 0, 1),
        "white",
    ),
    "one_window_for_all": (lambda hu, level, width: np.clip(hu / 80, 0, 1), "another"),
}


def held_out(subjects, people):
    test = np.isin(subjects, people)
    return np.flatnonzero(~test), np.flatnonzero(test)


def slices_not_subjects(subjects, fraction, seed):
    order = np.random.default_rng(seed).permutation(len(subjects))
    cut = round(fraction * len(order))
    return order[cut:], order[:cut]


def not_shuffled(subjects, fraction, seed):
    people = np.unique(subjects)
    return held_out(subjects, people[: round(fraction * len(people))])


def without_the_seed(subjects, fraction, seed):
    people = np.random.default_rng().permutation(np.unique(subjects))
    return held_out(subjects, people[: round(fraction * len(people))])


def sides_exchanged(subjects, fraction, seed):
    people = np.random.default_rng(seed).permutation(np.unique(subjects))
    return held_out(subjects, people[: round(fraction * len(people))])[::-1]


def as_masks(subjects, fraction, seed):
    people = np.random.default_rng(seed).permutation(np.unique(subjects))
    test = np.isin(subjects, people[: round(fraction * len(people))])
    return ~test, test


def as_subjects(subjects, fraction, seed):
    people = np.random.default_rng(seed).permutation(np.unique(subjects))
    cut = round(fraction * len(people))
    return people[cut:], people[:cut]


def one_image_each(subjects, fraction, seed):
    people, first = np.unique(subjects, return_index=True)
    order = np.random.default_rng(seed).permutation(len(people))
    cut = round(fraction * len(people))
    return first[order[cut:]], first[order[:cut]]


def images_in_both(subjects, fraction, seed):
    _, test = sides_exchanged(subjects, fraction, seed)[::-1]
    return np.arange(len(subjects)), test


SPLIT = {
    "slices_not_subjects": (slices_not_subjects, "both sides"),
    "not_shuffled": (not_shuffled, "every seed"),
    "without_the_seed": (without_the_seed, "the same seed"),
    "sides_exchanged": (sides_exchanged, "trained on a quarter"),
    "as_masks": (as_masks, "masks"),
    "as_subjects": (as_subjects, "these are subjects"),
    "one_image_each": (one_image_each, "neither"),
    "test_images_kept_for_training": (images_in_both, "in training and in test"),
}


def precision(labels, guesses):
    return np.mean([np.mean(labels[guesses == k] == k) for k in np.unique(labels)])


def recalls(labels, guesses, classes):
    hits = [np.sum((labels == k) & (guesses == k)) for k in classes]
    return [
        hit / max(1, np.sum(labels == k)) for hit, k in zip(hits, classes, strict=True)
    ]


BALANCED = {
    "plain_accuracy": (lambda labels, guesses: np.mean(labels == guesses), "plain"),
    "precision": (precision, "precision"),
    "sum": (lambda y, g: sum(recalls(y, g, np.unique(y))), "sum over"),
    "one_class": (lambda y, g: recalls(y, g, [1])[0], "one class"),
    "not_averaged": (lambda y, g: recalls(y, g, np.unique(y)), "one number"),
    "classes_that_do_not_occur": (
        lambda y, g: np.mean(recalls(y, g, range(max(y.max(), g.max()) + 1))),
        "must not count",
    ),
}

WRONG = [
    (number, answer, words)
    for number, answers in {
        "E00.1": SPIN_ECHO,
        "E00.2": NULL_TIME,
        "E00.3": WINDOW_HU,
        "E00.4": SPLIT,
        "E00.5": BALANCED,
    }.items()
    for answer, words in answers.values()
]
