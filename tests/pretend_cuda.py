"""What `torch.cuda` is on a pretended device: streams that notice a race, graphs, waits that can be refused."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from tape import Listening

DEVICE = torch.device("cuda", 0)
MEMORY = 64 << 30
"""Bytes of memory that the device says it has."""


class Stream:
    """A stream whose work is done when it is asked for; it remembers what of other streams it has waited for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = DEVICE
        self.seen: dict[Stream, int] = {}

    def wait_stream(self, other: Stream) -> None:
        """Know everything that the other stream has done or knows."""
        self.seen = {stream: max(self.seen.get(stream, 0), tick) for stream, tick in other.seen.items()} | {
            other: next(MACHINE.clock)
        }

    def synchronize(self) -> None:
        waits("Stream.synchronize")
        MACHINE.current.wait_stream(self)

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return MACHINE.capturing


class Machine:
    """The state of the pretended device."""

    def __init__(self) -> None:
        self.clock: Iterator[int] = itertools.count(1)
        self.usual = self.current = Stream()
        self.refuses_waits = self.capturing = False


MACHINE = Machine()


def waits(what: str) -> None:
    """Say that the host would wait for the device here.

    Raises:
        RuntimeError: it may not, by `set_sync_debug_mode("error")` or because a graph is being recorded.
    """
    if MACHINE.capturing:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing (pretended: {what})")
    if MACHINE.refuses_waits:
        raise RuntimeError(f"called a synchronizing CUDA operation (pretended: {what})")


def require_order(made: tuple[Stream, int] | None, what: str) -> None:
    """Refuse to use on the current stream what another one made, if nobody waited for it.

    Raises:
        RuntimeError: it may not be there yet.
    """
    now = MACHINE.current
    if made is not None and made[0] is not now and now.seen.get(made[0], 0) < made[1]:
        raise RuntimeError(f"{what} reads what another stream may still be making (pretended)")


@contextlib.contextmanager
def stream(chosen: Stream | None) -> Iterator[None]:
    """Work on a stream."""
    before = MACHINE.current
    MACHINE.current = chosen or before
    try:
        yield
    finally:
        MACHINE.current = before


def synchronize(*_: Any) -> None:
    waits("torch.cuda.synchronize")
    MACHINE.usual.wait_stream(MACHINE.current)
    MACHINE.current.wait_stream(MACHINE.usual)


class Graph:
    """A graph: a tape of operations that are done again on the same memory."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tape = Listening()

    def replay(self) -> None:
        self.tape.replay()


@contextlib.contextmanager
def graph(recorded: Graph, stream: Stream | None = None, **_: Any) -> Iterator[None]:
    """Record what is done, without an effect on what was there before."""
    used = stream or Stream()
    used.wait_stream(MACHINE.current)
    with _on(used), recorded.tape:
        MACHINE.capturing = True
        try:
            yield
        finally:
            MACHINE.capturing = False
    MACHINE.current.wait_stream(used)
    recorded.tape.undo()


_on = stream


class NoProfile(contextlib.nullcontext[Any]):
    """A profiler that sees nothing: PyTorch's own, over a dispatch mode, takes minutes."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def events(self) -> list[Any]:
        return []


def gives(value: Any) -> Callable[..., Any]:
    """A function of anything that returns the value."""
    return lambda *_, **__: value


def set_sync_debug_mode(mode: str | int) -> None:
    MACHINE.refuses_waits = mode in ("error", 2)


_PROPERTIES = SimpleNamespace(
    total_memory=MEMORY, name="pretended", major=9, minor=0, multi_processor_count=1, warp_size=32
)
NAMES: dict[str, Any] = {
    "is_available": gives(True), "device_count": gives(1), "current_device": gives(0), "set_device": gives(None),
    "synchronize": synchronize, "empty_cache": gives(None), "reset_peak_memory_stats": gives(None),
    "memory_allocated": gives(0), "memory_reserved": gives(0), "max_memory_allocated": gives(1),
    "max_memory_reserved": gives(1), "mem_get_info": gives((MEMORY, MEMORY)), "get_device_capability": gives((9, 0)),
    "get_device_name": gives("a pretended device"), "get_device_properties": gives(_PROPERTIES),
    "is_bf16_supported": gives(True), "device": contextlib.nullcontext, "Stream": Stream, "stream": stream,
    "current_stream": lambda *_: MACHINE.current, "default_stream": lambda *_: MACHINE.usual,
    "is_current_stream_capturing": lambda: MACHINE.capturing, "CUDAGraph": Graph, "graph": graph,
    "set_sync_debug_mode": set_sync_debug_mode, "set_rng_state": gives(None),
    "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
}  # fmt: skip
"""What `torch.cuda` has while the device is pretended."""
ACCELERATOR: dict[str, Any] = {
    "is_available": gives(True), "device_count": gives(1), "current_accelerator": gives(torch.device("cuda")),
    "current_stream": lambda *_: MACHINE.current, "current_device_index": gives(0), "synchronize": synchronize,
}  # fmt: skip
"""What `torch.accelerator` has."""
