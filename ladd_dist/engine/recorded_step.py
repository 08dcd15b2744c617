"""The LADD step with its two updates recorded as a CUDA graph."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from ladd_dist.core.rng import Rows, whole_batch
from ladd_dist.core.types import Batch
from ladd_dist.engine.draws import Part
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.ladd_step import LaddStep, Weights
from ladd_dist.engine.step_graph import CudaRecorder, Found, Recorder, StepGraph
from ladd_dist.guards.judge import NO_CHANGE, GuardControl

_SUMS = "sums/"


class RecordedStep:
    """A `LaddStep` that is recorded once and started in one call from then on.

    Recorded is the usual step, in which both networks learn and the student sees the heads; the others, of a warm-up of
    the heads or after a guard has frozen them, are computed as ever. The batch, its random numbers and the student's
    inputs are made before, as ever too, and copied to where the graph reads them, with the weights of the losses. So
    the numbers are those of a `LaddStep`, except that weights and learning rates are rounded to float32.

    What the step adds to sums on the device is a result of the graph here, and added outside of it.
    """

    def __init__(self, step: LaddStep, device: torch.device, recorder: Recorder | None = None) -> None:
        """
        Args:
            recorder: what records; CUDA graphs of the device if nothing else is said.

        Raises:
            RecipeError: there is nothing to record with.
        """
        self.sums, self.device = step.head_sums, device
        self.own_sums = None if self.sums is None else HeadSums(self.sums.taps)
        self.step = replace(step, head_sums=self.own_sums)
        self.graph = StepGraph(recorder or CudaRecorder(device))

    def __call__(
        self, batch: Batch, step: int, rows: Rows | None = None, control: GuardControl = NO_CHANGE
    ) -> dict[str, Tensor | float]:
        """Train on `batch`, as `LaddStep` does."""
        parts = self.step.parts(batch, step, rows or whole_batch(len(batch.x0)))
        weights = self.step.weights(step, control)
        moving = Weights(*(torch.full((), float(weight), device=self.device) for weight in weights))
        sees_heads, learn = bool(weights.adversarial != 0), control.heads_learn
        work = functools.partial(self._work, step=step, sees_heads=sees_heads, learn=learn)
        found = self.graph(work, (parts, moving)) if sees_heads and learn else work((parts, moving))
        if self.sums is not None and self.own_sums is not None:
            added = {name.removeprefix(_SUMS): found[name] for name in found if name.startswith(_SUMS)}
            self.sums.add_update(added, self.own_sums.num_logits)
        return {name: value for name, value in found.items() if not name.startswith(_SUMS)} | weights.figures()

    def _work(self, given: tuple[list[Part], Weights], *, step: int, sees_heads: bool, learn: bool) -> Found:
        found = self.step.updates(*given, step, sees_heads=sees_heads, learn=learn)
        sums = {} if self.own_sums is None else self.own_sums.take_update()
        return {**found, **{f"{_SUMS}{name}": value for name, value in sums.items()}}  # type: ignore[dict-item]
