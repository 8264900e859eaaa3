"""The sandbox: hostile code past the screen meets the system and ends with its fork."""

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from course_lib import sandbox
from course_lib.sandbox import Limits, Outcome

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="Windows has no fork; grade says so"
)
SHORT = Limits(processor=1, clock=120, memory=2**28)
HELD = sandbox.barriers() if hasattr(os, "fork") else {}


def holds(*barriers):
    missing = [x for x in barriers if not HELD.get(x)]
    return pytest.mark.skipif(bool(missing), reason=f"not held here: {missing}")


def tried(act):
    """The name of the error that `act` raises in a fork without the audit hook."""

    def work():
        try:
            act()
        except Exception as error:
            return type(error).__name__
        return "nothing"

    return sandbox.run(work, SHORT, guard=False)


def test_a_value_comes_back():
    assert sandbox.run(lambda: {"a": [1, None, "\u00e9"]}).value == {
        "a": [1, None, "\u00e9"]
    }


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux holds")
def test_this_linux_holds_everything_or_says_what_it_lacks():
    assert set(HELD) == {"network", "processes", "signals", "files", "solutions"}
    assert HELD["processes"]  # a limit that every Linux has


@pytest.mark.parametrize(
    "work, problem",
    [
        (lambda: os._exit(0), "ended its own process"),
        (lambda: os.close(3) or time.sleep(600), "let go of its answer"),
        (lambda: os.write(3, b'{"passed": true}') and os._exit(0), "ended its own"),
        (lambda: os.write(3, bytes(16) + b"1") and os._exit(0), "ended its own"),
        (lambda: ctypes.string_at(0), "crashed"),
        (lambda: "x" * 2**21, "too long"),
        (lambda: object(), "ended its own process"),
        (lambda: [bytearray(2**26) for _ in range(50)], "ended its own process"),
    ],
)
def test_what_sends_no_value_of_its_own_is_told(work, problem):
    outcome = sandbox.run(work, SHORT, guard=False)
    assert outcome.value is None and problem in outcome.problem


def endless():
    while True:
        pass


def deaf():
    for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    endless()


@pytest.mark.parametrize(
    "work, clock", [(endless, 120), (deaf, 120), (lambda: time.sleep(600), 1)]
)
def test_what_does_not_end_is_ended(work, clock):
    outcome = sandbox.run(work, replace(SHORT, clock=clock), guard=False)
    told = outcome.problem or ""
    assert "endless loop" in told or "the system ended it" in told


@holds("processes")
def test_no_process_and_no_thread_survives():
    assert tried(os.fork).value in ("PermissionError", "BlockingIOError")
    assert tried(threading.Thread(target=endless).start).value == "RuntimeError"
    assert tried(lambda: os.execv(sys.executable, ["python"])).value != "nothing"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@holds("signals")
def test_the_parent_cannot_be_ended():
    parent = os.getpid()
    assert tried(lambda: os.kill(parent, signal.SIGKILL)).value == "PermissionError"


@holds("network")
def test_no_network_not_even_the_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert tried(lambda: socket.create_connection(address, 1)).value != "nothing"


@holds("files")
def test_no_file_is_written_anywhere(tmp_path):
    os.chmod(tmp_path, 0o777)
    for path in (tmp_path / "x", Path("x"), Path("/tmp/course-x")):
        assert tried(lambda path=path: path.write_text("x")).value == "PermissionError"
        assert tried(lambda path=path: path.mkdir()).value == "PermissionError"
    assert not list(tmp_path.iterdir())


@holds("solutions")
def test_neither_the_course_nor_other_submissions_can_be_read(tmp_path):
    other = tmp_path / "bob.ipynb"
    other.write_text("x")
    course = Path(sandbox.__file__).parents[1]
    solved = next((course / "notebooks").glob("0*.ipynb"))
    for path in (other, solved, course / "course_lib/gans.py", Path("/etc/passwd")):
        assert tried(lambda path=path: path.read_bytes()).value == "PermissionError"
    assert tried(lambda: list(tmp_path.iterdir())).value == "PermissionError"
    assert tried(lambda: Path("/proc/self/environ").read_bytes()).value != "nothing"


def test_the_fork_has_no_environment_an_empty_folder_and_two_pipes(monkeypatch):
    monkeypatch.setenv("SECRET", "x")

    def look():
        opened = []
        for number in range(100):
            try:
                os.fstat(number)
                opened.append(number)
            except OSError:
                pass
        return [dict(os.environ), os.listdir("."), opened]

    monkeypatch.setattr(sandbox, "_landlock", lambda folders: False)  # to list it
    assert sandbox.run(look, guard=False).value == [{}, [], [0, 1, 2, 3, 4]]


def test_the_parent_keeps_its_folder_environment_and_user():
    before = (os.getcwd(), dict(os.environ), os.geteuid())
    sandbox.run(lambda: 1)
    assert (os.getcwd(), dict(os.environ), os.geteuid()) == before


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path("/etc/passwd").read_text(),
        lambda: Path(json.__file__).write_text(""),
        lambda: os.listdir("/"),
        lambda: socket.socket(),
        lambda: os.fork(),
        lambda: os.kill(os.getpid(), 0),
        lambda: os.system("true"),
        lambda: ctypes.CDLL(None),
        lambda: __import__("gc").get_objects(),
    ],
)
def test_the_audit_hook_refuses_where_the_system_would_not(act, monkeypatch):
    monkeypatch.setattr(sandbox, "_confine", lambda limits: None)

    def work():
        try:
            act()
        except PermissionError as error:
            return str(error)
        return "nothing"

    assert "an answer" in str(sandbox.run(work, SHORT))


def test_the_hook_lets_modules_be_imported():
    def work():
        import colorsys

        return colorsys.rgb_to_hsv(0, 0, 0)[0]

    sys.modules.pop("colorsys", None)
    assert sandbox.run(work) == Outcome(0.0)


@pytest.mark.parametrize(
    "missing, left",
    [
        ("_seccomp", {"processes", "signals", "files", "solutions"}),
        ("_landlock", {"network", "processes", "signals", "files"}),
    ],
)
@holds("network", "processes", "signals", "files", "solutions")
def test_each_wall_of_linux_holds_without_the_other(missing, left, monkeypatch):
    monkeypatch.setattr(sandbox, missing, lambda *given: False)
    assert left <= {name for name, held in sandbox.barriers().items() if held}


def test_readable_folders_hold_python_and_not_the_course():
    folders = sandbox.readable_folders()
    course = Path(sandbox.__file__).resolve().parents[1]
    assert any(json.__file__.startswith(x) for x in folders)
    assert not any(course.is_relative_to(x) for x in folders)
