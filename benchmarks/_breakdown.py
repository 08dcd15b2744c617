"""Where the time of a LADD step goes, by class of operation."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks._clock import timed
from ladd_dist.core.types import Batch
from ladd_dist.engine.draws import Draws, MicroBatches
from ladd_dist.engine.ladd_step import LaddStep

CLASSES = ("convolution", "norm", "matrix product", "elementwise", "heads", "optimizer", "rng", "python")
"""`heads`: all operations of the heads, backward included; the others are the networks' and the step's own. `python`:
time in no operation at all, which is the interpreter's and the dispatcher's; of a GPU, the time in which it waits."""
STEP, HEADS, RNG = "bench:step", "bench:heads", "bench:rng"


def breakdown(step: LaddStep, batch: Batch, first: int, num: int, device: torch.device) -> dict[str, float]:
    """Share of the time in each of `CLASSES`, by the profiler: the self time of every operation, backward included.

    On a GPU, the time of an operation is that of the kernels which it started.
    """
    heads = step.heads

    class Marked:
        """The heads with their forward passes marked; all else is theirs."""

        def __getattr__(self, name: str) -> Any:
            return getattr(heads, name)

        def __call__(self, *args: Any) -> Any:
            with record_function(HEADS):
                return heads(*args)

    class MarkedDraws(MicroBatches):
        """Micro-batches whose random numbers are drawn under a mark."""

        def draw(self, *args: Any, **kwargs: Any) -> Draws:
            with record_function(RNG):
                return super().draw(*args, **kwargs)

    micro_batches = MarkedDraws(
        **{field.name: getattr(step.micro_batches, field.name) for field in fields(MicroBatches)}
    )
    marked = replace(step, heads=Marked(), micro_batches=micro_batches)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as profiled:
        seconds = timed(lambda: [_marked(marked, batch, number) for number in range(first, first + num)], device)
    events = [event for event in profiled.events() if event.device_type == DeviceType.CPU]
    if not on_gpu:  # there, the backward pass has a thread of its own, and nothing above its events
        events = [event for event in events if any(name == STEP for name in _line(event))]
    of_heads = {event.sequence_nr for event in events if event.sequence_nr >= 0 and HEADS in _line(event)}
    spent = dict.fromkeys(CLASSES, 0.0)
    for event in events:
        spent[_class_of(event, of_heads)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    if on_gpu:
        spent["python"] += max(0.0, 1e6 * seconds - sum(spent.values()))
    whole = sum(spent.values())
    return {name: value / whole for name, value in spent.items()}


def _marked(step: LaddStep, batch: Batch, number: int) -> None:
    with record_function(STEP):
        step(batch, number)


def _ancestors(event: FunctionEvent) -> list[FunctionEvent]:
    found = [event]
    while found[-1].cpu_parent is not None:
        found.append(found[-1].cpu_parent)
    return found


def _line(event: FunctionEvent) -> list[str]:
    return [ancestor.name for ancestor in _ancestors(event)]


def _class_of(event: FunctionEvent, of_heads: set[int]) -> str:
    line, name = _ancestors(event), event.name
    names = [ancestor.name for ancestor in line]
    backward = [ancestor for ancestor in line if ancestor.name.startswith("autograd::engine::evaluate_function")]
    if HEADS in names or any(node.sequence_nr in of_heads for node in backward):
        return "heads"
    if RNG in names:
        return "rng"
    if any(n.startswith(("Optimizer.", "aten::_foreach", "aten::_fused_adamw")) for n in names):
        return "optimizer"
    if any("convolution" in n or "conv2d" in n for n in names):
        return "convolution"
    if any("norm" in n.lower() and "linalg" not in n for n in names):
        return "norm"
    if any(n.startswith(("aten::linear", "aten::addmm", "aten::mm", "aten::bmm", "aten::scaled_dot")) for n in names):
        return "matrix product"
    if any("ScaledDot" in n or "AddmmBackward" in n for n in names):
        return "matrix product"
    return "elementwise" if name.startswith("aten::") else "python"
