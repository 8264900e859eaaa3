"""Batches of tensors in memory: `index_select` and one seeded generator."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from course_lib.pixels import to_float

ON_DEVICE_BYTES = 2**30  # larger sets stay in memory or on disk; batches are moved


class Batches:
    """Tensors in memory, in shuffled batches: one epoch per `for`. See `batches`."""

    def __init__(
        self,
        tensors: tuple[torch.Tensor, ...],
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        device: torch.device | str | None,
    ) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"batches() needs tensors of one length, got {lengths}")
        (self.length,) = lengths
        largest = self.length if drop_last else batch_size
        if self.length == 0 or not 1 <= batch_size <= largest:
            raise ValueError(
                f"batch_size {batch_size} gives no batch of {self.length} images; "
                f"choose 1 to {self.length}, or drop_last=False"
            )
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if device is not None and size <= ON_DEVICE_BYTES:
            tensors = tuple(tensor.to(device) for tensor in tensors)
        self.tensors, self.device = tensors, device
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.generator = torch.Generator().manual_seed(seed)
        self._epoch_start = self.generator.get_state()
        self._position = 0  # batches of this epoch that were handed out
        self._resumed = False

    def __len__(self) -> int:
        whole, rest = divmod(self.length, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[torch.Tensor | tuple[torch.Tensor, ...]]:
        order = self._next_order().split(self.batch_size)
        for batch in range(self._position, len(self)):
            self._position = batch + 1
            taken = tuple(self._take(tensor, order[batch]) for tensor in self.tensors)
            yield taken[0] if len(taken) == 1 else taken

    def state_dict(self) -> dict[str, torch.Tensor | int]:
        """Where the epoch stands; a new Batches that loads it gives the next batch."""
        return {"generator": self._epoch_start.clone(), "position": self._position}

    def load_state_dict(self, state: dict[str, torch.Tensor | int]) -> None:
        """Continue where `state_dict` was taken: the same order, the next batch."""
        self._epoch_start = state["generator"].clone()
        self._position = int(state["position"])
        self.generator.set_state(self._epoch_start)
        self._resumed = True

    def _next_order(self) -> torch.Tensor:
        if self._resumed:
            self._resumed = False
            order = self._draw_order()
            if self._position < len(self):
                return order
        self._epoch_start, self._position = self.generator.get_state(), 0
        return self._draw_order()

    def _draw_order(self) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.length)
        return torch.randperm(self.length, generator=self.generator)

    def _take(self, tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        taken = tensor.index_select(0, index.to(tensor.device))
        taken = taken if self.device is None else taken.to(self.device)
        is_image = taken.dtype == torch.uint8 and taken.ndim >= 4
        return to_float(taken) if is_image else taken


def batches(
    *tensors: torch.Tensor,
    batch_size: int = 64,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
    device: torch.device | str | None = None,
) -> Batches:
    """Shuffled batches of one tensor, or tuples of several of the same length.

    Iterate as often as you like: each time is one epoch in a new order, drawn from a
    generator of its own. uint8 images (N, C, H, W) come out as float in [-1, 1].
    """
    if not tensors:
        raise ValueError("batches() needs a tensor, such as batches(images)")
    return Batches(tensors, batch_size, seed, shuffle, drop_last, device)
