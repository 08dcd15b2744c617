"""A training step as a CUDA graph: recorded once, and then started by the host in one call.

A recorded step runs the same kernels on the same memory each time, so what changes between steps is a tensor that is
overwritten: the batch, its random numbers, weights of losses, learning rates. Everything else must not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ladd_dist.core.serialize import RecipeError

WARM_UP = 3
"""Steps before the recording: they choose kernels, compile, and make the optimizers' state. PyTorch asks for three."""
Found = dict[str, Tensor]
Work = Callable[[Any], Found]


class Recorder(Protocol):
    """Runs work so that it can be recorded, and records it."""

    def run(self, work: Callable[[], Found]) -> Found:
        """Do the work now."""
        ...

    def record(self, work: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        """The work's results, which `replay` (the second value) fills: nothing is computed before its first call."""
        ...


def require_recorder(device: torch.device, stage: str = "train") -> None:
    """Refuse, before any stage runs, to record a step where there is nothing to record it with.

    Args:
        stage: field of the recipe that asks for it.

    Raises:
        RecipeError: the device is no CUDA device.
    """
    if device.type != "cuda":
        raise RecipeError(
            f"recipe.{stage}.compute.graph: the step is recorded as a CUDA graph, and this run is on {device}; leave "
            "it out, or choose --device cuda"
        )


class CudaRecorder:
    """CUDA graphs of one device, recorded on a stream of their own."""

    def __init__(self, device: torch.device, stage: str = "train") -> None:
        """
        Raises:
            RecipeError: see `require_recorder`.
        """
        require_recorder(device, stage)
        self.device, self.stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, work: Callable[[], Found]) -> Found:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            found = work()
        current.wait_stream(self.stream)
        return found

    def record(self, work: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            found = work()
        return found, graph.replay


class StepGraph:
    """Does a step's work, recorded after `WARM_UP` calls; the results are the same as without."""

    def __init__(self, recorder: Recorder, stage: str = "train") -> None:
        """stage: field of the recipe that asked for it, for the message of a step that cannot be recorded."""
        self.recorder, self.stage, self.calls = recorder, stage, 0
        self.given: Any = None
        self.found: Found = {}
        self.replay: Callable[[], None] | None = None

    def __call__(self, work: Work, given: Any) -> Found:
        """The results (tensors of their own) of `work` on `given`, nested tuples and lists of tensors and constants.

        The shapes and the constants must be those of the first call, and the work must always be the same.

        Raises:
            RecipeError: the work asks the device for a number, or does something else that cannot be recorded.
        """
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.recorder.run(lambda: work(given))
        if self.replay is None:
            self.given = _mapped(torch.clone, given)
            self.found, self.replay = self._recorded(work)
        for own, new in zip(_tensors(self.given), _tensors(given), strict=True):
            own.copy_(new)
        self.replay()
        return {name: value.clone() for name, value in self.found.items()}  # the next call overwrites them

    def _recorded(self, work: Work) -> tuple[Found, Callable[[], None]]:
        try:
            return self.recorder.record(lambda: work(self.given))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a network whose shapes follow from data, or texts that do not fit the device
            why = str(error).strip().partition("\n")[0]
            raise RecipeError(
                f"recipe.{self.stage}.compute.graph: this step cannot be recorded ({why}); run the same command again "
                f"with --{self.stage}.compute.no-graph"
            ) from error


def _mapped(change: Callable[[Tensor], Tensor], given: Any) -> Any:
    """The same tree with each tensor changed."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, list):
        return [_mapped(change, item) for item in given]
    if isinstance(given, tuple):
        items = [_mapped(change, item) for item in given]
        return type(given)(*items) if hasattr(given, "_fields") else tuple(items)
    return given


def _tensors(given: Any) -> list[Tensor]:
    """The tensors of a tree."""
    if isinstance(given, Tensor):
        return [given]
    return [tensor for item in given for tensor in _tensors(item)] if isinstance(given, list | tuple) else []
