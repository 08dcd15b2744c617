"""`ladd guidance RECIPE`: measure which scale of guidance brings a trained teacher nearest to real images."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.cli.recipe_arguments import TeacherOptions, parse
from ladd_dist.core.ranges import Count, NonNegative

if TYPE_CHECKING:
    from ladd_dist.workspace.run import Run

PROG = "python -m ladd_dist.guidance"
SHOWN = ("precision_real", "recall_real", "accuracy", "saturation", "colour_variance", "pairwise_share")
"""Figures of the table, besides the distance that decides; `--json` has all."""


@dataclass(frozen=True)
class Options(TeacherOptions):
    """Measure the teacher at several scales of classifier-free guidance, against real images.

    Fields of the recipe can be set as in `launch`; the teacher must be trained (in the cache).
    """

    values: tuple[NonNegative, ...] = (1.0, 1.5, 2.0, 3.0, 4.0)
    """Scales of guidance to try; 1 is none."""
    num_samples: Count = 1_500
    """Samples at each scale, from the same noise."""


@dataclass(frozen=True)
class GuidanceResult:
    """Figures to real images by scale, and the scale that is nearest to them."""

    recipe: str
    teacher: str
    """Signature of the teacher."""
    num_samples: int
    own: float
    """The recipe's scale."""
    best: float
    decided_by: str
    """Name of the distance to real images that is smallest at `best`."""
    figures: Mapping[str, Mapping[str, float]]
    """By scale; `real` are other real images, which no sampler can be nearer than."""
    flags: str
    """Flags of `launch` that use the scale."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    options, recipe = parse(Options, arguments, prog=PROG)

    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.stages.teacher import run_with_teacher

    if not options.values or len(set(options.values)) < len(options.values):
        raise RecipeError(f"--values: give one scale or more, each once, got {options.values}")
    if recipe.teacher.label_dropout == 0 and not recipe.network.pretrained and set(options.values) != {1.0}:
        raise RecipeError("guidance needs a teacher that has learned without classes too: --teacher.label-dropout 0.1")
    run = run_with_teacher(options, recipe)
    result = search(run, options.values, options.num_samples)
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        _show(result)
    return 0


def search(run: Run, values: tuple[float, ...], num_samples: int) -> GuidanceResult:
    """Measure a trained teacher at each scale."""
    from ladd_dist.core.machine import require_memory
    from ladd_dist.evaluation.guidance import best_scale, measure_guidance, metrics_to_real

    recipe, image = run.recipe, run.recipe.dataset.spec()
    require_memory(4 * num_samples * image.num_values, f"--num-samples {num_samples}")
    found = measure_guidance(run, values, num_samples)
    best, distance = best_scale(found, metrics_to_real(recipe))
    return GuidanceResult(
        recipe=recipe.name,
        teacher=recipe.teacher_signature(),
        num_samples=num_samples,
        own=recipe.shards.guidance,
        best=float(best),
        decided_by=distance,
        figures=found,
        flags=f"--shards.guidance {best}",
    )


def _show(result: GuidanceResult) -> None:
    from rich.table import Table

    shown = [result.decided_by, *(name for name in SHOWN if any(name in row for row in result.figures.values()))]
    table = Table(title=f"Guidance of teacher {result.teacher}, {result.num_samples} samples a scale, to real images")
    for heading in ("guidance", *shown):
        table.add_column(heading, justify="right")
    for scale, row in result.figures.items():
        marks = [
            word
            for word, here in (("best", scale == f"{result.best:g}"), ("recipe's", scale == f"{result.own:g}"))
            if here
        ]
        label = f"{scale} ({', '.join(marks)})" if marks else "other real images" if scale == "real" else scale
        table.add_row(label, *(f"{row[name]:.3f}" if name in row else "" for name in shown))
    open_console().print(Fitted(table, keep=None))
    if f"{result.own:g}" == f"{result.best:g}":
        print("The recipe has the best of these.")
    else:
        print(f"To use it: {result.flags}")


if __name__ == "__main__":
    sys.exit(main())
