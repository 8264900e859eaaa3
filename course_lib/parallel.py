"""One training in several processes, each with its part of every batch (torchrun).

Every process reads the same joint batch and takes its own slice; before an optimiser
steps, the gradients are averaged. The mean over equal parts is the mean over the whole,
so the networks stay equal to those of one process with the joint batch. What looks at
the batch as a whole sees its part alone: batch norm, minibatch statistics, and gradient
clipping before the step.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.optim.optimizer import register_optimizer_step_pre_hook

WAIT = timedelta(minutes=10)  # for a process that has died, before the others give up


class Team:
    """The processes of one training; alone, each method returns what it is given."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self._agreed: set[int] = set()

    def part(self, batch: Any) -> Any:
        """This process's slice of each tensor in a batch, along the first axis.

        Raises ValueError where the batch cannot be cut into equal parts.
        """
        if self.size == 1:
            return batch
        if isinstance(batch, Tensor):
            if len(batch) % self.size:
                raise ValueError(
                    f"a batch of {len(batch)} cannot be cut into {self.size} equal "
                    f"parts; choose a batch_size that {self.size} divides"
                )
            return batch.chunk(self.size)[self.rank]
        if isinstance(batch, Mapping):
            return {name: self.part(value) for name, value in batch.items()}
        if isinstance(batch, (list, tuple)):
            return type(batch)(map(self.part, batch))
        return batch

    def mean(self, losses: Any) -> Any:
        """The losses of the joint batch: {name: scalar}, averaged over the parts."""
        if self.size == 1 or not isinstance(losses, Mapping) or not losses:
            return losses
        values = [torch.as_tensor(value).detach().float() for value in losses.values()]
        joint = torch.stack([value.to(values[0].device) for value in values])
        dist.all_reduce(joint)
        return dict(zip(losses, joint / self.size, strict=True))

    def _average(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Make each gradient of an optimiser the mean over the processes."""
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        if id(optimizer) not in self._agreed:
            self._agreed.add(id(optimizer))
            _check_equal(weights)
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for weight in weights:
            if weight.grad is not None:
                kind = weight.grad.dtype, weight.grad.device
                kinds.setdefault(kind, []).append(weight.grad)
        for gradients in kinds.values():  # one message for all, not one for each
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            parts = (flat / self.size).split([g.numel() for g in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


@contextmanager
def team(state: Mapping[str, Any] | None = None, done: int = 0) -> Iterator[Team]:
    """The processes that torchrun has started, for the time of a training.

    Meanwhile every optimiser steps along the mean gradient, and random numbers (the
    global ones, and the generators in `state`) differ between the processes: else all
    would draw the same noise for different images. `done` steps are behind them.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    _join()
    together = Team(dist.get_rank(), size)
    hook = register_optimizer_step_pre_hook(together._average)
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    generators = [x for x in (state or {}).values() if isinstance(x, torch.Generator)]
    before = [generator.get_state() for generator in generators]
    try:
        with torch.random.fork_rng(devices=gpus):  # afterwards all are equal again
            if together.rank:
                torch.manual_seed(_seed(torch.initial_seed(), together.rank, done))
                for generator in generators:
                    seed = _seed(generator.initial_seed(), together.rank, done)
                    generator.manual_seed(seed)
            yield together
    finally:
        hook.remove()
        for generator, old in zip(generators, before, strict=True):
            generator.set_state(old)


def _seed(seed: int, rank: int, done: int) -> int:
    return (seed + 1_000_003 * rank + done) % 2**63


def _join() -> None:
    """Join the process group, once a process."""
    if dist.is_initialized():
        return
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= local
    backend = "cpu:gloo,cuda:nccl" if own_gpu else "gloo"
    options: dict[str, Any] = {"timeout": WAIT}
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The store outlives this kernel; the next lesson must not read our addresses.
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
        )
        store = dist.PrefixStore(os.environ.get("COURSE_JOB", "course"), store)
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        options |= {"store": store, "rank": rank, "world_size": size}
    dist.init_process_group(backend, **options)
    # Threads of a group still open abort an interpreter that ends (seen once in many).
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _check_equal(weights: list[Tensor]) -> None:
    """Raise ValueError unless all processes start from the same weights."""
    total = torch.stack([w.detach().double().abs().sum() for w in weights]).sum()
    ends = torch.stack([total, -total])
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    if float(ends.sum()) > 1e-9 * float(ends.abs().max()):
        raise ValueError(
            "the networks differ between the processes; call seed_everything(seed) "
            "with one seed before they are built"
        )
