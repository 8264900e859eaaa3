"""The training loop of every lesson, its learning rates, and how weights are kept.

Lesson 01 writes this loop in eight lines; `fit` is those eight lines plus a progress
bar, a live picture, checkpoints and a stop at the first loss that is not a number.
"""

from __future__ import annotations

import copy
import html
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import parallel, runtime
from course_lib.checkpoints import (
    Checkpoint,
    load_weights,
    save_weights,
    ship_weights,
    start_from_shipped,
)

__all__ = [
    "EMA",
    "History",
    "autocast",
    "capture_step",
    "fit",
    "linear_decay",
    "load_weights",
    "save_weights",
    "ship_weights",
    "start_from_shipped",
    "with_schedules",
]

# steps between two reads of the losses, by the kind of device that they live on
READ_EVERY = {"cpu": 1, "other": 50}


def fit(
    train_step: Callable[[Any], Mapping[str, Tensor]],
    batches: Iterable[Any],
    steps: int,
    *,
    state: Mapping[str, Any] | None = None,
    ema: EMA | None = None,
    checkpoint: Path | str | None = None,
    save_every: int = 500,
    preview: Callable[[], Any] | None = None,
    desc: str = "training",
) -> History:
    """Call `train_step(batch)` until `steps` steps are done; return its losses.

    `train_step` updates the networks and returns {name: scalar loss}; `batches` is
    read again from its start whenever it ends. With `checkpoint` (a .safetensors
    path), every object in `state` (networks, optimisers, generators), `ema`, the
    random state and the place in the data are saved every `save_every` steps, at the
    end and on Ctrl-C; called again, `fit` goes on from there to the same numbers
    (exact for a list or `datasets.batches`). `preview()` returns a uint8 picture, (H,
    W) or (H, W, 3), shown at most twice a second where somebody sees it. Raises
    FloatingPointError at the first loss that is not finite; then the last checkpoint
    is the one before it.
    """
    if steps < 0 or save_every < 1:
        raise ValueError(f"need steps >= 0 and save_every >= 1: {steps}, {save_every}")
    history, feed = History(), _Feed(batches)
    losses = _Losses(history)
    saved = Checkpoint(checkpoint, state, ema, feed, history)
    done = saved.load()
    with (
        parallel.team(state, done) as team,
        _ctrl_c_waits() as ctrl_c,
        _Live(desc, done, steps, preview) as live,
    ):
        for step in range(done + 1, steps + 1):
            batch = team.part(next(feed))
            losses.add(step, team.mean(train_step(batch)), batch, feed)
            if ema is not None:
                ema.update()
            live.show(history)
            stop = bool(ctrl_c)
            if stop or step == steps or step % save_every == 0:
                losses.read()  # raises before a broken network could be saved
                if team.rank == 0:
                    saved.save(step)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step}")
    return history


def linear_decay(optimizer: torch.optim.Optimizer, steps: int, hold: float = 0.5):
    """A schedule: the full rate for `hold` of `steps`, then a line down to 0."""

    def factor(step: int) -> float:
        return min(1.0, max(0.0, 1 - step / steps) / (1 - hold))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def with_schedules(step: Callable[..., dict], schedules: list) -> Callable[..., dict]:
    """`step`, and after it one step of each learning-rate schedule."""

    def train_step(batch):
        losses = step(batch)
        for schedule in schedules:
            schedule.step()
        return losses

    return train_step


class History(Mapping[str, np.ndarray]):
    """The losses of a run: `history["loss"]` is a float64 array, one value a step."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._steps: dict[str, list[int]] = {}

    def record(self, step: int, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self._values.setdefault(name, []).append(value)
            self._steps.setdefault(name, []).append(step)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._values:
            names = ", ".join(self._values) or "nothing was recorded"
            raise KeyError(f"no loss {name!r} in this history; it has: {names}")
        return np.array(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def steps(self) -> np.ndarray:
        """The steps, counted from 1, at which anything was recorded."""
        return np.array(sorted(set().union(*self._steps.values())), dtype=np.int64)

    def steps_of(self, name: str) -> np.ndarray:
        """The steps of `history[name]`: fewer if a loss is computed only at times."""
        return np.array(self._steps[name], dtype=np.int64)

    def last(self) -> dict[str, float]:
        """The latest value of each loss."""
        return {name: values[-1] for name, values in self._values.items()}

    def to_dict(self) -> dict[str, dict[str, list]]:
        """Plain numbers for JSON: {name: {"steps": [...], "values": [...]}}."""
        return {
            name: {"steps": list(self._steps[name]), "values": list(values)}
            for name, values in self._values.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            name: {
                "steps": torch.tensor(self._steps[name]),
                "values": torch.tensor(values, dtype=torch.float64),
            }
            for name, values in self._values.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps = {name: part["steps"].tolist() for name, part in state.items()}
        self._values = {name: part["values"].tolist() for name, part in state.items()}

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.last().items())
        return f"History({len(self.steps)} steps; {last})"


class EMA:
    """A running mean of a network's weights, in `.module` (a frozen copy, eval mode).

    Make it once the network is on its device, and call `update()` after each step
    (`fit(..., ema=ema)` does). With `warmup` the first steps average over a shorter
    past, decay = min(decay, (1 + t) / (10 + t)), so that the first weights are soon
    forgotten (Polyak and Juditsky 1992; the schedule is TensorFlow's). For several
    networks: EMA(nn.ModuleDict({...})).
    """

    def __init__(self, module: nn.Module, decay: float = 0.999, warmup: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}; 0.999 is usual")
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._pairs = list(
            zip(self.module.parameters(), module.parameters(), strict=True)
        )
        self._buffers = list(zip(self.module.buffers(), module.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move the mean towards the network; buffers (batch statistics) are copied."""
        self.updates += 1
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        if self._pairs:
            mean, current = map(list, zip(*self._pairs, strict=True))
            torch._foreach_lerp_(mean, current, 1 - decay)
        for mean, current in self._buffers:
            mean.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def autocast(device: torch.device | str) -> AbstractContextManager:
    """bfloat16 autocast where the GPU computes in it (no loss scaling), else nothing.

    Never on the CPU: emulated it is 20 times slower, and numbers must not depend on
    the processor of the reader.
    """
    if torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    ):
        # a step of a GAN moves weights in between, and a kept copy would stay as it was
        return torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False)
    return nullcontext()


def capture_step(
    train_step: Callable[[Any], Mapping[str, Tensor]],
    batch: Any,
    optimizers: Sequence[torch.optim.Optimizer],
) -> Callable[[Any], Mapping[str, Tensor]]:
    """`train_step` as one CUDA graph: Python runs it once, the GPU replays it.

    For small networks, whose kernels are over before Python has named the next. `batch`
    (images, or a tuple of tensors) shows the shape that all later ones must have; it is
    used for three steps to warm up. A step may draw random numbers, but not ask the GPU
    for a value (`.item()`), nor do something else each time. What a call returns, the
    next writes over: clone what you keep. The rates of `optimizers` (Adam) become
    tensors, which schedules made before go on moving. Without a GPU, and under
    torchrun, where processes meet in each step, `train_step` comes back as it is.
    """
    tensors = [batch] if isinstance(batch, Tensor) else list(batch)
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if tensors[0].device.type != "cuda" or not alone:
        return train_step
    for group in (group for opt in optimizers for group in opt.param_groups):
        group["capturable"] = True
        group["lr"] = torch.as_tensor(group["lr"], device=tensors[0].device)
    inputs = [tensor.clone() for tensor in tensors]
    static = inputs[0] if isinstance(batch, Tensor) else tuple(inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries choose their kernels, Adam its state
        for _ in range(3):
            train_step(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = train_step(static)

    def replay(batch: Any) -> Mapping[str, Tensor]:
        given = [batch] if isinstance(batch, Tensor) else batch
        for there, here in zip(inputs, given, strict=True):
            there.copy_(here)
        graph.replay()
        return losses

    return replay


# --- what fit is made of -------------------------------------------------------------


class _Feed:
    """Batch after batch for ever, and the place in the data (epoch, batch)."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches, self.epoch, self.index = batches, 0, 0
        self._own = hasattr(batches, "state_dict")  # it knows its place itself
        self._current: Iterator[Any] | None = None

    def __next__(self) -> Any:
        for _ in range(2):  # the current epoch may just have ended
            if self._current is None:
                skip = 0 if self._own else self.index
                self._current = islice(iter(self.batches), skip, None)
            for batch in self._current:
                self.index += 1
                return batch
            self._current, self.epoch, self.index = None, self.epoch + 1, 0
        raise ValueError(
            "batches is empty, or can be read only once (a generator); pass a list or "
            "datasets.batches(images, batch_size=...) with at most len(images) a batch"
        )

    def state_dict(self) -> dict[str, Any]:
        own = self.batches.state_dict() if self._own else None
        return {"epoch": self.epoch, "index": self.index, "batches": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.index = state["epoch"], state["index"]
        if hasattr(self.batches, "__len__") and self.index == len(self.batches):
            self.epoch, self.index = self.epoch + 1, 0
        if self._own and state["batches"] is not None:
            self.batches.load_state_dict(state["batches"])


class _Losses:
    """Losses wait on their device and are read many at a time: no step waits for it.

    On the CPU there is nothing to wait for, and each step is read at once.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self._waiting: list[tuple[int, list[str], Tensor, str, Callable]] = []

    def add(self, step: int, losses: Any, batch: Any, feed: _Feed) -> None:
        if not isinstance(losses, Mapping) or not losses:
            raise TypeError(
                f"train_step returned {type(losses).__name__}; it must return a dict "
                'of named losses, such as {"loss": loss}'
            )
        tensors = [v for v in losses.values() if isinstance(v, Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        if shapes := {n: tuple(v.shape) for n, v in losses.items() if np.ndim(v)}:
            raise ValueError(f"losses must be scalars, got {shapes}; take .mean()")
        # a copy that stays on the device: float(loss) here would wait for the device
        values = torch.stack(
            [torch.as_tensor(v, device=device).detach() for v in losses.values()]
        )
        every = READ_EVERY.get(device.type, READ_EVERY["other"])
        place = f"batch index {feed.index - 1} of epoch {feed.epoch}"
        extent = partial(_extent, batch)
        if every > 1:  # the batch will be gone when it is read; keep its range only
            extent = partial(list, extent())
        self._waiting.append((step, list(losses), values, place, extent))
        if len(self._waiting) >= every:
            self.read()

    def read(self) -> None:
        """Move what waits to the history in one transfer; stop at a non-finite loss."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        numbers = iter(torch.cat([values for _, _, values, _, _ in waiting]).tolist())
        for step, names, _, place, extent in waiting:
            losses = dict(zip(names, numbers, strict=False))
            for name, value in losses.items():
                if not math.isfinite(value):
                    where = f"step {step}, {place}"
                    raise FloatingPointError(_explain(name, value, where, extent()))
            self.history.record(step, losses)


def _extent(batch: Any) -> list[tuple[Tensor, Tensor]]:
    """Minimum and maximum of each floating tensor in a batch, on its device."""
    if isinstance(batch, Tensor):
        return [tuple(batch.aminmax())] if batch.is_floating_point() else []
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if not isinstance(batch, (list, tuple)):
        return []
    return [pair for part in batch for pair in _extent(part)]


def _explain(name: str, value: float, where: str, extent: list) -> str:
    pairs = [(float(low), float(high)) for low, high in extent]
    ranges = " and ".join(f"[{low:.3g}, {high:.3g}]" for low, high in pairs)
    if not all(math.isfinite(x) for pair in pairs for x in pair):
        fix = "the batch itself holds NaN or infinity: clean the images"
    elif any(low < -1.5 or high > 1.5 for low, high in pairs):
        fix = "images should be in [-1, 1]: use datasets.load_images"
    else:
        fix = (
            "try a tenth of the learning rate, and look for log(0) or x / 0 in the loss"
        )
    return (
        f"loss {name!r} is {value} at {where}; batch in {ranges or 'no floats'}; {fix}"
    )


@contextmanager
def _ctrl_c_waits() -> Iterator[list[bool]]:
    """Ctrl-C lets the running step finish (the list fills); a second one does not."""
    asked: list[bool] = []

    def note(signum: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    usual = signal.default_int_handler  # another handler has its reasons: leave it
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not usual:
        yield asked
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, usual)
    if asked:  # it came after the last step had looked
        raise KeyboardInterrupt


class _Live:
    """Bar and picture while somebody is watching; nothing of it stays.

    In a notebook the bar is plain HTML: a bar of widgets that goes, after a short run,
    while the page still builds it makes the page complain.
    """

    def __init__(self, desc: str, done: int, steps: int, preview: Any) -> None:
        self.front_end = runtime.has_front_end()
        self.preview = preview if self.front_end else None
        self.desc, self.start, self.done, self.steps = desc, done, done, steps
        self.bar = self.bar_handle = self.picture_handle = None
        self.next_text = self.next_picture = 0.0

    def __enter__(self) -> _Live:
        self.began = time.monotonic()
        if self.front_end:
            from IPython.display import HTML, display

            self.bar_handle = display(HTML(self._html("")), display_id=True)
        elif sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=self.steps,
                initial=self.done,
                desc=self.desc,
                leave=False,
                mininterval=0.5,
            )
        return self

    def show(self, history: History) -> None:
        if self.bar is None and self.bar_handle is None:
            return
        now = time.monotonic()
        self.done += 1
        if now >= self.next_text:
            last = history.last().items()
            self._tell("  ".join(f"{name} {value:.4g}" for name, value in last))
            self.next_text = now + 0.5
        if self.bar is not None:
            self.bar.update()
        if self.preview is not None and now >= self.next_picture:
            self._show_picture()
            spent = time.monotonic() - now  # a slow preview takes a tenth of the time
            self.next_picture = now + max(0.5, 10 * spent)

    def _tell(self, losses: str) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(losses, refresh=False)
            return
        from IPython.display import HTML

        self.bar_handle.update(HTML(self._html(losses)))

    def _html(self, losses: str) -> str:
        from tqdm import tqdm

        told = tqdm.format_meter(
            self.done,
            self.steps,
            time.monotonic() - self.began,
            initial=self.start,
            unit=" steps",
            postfix=losses,
            bar_format="{n}/{total} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )
        desc = html.escape(self.desc)
        return (
            f'<progress aria-label="{desc}" max="{max(self.steps, 1)}" '
            f'value="{self.done}"></progress> {desc} {html.escape(told)}'
        )

    def _show_picture(self) -> None:
        from IPython.display import Image, display

        on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
        gpus = [torch.cuda.current_device()] if on_gpu else []
        # what is drawn for the picture must not change the numbers of the training
        with torch.no_grad(), torch.random.fork_rng(devices=gpus):
            picture = Image(data=_png(self.preview()), alt="training so far")
        if self.picture_handle is None:
            self.picture_handle = display(picture, display_id=True)
        else:
            self.picture_handle.update(picture)

    def __exit__(self, *exception: Any) -> None:
        if self.bar is not None:
            self.bar.close()
        for handle in (self.bar_handle, self.picture_handle):
            if handle is not None:
                handle.update({"text/plain": ""}, raw=True)


def _png(picture: Any, side: int = 384) -> bytes:
    """PNG bytes of a uint8 picture, enlarged without blur to about `side` pixels."""
    from PIL import Image

    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().numpy()
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.shape[2:] not in ((), (3,)) or array.ndim < 2:
        raise ValueError(
            "preview must return a uint8 picture, (H, W) or (H, W, 3), got "
            f"{array.dtype} {array.shape}"
        )
    image = Image.fromarray(array)
    scale = max(1, side // max(image.size))
    image = image.resize(
        (image.width * scale, image.height * scale), Image.Resampling.NEAREST
    )
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
