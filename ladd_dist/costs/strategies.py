"""Every strategy's cost on a number of accelerators, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ladd_dist.costs.memory_model import STRATEGIES, Memory, StepProfile, Strategy, memory, room
from ladd_dist.costs.traffic import between_nodes, traffic


@dataclass(frozen=True)
class Machines:
    """The accelerators that a training may use."""

    gpus: int
    gpus_per_node: int
    gpu_memory_bytes: int

    @property
    def usable_bytes(self) -> int:
        """Bytes of each accelerator's memory that a training can use."""
        return room(self.gpu_memory_bytes)


@dataclass(frozen=True)
class Sent:
    """Bytes that a rank sends (and receives) in one step, by network."""

    student: int
    heads: int
    teacher: int
    total: int
    between_nodes_a_node: int
    """Bytes that a whole node sends to other nodes."""


@dataclass(frozen=True)
class StrategyCost:
    """What one strategy holds and sends, and whether it fits; the field names are those of `ladd plan --json`."""

    strategy: Strategy
    shard_teacher: bool
    gpus: int
    flags: str
    """What to add to `ladd launch` to train so."""
    fits: bool
    refused: str | None
    """Why the strategy cannot do what the recipe asks for; None when it can."""
    memory: Memory
    sent: Sent
    largest_batch_per_gpu: int
    """Samples a GPU with which the memory would be full."""


def choices(gpus: int) -> list[tuple[Strategy, bool]]:
    """Every strategy, with a replica of the teacher on each rank (False) and with a sharded one (True)."""
    teachers = (False, True) if gpus > 1 else (False,)
    spread: list[tuple[Strategy, bool]] = [(name, how) for name in STRATEGIES[1:] for how in teachers]
    return [("single", False), *spread]


def grows(profile: StepProfile) -> int:
    """Bytes of a step that grow in proportion to the batch."""
    return profile.activations + profile.temporaries + profile.batch


def cost_of(
    strategy: Strategy,
    profile: StepProfile,
    machines: Machines,
    *,
    shard_teacher: bool,
    refused: str | None,
    batch_size: int,
    bytes_per_sample: float,
) -> StrategyCost:
    """Memory and traffic of one strategy; `single` is the whole batch on one GPU, however many there are.

    Args:
        profile: of a step on the batch that a rank has under this strategy.
        refused: why the strategy cannot run at all; None when it can.
        batch_size: samples a step, over all ranks.
        bytes_per_sample: what one more sample a rank takes.
    """
    gpus = 1 if strategy == "single" else machines.gpus
    held = memory(strategy, profile, gpus, shard_teacher=shard_teacher)
    sent = traffic(strategy, profile, gpus, shard_teacher=shard_teacher)
    usable = machines.usable_bytes
    return StrategyCost(
        strategy=strategy,
        shard_teacher=shard_teacher,
        gpus=gpus,
        flags=f"--parallel {strategy}" + (" --parallel.shard-teacher" if shard_teacher else ""),
        fits=held.total <= usable and not refused,
        refused=refused,
        memory=held,
        sent=Sent(*sent, sent.total, between_nodes(sent.total, gpus, machines.gpus_per_node)),
        largest_batch_per_gpu=max(int(batch_size // gpus + (usable - held.total) / bytes_per_sample), 0),
    )


def cheapest(costs: Sequence[StrategyCost], gpus: int) -> StrategyCost | None:
    """The cost that sends least of those that fit on all `gpus`; None where nothing fits."""
    runnable = [cost for cost in costs if cost.fits and cost.gpus == gpus]
    return min(runnable, key=lambda cost: cost.sent.total, default=None)
