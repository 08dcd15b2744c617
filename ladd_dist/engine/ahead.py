"""The data of a training's steps on the device, if wanted before their step begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Given = TypeVar("Given", bound=Iterable[object])


class Ahead(Generic[Given]):
    """What `make` gives for each step: when it is asked for, or one step ahead.

    Ahead, the host reads while the device computes the step before, and on a CUDA device a stream of its own carries
    the copies, so that neither waits for the other. The numbers are the same, whatever steps are asked for.
    """

    def __init__(self, make: Callable[[int], Given], device: torch.device, *, on: bool, end: int) -> None:
        """
        Args:
            make: reads the data of a step and sends it to the device; a tuple of tensors, and whatever else.
            on: whether `prepare` does anything.
            end: the step at which the training ends; none is read from there on.
        """
        self.make, self.device, self.on, self.end = make, device, on, end
        self.stream: torch.cuda.Stream | None = None
        if on and device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.ready: tuple[int, Given] | None = None

    def of(self, step: int) -> Given:
        """The data of a step, to be used on the current stream."""
        known, self.ready = self.ready, None
        given = known[1] if known is not None and known[0] == step else self._made(step)
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)  # on the device; the host goes on
            for item in given:
                if isinstance(item, Tensor):
                    item.record_stream(current)  # its memory belongs to the other stream until this one is done with it
        return given

    def prepare(self, step: int) -> None:
        """Read and send the data of a step, to be called when the device has work to do."""
        if self.on and step < self.end:
            self.ready = (step, self._made(step))

    def _made(self, step: int) -> Given:
        if self.stream is None:
            return self.make(step)
        with torch.cuda.stream(self.stream):
            return self.make(step)
