"""Checks proven on automatic mutants: one small change of a solution is noticed."""

import functools

import mutants
import pytest

from course_lib import checks

COURSE = mutants.course()


@functools.cache
def alive(number):
    """Names of the mutants of an exercise that its check passes."""
    return mutants.survivors(number, *COURSE[number])


@pytest.mark.parametrize("number", sorted(COURSE))
def test_each_survivor_has_a_reason_and_each_reason_a_survivor(number):
    reasons = mutants.SURVIVORS.get(number, {})
    new = sorted(set(alive(number)) - set(reasons))
    gone = sorted(set(reasons) - set(alive(number)))
    assert not new, f"strengthen the check, or give a reason in mutants.py: {new}"
    assert not gone, f"these are killed now, or the solution changed: {gone}"


def test_at_least_95_percent_of_the_courses_mutants_are_killed():
    total = sum(len(found) for _, found in COURSE.values())
    left = sum(len(alive(number)) for number in COURSE)
    assert total > 10 * len(COURSE)
    assert left <= 0.05 * total, f"{left} of {total} survive"


def test_every_exercise_has_mutants_of_a_check_of_its_own():
    assert set(COURSE) == set(checks.all_checks())
    assert all(len(found) >= 4 for _, found in COURSE.values())
    assert set(mutants.SURVIVORS) <= set(COURSE)


SOLVED = """\
def loss(x, y):
    given = x + y
    # solution E90.1
    wrong = -(x - y.detach()).square().mean(dim=1)
    for i in range(3):
        wrong += 1.0 if i < 2 else 0
    return wrong
"""


def test_a_solution_is_changed_in_each_way_and_above_the_mark_in_none():
    found = mutants.mutants("E90.1", "loss", SOLVED)
    names = [x.name for x in found]
    for name in (
        "operator: x - y.detach() -> x + y.detach()",
        "sign: -(x - y.detach()).square().mean(dim=1) -> "
        "(x - y.detach()).square().mean(dim=1)",
        "dropped: y.detach() -> y",
        "dropped: (x - y.detach()).square().mean(dim=1) -> "
        "(x - y.detach()).square().mean()",
        "axis: (x - y.detach()).square().mean(dim=1) -> "
        "(x - y.detach()).square().mean(dim=0)",
        "reduction: (x - y.detach()).square().mean -> (x - y.detach()).square().sum",
        "variable: y -> x",
        "variable: wrong -> given",
        "comparison: i < 2 -> i <= 2",
        "constant: 2 -> 3",
        "operator: wrong += 1.0 if i < 2 else 0 -> wrong -= 1.0 if i < 2 else 0",
        "removed: wrong += 1.0 if i < 2 else 0 -> pass",
        "sign: return wrong -> return -wrong",
    ):
        assert name in names, names
    assert all("given = x + y" in x.source for x in found)
    assert len({x.source for x in found}) == len(found) == len(set(names))
    assert "x - y.detach() -> y.detach() - x" not in " ".join(names)


def test_an_argument_and_an_index_are_dropped_and_sizes_are_left_alone():
    solved = SOLVED.replace(".mean(dim=1)", ".flatten(1)[:, 0] / len(x)")
    names = [x.name for x in mutants.mutants("E90.1", "loss", solved)]
    flat = "(x - y.detach()).square().flatten"
    assert f"dropped: {flat}(1) -> {flat}()" in names
    assert f"dropped: {flat}(1)[:, 0] -> {flat}(1)" in names
    assert "variable: x -> y" in names and "variable: x -> y #2" not in names
    symmetric = SOLVED.replace("y.detach()", "max(x, y)")
    names = [x.name for x in mutants.mutants("E90.1", "loss", symmetric)]
    assert "swapped: max(x, y) -> max(y, x)" not in names


def test_a_check_that_sees_nothing_lets_all_live_and_one_that_runs_kills_loops():
    endless = mutants.Mutant(
        "E90.1", "f", "", "def f():\n    while True:\n        pass"
    )
    assert not mutants.killed(endless, {}, lambda answer: True)
    assert mutants.killed(endless, {}, lambda answer: answer() or True)
