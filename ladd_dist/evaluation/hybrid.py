"""Hybrid inference: the guided teacher takes the first of the student's steps, the student the rest.

"Diversity distillation" of Gandikota and Bau 2025 (arXiv 2503.10637); `core.noise.hybrid_sample` is the sampler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ladd_dist.builders.sampling import sample_few
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.evaluation.assess import SampleFn


class Split(NamedTuple):
    """A student's steps, and how many of them the teacher takes."""

    steps: int
    teacher_steps: int

    @property
    def entry(self) -> str:
        """Its name among the figures; without the teacher it is the student's own."""
        return f"hybrid@{self.steps}:{self.teacher_steps}" if self.teacher_steps else f"student@{self.steps}"

    def forwards(self, guidance: float) -> int:
        """Network forwards an image: a guided call of the teacher is two, and one at guidance 1."""
        return self.steps + (0 if guidance == 1.0 else self.teacher_steps)


def splits_of(words: str, steps: tuple[int, ...]) -> tuple[Split, ...]:
    """`0..2` or `0,2` for each number of steps that is large enough; empty for no words.

    Raises:
        RecipeError: other words, or more of the teacher's steps than there are.
    """
    if not words:
        return ()
    span = re.fullmatch(r"(\d+)\.\.(\d+)", words)
    if span and int(span[1]) <= int(span[2]) <= max(steps):
        numbers = list(range(int(span[1]), int(span[2]) + 1))
    elif re.fullmatch(r"\d+(,\d+)*", words):
        numbers = sorted({int(word) for word in words.split(",")})
    else:
        numbers = []
    if not numbers or numbers[-1] > max(steps):
        raise RecipeError(
            f"--hybrid takes how many of the student's first steps are the teacher's, like 0..2 or 0,2, up to "
            f"{max(steps)} (the most --steps), got {words}"
        )
    return tuple(Split(count, number) for count in steps for number in numbers if number <= count)


def samplers_of(
    splits: tuple[Split, ...],
    teacher: DenoiseFn,
    student: Denoiser,
    levels: Mapping[int, tuple[float, ...]],
    rule: Literal["sde", "ode"],
    seed: int,
) -> dict[str, SampleFn]:
    """How to sample each split with a teacher's step in it; levels by the number of steps."""

    def way(split: Split) -> SampleFn:
        def sample(noise: Tensor, cond: Tensor) -> Tensor:
            own, number = levels[split.steps], split.teacher_steps
            return sample_few(student, noise, cond, own, rule, seed, teacher=teacher, teacher_steps=number)

        return sample

    return {split.entry: way(split) for split in splits if split.teacher_steps}


def rows_of(splits: tuple[Split, ...], guidance: float) -> list[dict[str, Any]]:
    """What the figures' file says of each split: its entry there, and what an image costs in forwards."""
    return [{"entry": split.entry, **split._asdict(), "forwards": split.forwards(guidance)} for split in splits]
