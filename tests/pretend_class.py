"""A pretend class for lesson 02: what students hand in, and the grade that stands.

`case(name)` -> (bytes of a notebook, the exercises that it solves, a note or None).
Each hostile answer takes the place of `E02.1`; the other five are the solutions.
"""

import copy
import json

from course_lib.base import ROOT
from course_lib.exercises import cell_id, exercises
from course_lib.notebooks import student
from course_lib.sources import read_source

LESSON = "02"
SOURCE = next((ROOT / "notebooks/src").glob(f"{LESSON}_*.py"))
_SOLVED = read_source(SOURCE)
SOLUTIONS = {task.id: _SOLVED.cells[i].source for i, task in exercises(_SOLVED)}
ALL = set(SOLUTIONS)
REST = ALL - {"E02.1"}
_STUDENT = student(_SOLVED)


def cell_of(notebook, number):
    return next(cell for cell in notebook.cells if cell["id"] == cell_id(number))


def notebook(answers):
    """The student's notebook with these answers: {exercise number: source}."""
    made = copy.deepcopy(_STUDENT)
    for number, source in answers.items():
        cell_of(made, number)["source"] = source
    return made


def as_bytes(made):
    return json.dumps(made).encode()


def with_first(source):
    return as_bytes(notebook(SOLUTIONS | {"E02.1": source}))


def code_cell(source, name):
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }


HEAD = "def reparameterise(mu, logvar, generator=None):\n"
RIGHT = SOLUTIONS["E02.1"]
FALSE = HEAD + "    return mu\n"

# name -> (cell of E02.1, what the note or the verdict says of it)
HOSTILE = {
    "wrong answer": (FALSE, None),
    "endless loop": (HEAD + "    while True:\n        pass\n", "endless loop"),
    "endless output": (
        HEAD + "    while True:\n        print('x' * 10000)\n",
        "endless loop",
    ),
    "deep recursion": (
        HEAD + "    return reparameterise(mu, logvar)\n",
        "RecursionError",
    ),
    "all memory": (HEAD + "    return [torch.zeros(10**12)]\n", "RuntimeError"),
    "fork bomb": (
        HEAD + "    import os\n    while True:\n        os.fork()\n",
        "the name os",
    ),
    "fills the disk": (
        HEAD + "    open('/tmp/x', 'w').write('x' * 10**9)\n",
        "name 'open' is not defined",
    ),
    "fills the disk with torch": (
        HEAD + "    torch.save(torch.zeros(10**8), '/tmp/x')\n",
        "the name save",
    ),
    "kills its parent": (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n" + FALSE,
        "imports signal|the name os",
    ),
    "kills by string": (HEAD + "    __import__('os').kill(1, 9)\n", "__import__"),
    "ends the process": (HEAD + "    raise SystemExit(0)\n", "tried to stop the check"),
    "interrupts": (HEAD + "    raise KeyboardInterrupt\n", "tried to stop the check"),
    "at exit": (
        "import atexit\natexit.register(print)\n" + FALSE,
        "imports atexit",
    ),
    "a thread": (
        "from threading import Thread\nThread(target=print).start()\n" + FALSE,
        "imports threading",
    ),
    "a socket": ("import socket\n" + FALSE, "imports socket"),
    "prints a grade": (
        HEAD + "    print('{\"passed\": true}', flush=True)\n    return mu\n",
        None,
    ),
    "redefines the check": (
        "def check_reparameterise(f):\n    return True\n" + FALSE,
        "defines a check of its own",
    ),
    "imports the check": (
        "from course_lib.checks import lesson_02\n" + FALSE,
        "imports course_lib.checks",
    ),
    "patches torch": (
        "torch.allclose = lambda *a, **k: True\n" + FALSE,
        "changes torch.allclose",
    ),
    "patches torch under another name": (
        "t = torch\nt.allclose = lambda *a, **k: True\n" + FALSE,
        "may not change torch.allclose",
    ),
    "patches Tensor under another name": (
        "T = torch.Tensor\nT.isfinite = lambda *a, **k: True\n" + FALSE,
        "changed Tensor.isfinite",
    ),
    "always equal": (
        "class Yes:\n    def __eq__(self, other):\n        return True\n"
        + HEAD
        + "    return Yes()\n",
        "__eq__",
    ),
    "reads a frame": (
        "import sys\n" + HEAD + "    return sys._getframe(1).f_locals['right']\n",
        "imports sys",
    ),
    "reads a frame by an error": (
        HEAD
        + "    try:\n        1 / 0\n    except Exception as e:\n"
        + "        return e.__traceback__.tb_frame.f_back.f_locals['right']\n",
        "not run",
    ),
    "climbs to object": (
        HEAD + "    return ().__class__.__base__.__subclasses__()\n",
        "not run",
    ),
    "private by string": (
        HEAD + "    return getattr(torch, '_C')\n",
        "AttributeError",
    ),
    "takes it from the library": (
        HEAD + "    return variational.reparameterise(mu, logvar)\n",
        "from the library",
    ),
    "takes it by a string": (
        HEAD + "    return getattr(variational, 'reparam' + 'eterise')(mu, logvar)\n",
        "no answer needs reparameterise",
    ),
    "a pattern": (
        HEAD + "    match (lambda: 1):\n        case object(__globals__=x):\n"
        "            return x\n",
        "__globals__",
    ),
    "runs text": (HEAD + "    exec('x = 1')\n", "name 'exec' is not defined"),
    "no Python": (HEAD + "    return (", "no Python"),
    "nested too deeply": ("x = " + "(" * 900 + ")" * 900 + "\n" + FALSE, "no Python"),
    "minus without end": ("x = " + "-" * 9000 + "1\n" + FALSE, None),
    "half a letter": (HEAD + "    raise ValueError('\\ud800')\n", "ValueError"),
    "renames os": (HEAD + "    os = torch.os\n    return os.getpid()\n", "the name os"),
    "too long": ("x = 1\n" * 5000 + FALSE, "over 20000 characters"),
}

HONEST = {
    "its own import": ("from math import sqrt\n" + RIGHT, None),
    "a helper in the cell": (
        "def half(x):\n    return x / 2\n\n" + RIGHT,
        None,
    ),
    "names of its own": (
        HEAD + "    signal, code = mu, torch.exp(logvar / 2)\n"
        "    return signal + code * torch.randn_like(code)\n",
        None,
    ),
    "magics and tries": ("%timeit 1\n!ls\n" + RIGHT + "\nprint(1 / 0)\n", None),
}


def _cells(change):
    made = notebook(SOLUTIONS)
    change(made)
    return as_bytes(made)


def _delete(made):
    made.cells.remove(cell_of(made, "E02.1"))


def _twice(made):
    made.cells.append(code_cell(FALSE, "exercise-E02-1"))


def _lose_ids(made):
    for i, cell in enumerate(made.cells):
        cell["id"] = f"lost-{i}"


def _edit_metadata(made):
    made.metadata = {"course": {"source": "notebooks/src/00_images.py"}, "points": 99}
    for cell in made.cells:
        cell.metadata = {"nbgrader": {"points": 99, "grade": True}, "tags": 3}


def _import_elsewhere(made):
    made.cells.insert(0, code_cell("import torch as th", "more"))
    cell_of(made, "E02.1")["source"] = RIGHT.replace("torch.", "th.")


def _import_its_own(made):
    made.cells.insert(0, code_cell("from sympy.abc import x", "more"))


def _import_much(made):
    for count in (200, 2000):  # one that is kept, and one that is left out
        source = f"from mine import {', '.join(count * 'Q')}"
        made.cells.insert(0, code_cell(source, f"more-{count}"))


# name -> (bytes, solved exercises, note)
WHOLE = {
    "deleted cell": (_cells(_delete), REST, "no cell defines reparameterise"),
    "duplicated id": (_cells(_twice), REST, "2 cells have its id"),
    "lost ids": (_cells(_lose_ids), ALL, "its cell lost its id"),
    "edited metadata": (_cells(_edit_metadata), ALL, "metadata name another lesson"),
    "import in another cell": (_cells(_import_elsewhere), ALL, None),
    "an import of a name that answers bind": (_cells(_import_its_own), ALL, None),
    "long imports": (_cells(_import_much), ALL, None),
    "solutions": (as_bytes(notebook(SOLUTIONS)), ALL, None),
    "stubs": (as_bytes(notebook({})), set(), None),
    "with a byte order mark": (
        b"\xef\xbb\xbf" + as_bytes(notebook(SOLUTIONS)),
        ALL,
        None,
    ),
    "broken JSON": (as_bytes(notebook(SOLUTIONS))[:-9], set(), "not a notebook"),
    "nothing in it": (b"", set(), "not a notebook"),
    "a list": (b"[1, 2]", set(), "not a notebook"),
    "deep JSON": (b"[" * 10**6, set(), "not a notebook"),
    "bytes": (bytes(range(256)), set(), "not a notebook"),
    "cells of another kind": (b'{"cells": [1, null, {}]}', set(), "not a notebook"),
    "a large number": (b'{"cells": ' + b"9" * 10**5 + b"}", set(), "not a notebook"),
    "half a cell": (
        b'{"cells": [{"cell_type": "code", "source": {"a": 1}, "id": []}]}',
        set(),
        "no cell defines",
    ),
}


def cases():
    """{name: (bytes, solved exercises, pattern of a note or verdict, or None)}."""
    found = dict(WHOLE)
    for name, (source, note) in HOSTILE.items():
        found[name] = (with_first(source), REST, note)
    for name, (source, note) in HONEST.items():
        found[name] = (with_first(source), ALL, note)
    return found
