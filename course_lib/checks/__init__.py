"""Checks of the exercises: `check_<function>(your_function)` answers in one sentence.

A check tests properties of what a student wrote (a limit, a symmetry, agreement with
another computation) and, where one fails, names the misconception behind it. It never
compares source text. The checks of lesson NN stand in `lesson_NN.py`; tests prove each
one on the solution, the stub and named wrong answers.
"""

from __future__ import annotations

import functools
import html
import importlib
import os
import pkgutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from course_lib import progress
from course_lib.runtime import has_front_end


@dataclass(frozen=True)
class Verdict:
    """What a check found: true if solved; shows itself in a notebook."""

    exercise: str
    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return (
            f"{self.exercise} {'solved' if self.passed else 'not yet'}: {self.message}"
        )

    def _repr_html_(self) -> str:
        colour = "0,158,115" if self.passed else "213,94,0"
        mark = "&#10003;" if self.passed else "&#9679;"
        return (
            f'<div role="status" style="border-left:4px solid rgb({colour});'
            f'padding:.6em 1em;background:rgba({colour},.12)">'
            f"{mark} {html.escape(repr(self))}{self._so_far()}</div>"
        )

    def _so_far(self) -> str:
        """How much of the lesson is solved, where the record is kept."""
        if not has_front_end():
            return ""
        solved, all_of_them = progress.solved_in_lesson(self.exercise)
        return f"<br><small>{solved} of {all_of_them} of this lesson solved</small>"


class NotSolved(AssertionError):
    """Raised in nbgrader alone: it gives the points of a cell that raises nothing."""


def exercise(
    number: str, praise: str
) -> Callable[[Callable[[Any], str | None]], Callable[[Any], Verdict]]:
    """Make a check of exercise `number` from a function that looks for mistakes.

    The function takes the student's object and returns a hint, or None where nothing is
    wrong; `praise` is then the answer. What the student's code raises becomes a hint.
    """

    def decorate(look: Callable[[Any], str | None]) -> Callable[[Any], Verdict]:
        @functools.wraps(look)
        def check(student: Any) -> Verdict:
            written = True
            try:
                hint = look(student)
            except NotImplementedError:
                hint, written = "it is not written yet.", False
            except Exception as error:
                hint = (
                    f"it raised {type(error).__name__}{_where(error, student)}: {error}"
                )
            if written:
                progress.keep(number, hint is None)
            verdict = Verdict(number, hint is None, praise if hint is None else hint)
            if not verdict and os.environ.get("NBGRADER_EXECUTION"):
                raise NotSolved(repr(verdict))
            return verdict

        check.exercise = number  # type: ignore[attr-defined]
        return check

    return decorate


def _where(error: Exception, student: Any) -> str:
    """' in line 2 of your function' (counted from its def), where that can be known."""
    code = getattr(student, "__code__", None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            return f" in line {line - code.co_firstlineno + 1} of your function"
    return ""


def is_near(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Whether two numbers or tensors have one shape and are equal up to `tolerance`."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=tolerance)


def which_mistake(
    answer: Any, wrong: Mapping[str, Any], tolerance: float = 1e-4
) -> str | None:
    """The hint of the first wrong value ({hint: value}) that the answer is near to."""
    near = (hint for hint, value in wrong.items() if is_near(answer, value, tolerance))
    return next(near, None)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own: a check leaves the lesson's random numbers alone."""
    return torch.Generator().manual_seed(seed)


def _modules(lesson: str = "") -> Iterator[ModuleType]:
    """The modules beside this one, in order, each imported as it is asked for."""
    for name in sorted(entry.name for entry in pkgutil.iter_modules(__path__)):
        if name.endswith(lesson):
            yield importlib.import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    # Lazy: a lesson does not wait for scipy and scikit-learn of a later one's checks.
    if name.startswith("check_"):
        for module in _modules():
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def all_checks(lesson: str = "") -> dict[str, Callable[[Any], Verdict]]:
    """{exercise number: check} of the whole course, or of one lesson such as "03"."""
    return {
        check.exercise: check
        for module in _modules(lesson)
        for name, check in vars(module).items()
        if name.startswith("check_")
    }
