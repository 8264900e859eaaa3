"""Judge one answer of a student, inside the sandbox.

Of its cell imports, definitions and plain assignments are run, where the lesson's own
imports and helpers are known; the check is the course's.

Student and check share a process, since checks follow gradients through a student's
function. So an answer is screened before it runs: it may import what lessons use, and
name nothing private, nothing of the interpreter, and change no attribute of a module.
After the check the libraries must be as they were, and the check must still refuse two
answers that solve nothing. This stops what a student would think of; it is no proof
against an expert, whose answer a person should read: it stands in the notebook.
"""

from __future__ import annotations

import ast
import builtins
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

MAX_MESSAGE = 600


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
# What an answer may import beside the modules that its lesson imports.
LIBRARIES = _words(
    "__future__ abc cmath collections copy dataclasses fractions functools itertools "
    "math matplotlib numbers numpy random scipy skimage sklearn statistics torch "
    "typing"
)
# No answer needs these names, and each leads out of the answer.
FORBIDDEN = _words(
    "attrgetter builtins compile cpp_extension ctypes ctypeslib f_back f_builtins "
    "f_globals f_locals gc get_ipython gi_frame ag_frame cr_frame hub importlib "
    "inspect jit library load memmap methodcaller multiprocessing os overrides pathlib "
    "pickle posix save signal socket subprocess sys tb_frame tb_next threading tofile "
    "weakref"
)
# Built-in functions that the answer's code does not find.
_REMOVED = _words(
    "breakpoint compile delattr eval exec exit globals help input locals open quit "
    "setattr vars"
)
_DUNDERS = _words(
    "__init__ __call__ __len__ __getitem__ __iter__ __next__ __enter__ __exit__ "
    "__repr__ __post_init__ __name__ __version__ __all__"
)


_FREEZE = {"builtins", "course_lib", "math", "numpy", "random", "scipy", "torch"}


def judge(
    source: str,
    task: str,
    check: Callable[[Any], Any],
    *,
    names: Mapping[str, Any],
    modules: Iterable[str] = (),
    imports: Iterable[str] = (),
) -> dict[str, Any]:
    """{passed, message, note} of the answer `source` that defines `task`.

    `names` and `modules` are what the lesson knows and imports; of `imports` (other
    statements of the submission) those that bring a missing name are run as well.
    """
    try:
        tree = ast.parse(without_magics(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return _failed(f"the cell is no Python that can be read{line}: {_short(error)}")
    kept = (*IMPORTS, *DEFINITIONS, ast.Assign, ast.AnnAssign)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    tree.body[:0] = _missing_imports(tree, names, imports)
    try:
        problem = screen(tree, task, modules)
    except RecursionError:
        problem = "it is nested too deeply"
    if problem:
        return _failed(f"not run: {problem}.", note=f"not run, {problem}")
    space = {**names, "__builtins__": _builtins(modules, task), "__name__": "answer"}
    before = _libraries(check)
    _freeze()
    try:
        exec(compile(tree, "<your cell>", "exec"), space)
        _seed()
        verdict = check(space[task])
    except Exception as error:
        return _failed(f"the cell raised {type(error).__name__}: {_short(error)}")
    except BaseException as error:  # SystemExit, KeyboardInterrupt
        return _failed(f"it tried to stop the check ({type(error).__name__}).")
    if changed := _changed(before):
        return _failed(f"it changed {changed}.", note=f"it changed {changed}")
    if verdict.passed is True and not all(
        _refused(check, x) for x in (_stub, _nothing)
    ):
        return _failed("it made the check useless.", note="it made the check useless")
    return {
        "passed": verdict.passed is True,
        "message": str(verdict.message)[:MAX_MESSAGE],
        "note": None,
    }


def _failed(message: str, note: str | None = None) -> dict[str, Any]:
    return {"passed": False, "message": message[:MAX_MESSAGE], "note": note}


def _short(error: BaseException) -> str:
    try:
        return str(error)[:MAX_MESSAGE]
    except Exception:  # a __str__ of the student's own
        return "no message"


def _seed() -> None:
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what an answer may draw from
    torch.manual_seed(0)


def without_magics(source: str) -> str:
    """The source with IPython's own lines left empty."""
    lines = source.split("\n")
    return "\n".join("" if x.startswith(("%", "!", "?")) else x for x in lines)


def _missing_imports(
    tree: ast.Module, names: Mapping[str, Any], imports: Iterable[str]
) -> list[ast.stmt]:
    used = {x.id for x in ast.walk(tree) if isinstance(x, ast.Name)}
    missing = used - _bound(tree) - set(names) - set(dir(builtins))
    found: list[ast.stmt] = []
    for statement in imports:
        for node in ast.parse(statement).body:
            if not isinstance(node, IMPORTS):
                continue
            bound = {(x.asname or x.name).partition(".")[0] for x in node.names}
            if bound & missing:
                found.append(node)
    return found


# ------------------------------------------------------------------ screening


def screen(tree: ast.Module, task: str, modules: Iterable[str]) -> str | None:
    """Why an answer is not run, or None. `modules`: what its lesson imports."""
    local = _bound(tree)
    for node in ast.walk(tree):
        for module in imported(node):
            if not _may_import(module, modules):
                return f"it imports {module}, which no answer needs"
        for name in _names(node):
            hidden = name.startswith("__") and name not in _DUNDERS
            own = name in local and isinstance(node, (ast.Name, ast.arg, ast.keyword))
            if hidden or (name in FORBIDDEN and not own):
                return f"it uses the name {name}, which no answer needs"
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*" or alias.name.startswith("_"):
                    return f"it imports {alias.name} from {node.module}"
                if alias.name == task:
                    return f"it takes {task} from the library instead of writing it"
        if isinstance(node, ast.Attribute):
            base = node.value
            mine = isinstance(base, ast.Name) and base.id in ("self", "cls")
            if node.attr.startswith("_") and not mine and node.attr not in _DUNDERS:
                return f"it uses the private attribute {node.attr}"
            if node.attr == task and not mine:
                return f"it takes {task} from the library instead of writing it"
            if isinstance(node.ctx, (ast.Store, ast.Del)):
                root: ast.AST = base
                while isinstance(root, (ast.Attribute, ast.Subscript, ast.Call)):
                    root = root.func if isinstance(root, ast.Call) else root.value
                if isinstance(root, ast.Name) and root.id not in local:
                    return f"it changes {root.id}.{node.attr}"
    return None


def _bound(tree: ast.Module) -> set[str]:
    """The names of an answer's own: what it assigns, and its arguments."""
    nodes = list(ast.walk(tree))
    stored = [x for x in nodes if isinstance(x, ast.Name)]
    stored = {x.id for x in stored if isinstance(x.ctx, ast.Store)}
    return stored | {x.arg for x in nodes if isinstance(x, ast.arg)}


def imported(node: ast.AST) -> list[str]:
    """Full names of the modules that an import statement asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def _may_import(module: str, modules: Iterable[str]) -> bool:
    if module.partition(".")[0] == "course_lib":
        return module in modules
    return module.partition(".")[0] in LIBRARIES or module in modules


def _names(node: ast.AST) -> list[str]:
    """The names that a node brings in or uses."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.alias):
        return [*node.name.split("."), node.asname or ""]
    if isinstance(node, (*DEFINITIONS, ast.AsyncFunctionDef)):
        return [node.name]
    if isinstance(node, (ast.arg, ast.keyword)):
        return [node.arg or ""]
    if isinstance(node, ast.MatchClass):
        return node.kwd_attrs
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return node.names
    return []


# ------------------------------------------------------------------ while it runs


def _builtins(modules: Iterable[str], task: str) -> dict[str, Any]:
    """Python's built-in names without those that lead out of the answer."""
    allowed, real_import, real_getattr = frozenset(modules), __import__, getattr
    refused = FORBIDDEN | {task}

    def limited_import(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level=0
    ) -> Any:
        if level or not _may_import(name, allowed):
            raise ImportError(f"no answer needs {name}")
        return real_import(name, globals, locals, fromlist, level)

    def limited_getattr(value: Any, name: str, *default: Any) -> Any:
        if type(name) is not str or name.startswith("_") or name in refused:
            raise AttributeError(f"no answer needs {name}")
        return real_getattr(value, name, *default)

    found = {k: v for k, v in vars(builtins).items() if k not in _REMOVED}
    return found | {"__import__": limited_import, "getattr": limited_getattr}


def _libraries(check: Callable[[Any], Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, its names now and later, its names as they are) of what checks rely on."""
    import math

    import numpy as np
    import torch

    from course_lib import checks

    spaces = {
        "torch": vars(torch),
        "Tensor": vars(torch.Tensor),
        "nn": vars(torch.nn),
        "Module": vars(torch.nn.Module),
        "functional": vars(torch.nn.functional),
        "autograd": vars(torch.autograd),
        "linalg": vars(torch.linalg),
        "numpy": vars(np),
        "math": vars(math),
        "builtins": vars(builtins),
        "Verdict": vars(checks.Verdict),
        "checks": vars(checks),
        "the check": getattr(check, "__wrapped__", check).__globals__,
    }
    return [(name, space, dict(space)) for name, space in spaces.items()]


class _Frozen(ModuleType):
    """A module whose names cannot be given to something else."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            raise AttributeError(f"an answer may not change {self.__name__}.{name}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an answer may not delete {self.__name__}.{name}")


def _freeze() -> None:
    for name, module in list(sys.modules.items()):
        if type(module) is ModuleType and name.partition(".")[0] in _FREEZE:
            module.__class__ = _Frozen


def _changed(before: list[tuple[str, Any, dict[str, Any]]]) -> str | None:
    """The first name that is not what it was."""
    for name, now, old in before:
        for key, value in old.items():
            if now.get(key) is not value:
                return f"{name}.{key}"
        if type(now) is not dict and (new := now.keys() - old.keys()):
            return f"{name}.{min(new)}"  # a class; modules load parts late
    return None


def _stub(*given: Any, **named: Any) -> None:
    raise NotImplementedError


def _nothing(*given: Any, **named: Any) -> None:
    return None


def _refused(check: Callable[[Any], Any], answer: Callable[..., None]) -> bool:
    try:
        return check(answer).passed is False
    except Exception:
        return True
