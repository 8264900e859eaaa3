"""What training leaves on disk: weights with a manifest, and checkpoints of `fit`.

Everything is a .safetensors file, which holds numbers and text only: no pickle, so a
file from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.runtime import atomic_path, note_use, notice

WEIGHTS = Path(__file__).with_name("weights")  # the small ones that the course ships


def save_weights(path: Path | str, module: nn.Module, *, manifest: dict) -> dict:
    """Write `module`'s weights to `path` (.safetensors) and a JSON manifest beside it.

    The manifest says what made them: `command`, `data`, `budget`, `seed`, `metrics`,
    and, if given, `arguments` of the class. The hash is added. Equal weights give
    equal bytes. Returns the manifest; raises ValueError if it lacks one of these.
    """
    path = _safetensors_path(path)
    needed = ("command", "data", "budget", "seed", "metrics")
    if missing := [key for key in needed if key not in manifest]:
        raise ValueError(f"the manifest lacks {', '.join(missing)}; add them")
    content = _pack({name: t.detach() for name, t in module.state_dict().items()})
    full = {
        "class": type(module).__name__,
        "parameters": sum(p.numel() for p in module.parameters()),
        **manifest,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(full, indent=2, sort_keys=True, allow_nan=False) + "\n"
    _write(path, content)
    _write(path.with_suffix(".json"), text.encode())
    note_use("weights", path.name, full["sha256"])
    return full


def load_weights(
    path_or_name: Path | str, module: nn.Module, *, strict: bool = True
) -> dict:
    """Load verified weights into `module` and return their manifest.

    A bare name ("autoencoder_phantom_32") is looked up in the weights that the course
    ships. With `strict=False` absent and additional tensors are left alone. Raises
    FileNotFoundError, or ValueError on another hash, names or shapes; then `module` is
    as it was.
    """
    path = Path(path_or_name)
    if path.name == str(path_or_name) and path.suffix != ".safetensors":
        path = WEIGHTS / f"{path_or_name}.safetensors"
    path = _safetensors_path(path)
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            shipped = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors")))
            raise FileNotFoundError(
                f"{file} does not exist; save_weights writes it. "
                f"Shipped with the course: {shipped or 'none'}"
            )
    content = path.read_bytes()
    try:
        manifest = json.loads(beside.read_text(encoding="utf-8"))
        expected = manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{beside} is no manifest of save_weights; restore it, or save again"
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(
            f"{path} is not the file that {beside.name} describes (its SHA-256 "
            "differs): it is damaged or was replaced; restore both, or save again"
        )
    tensors, _ = _unpack(content, path)
    own = module.state_dict()
    faults = [
        f"{name} is {tuple(tensors[name].shape)} in the file and "
        f"{tuple(own[name].shape)} in the network"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if strict or not own.keys() & tensors.keys():
        faults += [f"{name} is not in the file" for name in own if name not in tensors]
        faults += [
            f"{name} is not in the network" for name in tensors if name not in own
        ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ValueError(
            f"{path.name} does not fit this {type(module).__name__}: "
            f"{'; '.join(faults[:3])}{more}. It was made by "
            f"{manifest.get('class')}({_arguments(manifest)}); build the same network"
        )
    module.load_state_dict(tensors, strict=strict)
    note_use("weights", path.name, expected)
    return manifest


def start_from_shipped(name: str, module: nn.Module, budget: str) -> dict | None:
    """At budget "smoke", load the shipped weights `name` into `module`, and say so.

    Returns their manifest, or None where training starts from nothing: at the other
    budgets, and (said in a box too) where the course ships none of that name.
    """
    if budget != "smoke":
        return None
    if not (WEIGHTS / f"{name}.safetensors").is_file():
        notice(
            f"Budget smoke: the course ships no weights named {name}, so this network "
            "starts from nothing and its pictures will be poor. Budget lab trains it."
        )
        return None
    manifest = load_weights(name, module)
    notice(
        f"Budget smoke: this network goes on from the shipped weights {name}, trained "
        f"on {manifest['data']} at budget {manifest['budget']} with seed "
        f"{manifest['seed']} (`{manifest['command']}`)."
    )
    return manifest


def ship_weights(name: str, module: nn.Module, *, manifest: dict) -> dict | None:
    """Make `module`'s weights the shipped ones, if `build --weights` is running."""
    if os.environ.get("COURSE_KEEP_WEIGHTS") != "1":
        return None
    return save_weights(WEIGHTS / f"{name}.safetensors", module, manifest=manifest)


def _arguments(manifest: dict) -> str:
    given = manifest.get("arguments") or {}
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


class Checkpoint:
    """Everything that `fit` needs to go on, in one .safetensors file."""

    def __init__(
        self,
        path: Path | str | None,
        state: Mapping[str, Any] | None,
        ema: Any,
        feed: Any,
        history: Any,
    ) -> None:
        self.path = None if path is None else _safetensors_path(path)
        self.parts = {f"state/{name}": part for name, part in (state or {}).items()}
        self.parts |= {"feed": feed, "history": history, "rng": _RandomState()}
        if ema is not None:
            self.parts["ema"] = ema
        if self.path is not None and not state:
            raise ValueError(
                "a checkpoint needs what it shall keep: "
                'state={"model": model, "optimizer": optimizer}'
            )
        for name, part in self.parts.items():
            if not isinstance(part, torch.Generator) and not hasattr(
                part, "state_dict"
            ):
                raise TypeError(
                    f"{name} is a {type(part).__name__}, which has no state_dict; give "
                    "networks, optimisers or torch.Generators"
                )

    def save(self, step: int) -> None:
        if self.path is None:
            return
        for name, part in self.parts.items():
            weights = part.parameters() if isinstance(part, nn.Module) else ()
            if not all(weight.isfinite().all() for weight in weights):
                raise FloatingPointError(
                    f"{name} holds NaN or infinity after step {step}, though the loss "
                    f"did not; {self.path} keeps the state before. Try a tenth of the "
                    "learning rate"
                )
        tensors: dict[str, Tensor] = {}
        tree = {"step": step, "parts": {}}
        for name, part in self.parts.items():
            generator = isinstance(part, torch.Generator)
            value = part.get_state() if generator else part.state_dict()
            tree["parts"][name] = _flatten(value, name, tensors)
        _write(self.path, _pack(tensors, tree))

    def load(self) -> int:
        """Restore every part and return the number of steps done; 0 for a new file."""
        if self.path is None:
            return 0
        if not self.path.exists():
            self.save(0)  # a folder or a state that cannot be saved fails now
            return 0
        fix = f"pass another path, or delete {self.path} to start again"
        tensors, tree = _unpack(self.path.read_bytes(), self.path)
        if tree is None:
            raise ValueError(f"{self.path} is no checkpoint of fit; {fix}")
        if set(tree["parts"]) != set(self.parts):
            raise ValueError(
                f"{self.path} holds {sorted(tree['parts'])} and this run "
                f"{sorted(self.parts)}; {fix}"
            )
        for name, part in self.parts.items():
            value = _restore(tree["parts"][name], tensors)
            try:
                if isinstance(part, torch.Generator):
                    part.set_state(value)
                else:
                    part.load_state_dict(value)
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{name} in {self.path} does not fit this run ({error}); {fix}"
                ) from error
        return tree["step"]


class _RandomState:
    """The global generators of torch: the CPU's, and each GPU's where there are any."""

    def state_dict(self) -> dict[str, Any]:
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": gpus}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if torch.cuda.is_available():
            for index, gpu in enumerate(state["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(gpu, index)


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` for JSON, its tensors moved to `tensors` and replaced by their names."""
    if isinstance(value, Tensor):
        name = path if path not in tensors else f"{path}#{len(tensors)}"
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = value.items()
        return {"dict": [[k, _flatten(v, f"{path}/{k}", tensors)] for k, v in items]}
    if isinstance(value, (list, tuple)):
        parts = [_flatten(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{path} is a {type(value).__name__}; a checkpoint keeps tensors, numbers and "
        "strings, in lists, tuples and dicts"
    )


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restore(part, tensors) for key, part in content}
    parts = [_restore(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts


def _pack(tensors: Mapping[str, Tensor], tree: Any = None) -> bytes:
    from safetensors.torch import save

    # copies: the format refuses tensors that share memory (tied weights do)
    whole = {name: t.to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    return save(whole, None if tree is None else {"course_lib": json.dumps(tree)})


def _unpack(content: bytes, path: Path) -> tuple[dict[str, Tensor], Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        notes = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
        return tensors, json.loads(notes.get("course_lib", "null"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is cut off or no safetensors file ({error}); delete it and make "
            "it again"
        ) from error


def _safetensors_path(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} must end in .safetensors: the only format that the course uses"
        )
    return path


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
