"""What a rank holds under each strategy: formulas, in bytes.

N ranks, P weights of the student, H of the heads; all in float32 (4 bytes), whatever the precision of the forwards.
What is spread over ranks follows ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5) and FSDP (Zhao et al.
2023, arXiv 2304.11277). What DeepSpeed keeps besides is read from its version 0.19.8.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import nn

Strategy = Literal["single", "ddp", "fsdp", "zero1", "zero2", "zero3"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
WORD = 4
"""Bytes of a float32."""
CONTEXT_BYTES, FRAGMENTED = 2_000_000_000, 0.05
"""Reserve: bytes of the accelerator's context and libraries (NCCL's too), and the share that the allocator loses."""


class Weight(NamedTuple):
    """Shape and type of one parameter, and whether it trains."""

    shape: torch.Size
    item_bytes: int = WORD
    trains: bool = True

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.shape.numel() * self.item_bytes

    def by_rows(self, ranks: int) -> int:
        """Bytes of a rank's part where FSDP2 cuts along the first dimension; every part is padded to the longest."""
        rows = self.shape[0] if self.shape else 1
        return -(-rows // ranks) * (self.num_bytes // max(rows, 1))

    def by_elements(self, ranks: int) -> int:
        """Bytes of a rank's part where ZeRO-3 cuts the flattened tensor."""
        return -(-self.shape.numel() // ranks) * self.item_bytes


class Unit(NamedTuple):
    """Weights that are gathered together, and how often a micro-batch needs them."""

    weights: tuple[Weight, ...]
    forwards: int = 1
    backwards: int = 1

    @property
    def num_bytes(self) -> int:
        """Bytes of the unit's weights."""
        return sum(weight.num_bytes for weight in self.weights)


@dataclass(frozen=True)
class NetProfile:
    """What the formulas need to know of a network."""

    units: tuple[Unit, ...]
    """First what is outside of the blocks, then a unit for each block."""
    buffer_bytes: int = 0
    in_order: tuple[Weight, ...] = ()
    """All weights in the module's own order, where it is not that of the units."""

    @property
    def weights(self) -> list[Weight]:
        """Every weight of the network, in the module's own order where that is known."""
        return list(self.in_order) or [weight for unit in self.units for weight in unit.weights]

    @property
    def num_bytes(self) -> int:
        """Bytes of the network's weights, without its buffers."""
        return sum(unit.num_bytes for unit in self.units)

    @property
    def trained(self) -> Unit:
        """The weights with gradients, moments and an average."""
        return Unit(tuple(weight for weight in self.weights if weight.trains))

    def gathered(self) -> int:
        """Bytes whole at one time: everything outside of the blocks, one block, and the next one, being fetched."""
        root, *blocks = (unit.num_bytes for unit in self.units)
        return root + max(map(sum, itertools.pairwise(blocks)), default=sum(blocks))

    def sent(self, *, whole_below: int = 0, again: bool = False) -> int:
        """Bytes gathered in a micro-batch.

        Args:
            whole_below: tensors with at most so many elements are never gathered.
            again: recomputing a block in the backward pass gathers it another time.
        """
        return sum(
            (unit.forwards + unit.backwards * (2 if again else 1)) * weight.num_bytes
            for unit in self.units
            for weight in unit.weights
            if weight.shape.numel() > whole_below
        )


def weights_of(parameters: Iterable[nn.Parameter]) -> tuple[Weight, ...]:
    """The `Weight` of every parameter, in order."""
    return tuple(Weight(parameter.shape, parameter.element_size(), parameter.requires_grad) for parameter in parameters)


def units_of(module: nn.Module) -> list[tuple[nn.Module, tuple[Weight, ...]]]:
    """Pairs of a module and its weights: first the whole with those outside of its blocks, then every block."""
    blocks: list[nn.Module] = list(getattr(module, "blocks", lambda: [])())
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = [parameter for parameter in module.parameters() if id(parameter) not in inside]
    groups: list[tuple[nn.Module, Iterable[nn.Parameter]]] = [(module, outside)]
    groups += [(block, block.parameters()) for block in blocks]
    return [(part, weights_of(parameters)) for part, parameters in groups]


def buffer_bytes(module: nn.Module) -> int:
    """Bytes of a module's buffers."""
    return sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())


@dataclass(frozen=True)
class StepProfile:
    """What a training step of one rank works on, before a strategy spreads it."""

    student: NetProfile
    heads: NetProfile
    teacher: NetProfile
    """The frozen networks, in the dtype of their computation."""
    activations: int
    """Bytes that a micro-batch saves for backward passes."""
    temporaries: int
    """Bytes of a micro-batch's other tensors at the peak."""
    batch: int
    """Bytes of this rank's share of a batch."""
    accumulate: int = 1
    head_updates: int = 1
    recomputes: bool = False
    """Whether the student's activations are computed again in the backward pass."""
    bucket: int = 25_000_000
    """Elements that DeepSpeed sends at once."""
    whole_below: int = 10_000
    """Tensors with at most so many elements are whole on every rank in ZeRO-3."""

    @property
    def kept_whole(self) -> int:
        """Bytes of small tensors that ZeRO-3 keeps whole on every rank, besides the parts."""
        return sum(weight.num_bytes for weight in self.student.weights if weight.shape.numel() <= self.whole_below)


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, by what they are for."""

    parameters: int
    gradients: int
    optimizer: int
    master: int
    """The second copy of a rank's share of the weights, which DeepSpeed updates. Stage 3 means to go without one in
    float32, but compares a device with its name, which are never equal."""
    average: int
    teacher: int
    heads: int
    """Parameters, gradients, optimizer state and buffers of the heads."""
    activations: int
    temporaries: int
    gathered: int
    """Weights and gradients that are whole for a moment, and buffers of messages."""
    batch: int
    total: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(value for name, value in vars(self).items() if name != "total"))


def memory(strategy: Strategy, profile: StepProfile, ranks: int, *, shard_teacher: bool = False) -> Memory:
    """Bytes on the rank that holds most.

    Gradients are counted when those of all weights are there: at the optimizer's step, in ZeRO-1 when the backward
    pass has ended and they are about to be reduced.
    """
    student, trained, moving = profile.student, profile.student.trained.weights, profile.student.trained.num_bytes
    flat = _flat_part(moving, ranks)  # stages 1 and 2 cut all weights that train laid end to end
    by_rows, moving_rows = (sum(weight.by_rows(ranks) for weight in those) for those in (student.weights, trained))
    by_elements = sum(weight.by_elements(ranks) for weight in student.weights)
    own = sum(weight.by_elements(ranks) for weight in trained)
    weights = {"fsdp": by_rows, "zero3": by_elements + profile.kept_whole}.get(strategy, student.num_bytes)
    gradients = {"fsdp": moving_rows, "zero2": _touched(trained, ranks), "zero3": own}.get(strategy, moving)
    stepped = {"fsdp": moving_rows, "zero1": flat, "zero2": flat, "zero3": own}.get(strategy, moving)
    average = {"fsdp": moving_rows, "zero3": own}.get(strategy, moving)
    teacher = profile.teacher
    sharded = sum(weight.by_rows(ranks) for weight in teacher.weights)
    return Memory(
        parameters=weights + student.buffer_bytes,
        gradients=gradients,
        optimizer=2 * stepped,
        master={"zero1": flat, "zero2": flat, "zero3": own}.get(strategy, 0),
        average=average + student.buffer_bytes,
        teacher=(sharded if shard_teacher else teacher.num_bytes) + teacher.buffer_bytes,
        heads=_heads(strategy, profile.heads, ranks),
        activations=profile.activations,
        temporaries=profile.temporaries,
        gathered=_gathered(strategy, profile) + (teacher.gathered() if shard_teacher else 0),
        batch=profile.batch,
    )


def room(gpu_bytes: int) -> int:
    """Bytes of an accelerator's memory that a training can use."""
    return math.floor(gpu_bytes * (1 - FRAGMENTED)) - CONTEXT_BYTES


def _flat_part(num_bytes: int, ranks: int) -> int:
    """Bytes of a rank's share of a flat buffer, padded to 2 elements a rank as DeepSpeed does."""
    return -(-num_bytes // (2 * WORD * ranks)) * 2 * WORD


def _touched(weights: tuple[Weight, ...], ranks: int) -> int:
    """Bytes of the tensors of which a rank's range of the flat buffer has a part, on the rank where they are most.

    ZeRO-2 keeps their gradients whole, also of those that several ranks have a part of.
    """
    share = _flat_part(sum(weight.num_bytes for weight in weights), ranks)
    held, start = [0] * ranks, 0
    for weight in weights:
        if weight.num_bytes:
            for rank in range(start // share, (start + weight.num_bytes - 1) // share + 1):
                held[rank] += weight.num_bytes
        start += weight.num_bytes
    return max(held)


def _heads(strategy: Strategy, heads: NetProfile, ranks: int) -> int:
    """Bytes of the heads: replicated with their optimizer; under ZeRO moments and a second copy are spread."""
    whole = heads.num_bytes
    flat = _flat_part(whole, ranks)
    return 2 * whole + heads.buffer_bytes + (3 * flat if strategy.startswith("zero") else 2 * whole)


def _gathered(strategy: Strategy, profile: StepProfile) -> int:
    """Bytes of the student's weights and gradients that are whole for a moment, and of message buffers."""
    student = profile.student
    largest = max(unit.num_bytes for unit in student.units)
    bucket = profile.bucket * WORD
    if strategy == "fsdp":
        # A block's gradients and the message made of them; whole gradients wait for the last micro-batch.
        waiting = student.trained.num_bytes if profile.accumulate > 1 else 0
        return student.gathered() + 2 * largest + waiting
    if strategy == "zero3":  # one layer, at most the largest tensors; what is fetched ahead; two engines' buffers
        layer = max(weight.num_bytes for weight in student.weights)
        return 2 * layer + min(bucket // 5, student.num_bytes) + 2 * bucket
    if strategy in ("zero1", "zero2"):  # a bucket, and the flat message made of it
        return bucket + min(bucket, student.trained.num_bytes)
    return 0
