"""Checks: their frame, and what each says of the solution, the stub, wrong answers."""

import functools
import importlib
import subprocess
import sys

import numpy as np
import pytest
import solved
import torch
import torch.nn.functional as F
import wrong_answers_03
from scipy.stats import norm

from course_lib import checks, phantoms, translation, variational
from course_lib.sources import lessons

CHECKS = checks.all_checks()
COURSE = solved.course()


@checks.exercise("E90.1", "right: doubling is linear.")
def check_double(student):
    if student(2) == 4 and student(3) == 9:
        return "you squared; doubling 3 gives 6."
    return None if student(3) == 6 else "doubling 3 gives 6."


def test_a_right_answer_is_praised():
    verdict = check_double(lambda x: 2 * x)
    assert verdict and repr(verdict) == "E90.1 solved: right: doubling is linear."


def test_a_wrong_answer_gets_the_hint_that_names_the_mistake():
    verdict = check_double(lambda x: x**2)
    assert not verdict and "you squared" in repr(verdict)


def test_a_stub_is_not_written_yet():
    def stub(x):
        raise NotImplementedError("E90.1")

    verdict = check_double(stub)
    assert not verdict and repr(verdict) == "E90.1 not yet: it is not written yet."


def test_an_error_in_the_students_code_becomes_a_hint_with_its_line():
    def broken(x):
        return x / 0

    message = check_double(broken).message
    assert "ZeroDivisionError in line 2 of your function" in message


def test_an_object_that_is_no_function_is_a_hint_too():
    assert "TypeError" in check_double(None).message


def test_the_page_of_a_verdict_escapes_what_a_student_wrote():
    def broken(x):
        raise ValueError("<script>")

    assert "<script>" not in check_double(broken)._repr_html_()


def test_every_check_has_a_name_and_an_exercise_of_its_own():
    found = [
        (name, check)
        for module in checks._modules()
        for name, check in vars(module).items()
        if name.startswith("check_")
    ]
    assert found and len(dict(found)) == len(found) == len(checks.all_checks())
    for name, check in found:
        assert getattr(checks, name) is check
        assert checks.all_checks(check.exercise[1:3])[check.exercise] is check


def test_a_lesson_waits_for_no_checks_of_a_later_one():
    code = (
        "import sys; from course_lib.checks import check_ema_step\n"
        "assert 'course_lib.checks.lesson_04' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the checks of the lessons --------------------------------------------------------


@pytest.mark.parametrize("number", sorted(COURSE))
def test_the_lessons_solution_passes(number):
    verdict = CHECKS[number](COURSE[number].run())
    assert verdict, verdict
    assert verdict.message.startswith("right:")


@pytest.mark.parametrize("number", sorted(COURSE))
def test_the_stub_is_not_written_yet(number):
    verdict = CHECKS[number](COURSE[number].run(COURSE[number].stub))
    assert not verdict and "not written yet" in verdict.message


def wrong_answers():
    """{exercise: [(answer, words of its hint)]} of `wrong_answers_NN.py`.

    WRONG there is {exercise: {words: answer}}, or where several answers get one hint
    (exercise, answer, words) of each.
    """
    found = {number: [] for number in COURSE}
    for lesson in lessons():
        wrong = importlib.import_module(f"wrong_answers_{lesson.number}").WRONG
        if isinstance(wrong, dict):
            wrong = [(n, x, words) for n in wrong for words, x in wrong[n].items()]
        for number, answer, words in wrong:
            found[number].append((answer, words))
    return found


WRONG = wrong_answers()


@functools.cache
def verdict_on(number, place):
    return CHECKS[number](WRONG[number][place][0])


@pytest.mark.parametrize(
    "number, place",
    [
        pytest.param(number, place, id=f"{number}-{words}")
        for number, answers in WRONG.items()
        for place, (_, words) in enumerate(answers)
    ],
)
def test_each_wrong_answer_fails_with_the_hint_that_names_it(number, place):
    verdict = verdict_on(number, place)
    assert not verdict and WRONG[number][place][1] in verdict.message, verdict


@pytest.mark.parametrize("number", sorted(WRONG))
def test_at_least_three_mistakes_have_hints_that_differ(number):
    mistakes = {words for _, words in WRONG[number]}
    hints = {verdict_on(number, i).message for i in range(len(WRONG[number]))}
    assert len(hints) >= len(mistakes) >= 3


def test_the_null_time_is_the_one_of_the_flair_protocol():
    tr, _, ti = phantoms.PROTOCOLS["FLAIR"]
    csf = phantoms.TISSUE_PROPERTIES["csf"]
    assert COURSE["E00.2"].run()(csf.t1, tr) == pytest.approx(ti, abs=2)


def test_a_split_given_as_a_list_is_as_good_as_a_tuple():
    split = COURSE["E00.4"].run()
    assert CHECKS["E00.4"](lambda *given: list(split(*given)))


def test_the_check_of_the_trick_leaves_the_lessons_random_numbers_alone():
    torch.manual_seed(1)
    first = torch.rand(2)
    torch.manual_seed(1)
    assert CHECKS["E02.1"](variational.reparameterise)
    assert torch.equal(first, torch.rand(2))


def test_cross_entropy_with_logits_is_as_good_as_softplus():
    def bce(logits):
        ones = torch.ones_like(logits)
        return F.binary_cross_entropy_with_logits(logits, ones)

    assert CHECKS["E03.1"](bce)


def test_a_step_on_fakes_alone_is_told_the_whole_loss():
    verdict = CHECKS["E03.2"](wrong_answers_03.wrong_step(reals=0))
    assert not verdict and "on the reals plus" in verdict.message


def test_the_pool_of_the_lesson_is_no_answer_to_the_memory():
    pool = translation.ImagePool(size=6)

    def swap(memory, fakes, size, generator):
        pool.images, pool.generator = memory, generator
        return pool(fakes)

    assert not CHECKS["E05.4"](swap)


def test_another_right_way_to_the_metrics_passes_too():
    def root(a):
        values, vectors = torch.linalg.eigh(a)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T

    nuclear = functools.partial(torch.linalg.matrix_norm, ord="nuc")
    assert CHECKS["E06.4"](lambda a, b: nuclear(root(b) @ root(a)))
    assert CHECKS["E06.3"](lambda x: torch.cov(x.T))
    assert CHECKS["E06.2"](lambda net, x: net[:-1].eval()(x).detach())


def test_answers_may_be_numpy_numbers():
    assert CHECKS["E07.2"](
        lambda k, n: np.float64(2**0.5 * norm.ppf((k + 0.5) / (n + 1)))
    )
