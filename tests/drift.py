"""Rules that hold what stands in two places equal, and derived files up to date.

Each rule is a function from a course's root to findings; `test_drift.py` runs them.
"""

import ast
import copy
import hashlib
import json
import re
import sys
import tomllib
from importlib import metadata

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from course_lib import checks, notebooks, sources
from course_lib.exercises import exercises, leaks
from course_lib.lint import lint

MAX_BYTES = 300_000
RUN, TEST = "python3 -m course_lib run", "python3 -m course_lib test"

# Which module may import which: those of its own line and of the lines above it.
# A module that stands nowhere is a model file: torch and the standard library alone.
LAYERS = (
    "base bootstrap doctor",
    "runtime template anatomy phantoms cards fetch npz pixels readers batching "
    "duplicates exercises",
    "datasets metrics distances neighbours plotting benchmarks sources",
    "training parallel checkpoints feature_net features feature_training pretrained "
    "reports",
    "evaluation audit conditional domains scoreboard detection reader_answers "
    "reader_study",
    "gan_lab gan_lab_presets gan_lab_picture gan_lab_widget scrubber reader_widget "
    "browser_model browser_widget latent_explorer translation_viewer progress "
    "mr_console mr_widget metric_sandbox widgets sandbox_widget checks lint notebooks "
    "pages run_cards jobs grids cluster runner schedule website answers submissions "
    "sandbox marking gradebook grading assignments teaching",
)
LAYER = {name: i for i, line in enumerate(LAYERS) for name in line.split()}
STDLIB_ONLY = {"__init__", "__main__", "base", "bootstrap", "doctor"}
# No part of what lessons teach, so a lesson may use their names for other things.
TOOLS = STDLIB_ONLY | set(LAYERS[-1].split()) | {"sources", "exercises"}

CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
# medmnist comes by pip and asks for torchvision, which must fit conda's torch.
CONDA_ONLY = {"pip", "torchvision"}


# Lessons


def built_lessons(root):
    """Lessons, and findings for those that lack a file. A course has lessons."""
    lessons = notebooks.lessons(root)
    missing = [
        f"{path.relative_to(root)} is missing; run `build {lesson.number}`"
        for lesson in lessons
        for path in (lesson.notebook, lesson.student)
        if not path.is_file()
    ]
    known = {path for lesson in lessons for path in (lesson.notebook, lesson.student)}
    found = set((root / "notebooks").glob("*.ipynb"))
    found |= set((root / "notebooks" / "student").glob("*.ipynb"))
    missing += [f"{path.name} has no source" for path in sorted(found - known)]
    missing += [] if lessons else ["there are no lessons"]
    return [x for x in lessons if x.notebook.is_file() and x.student.is_file()], missing


def without_outputs(notebook):
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def notebooks_follow_their_source(root):
    lessons, findings = built_lessons(root)
    for lesson in lessons:
        source = sources.read_source(lesson.source)
        if without_outputs(sources.read_notebook(lesson.notebook)) != source:
            findings.append(f"{lesson.notebook.name} differs from its source")
    return findings


def student_notebooks_follow_their_source_and_leak_nothing(root):
    lessons, findings = built_lessons(root)
    for lesson in lessons:
        source = sources.read_source(lesson.source)
        made = sources.read_notebook(lesson.student)
        if made != notebooks.student(source):
            findings.append(f"{lesson.name}: student version differs from its source")
        findings += leaks([task for _, task in exercises(source)], made)
    return findings


def lessons_keep_the_rules(root):
    lessons, findings = built_lessons(root)
    for lesson in lessons:
        findings += lint(lesson.notebook)
    return findings


def notebooks_are_executed_in_order_and_small(root):
    lessons, findings = built_lessons(root)
    for lesson in lessons:
        notebook = sources.read_notebook(lesson.notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        counts = [cell.execution_count for cell in code]
        if counts != list(range(1, len(code) + 1)):
            findings.append(f"{lesson.name}: not executed in order: {counts}")
        outputs = [output for cell in code for output in cell.outputs]
        if any(output.output_type == "error" for output in outputs):
            findings.append(f"{lesson.name}: a cell failed")
        views = [x for x in outputs if notebooks.WIDGET in x.get("data", {})]
        if views or "widgets" in notebook.metadata:
            findings.append(f"{lesson.name}: holds widget state")
        size = lesson.notebook.stat().st_size
        if size > MAX_BYTES:
            findings.append(f"{lesson.name}: {size} bytes, at most {MAX_BYTES}")
    return findings


def definitions(tree):
    """{name: what it does} of the public functions and classes at the top level."""
    found = {}
    for node in tree.body:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        for part in ast.walk(node):
            if isinstance(part, kinds) and ast.get_docstring(part) is not None:
                part.body = part.body[1:] or [ast.Pass()]
        found[node.name] = ast.dump(node)
    return found


def taught_code(root):
    """(lesson, name, whether it equals the library's) for what stands in both."""
    library = {}
    for path in (root / "course_lib").glob("*.py"):
        if path.stem not in TOOLS:
            tree = ast.parse(path.read_text("utf-8"))
            for name, meaning in definitions(tree).items():
                library.setdefault(name, []).append(meaning)
    for lesson in notebooks.lessons(root):
        for cell in sources.read_source(lesson.source).cells:
            if cell.cell_type == "code":
                for name, meaning in definitions(ast.parse(cell.source)).items():
                    if name in library:
                        yield lesson.name, name, meaning in library[name]


def taught_code_equals_the_library(root):
    both = list(taught_code(root))
    if not both:
        return ["no lesson teaches anything of the library: is this rule blind?"]
    return [
        f"{lesson}: `{name}` differs from the library's"
        for lesson, name, equal in both
        if not equal
    ]


def exercises_have_checks(root, known=None):
    """Each exercise has a check of its number and name that its lesson calls."""
    known = checks.all_checks() if known is None else known
    findings, seen = [], set()
    for lesson in notebooks.lessons(root):
        notebook = sources.read_source(lesson.source)
        code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
        for _, task in exercises(notebook):
            seen.add(task.id)
            name = f"check_{task.name}"
            if getattr(known.get(task.id), "__name__", "").lower() != name.lower():
                findings.append(f"{task.id} has no `{name}` in course_lib.checks")
            if not re.search(rf"\bcheck_\w+\({task.name}\b", code):
                findings.append(f"{lesson.name} does not call `{name}({task.name})`")
        if not any(task for task in seen if task[1:3] == lesson.number):
            findings.append(f"{lesson.name} has no exercise")
    return findings + [f"{x}: a check of no exercise" for x in sorted({*known} - seen)]


# The library


def modules(root):
    """(name as in LAYERS, package, syntax tree) of each file of the library."""
    for path in sorted((root / "course_lib").rglob("*.py")):
        *package, name = path.relative_to(root).with_suffix("").parts
        name = package[1] if len(package) > 1 else name
        yield name, package, ast.parse(path.read_text("utf-8"))


def imported(tree, package, *, lazy=True):
    """Dotted names that a module imports; without `lazy`, outside functions only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            if module == "course_lib":
                yield from (f"course_lib.{alias.name}" for alias in node.names)
            else:
                yield module
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imported(node, package, lazy=lazy)


def imports_point_one_way(root):
    findings = []
    for name, package, tree in modules(root):
        for target in imported(tree, package):
            top, _, rest = target.partition(".")
            inner = rest.split(".")[0]
            # Model files are a part of the third line.
            above = top == "course_lib" and LAYER.get(inner, 2) > LAYER.get(name, 2)
            if name in LAYER and above:
                findings.append(f"{name} imports {target}, which stands above it")
            model = name not in LAYER and name not in STDLIB_ONLY
            if model and top != "torch" and top not in sys.stdlib_module_names:
                findings.append(
                    f"{name} imports {target}: a model file imports torch alone; "
                    "for anything else name it in LAYERS"
                )
    return findings


def command_line_starts_with_the_standard_library(root):
    return [
        f"{name} imports {target} before anything is installed"
        for name, package, tree in modules(root)
        if name in STDLIB_ONLY
        for target in imported(tree, package, lazy=False)
        if target.split(".")[0] not in sys.stdlib_module_names
        and target.removeprefix("course_lib.") not in STDLIB_ONLY
    ]


def weights_are_what_their_manifests_say(root):
    findings = []
    folder = root / "course_lib" / "weights"
    for path in sorted(folder.glob("*")):
        manifest = path.with_suffix(".json")
        weights = path.with_suffix(".safetensors")
        if path not in (manifest, weights):
            findings.append(f"{path.name}: neither weights nor a manifest")
        elif not (manifest.is_file() and weights.is_file()):
            findings.append(f"{path.name} stands alone: weights and manifest are two")
        elif path == weights:
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            if json.loads(manifest.read_text("utf-8")).get("sha256") != digest:
                findings.append(f"{path.name} is not the file of its manifest")
    for lesson in notebooks.lessons(root):
        text = lesson.source.read_text("utf-8")
        for name in re.findall(r'load_weights\(\s*"([\w.-]+)"', text):
            if not (folder / f"{name}.safetensors").is_file():
                findings.append(f"{lesson.name} loads {name}, which is not shipped")
    return findings


# What is installed


def requirements(root):
    """{name: range} of pyproject.toml with all extras, and the range of Python."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in project.get("optional-dependencies", {}).values():
        lines += extra
    ranges = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}
    return ranges, SpecifierSet(project["requires-python"])


def environment_says_the_same_as_pyproject(root):
    from rattler import MatchSpec

    wanted, python = requirements(root)
    wanted["python"] = python
    lines = yaml.safe_load((root / "environment.yml").read_text("utf-8"))
    findings, have = [], {}
    names = {conda: name for name, conda in CONDA.items()}
    for line in lines["dependencies"]:
        if isinstance(line, dict):
            for r in map(Requirement, line["pip"]):
                have[canonicalize_name(r.name)] = r.specifier
            continue
        try:
            MatchSpec(line, strict=True)
        except Exception as error:
            findings.append(f"conda cannot read `{line}`: {error}")
        name, specifier = re.fullmatch(r"([\w.-]+)\s*(.*)", line).groups()
        if name not in CONDA_ONLY:
            name = names.get(name, name) if name not in CONDA else f"conda's {name}"
            have[name] = SpecifierSet(specifier)
    for name in sorted(wanted.keys() | have.keys()):
        if wanted.get(name) != have.get(name):
            findings.append(
                f"{name}: pyproject.toml says {wanted.get(name, 'nothing')}, "
                f"environment.yml says {have.get(name, 'nothing')}"
            )
    return findings


def lock_satisfies_pyproject(root):
    lines = (root / "requirements.lock").read_text("utf-8").splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines if "==" in line)
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    findings = [f"not an exact version: {line}" for line in lines if "==" not in line]
    wanted, python = requirements(root)
    oldest = min(part.version for part in python)
    for found in metadata.distributions():  # a lock that the oldest Python can install
        name, needs = (
            canonicalize_name(found.name),
            found.metadata.get("Requires-Python"),
        )
        if pinned.get(name) == found.version and oldest not in SpecifierSet(
            needs or ""
        ):
            findings.append(f"{name} {found.version} needs Python {needs}")
    for name, specifier in wanted.items():
        if name not in pinned:
            findings.append(f"requirements.lock lacks {name}")
        elif not specifier.contains(pinned[name], prereleases=True):
            findings.append(f"{name} {pinned[name]} is outside {specifier}")
    return findings


def readme_names_lessons_and_commands(root):
    text = (root / "README.md").read_text("utf-8")
    findings = [f"README.md lacks `{x}`" for x in (RUN, TEST) if x not in text]
    for lesson in notebooks.lessons(root):
        if f"notebooks/{lesson.notebook.name}" not in text:
            findings.append(f"README.md has no link to {lesson.notebook.name}")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", text):
        if not (root / target).exists():
            findings.append(f"README.md links to {target}, which does not exist")
    if TEST not in (root / ".ci" / "run").read_text("utf-8"):
        findings.append(f".ci/run does not call `{TEST}`")
    return findings


RULES = (
    notebooks_follow_their_source,
    student_notebooks_follow_their_source_and_leak_nothing,
    lessons_keep_the_rules,
    notebooks_are_executed_in_order_and_small,
    taught_code_equals_the_library,
    exercises_have_checks,
    imports_point_one_way,
    command_line_starts_with_the_standard_library,
    weights_are_what_their_manifests_say,
    environment_says_the_same_as_pyproject,
    lock_satisfies_pyproject,
    readme_names_lessons_and_commands,
)
