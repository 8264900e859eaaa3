"""Checks of lesson 07: area of ratings, d-prime of pairs, kappa, TOST, the planner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from course_lib.checks import exercise
from course_lib.detection import images_needed, roc_auc, tost


def _number(answer: Any) -> float | None:
    """The answer as a float, or None where it is no single number."""
    try:
        array = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        return None
    return float(array) if array.ndim == 0 else None


def _near(a: float | None, b: float, tolerance: float = 1e-6) -> bool:
    return a is not None and (a == b or abs(a - b) <= tolerance)


@exercise(
    "E07.1",
    "right: every generated image against every real one, and a tie is half a win.",
)
def check_rank_area(student: Callable[..., Any]) -> str | None:
    real, generated = np.array([1, 2, 2, 3, 4, 1]), np.array([2, 3, 5, 5, 4, 1, 3])
    answer = _number(student(real, generated))
    if answer is None:
        return "return one number: the mean over all pairs."
    above = generated[:, None] > real
    ties = generated[:, None] == real
    said = (generated > 3).mean(), (real > 3).mean()
    wrong = {
        "ties are lost: two images with one rating count half a win.": above.mean(),
        "a tie is half a win, not a whole one.": (above | ties).mean(),
        "this is the chance that the real one is rated higher: turn it round.": 1
        - (above + ties / 2).mean(),
        "you counted the wins; divide by the number of pairs.": (
            above + ties / 2
        ).sum(),
        "this is the share of right answers at one criterion; the area takes them "
        "all: compare ratings with each other, not with a border.": (
            said[0] + 1 - said[1]
        )
        / 2,
        "this is the difference of the mean ratings: it hangs on the scale, and the "
        "area does not.": generated.mean() - real.mean(),
    }
    for hint, value in wrong.items():
        if _near(answer, float(value)):
            return hint
    right = roc_auc(real, generated).value
    if not _near(answer, right):
        return (
            f"for ratings {real.tolist()} and {generated.tolist()} it is {right:.4f}."
        )
    if not _near(_number(student(np.exp(real), np.exp(generated))), right):
        return "only the order of the ratings may count, not their values."
    return None


@exercise(
    "E07.2",
    "right: two images, twice the noise, so the square root of 2.",
)
def check_pairs_to_d_prime(student: Callable[..., Any]) -> str | None:
    answer = _number(student(30, 40))
    if answer is None:
        return "return one number."
    z, plain = float(norm.ppf(30.5 / 41)), float(norm.ppf(30 / 40))
    wrong = {
        "the factor is missing: in a pair the difference of two images counts, and "
        "its spread is the square root of 2.": (z, plain),
        "this is d' from one image at a time (z(H) - z(F) of an unbiased reader); a "
        "pair shows twice as much, so its factor is the square root of 2.": (
            2 * z,
            2 * plain,
        ),
        "you divided by the square root of 2: the same d' makes pairs easier, so "
        "the same share of right answers means... multiply.": (
            z / 2**0.5,
            plain / 2**0.5,
        ),
        "the correction is missing: 40 of 40 would be infinite. (k + 1/2) / (n + 1).": (
            2**0.5 * plain,
        ),
        "z turns a share into standard deviations; you have used the share itself.": (
            2**0.5 * 30.5 / 41,
            2**0.5 * 30 / 40,
        ),
        "this is the other direction, from d' to a share: z is norm.ppf.": (
            2**0.5 * float(norm.cdf(30.5 / 41)),
        ),
    }
    for hint, values in wrong.items():
        if any(_near(answer, value) for value in values):
            return hint
    if not _near(answer, 2**0.5 * z):
        return f"30 of 40 pairs are a d-prime of {2**0.5 * z:.4f}."
    if not _near(_number(student(20, 40)), 0.0):
        return "20 of 40 is guessing: d-prime 0."
    perfect = _number(student(40, 40))
    if perfect is None or not math.isfinite(perfect):
        return "40 of 40 must stay finite: add half a right answer and one pair."
    return None


@exercise(
    "E07.3",
    "right: what both do by lot, with their own shares, is taken out.",
)
def check_chance_corrected(student: Callable[..., Any]) -> str | None:
    a = np.array([1, 1, 1, 1, 1, 1, 1, 2, 2, 2])
    b = np.array([1, 1, 1, 1, 1, 2, 2, 2, 2, 1])
    answer = _number(student(a, b))
    if answer is None:
        return "return one number."
    observed = (a == b).mean()
    p, q = (a == 1).mean(), (b == 1).mean()
    by_lot = p * q + (1 - p) * (1 - q)
    pooled = ((p + q) / 2) ** 2 + (1 - (p + q) / 2) ** 2
    wrong = {
        "this is the plain share of agreement; two who say 'real' nine times in ten "
        "agree on four in five by lot.": observed,
        "chance is not 1 / (number of answers): readers who prefer one answer agree "
        "more often by lot.": (observed - 0.5) / 0.5,
        "divide by what is left above chance, 1 - chance, so that perfect readers "
        "get 1.": observed - by_lot,
        "you divided by the chance itself; divide by 1 - chance.": (observed - by_lot)
        / by_lot,
        "each reader has shares of his own; you used the first reader's for both.": (
            observed - p**2 - (1 - p) ** 2
        )
        / (1 - p**2 - (1 - p) ** 2),
        "this is Scott's pi: the shares of both readers are pooled. Cohen lets each "
        "keep his own.": (observed - pooled) / (1 - pooled),
        "this is a correlation: it does not ask whether the answers are the same.": (
            float(np.corrcoef(a, b)[0, 1])
        ),
    }
    for hint, value in wrong.items():
        if _near(answer, float(value)):
            return hint
    right = float(cohen_kappa_score(a, b))
    if not _near(answer, right):
        return f"for {a.tolist()} and {b.tolist()} kappa is {right:.4f}."
    five = np.array([1, 2, 3, 4, 5, 3]), np.array([1, 2, 3, 5, 4, 1])
    if not _near(_number(student(*five)), float(cohen_kappa_score(*five))):
        return "it must work for more than two answers: sum over all that occur."
    return None


@exercise(
    "E07.4",
    "right: both sides must be excluded, so the larger p counts.",
)
def check_equivalence_p(student: Callable[..., Any]) -> str | None:
    value, se, margin = 0.2, 0.15, 0.5
    answer = _number(student(value, se, margin))
    if answer is None:
        return "return one number, the p of both tests together."
    if np.asarray(student(value, se, margin)).dtype == bool:
        return "return the p, not a verdict."
    below = float(norm.sf((value + margin) / se))
    above = float(norm.cdf((value - margin) / se))
    difference = 2 * float(norm.sf(abs(value) / se))
    wrong = {
        "the smaller p says that one side is excluded; both must be: take the "
        "larger.": min(below, above),
        "this is the p of 'no difference'. A large one proves nothing: it grows as "
        "the data get fewer.": difference,
        "1 - p of the difference test is no p of equivalence: the margin must come "
        "in.": 1 - difference,
        "the tails are exchanged: this is large where the value is well inside.": max(
            1 - below, 1 - above
        ),
        "two one-sided tests, each at its own level: nothing is doubled.": 2
        * max(below, above),
        "the p's are not added: both nulls must fall, and the worse one decides.": below
        + above,
        "divide by the standard error: z is a distance in standard errors.": max(
            float(norm.sf(value + margin)), float(norm.cdf(value - margin))
        ),
    }
    for hint, expected in wrong.items():
        # all but min, max and sum differ by far more than this
        if _near(answer, expected, 1e-9):
            return hint
    right = tost(value, se, margin)
    if not _near(answer, right, 1e-9):
        return f"d' = 0.2, standard error 0.15, margin 0.5: p = {right:.4f}."
    if not _near(_number(student(-value, se, margin)), right, 1e-9):
        return "only one side was tested: -0.2 must give the p that 0.2 gives."
    return None


@exercise(
    "E07.5",
    "right: half the margin takes four times the images.",
)
def check_images_a_side(student: Callable[..., Any]) -> str | None:
    answer = _number(student(0.5))
    if answer is None:
        return "return one number."

    def n(alpha: float, beta: float, power: int = 2) -> float:
        return math.pi * ((norm.ppf(1 - alpha) + norm.ppf(1 - beta)) / 0.5) ** power

    right = images_needed(0.5)
    wrong = {
        "beta is shared by two ends: z of 1 - beta / 2, not of 1 - beta.": n(0.05, 0.2),
        "each of the two tests is at 0.05, so z is 1.645; 1.96 is for a difference "
        "that may lie on either side.": n(0.025, 0.1),
        "the square is missing: n stands under a root.": n(0.05, 0.1, 1),
        "this is for both kinds together; we ask for each.": 2 * n(0.05, 0.1),
        "power is missing: with this n the test passes only by luck, if the estimate "
        "is exactly 0.": math.pi * (norm.ppf(0.95) / 0.5) ** 2,
        "pi is missing: it is the variance of d' at one image of each kind.": n(
            0.05, 0.1
        )
        / math.pi,
    }
    for hint, value in wrong.items():
        if abs(answer - value) <= 1:
            return hint
    if answer == right - 1 or answer != int(answer):
        return "round up: one image fewer is not enough."
    if answer != right:
        return f"margin 0.5 at power 0.8 takes {right} images of each kind."
    if _number(student(0.5, 0.9)) != images_needed(0.5, power=0.9):
        return "a power of 0.9 needs more: use the argument `power`."
    return None
