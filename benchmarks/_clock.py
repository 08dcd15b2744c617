"""Times of work on any device, in turns, and the device's best convolution as a yardstick."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UP = 2
"""Untimed rounds: kernels are chosen, compiled and loaded, and memory is allocated."""


def wait(device: torch.device) -> None:
    """Wait for all that the device was asked to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of some work, between two moments at which the device has nothing to do."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def time_in_turns(works: Mapping[str, Callable[[int], Any]], num: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each work in `num` rounds; who begins alternates. `WARM_UP` rounds before them are not timed.

    Each work is called with 0, 1, 2 ..., the number of the round.
    """
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-WARM_UP, num):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            seconds = timed(lambda name=name, turn=turn: works[name](turn + WARM_UP), device)
            if turn >= 0:
                spent[name].append(seconds)
    return spent


def best_convolution(quick: bool, device: torch.device, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The best GFLOP/s of a plain 3x3 channels_last convolution over shapes and batch sizes (forward)."""
    best: dict[str, Any] = {"gflops": 0.0}
    on_cpu = device.type == "cpu"
    batches = (8, 32, 64, 128) if on_cpu else (64, 256, 1024)
    shapes = [(c, s, b) for c in (32, 64, 128, 256) for s in (8, 16, 32) for b in batches]
    for channels, size, batch in [(16, 16, 8)] if quick else shapes:
        work = 2 * 9 * channels**2 * size**2 * batch
        if on_cpu and work > 1.2e10:
            continue
        conv = nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=dtype)
        conv = conv.to(memory_format=torch.channels_last)
        x = torch.randn(batch, channels, size, size, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            conv(x)
            fastest, until = float("inf"), time.perf_counter() + 0.15
            while time.perf_counter() < until:
                fastest = min(fastest, timed(lambda conv=conv, x=x: conv(x), device))
        if work / fastest / 1e9 > best["gflops"]:
            best = {"gflops": work / fastest / 1e9, "channels": channels, "size": size, "batch": batch}
    return best
