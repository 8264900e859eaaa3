"""The frame of the checks: verdicts, stubs, errors in a student's code."""

from course_lib import checks


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


def test_every_check_has_an_exercise_of_its_own():
    found = checks._collect()
    assert found and len(checks.all_checks()) == len(found)
    for name, check in found.items():
        assert getattr(checks, name) is check
