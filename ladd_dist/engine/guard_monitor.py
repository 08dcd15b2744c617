"""Samples the student during a training and asks the guard about it; the stage acts on the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from ladd_dist.core.gan import LARGE_GAP
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import Rows, RowSource
from ladd_dist.core.types import Batch
from ladd_dist.engine.diversity import compare, describe
from ladd_dist.engine.head_statistics import HeadSums, figures, sides
from ladd_dist.engine.loop import Figures
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.engine.step_metrics import SKIPPED
from ladd_dist.guards import Guard
from ladd_dist.guards.judge import GuardState, Judgement, from_data, judge, rolled_back
from ladd_dist.parallel import Trainable
from ladd_dist.parallel.ranks import Ranks

READER = "guard"
"""The monitor's name among the readers of `HeadSums`."""


class MonitorState(TypedDict):
    """The state of a `GuardMonitor` in a checkpoint, as JSON."""

    memory: dict[str, Any]  # `GuardState.to_data`
    window: list[float] | None  # sums of the heads' logits since the last check; None where one is not finite
    not_finite: int


class GuardMonitor:
    """Checks a training when its guard says so; each rank holds one, and all come to the same judgement.

    The student is looked at as it is, without averaging: an average of weights shows a collapse, and a recovery, much
    later. Each rank samples its share of the fixed set; nothing is drawn from any generator that training uses.
    """

    def __init__(
        self,
        guard: Guard,
        fixed: Batch,
        sums: HeadSums,
        *,
        levels: Mapping[int, tuple[float, ...]],
        rule: Literal["sde", "ode"],
        coloured: bool,
        num_steps: int,
        ranks: Ranks,
        device: torch.device,
        large_gap: float = LARGE_GAP,
    ) -> None:
        """
        Args:
            fixed: the teacher's samples with the noises they came from, on any device.
            levels: the levels of the student's sampler, for each number of steps to look at.
            coloured: whether samples are colour pictures; for latents only distances mean something.
            large_gap: the logit gap that the game calls large.
        """
        assert fixed.noise is not None
        self.guard, self.sums, self.levels, self.rule = guard, sums, levels, rule
        self.num_steps, self.ranks, self.device, self.large_gap = num_steps, ranks, device, large_gap
        self.teacher, self.cond, self.coloured = describe(fixed.x0, coloured=coloured), fixed.cond.cpu(), coloured
        total = len(fixed.x0)
        share = -(-total // ranks.size)
        self.first = min(ranks.rank * share, total)  # rows before it are another rank's: all ranks sample equally many
        start = min(self.first, total - share)
        self.rows = Rows(start, start + share, total)
        own = to_device(fixed.rows(slice(self.rows.first, self.rows.stop)), device)
        assert own.noise is not None
        self.noise, self.own_cond = own.noise.contiguous(memory_format=torch.channels_last), own.cond
        sums.open(READER)
        self.state = GuardState()
        self.not_finite: Tensor | float = 0.0
        self.seen: dict[str, float] = {}
        """The figures of the last check."""

    def after(self, updates: int, found: Figures, student: Trainable) -> Judgement | None:
        """Check the student if a check is due after `updates` updates, else return None.

        Every rank calls this after each update, with its figures.
        """
        watched = [value for name, value in found.items() if name.startswith(("loss/", "grad_norm/"))]
        tensors = [value.to(self.device, torch.float32) for value in watched if isinstance(value, Tensor)]
        if tensors:
            broken = (~torch.stack(tensors).detach().isfinite()).sum()
            self.not_finite = self.not_finite + broken * (1 - torch.as_tensor(found.get(SKIPPED, False)).long())
        if not self.guard.is_due(updates, self.num_steps):
            return None
        full = self.guard.is_full(updates, self.num_steps)
        self.seen = {}
        for steps in self.levels if full else (1,):
            looked = compare(self._look(student, steps), self.teacher, self.cond, coloured=self.coloured)
            self.seen |= {f"student@{steps}/{name}": value for name, value in looked.items()}
        sums = self.sums.take(READER, self.ranks)
        self.sums.open(READER)
        self.seen |= figures(self.sums.taps, sums) | sides(self.sums.taps, sums)
        self.seen["heads/large_gap"] = self.large_gap
        self.seen["weight/adversarial"] = float(found.get("weight/adversarial", 0.0))
        self.seen["not_finite"] = float(self.ranks.max(int(self.not_finite)))
        self.not_finite = 0.0
        # By rank 0 for all: sums over ranks may differ in their last bit.
        judgement = self.ranks.from_rank0(lambda: judge(self.guard, self.state, self.seen, updates, self.num_steps))
        self.state = judgement.state
        return judgement

    @torch.no_grad()
    def _look(self, student: Trainable, steps: int) -> Tensor:
        """Describe the student's samples of the whole fixed set (rows of `describe`), on every rank."""
        module = student.module
        was_training = module.training
        module.eval()
        try:
            samples = few_step_sample(
                lambda x, sigma, cond: module(x, sigma, cond).denoised.float(),
                self.noise,
                self.own_cond,
                self.levels[steps],
                self.rule,
                RowSource(self.rows, "guard", device=self.device),
            )
        finally:
            module.train(was_training)
        own = describe(samples, coloured=self.coloured)
        rows = own.new_zeros(self.rows.total, own.shape[1])
        rows[self.first : self.rows.stop] = own[self.first - self.rows.first :]
        return self.ranks.sum(rows)

    def to_checkpoint(self) -> MonitorState:
        """The state that an identical continuation needs; every rank calls this."""
        window = self.sums.take(READER, self.ranks).tolist()
        whole = all(map(math.isfinite, window))
        not_finite = self.ranks.max(int(self.not_finite))
        return {"memory": self.state.to_data(), "window": window if whole else None, "not_finite": not_finite}

    def restore(self, saved: MonitorState | None, rollbacks: int = 0) -> None:
        """The inverse of `to_checkpoint`, in a run that has gone back `rollbacks` times.

        Rollbacks that came after the checkpoint lower the adversarial weight as well. None: there is no checkpoint.
        """
        if saved is not None:
            self.state = from_data(saved["memory"])
            self.not_finite = float(saved["not_finite"])
            if saved["window"] is not None and len(saved["window"]) == len(self.sums.take(READER)):
                self.sums.put(READER, torch.tensor(saved["window"], dtype=torch.float64), self.ranks)
        for _ in range(rollbacks - self.state.rollbacks):
            self.state = rolled_back(self.state)
