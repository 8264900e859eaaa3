"""Seeds, budgets, folders, atomic files, and what the front end gets."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from course_lib import runtime
from course_lib.base import ROOT


def test_the_same_seed_gives_the_same_numbers_everywhere():
    def draw():
        generator = runtime.seed_everything(7)
        return (
            random.random(),
            float(np.random.rand()),  # noqa: NPY002 - the legacy state is meant
            torch.rand(3).tolist(),
            torch.rand(3, generator=generator).tolist(),
        )

    assert draw() == draw()


def test_a_budget_chooses_its_value_and_an_unknown_one_is_an_error():
    assert runtime.per_budget("lab", smoke=1, lab=2, full=3) == 2
    with pytest.raises(ValueError, match="unknown budget 'tiny'; choose from smoke"):
        runtime.per_budget("tiny", smoke=1, lab=2, full=3)


def test_the_device_can_be_chosen_from_outside(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert runtime.pick_device() == torch.device("cpu")


def test_folders_come_from_the_environment_and_the_cache_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "a" / "cache"))
    assert runtime.data_dir() == tmp_path / "sets"
    assert not runtime.data_dir().exists()  # a person's folder is never made
    assert runtime.cache_dir().is_dir()


def test_a_cache_that_cannot_be_made_falls_back_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.warns(UserWarning, match="Set COURSE_CACHE"):
        assert runtime.cache_dir() == tmp_path / "home" / "course_lib"


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "numbers.npy"
    with runtime.atomic_path(path) as temporary:
        np.save(temporary, np.arange(3))
        assert not path.exists()
    assert np.load(path).tolist() == [0, 1, 2]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(RuntimeError), runtime.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert np.load(path).tolist() == [0, 1, 2]
    assert [file.name for file in path.parent.iterdir()] == ["numbers.npy"]


def test_a_report_needs_numbers_and_prints_them_without_a_notebook(capsys):
    runtime.report(psnr_gain=torch.tensor(1.25), images=3)
    assert capsys.readouterr().out == "psnr gain: 1.25\nimages: 3\n"
    with pytest.raises(ValueError, match="at least one number"):
        runtime.report()


def test_facts_are_printed_as_plain_booleans(capsys):
    runtime.print_facts({"one is less than two": np.bool_(True), "none is some": []})
    assert (
        capsys.readouterr().out == "one is less than two: True\nnone is some: False\n"
    )


def test_a_notice_stands_out_without_a_notebook(capsys):
    runtime.notice("nothing was downloaded")
    assert capsys.readouterr().out == "NOTE: nothing was downloaded\n"


def test_importing_the_package_needs_the_standard_library_alone():
    """-I -S: no site-packages, so any other import would fail."""
    code = (
        "import sys; sys.path.insert(0, '.'); "
        "import course_lib.__main__, course_lib.doctor, course_lib.bootstrap; "
        "import os; assert os.environ['OMP_WAIT_POLICY']"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, check=True)


def test_the_command_line_does_not_wait_for_torch():
    code = (
        "import sys; from course_lib import doctor, notebooks, runner, website; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
