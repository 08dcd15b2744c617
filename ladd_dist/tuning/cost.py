"""What a tuning costs, said before it starts."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ladd_dist.core.units import si
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import trial
from ladd_dist.stages.dry_values import random_batch
from ladd_dist.stages.sizes import is_large

TIMED = 2
"""Steps that are timed, after one that is not."""


def cost_line(recipe: Recipe, cache: Path, device: torch.device, num: int) -> str:
    """Pictures, updates, trained parameters, and the seconds of the training where a step can be tried here.

    Args:
        cache: of the run.
        num: processes that share the work.
    """
    size, steps = recipe.train.batch_size, recipe.train.steps
    tried = device.type == "cpu" and not is_large(recipe, size)
    with trial(recipe, with_data=tried) as rehearsal:
        trained = sum(weight.numel() for weight in rehearsal.student.module.parameters() if weight.requires_grad)
        words = [
            f"{recipe.dataset.facts(cache).get('pictures', '?')} pictures",
            f"{steps:,} updates of {size} samples at most",
            f"{si(trained)} parameters trained",
        ]
        if tried:
            batch = random_batch(rehearsal, size)
            rehearsal.step(batch, 0)
            started = time.monotonic()
            for step in range(TIMED):
                rehearsal.step(batch, step)
            seconds = steps * (time.monotonic() - started) / TIMED / num
            words.append(f"about {seconds:,.0f} s of training here{f' in {num} processes' if num > 1 else ''}")
    return ", ".join(words)
