"""Hybrid inference: the guided teacher takes the first of the student's steps, the student takes the rest.

"Diversity distillation" of Gandikota and Bau 2025 (arXiv 2503.10637); `core.noise.hybrid_sample` is the sampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from ladd_dist.builders.sampling import SampleFn, sample_few
from ladd_dist.core.rng import NoiseSource
from ladd_dist.core.run_forms import HybridRow
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import DenoiseFn, Denoiser


class Split(NamedTuple):
    """A number of steps, and how many of them the teacher takes."""

    steps: int
    teacher_steps: int

    @property
    def entry(self) -> str:
        """The split's name among the figures; `student@STEPS` if the teacher takes no step."""
        return f"hybrid@{self.steps}:{self.teacher_steps}" if self.teacher_steps else f"student@{self.steps}"

    def forwards(self, guidance: float) -> int:
        """Network forwards for an image: a guided step of the teacher takes two, one at guidance 1 takes one."""
        return self.steps + (0 if guidance == 1.0 else self.teacher_steps)


def splits_of(numbers: tuple[int, ...], steps: tuple[int, ...]) -> tuple[Split, ...]:
    """The splits with so many of the teacher's steps, at each number of steps that is large enough; empty for none.

    Raises:
        RecipeError: a number is negative, or larger than every number of steps.
    """
    numbers = tuple(sorted(set(numbers)))
    if numbers and not 0 <= numbers[0] <= numbers[-1] <= max(steps):
        raise RecipeError(
            f"--hybrid takes how many of the student's first steps are the teacher's, like 0..2 or 0,2, up to "
            f"{max(steps)} (the most --steps), got {','.join(map(str, numbers))}"
        )
    return tuple(Split(count, number) for count in steps for number in numbers if number <= count)


def samplers_of(
    splits: tuple[Split, ...],
    teacher: DenoiseFn,
    student: Denoiser,
    levels: Mapping[int, tuple[float, ...]],
    rule: Literal["sde", "ode"],
) -> dict[str, SampleFn]:
    """Samplers of the splits in which the teacher takes a step, by entry.

    Args:
        levels: the student's, by number of steps.
    """

    def sampler(split: Split) -> SampleFn:
        def sample(noise: Tensor, cond: Tensor, source: NoiseSource) -> Tensor:
            own, number = levels[split.steps], split.teacher_steps
            return sample_few(student, noise, cond, own, rule, source, teacher=teacher, teacher_steps=number)

        return sample

    return {split.entry: sampler(split) for split in splits if split.teacher_steps}


def hybrid_rows(splits: tuple[Split, ...], guidance: float) -> list[HybridRow]:
    """Each split's entry among the figures, and its network forwards for an image."""
    return [
        {
            "entry": split.entry,
            "steps": split.steps,
            "teacher_steps": split.teacher_steps,
            "forwards": split.forwards(guidance),
        }
        for split in splits
    ]
