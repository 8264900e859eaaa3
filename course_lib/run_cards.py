"""What stays of a run beside its notebook: a card that says what made which numbers.

A card is JSON that fits `run_card.schema.json`. Its fingerprint covers everything that
could change the numbers and is known before the run, so a finished card answers
whether a job must run again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from course_lib import __version__
from course_lib.base import REPORT_MIME, write_text
from course_lib.sources import text_hash

SCHEMA = Path(__file__).with_name("run_card.schema.json")
PACKAGES = ("torch", "numpy", "papermill")


@cache
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) that every card fits."""
    return json.loads(SCHEMA.read_text("utf-8"))


@cache
def code_hash() -> str:
    """Hash of the library: its modules, and the manifests of the shipped weights."""
    package = Path(__file__).parent
    files = [*package.rglob("*.py"), *package.glob("weights/*.json")]
    names = {path.relative_to(package).as_posix(): path for path in files}
    texts = [
        f"{name} {text_hash(path.read_text('utf-8'))}"
        for name, path in sorted(names.items())
    ]
    return text_hash("\n".join(texts))[:16]


def versions() -> dict[str, str]:
    """Versions of Python, of the course and of the packages that make the numbers."""
    found = {"python": platform.python_version(), "course_lib": __version__}
    found |= {name: metadata.version(name) for name in PACKAGES}
    return found | {"code": code_hash()}


def fingerprint(path: Path, parameters: Mapping[str, Any]) -> str:
    """What a finished lesson must share with a new request to count as done."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = [cell["source"] for cell in cells]
    folder = os.environ.get("COURSE_DATA", "")
    file = Path(str(parameters.get("dataset", "")))
    stamp = []
    if file.is_absolute() and file.exists():  # somebody's own data, which may change
        inside = [file, *sorted(file.rglob("*"))]
        stats = (x.stat() for x in inside if x.exists())  # a link may lead nowhere
        stamp = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    known = [path.stem, sources, parameters, folder, stamp, versions()]
    return digest(known)


def digest(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def uses(path: Path) -> dict[str, dict[str, str]]:
    """{kind: {name: value}} of what a kernel noted by `runtime.note_use`."""
    found: dict[str, dict[str, str]] = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            kind, name, value = json.loads(line)
        except ValueError:  # the kernel was killed while it wrote
            continue
        found.setdefault(kind, {})[name] = value
    return found


def headline_numbers(path: Path) -> dict[str, Any]:
    """What the `report(...)` cells of an executed notebook recorded."""
    numbers: dict[str, Any] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            numbers |= output.get("data", {}).get(REPORT_MIME, {})
    return numbers


def plain(value: Any) -> Any:
    """`value` for JSON: NaN and infinity, which it does not know, become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    known = value is None or isinstance(value, (bool, int, float, str))
    return value if known else str(value)


def write(folder: Path, card: Mapping[str, Any]) -> Path:
    """Write a card to `folder`/cards, atomically; raises ValueError if it is none."""
    import jsonschema

    card = plain(card)
    try:
        jsonschema.validate(card, schema())
    except jsonschema.ValidationError as error:
        raise ValueError(f"not a run card: {error.message}") from error
    path = folder / "cards" / f"{card['name']}.json"
    write_text(path, json.dumps(card, indent=1, allow_nan=False) + "\n")
    return path


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    """{fingerprint: card} of the jobs that passed and whose notebook is still there.

    A file that is no card counts for nothing.
    """
    import jsonschema

    found = {}
    for path in sorted((folder / "cards").glob("*.json")):
        try:
            card = json.loads(path.read_text("utf-8"))
            jsonschema.validate(card, schema())
        except (OSError, ValueError, jsonschema.ValidationError):
            continue
        if card["status"] == "passed" and (folder / f"{card['name']}.ipynb").exists():
            found[card["fingerprint"]] = card
    return found


def tell(cards: Iterable[Mapping[str, Any]]) -> str:
    """A table of cards for the terminal: name, status, seconds, memory, numbers."""
    cards = list(cards)
    width = max([28, *(len(card["name"]) + 2 for card in cards)])
    lines = [f"{'lesson':<{width}}{'status':<15}{'seconds':>8}{'MB':>7}  numbers"]
    for card in cards:
        numbers = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in card["numbers"].items()
        )
        memory = card["peak_memory_mb"]
        lines.append(
            f"{card['name']:<{width}}{card['status']:<15}{card['seconds']:>8.1f}"
            f"{'' if memory is None else round(memory):>7}  {numbers}"
        )
    return "\n".join(lines)
