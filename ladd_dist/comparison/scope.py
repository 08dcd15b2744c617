"""What a comparison's means and intervals are over: seeds of the distillation on one teacher, or teachers. Pure."""

from __future__ import annotations

from ladd_dist.comparison.result import Comparison


def scope(result: Comparison) -> str:
    """A sentence that says what the intervals cover; empty where there is none."""
    variants = [row.variant for row in result.rows]
    if result.over_teachers:
        runs, teachers = sum(len(v.runs) for v in variants), {seed for v in variants for seed in v.teacher_seeds}
        return (
            f"{len(teachers)} teachers, {runs} runs: the interval is over teachers, of the mean over the seeds on each."
        )
    counts = sorted({len(variant.values(result.sampler, result.metric)) for variant in variants} - {0})
    if not counts or counts[-1] < 2:
        return ""
    num = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{num} seeds of the distillation on one teacher: the interval does not cover other teachers."
