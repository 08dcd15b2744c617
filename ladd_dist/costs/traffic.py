"""What a rank sends in a training step under each strategy: formulas, in bytes.

A ring all-reduce over N ranks sends 2 (N - 1) / N of its data, an all-gather or reduce-scatter (N - 1) / N (Patarasuk
and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002). Which of them a strategy uses follows ZeRO (Rajbhandari et al. 2020,
arXiv 1910.02054) and FSDP (Zhao et al. 2023, arXiv 2304.11277).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ladd_dist.costs.memory_model import StepProfile, Strategy


class Traffic(NamedTuple):
    """Bytes that a rank sends (and receives) in one step."""

    student: int
    heads: int
    teacher: int

    @property
    def total(self) -> int:
        """Bytes sent in one step for all networks."""
        return sum(self)


def traffic(strategy: Strategy, profile: StepProfile, ranks: int, *, shard_teacher: bool = False) -> Traffic:
    """Bytes that a rank sends (and receives) in one step over rings."""
    if strategy == "single":
        return Traffic(0, 0, 0)
    once = (ranks - 1) / ranks  # an all-gather, or a reduce-scatter
    gradients, micros = profile.student.trained.num_bytes, profile.accumulate
    if strategy == "fsdp":  # gradients wait, whole, for the last micro-batch
        student = micros * profile.student.sent() + gradients
    elif strategy == "zero3":
        gathers = profile.student.sent(whole_below=profile.whole_below, again=profile.recomputes)
        student = micros * (gathers + gradients) + profile.kept_whole
    elif strategy in ("zero1", "zero2"):  # DeepSpeed reduces with all-reduce; stage 2 after every micro-batch
        student = 2 * gradients * (micros if strategy == "zero2" else 1) + gradients
    else:
        student = 2 * gradients
    heads = (3 if strategy.startswith("zero") else 2) * profile.heads.num_bytes * profile.head_updates
    teacher = micros * profile.teacher.sent() if shard_teacher else 0
    return Traffic(*(math.ceil(once * sent) for sent in (student, heads, teacher)))


def between_nodes(sent: int, ranks: int, ranks_per_node: int) -> int:
    """Bytes that a whole node sends to other nodes, when each of its ranks sends `sent` bytes.

    A ring visits the ranks of a node one after another, so one of them sends to the next node, in each ring.
    """
    return sent if ranks > ranks_per_node else 0
