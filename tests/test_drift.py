"""This repository keeps every rule of `drift.py`, and every rule can fail.

The broken twin of a rule is a small made-up course in which that very thing is broken.
"""

import hashlib
import json
from importlib import metadata

import drift
import nbformat
import pytest
from drift import MAX_BYTES, RULES, RUN, TEST

from course_lib import notebooks, sources
from course_lib.base import ROOT

SOURCE = "notebooks/src/00_means.py"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_repository_keeps_the_rule(rule):
    assert rule(ROOT) == []


CHECK = """
# %% [markdown]
# Ask the check.

# %% tags=["nbval-ignore-output"]
print(check_mean(mean))

# %% [markdown]
# ## Summary
"""
MEAN = '''
def mean(values):
    """The library's own words."""
    total = sum(float(value) for value in values)
    return total / len(values)
'''
FILES = {
    "course_lib/__init__.py": "import os\n",
    "course_lib/__main__.py": "from course_lib import bootstrap\n",
    "course_lib/bootstrap.py": "import sys\n",
    "course_lib/runtime.py": "import torch\n",
    "course_lib/metrics.py": "from course_lib.runtime import seed\n" + MEAN,
    "course_lib/autoencoders.py": "import math\nfrom torch import nn\n",
    "course_lib/weights/a.safetensors": "weights",
    "course_lib/weights/a.json": json.dumps(
        {"sha256": hashlib.sha256(b"weights").hexdigest()}
    ),
    "pyproject.toml": """[project]
requires-python = ">=3.11"
dependencies = ["torch>=2.6,<3", "medmnist>=3.0"]
optional-dependencies = { test = ["pytest>=8"] }
""",
    "environment.yml": """dependencies:
  - python >=3.11
  - pytorch >=2.6,<3
  - pytest >=8
  - pip
  - pip: ["medmnist>=3.0"]
""",
    "requirements.lock": "# exact\nmedmnist==3.0.2\npytest==9.0\ntorch==2.13.0\n",
    "README.md": f"`{RUN}` `{TEST}` [one](notebooks/00_means.ipynb)\n",
    ".ci/run": f"#!/bin/sh\nexec {TEST}\n",
}


def check_mean(student):
    """Stands for a check of course_lib.checks."""


@pytest.fixture
def clean(course):
    """A small course that keeps every rule; outputs are made up, no kernel runs."""
    for name, text in FILES.items():
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).write_text(text, "utf-8")
    change_text(course, SOURCE, "\n# %% [markdown]\n# ## Summary\n", CHECK)
    notebooks.build(execute=False, root=course)
    change_notebook(course, forge)
    return course


def forge(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for i, cell in enumerate(code):
        cell.execution_count = i + 1
        if any(tag.startswith("nbval") for tag in cell.metadata.get("tags", [])):
            cell.outputs = [nbformat.v4.new_output("stream", text="4 pixels\n")]


def change_notebook(root, change, folder="notebooks"):
    path = root / folder / "00_means.ipynb"
    notebook = sources.read_notebook(path)
    change(notebook)
    sources.write(path, notebook)


def change_text(root, name, old, new):
    text = (root / name).read_text("utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new, 1), "utf-8")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_clean_course_has_no_findings(clean, rule):
    known = [{"E00.1": check_mean}] if rule is drift.exercises_have_checks else []
    assert rule(clean, *known) == []


@pytest.mark.parametrize("rule", RULES[:4], ids=lambda rule: rule.__name__)
def test_course_without_lessons_fails(tmp_path, rule):
    assert rule(tmp_path) == ["there are no lessons"]


def set_last(**values):
    """A change of the last code cell, which prints."""
    return lambda notebook: notebook.cells[-2].update(values)


STDERR = nbformat.v4.new_output("stream", name="stderr", text="Warning")
VIEW = nbformat.v4.new_output("display_data", data={notebooks.WIDGET: {"model_id": ""}})
ERROR = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
TWIN_NOTEBOOKS = {
    drift.notebooks_follow_their_source: [
        set_last(source="print(2)"),
        set_last(metadata={"tags": ["nbval-skip"]}),
    ],
    drift.student_notebooks_follow_their_source_and_leak_nothing: [
        set_last(source="print(2)"),
        set_last(execution_count=1),
        set_last(outputs=[STDERR]),
    ],
    drift.lessons_keep_the_rules: [set_last(outputs=[STDERR]), set_last(outputs=[])],
    drift.notebooks_are_executed_in_order_and_small: [
        set_last(execution_count=None),
        set_last(execution_count=99),
        set_last(outputs=[ERROR]),
        set_last(outputs=[VIEW]),
        set_last(source="#" * MAX_BYTES),
        lambda notebook: notebook.metadata.update(widgets={}),
    ],
}


@pytest.mark.parametrize(
    "rule, change", [(rule, x) for rule, twins in TWIN_NOTEBOOKS.items() for x in twins]
)
def test_twin_notebook_that_breaks_the_rule_is_found(clean, rule, change):
    student = rule is drift.student_notebooks_follow_their_source_and_leak_nothing
    change_notebook(clean, change, "notebooks/student" if student else "notebooks")
    assert len(rule(clean)) == 1, rule(clean)


def test_twin_leaking_student_notebook_is_found(clean):
    answer = "# total = sum(float(value) for value in values)"
    lines = f"{answer[2:]}\nreturn total / len(values)"
    change_notebook(clean, set_last(source=lines), "notebooks/student")
    (_, finding) = drift.student_notebooks_follow_their_source_and_leak_nothing(clean)
    assert "E00.1 stands outside its cell" in finding


def test_twin_missing_and_orphaned_notebooks_are_found(clean):
    path = clean / "notebooks" / "student" / "00_means.ipynb"
    path.rename(path.with_name("07_gone.ipynb"))
    missing, orphan = drift.notebooks_follow_their_source(clean)
    assert "is missing" in missing and "07_gone.ipynb has no source" in orphan


RUNTIME, METRICS = "course_lib/runtime.py", "course_lib/metrics.py"
MODEL, WEIGHTS = "course_lib/autoencoders.py", "course_lib/weights/a.safetensors"
CONDA, LOCK = "environment.yml", "requirements.lock"
# What is broken: the file, a text in it, what it becomes, and a part of the finding.
TWIN_FILES = {
    drift.notebooks_follow_their_source: [(SOURCE, "Four", "4", "differs from its")],
    drift.taught_code_equals_the_library: [
        (METRICS, "float(", "int(", "`mean` differs"),
        (METRICS, "def mean", "def median", "blind"),
    ],
    drift.imports_point_one_way: [
        (RUNTIME, "import torch", "import course_lib.metrics", "stands above"),
        (RUNTIME, "import torch", "from course_lib import autoencoders", "stands abo"),
        (METRICS, "    total", "    from . import runner\n    total", "stands above"),
        (METRICS, "from course_lib.runtime", "from .widgets", "stands above"),
        (MODEL, "import math", "import numpy", "torch alone"),
        (MODEL, "import math", "from .runtime import seed", "torch alone"),
    ],
    drift.command_line_starts_with_the_standard_library: [
        ("course_lib/__init__.py", "import os", "import numpy", "before anything"),
        ("course_lib/__main__.py", "bootstrap", "runner", "before anything"),
        ("course_lib/bootstrap.py", "import", "if 1:\n    import yaml,", "before any"),
    ],
    drift.weights_are_what_their_manifests_say: [
        (WEIGHTS, "weights", "other", "not the file"),
        (SOURCE, "import os", 'load_weights("b")', "not shipped"),
    ],
    drift.environment_says_the_same_as_pyproject: [
        (CONDA, "pytorch >=2.6,<3", "pytorch >=2.5,<3", "torch: "),
        (CONDA, "pytorch", "torch", "torch: "),
        (CONDA, "python >=3.11", "python >=3.10", "python: "),
        (CONDA, "  - pytest >=8\n", "", "pytest: "),
        (CONDA, "  - pip\n", "  - pip\n  - scipy\n", "scipy: "),
        (CONDA, "- pip\n", "- pip=>1\n", "conda cannot read"),
        (CONDA, "medmnist>=3.0", "medmnist", "medmnist: "),
    ],
    drift.lock_satisfies_pyproject: [
        (LOCK, "torch==2.13.0", "torch==2.5", "outside"),
        (LOCK, "pytest==9.0\n", "", "lacks pytest"),
        (LOCK, "pytest==9.0", "pytest==9.0\nscipy>=1", "not an exact version"),
    ],
    drift.readme_names_lessons_and_commands: [
        ("README.md", RUN, "make", "lacks `python3 -m course_lib run`"),
        ("README.md", "00_means.ipynb", "", "no link to 00_means"),
        ("README.md", "[one]", "[a](b.png) [one]", "b.png, which does not exist"),
        (".ci/run", TEST, "true", ".ci/run does not call"),
    ],
}


@pytest.mark.parametrize(
    "rule, twin", [(rule, x) for rule, twins in TWIN_FILES.items() for x in twins]
)
def test_twin_file_that_breaks_the_rule_is_found(clean, rule, twin):
    name, old, new, finding = twin
    change_text(clean, name, old, new)
    assert any(finding in x for x in rule(clean)), rule(clean)


def test_twin_weights_without_manifest_are_found(clean):
    (clean / "course_lib" / "weights" / "a.json").unlink()
    (finding,) = drift.weights_are_what_their_manifests_say(clean)
    assert "stands alone" in finding


def test_twin_exercise_without_check_and_check_without_exercise_are_found(clean):
    assert len(drift.exercises_have_checks(clean, {})) == 1
    assert len(drift.exercises_have_checks(clean, {"E00.1": set_last})) == 1
    known = {"E00.1": check_mean, "E00.2": check_mean}
    assert drift.exercises_have_checks(clean, known) == [
        "E00.2: a check of no exercise"
    ]
    change_text(clean, SOURCE, "check_mean(mean)", "1")
    (finding,) = drift.exercises_have_checks(clean, {"E00.1": check_mean})
    assert "does not call" in finding
    change_text(clean, SOURCE, "    # solution E00.1\n", "")
    findings = drift.exercises_have_checks(clean, {})
    assert findings == ["00_means has no exercise"]


def test_twin_lock_that_the_oldest_python_cannot_install_is_found(clean, monkeypatch):
    text = "Metadata-Version: 2.1\nName: pytest\nVersion: 9.0\nRequires-Python: >=3.11."
    folder = clean / "pytest-9.0.dist-info"
    folder.mkdir()
    found = metadata.Distribution.at(folder)
    monkeypatch.setattr(drift.metadata, "distributions", lambda: [found])
    (folder / "METADATA").write_text(f"{text}0\n", "utf-8")
    assert drift.lock_satisfies_pyproject(clean) == []
    (folder / "METADATA").write_text(f"{text}5\n", "utf-8")
    (finding,) = drift.lock_satisfies_pyproject(clean)
    assert "pytest 9.0 needs Python >=3.11.5" in finding
