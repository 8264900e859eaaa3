"""Set-up from a bare Python: ranges, readiness, locks, interrupted installs."""

import ast
import json
import subprocess
import sys
import threading
from datetime import date

import pytest
import yaml

from course_lib import bootstrap, doctor


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """A place with a space for an environment, and a record of what set-up did."""
    folder = tmp_path / "my course" / "env"
    monkeypatch.setenv("COURSE_VENV", str(folder))
    monkeypatch.setattr(bootstrap, "missing", lambda extras=(): ["torch>=2.6"])
    done = []

    def make(folder):
        done.append("venv")
        python = bootstrap.venv_python(folder)
        python.parent.mkdir(parents=True)
        python.touch()

    def pip(python, target, log, lock):
        done.append("locked" if lock else "ranges")
        log.write_text("fine", "utf-8")
        return True

    monkeypatch.setattr(bootstrap, "_make_venv", make)
    monkeypatch.setattr(bootstrap, "_pip", pip)
    return folder, done


@pytest.mark.parametrize(
    ("version", "specifier", "expected"),
    [
        ("2.13.0+cpu", ">=2.6,<3", True),
        ("2.5.1", ">=2.6,<3", False),
        ("3.0", ">=2.6,<3", False),
        ("2.10", ">=2.9", True),  # numbers, not letters
        ("1.0", "==1.0.0", True),
        ("1.0.1", "!=1.0", True),
        ("0.4.3rc1", ">=0.4.3", True),
        ("7", "", True),
    ],
)
def test_a_version_is_compared_with_a_range_by_its_numbers(
    version, specifier, expected
):
    assert bootstrap.satisfies(version, specifier) is expected


def test_a_range_of_another_form_is_an_error_and_not_a_yes():
    with pytest.raises(ValueError, match="cannot read"):
        bootstrap.satisfies("1.0", "~=1.0")


def test_every_range_of_the_project_can_be_read():
    for name, specifier in bootstrap.requirements(("test",)).items():
        assert specifier, f"{name} has no range"
        bootstrap.satisfies("1.0", specifier)


def test_an_interpreter_that_has_the_packages_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(bootstrap, "missing", lambda extras=(): [])
    assert bootstrap.ensure() == sys.executable


def test_missing_names_what_is_absent_and_what_is_too_old(monkeypatch):
    ranges = {"numpy": ">=999", "no-such-package": ">=1"}
    monkeypatch.setattr(bootstrap, "requirements", lambda extras: ranges)
    old, absent = bootstrap.missing()
    assert old.startswith("numpy>=999 (have ")
    assert absent == "no-such-package>=1"


def test_an_environment_is_made_once_and_then_reused(venv):
    folder, done = venv
    python = bootstrap.ensure(())
    assert python == str(bootstrap.venv_python(folder))
    assert bootstrap.ensure(()) == python
    assert done == ["venv", "locked"]


def test_more_extras_are_added_to_the_environment_that_is_there(venv):
    _folder, done = venv
    bootstrap.ensure(())
    bootstrap.ensure(("test",))
    bootstrap.ensure(())
    assert done == ["venv", "locked", "locked"]


def test_an_install_that_was_cut_off_starts_afresh(venv, monkeypatch):
    folder, done = venv
    good = bootstrap._pip

    def cut_off(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(bootstrap, "_pip", cut_off)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.ensure(())
    assert not bootstrap.is_ready(folder, ())
    monkeypatch.setattr(bootstrap, "_pip", good)
    # as _make_venv does before it makes the folder again
    monkeypatch.setattr(
        bootstrap,
        "_make_venv",
        lambda path: done.append("venv again" if path.exists() else "venv"),
    )
    bootstrap.ensure(())
    assert done == ["venv", "venv again", "locked"]


def test_two_set_ups_at_once_install_once(venv, monkeypatch):
    _folder, done = venv
    quick = bootstrap._pip

    waits = threading.Event()

    def say(text):
        if "waiting" in text:
            waits.set()

    def slow(*arguments):
        waits.wait()  # until the other one stands at the lock
        return quick(*arguments)

    monkeypatch.setattr(bootstrap, "say", say)
    monkeypatch.setattr(bootstrap, "_pip", slow)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(bootstrap.ensure(())))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["venv", "locked"]
    assert len(set(answers)) == 1 and len(answers) == 2


def test_a_failed_install_shows_the_last_lines_and_the_way_out(venv, monkeypatch):
    folder, _done = venv

    def fail(python, target, log, lock):
        log.write_text("line 1\nERROR: Could not connect", "utf-8")
        return False

    monkeypatch.setattr(bootstrap, "_pip", fail)
    with pytest.raises(
        bootstrap.SetupError, match=r"(?s)Could not connect.*no network"
    ):
        bootstrap.ensure(())
    assert not bootstrap.is_ready(folder, ())


@pytest.mark.parametrize(
    "said",
    ["No matching distribution found for x==1", "ResolutionImpossible: for help"],
)
def test_a_python_without_locked_wheels_gets_the_ranges(venv, monkeypatch, said):
    _folder, _done = venv
    locks = []

    def pip(python, target, log, lock):
        locks.append(lock)
        log.write_text(f"ERROR: {said}", "utf-8")
        return lock is None

    monkeypatch.setattr(bootstrap, "_pip", pip)
    bootstrap.ensure(())
    assert locks == [bootstrap.ROOT / "requirements.lock", None]


def test_newest_dependencies_ignore_the_lock(venv, monkeypatch):
    _folder, done = venv
    monkeypatch.setenv("COURSE_DEPENDENCIES", "newest")
    bootstrap.ensure(())
    assert done == ["venv", "ranges"]


def test_a_full_disk_is_said_before_anything_is_installed(venv, monkeypatch):
    _folder, done = venv
    monkeypatch.setattr(bootstrap, "free_gib", lambda folder: 0.5)
    with pytest.raises(bootstrap.SetupError, match=r"0\.5 GB free"):
        bootstrap.ensure(())
    assert done == []


def test_the_command_says_that_an_old_python_is_too_old():
    """The two files read before the version is checked must parse on an old Python."""
    for name in ("__init__.py", "__main__.py"):
        source = (bootstrap.ROOT / "course_lib" / name).read_text("utf-8")
        ast.parse(source, feature_version=(3, 7))


def test_the_command_works_from_another_folder_and_helps(tmp_path):
    package = bootstrap.ROOT / "course_lib"
    answer = subprocess.run(
        [sys.executable, str(package), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("run", "test", "lab", "doctor", "build", "adopt"):
        assert command in answer.stdout


def test_a_command_reads_notebooks_without_the_grammars_of_iris():
    code = (
        "import sys; from course_lib import bootstrap\n"
        "bootstrap.without_iri_grammars()\n"
        "import nbformat, papermill\n"
        "nbformat.validate(nbformat.v4.new_notebook())\n"
        "assert 'lark' not in sys.modules, 'who compiles them now?'"
    )
    answer = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE)
    assert answer.returncode == 0, answer.stderr.decode()


def test_a_lesson_that_does_not_exist_is_said_in_one_line():
    command = [sys.executable, "-m", "course_lib", "adopt", "77"]
    answer = subprocess.run(
        command, cwd=bootstrap.ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr.startswith("course_lib: no lesson '77'; the lessons are: 00_")
    assert answer.stderr.count("\n") == 1


def test_the_doctor_gives_a_fix_with_everything_that_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "free_gib", lambda folder: 0.1)
    monkeypatch.setattr(bootstrap, "is_ready", lambda folder, extras: False)
    monkeypatch.setattr(doctor, "memory_gib", lambda: 2.0)
    monkeypatch.setattr(doctor, "writable", lambda folder: False)
    results = doctor.findings(str(tmp_path / "nowhere"))
    wrong = [finding for finding in results if finding.level != "ok"]
    assert {"disk", "memory", "permission", "data"} <= {f.subject for f in wrong}
    assert all(finding.fix for finding in wrong)
    assert doctor.main(str(tmp_path / "nowhere")) == 1


def test_the_doctor_finds_data_sets_and_is_content_with_this_machine(tmp_path, capsys):
    (tmp_path / "medmnist").mkdir()
    (tmp_path / "medmnist" / "pneumoniamnist.npz").touch()
    (tmp_path / "cache" / "phantom").mkdir(parents=True)
    (tmp_path / "cache" / "phantom" / "train-32-seed0.npz").touch()
    assert doctor.main(str(tmp_path)) == 0
    assert f"in {tmp_path}: pneumoniamnist.npz\n" in capsys.readouterr().out


def test_a_changed_pyproject_makes_an_environment_out_of_date(venv):
    folder, _done = venv
    bootstrap.ensure(())
    stamp = json.loads((folder / "course.json").read_text("utf-8"))
    stamp["made_from"] = "something else"
    (folder / "course.json").write_text(json.dumps(stamp), "utf-8")
    assert not bootstrap.is_ready(folder, ())


@pytest.mark.parametrize(
    ("line", "level", "said"),
    [
        ("# Locked on 2025-11-26.", "note", "they are 12 months old"),
        ("# Locked on 2025-11-27.", "ok", "exact versions of 2025-11-27"),
        ("# Locked on 2026-11-20.", "ok", "exact versions of 2026-11-20"),
        ("# Locked on 2026-13-99.", "note", "does not say on which day"),
        ("# Exact versions.", "note", "does not say on which day"),
    ],
)
def test_the_doctor_warns_of_a_lock_that_is_a_year_old(
    tmp_path, monkeypatch, line, level, said
):
    (tmp_path / "requirements.lock").write_text(f"# Versions.\n{line}\nnumpy==2.0\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (finding,) = doctor._lock(date(2026, 11, 27))
    assert (finding.level, finding.subject) == (level, "lock") and said in finding.fact
    assert bool(finding.fix) == (level == "note")


def test_the_nightly_run_takes_newest_packages_and_the_commands_of_the_readme():
    flow = yaml.safe_load((bootstrap.ROOT / ".github/workflows/ci.yml").read_text())
    job = flow["jobs"]["test"]
    said = "\n".join(step.get("run", "") for step in job["steps"])
    readme = (bootstrap.ROOT / "README.md").read_text("utf-8")
    for command in ("run", "test"):
        assert f"python3 -m course_lib {command}" in readme
        assert f"python -m course_lib {command}\n" in said
    assert (
        "schedule" in flow[True]
        and "newest" in job["strategy"]["matrix"]["dependencies"]
    )
    assert job["env"]["COURSE_DEPENDENCIES"] == "${{ matrix.dependencies }}"
    assert "--no-time-limit" not in said  # a lesson that outgrows its budget fails
    assert "course_lib doctor" in said and "::warning" in said
