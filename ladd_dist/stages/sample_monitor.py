"""Figures of a student while it trains, on the fixed small set that its dumps show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladd_dist.builders.codec import decoded, is_pixels
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.features import DIGITS
from ladd_dist.core.rng import sample_starts
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.types import Denoiser
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.reports.grids import write_grid
from ladd_dist.workspace.run import Run

PREFIX = "watch/"
NUM_SHOWN = 32
"""The number of samples in a dump and its grid."""


class SampleMonitor:
    """Measures the figures `Metric.few`, which mean something on tens of samples, against the teacher's.

    A Frechet distance of 32 samples says nothing and is left out.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        shown: Mapping[str, Tensor],
        network: str = DIGITS,
        trained: TrainedFeatures | None = None,
    ) -> None:
        """`shown` holds the teacher's samples `teacher` [N,C,H,W] and their classes `cond` [N].

        `network` names the shipped network that reads them, `trained` is the one that was trained on the data.
        """
        self.networks: dict[str, Any] = {}
        self.measures: list[tuple[tuple[str, ...], Measure]] = []
        if not metrics:  # another rank measures
            return
        self.cond, self.networks = shown["cond"], {"network": network, "trained": trained}
        teacher = Samples(shown["teacher"], self.cond, **self.networks)
        references = References(real=teacher, teacher=teacher, matched=teacher)
        self.measures = [(metric.few, metric.build(references=references)) for metric in metrics if metric.few]

    @torch.inference_mode()
    def __call__(self, student: Tensor) -> dict[str, float]:
        """`watch/NAME` of the student's samples [N,C,H,W] from the same noise, for the log."""
        samples = Samples(student, self.cond, **self.networks)
        figures: dict[str, float] = {}
        for names, measure in self.measures:
            found = measure(samples)
            figures |= {PREFIX + name: found[name] for name in names if name in found}
        return figures


def write_dump(run: Run, updates: int, shown: Mapping[str, Tensor], student: Tensor, latents: Tensor) -> Path:
    """Write teacher's and student's samples at the same noise, as tensors and picture; returns the picture's path.

    The metadata `latents` says under which names the samples themselves lie, as the networks have them: on pixels they
    are the pictures, and nothing is written twice.

    Args:
        shown: noise, conditions, and the teacher's samples.
        student: pictures [N,C,H,W] of the student's samples.
        latents: the samples themselves [N,c,h,w], written too where they are no pictures.
    """
    tensors = {**shown, "student": student}
    ending = "" if is_pixels(run.recipe) else "_latents"
    if ending:
        tensors["student_latents"] = latents
    path = run.folder.dumps / f"step-{updates:06d}.safetensors"
    where = {"latents": f"teacher{ending} student{ending}"}
    save_tensors(path, {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, where)
    picture = run.folder.samples / f"step-{updates:06d}.png"
    write_grid(picture, [("teacher", shown["teacher"]), (f"student@{run.recipe.student_steps}", student)])
    return picture


@torch.inference_mode()
def shown_samples(run: Run, teacher: Denoiser) -> dict[str, Tensor]:
    """Held-out noise and classes, and what the teacher makes of them, for the dumps.

    `teacher` holds pictures; where samples are latents, `teacher_latents` holds the samples themselves.
    """
    recipe = run.recipe
    device = next(teacher.parameters()).device
    noise, cond = sample_starts(recipe.evaluate.seed, range(NUM_SHOWN), recipe.asked(), device)
    samples, _ = recipe.shards.sampler(guided_teacher(recipe, teacher), noise, cond)
    shown = {"noise": noise, "cond": cond, "teacher": decoded(run, samples)}
    return shown if is_pixels(recipe) else {**shown, "teacher_latents": samples}
