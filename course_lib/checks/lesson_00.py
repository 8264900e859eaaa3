"""Checks of lesson 00: signal, null time, window, honest split, balanced accuracy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib.checks import exercise


def _close(value, truth) -> bool:
    value = np.asarray(value, dtype=float)
    same = value.shape == np.shape(truth)
    return same and np.allclose(value, truth, rtol=1e-6, atol=1e-9)


@exercise(
    "E00.1", "right: long TR and short TE leave PD, and each time has its tissue."
)
def check_spin_echo(student: Callable) -> str | None:
    def signal(t1=800.0, t2=80.0, tr=600.0, te=15.0, ti=None):
        return student(0.8, t1, t2, tr=tr, te=te, ti=ti)

    if signal() is None:
        return "it returns nothing: end with `return`."
    values = np.array(
        [signal(), signal(tr=1e9, te=0.0), signal(te=0.0), signal(tr=1e9)]
    )
    if not np.isfinite(values).all() or (np.abs(values) > 1).any():
        return (
            "the signal grows without bound: both exponents are negative, "
            "exp(-TR/T1) and exp(-TE/T2)."
        )
    if (values < 0).any():
        return "the signal is negative: recovery is 1 - exp(-TR/T1), not the reverse."
    if _close(values[0], 0.8 * (1 - np.exp(-600 / 80)) * np.exp(-15 / 800)):
        return "T1 and T2 are swapped: TR works against T1, TE against T2."
    if _close(values[1], 0):
        return (
            "with a very long TR all signal is gone; it should be full: recovery is "
            "1 - exp(-TR/T1)."
        )
    if _close(values[1], 1):
        return "PD does not count: twice the water is twice the signal."
    if _close(values[2], values[0]) or abs(values[3] - 0.8 * np.exp(-15 / 80)) > 1e-6:
        return (
            "the fading is wrong: with a very long TR, S is PD exp(-TE/T2), with T2 "
            "and nothing else."
        )
    if abs(values[2] - 0.8 * (1 - np.exp(-600 / 800))) > 1e-6:
        return (
            "the recovery is wrong: with TE = 0, S is PD (1 - exp(-TR/T1)). Does TR "
            "stand over T1?"
        )
    return _check_inversion(signal) or _check_arrays(student)


def _check_inversion(signal: Callable) -> str | None:
    t1, tr, fade = 800.0, 3000.0, 0.8 * np.exp(-15 / 80)
    early, late = signal(tr=tr, ti=100.0), signal(tr=tr, ti=2000.0)
    end = np.exp(-tr / t1)
    if _close(late, fade * (1 - end)):
        return "`ti` changes nothing: with it, use the second formula."
    if early < 0:
        return "shortly after the inversion it is negative: a picture shows |S|."
    if _close(late, fade * abs(1 - 2 * np.exp(-2000 / t1))):
        return "inversion recovery lacks exp(-TR/T1): TR is finite, so it is needed."
    if _close(late, fade * abs(1 - 2 * np.exp(-2000 / t1) - end)):
        return "inversion recovery: exp(-TR/T1) is added, not taken away."
    if _close(late, fade * abs(1 - np.exp(-2000 / t1) + end)):
        return "inversion recovery: the 2 is missing; the pulse turns all water over."
    truths = [fade * abs(1 - 2 * np.exp(-ti / t1) + end) for ti in (100.0, 2000.0)]
    if not _close([early, late], truths):
        return "without TI it is right; compare the formula with TI term by term."
    return None


def _check_arrays(student: Callable) -> str | None:
    try:
        image = student(np.ones((2, 3)), np.full(3, 900.0), 100.0, tr=500.0, te=20.0)
    except (TypeError, ValueError) as error:
        return f"arrays do not work ({error}): use np.exp and np.abs, not math and if."
    if np.shape(image) != (2, 3):
        return (
            f"arrays (2, 3) and (3,) should broadcast to (2, 3), not {np.shape(image)}."
        )
    return None


@exercise("E00.2", "right: the finite TR brings the zero forward, and by how much.")
def check_null_time(student: Callable) -> str | None:
    t1, tr = 2500.0, 9000.0
    answer = student(t1, tr)
    if answer is None:
        return "it returns nothing: end with `return`."
    truth = t1 * np.log(2 / (1 + np.exp(-tr / t1)))
    if _close(answer, t1 * np.log(2)):
        return (
            "T1 ln 2 holds for an endless TR: keep exp(-TR/T1) in the equation "
            "and solve again."
        )
    if np.all(np.asarray(answer) < 0):
        return "a time cannot be negative: mind the sign when you take the logarithm."
    if _close(answer, t1 * np.log10(2 / (1 + np.exp(-tr / t1)))):
        return "that is log10; exp is undone by the natural logarithm, np.log."
    if _close(answer, t1 * np.log(2 / (1 - np.exp(-tr / t1)))):
        return "the sign of exp(-TR/T1) is lost: 2 exp(-TI/T1) = 1 + exp(-TR/T1)."
    if _close(answer, np.log(2 / (1 + np.exp(-tr / t1)))):
        return "the factor T1 is missing: the exponent is -TI/T1, and you want TI."
    if _close(answer, t1 * np.log(1 / (1 + np.exp(-tr / t1)))) or _close(
        answer, t1 * np.log(1 + np.exp(-tr / t1))
    ):
        return "the 2 is missing: the pulse turns all water over, hence 2 exp(-TI/T1)."
    if not _close(answer, truth):
        left = abs(1 - 2 * np.exp(-np.asarray(answer, float) / t1) + np.exp(-tr / t1))
        return f"at your TI the signal is still {np.max(left):.2f} of PD, not 0."
    many = np.array([500.0, 2500.0])
    if not _close(student(many, tr), many * np.log(2 / (1 + np.exp(-tr / many)))):
        return "one T1 is right, an array of them is not: use np.log and np.exp."
    return None


@exercise("E00.3", "right: the width decides what is seen, and the rest is clipped.")
def check_window_hu(student: Callable) -> str | None:
    hu = np.array([0.0, 20.0, 40.0, 60.0, 80.0])
    answer = student(hu, 40, 80)
    if answer is None:
        return "it returns nothing: end with `return`."
    answer = np.asarray(answer)
    if answer.shape != hu.shape:
        return f"the shape should stay {hu.shape}, yours is {answer.shape}."
    if _close(answer, hu / 80 * 255) or _close(answer, np.rint(hu / 80 * 255)):
        return "that runs from 0 to 255; the range is 0 to 1."
    if _close(answer, hu / 80 * 2 - 1):
        return "that runs from -1 to 1, the range of a model; a window gives 0 to 1."
    if _close(answer, np.clip((hu + 40) / 160, 0, 1)) or _close(
        answer, (hu + 40) / 160
    ):
        return "the width is the whole window: half of it lies on each side of level."
    if _close(answer, np.clip((hu - 40) / 80, 0, 1)) or _close(answer, (hu - 40) / 80):
        return "the level is the middle of the window, not its black end."
    if _close(answer, np.clip((hu - 40) / 40, 0, 1)) or _close(answer, (hu - 40) / 40):
        return "these are level and width, not black and white: 40/80 means 0 to 80 HU."
    if _close(answer, 1 - hu / 80):
        return "it is a negative: high HU, such as bone, should be white."
    if not _close(answer, hu / 80):
        return f"40 HU is the middle of 40/80: 0.5, yours gives {answer[2]:.3g}."
    wide = np.asarray(student(np.array([-1000, 1000]), 40, 80), dtype=float)
    if wide.min() < 0 or wide.max() > 1:
        return (
            f"air gives {wide[0]:.3g} and bone {wide[1]:.3g}: clip what lies outside "
            "the window to 0 and 1."
        )
    if not _close(student(np.array([[150.0]]), 300, 1500), [[0.4]]):
        return "40/80 is right, another window is not: use `level` and `width`."
    return None


@exercise("E00.4", "right: no subject is on both sides, and a seed repeats the split.")
def check_split_by_subject(student: Callable) -> str | None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 12, 40)  # unequal, as in a clinic
    subjects = rng.permutation(np.repeat(np.arange(100, 140), counts))
    answer = student(subjects, 0.25, 0)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        return "return two arrays: indices of training images, indices of test images."
    train, test = (np.asarray(part) for part in answer)
    if train.dtype == bool or test.dtype == bool:
        return "these are masks; return indices, as np.flatnonzero(mask) gives them."
    if not all(np.issubdtype(part.dtype, np.integer) for part in (train, test)):
        return "indices are whole numbers."
    people = set(subjects.tolist())
    if (
        set(train.tolist()) | set(test.tolist()) == people
        and len(train) + len(test) <= 40
    ):
        return "these are subjects; return the indices of their images."
    both = np.concatenate([train, test])
    if len(both) and (both.min() < 0 or both.max() >= len(subjects)):
        return f"indices run from 0 to {len(subjects) - 1}, yours to {both.max()}."
    if np.intersect1d(train, test).size:
        return "some images are in training and in test."
    shared = np.intersect1d(subjects[train], subjects[test]).size
    if shared:
        return (
            f"{shared} subjects are on both sides: draw subjects and take all their "
            "images, not single images."
        )
    if len(both) != len(subjects):
        return f"{len(subjects) - len(both)} images are in neither part."
    held = len(np.unique(subjects[test]))
    if held == 30:
        return "a quarter was to be held out for the test; you trained on a quarter."
    if held != 10:
        return f"0.25 of 40 subjects are 10 in the test part, yours has {held}."
    return _check_seed(student, subjects, test)


def _check_seed(
    student: Callable, subjects: np.ndarray, test: np.ndarray
) -> str | None:
    if not np.array_equal(test, student(subjects, 0.25, 0)[1]):
        return "the same seed gives another split: draw from default_rng(seed)."
    others = [student(subjects, 0.25, seed)[1] for seed in range(1, 6)]
    if all(np.array_equal(test, other) for other in others):
        return (
            "every seed gives the same split: shuffle the subjects with "
            "np.random.default_rng(seed), or the first ones are always held out."
        )
    return None


@exercise("E00.5", "right: a class counts the same, however rare it is.")
def check_balanced_accuracy(student: Callable) -> str | None:
    labels = np.array([0] * 90 + [1] * 10)
    guesses = np.concatenate([np.zeros(85), np.ones(5), np.zeros(4), np.ones(6)])
    guesses = guesses.astype(int)  # finds 85 of 90 and 6 of 10
    answer = student(labels, guesses)
    if answer is None:
        return "it returns nothing: end with `return`."
    if np.ndim(answer) != 0:
        return "return one number, the mean over the classes."
    answer = float(answer)
    if _close(answer, 0.91):
        return (
            "that is plain accuracy: average within each class first, then over them."
        )
    if _close(answer, (85 / 89 + 6 / 11) / 2):
        return (
            "that is precision: divide by how often a class occurs in `labels`, not by "
            "how often it was guessed."
        )
    if _close(answer, 85 / 90 + 6 / 10):
        return "that is the sum over the classes; take the mean."
    if _close(answer, 6 / 10) or _close(answer, 85 / 90):
        return "that is one class alone; take the mean over all."
    if not _close(answer, (85 / 90 + 6 / 10) / 2):
        return f"85 of 90 and 6 of 10 found make 0.772, yours gives {answer:.3f}."
    gap = student(np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2]))
    if not _close(gap, 0.75):
        return (
            "a class that is in `predictions` or between the others, but not in "
            "`labels`, must not count."
        )
    return None
