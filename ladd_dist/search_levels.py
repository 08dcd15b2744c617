"""`python -m ladd_dist.levels RECIPE`: search the few-step levels of a trained teacher."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.cli.recipe_arguments import TeacherOptions, parse
from ladd_dist.core.ranges import Count, Within

if TYPE_CHECKING:
    from ladd_dist.levels.search import Found, Pairs
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.run import Run

FIELDS = {1: "one", 2: "two", 4: "four"}
"""Number of steps -> field of the named choice `good`."""


@dataclass(frozen=True)
class Options(TeacherOptions):
    """Find the levels whose few-step samples come nearest to the teacher's many-step samples at the same noise.

    Fields of the recipe can be set as in `launch`; the teacher must be trained (in the cache).
    """

    steps: Annotated[int, Within("[2, 1000]")] = 4
    """Calls of the network, at least 2: one step starts at the highest level, and nothing is to be found."""
    num_pairs: Count = 300
    """Held-out pairs of noise and the teacher's sample on which levels are compared."""


@dataclass(frozen=True)
class SearchResult:
    """Levels with their errors: those found, Karras et al.'s, and the named choice `good` where it has some.

    An error is the mean square difference per pixel from the teacher's many-step samples.
    """

    recipe: str
    teacher: str
    """Signature of the teacher."""
    steps: int
    num_pairs: int
    levels: tuple[float, ...]
    error: float
    karras_levels: tuple[float, ...]
    karras_error: float
    good_levels: tuple[float, ...] | None
    good_error: float | None
    tried: int
    """Number of sets of levels whose error was computed."""
    flags: str | None
    """Flags of `launch` that use the levels; None where `good` has no field for their number."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    options, recipe = parse(Options, arguments, prog="python -m ladd_dist.levels")

    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.stages.teacher import run_with_teacher

    if recipe.shards.sampler.stochastic:
        raise RecipeError(
            f"levels are searched on samples that follow from their noise, and sampler {recipe.shards.sampler.name!r} "
            "adds noise on the way; add --swap shards.sampler=euler"
        )
    run = run_with_teacher(options, recipe)
    result = search(run, options.steps, options.num_pairs)
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        _show(result)
    return 0


def search(run: Run, steps: int, num_pairs: int) -> SearchResult:
    """Search `steps` levels for a trained teacher on `num_pairs` held-out pairs."""
    from ladd_dist.core.noise import karras_levels
    from ladd_dist.engine.loop import Bar
    from ladd_dist.levels.named import Karras
    from ladd_dist.levels.search import ROUNDS, search_levels

    recipe = run.recipe
    top, bottom = recipe.shards.sampler.levels()[0], recipe.shards.sampler.levels()[-1]
    pairs = make_pairs(run, num_pairs)
    karras = Karras(sigma_min=bottom, sigma_max=top)(steps)
    starts = [karras, karras_levels(steps + 1, sigma_min=bottom, sigma_max=top, rho=7.0)[:-1]]
    good = _good(recipe, steps)
    if good is not None:
        starts.append((top, *good[1:]))
    with Bar("levels", ROUNDS) as bar:

        def progress(done: int, found: Found) -> None:
            bar.update(done, f"error {found.error:.5f}")

        found = search_levels(pairs, [levels for levels in starts if levels[1] < top], progress=progress)
    return _result(recipe, found, pairs, num_pairs, karras, good)


def make_pairs(run: Run, num_pairs: int) -> Pairs:
    """Held-out noise and classes, and the teacher's many-step samples from them.

    Their seed is neither the shards' nor the evaluation's, because levels tuned on the evaluation's noise would look
    better than they are.
    """
    import torch

    from ladd_dist.builders.teacher import guided_teacher, load_teacher
    from ladd_dist.core.machine import require_memory
    from ladd_dist.core.rng import derive_seed, sample_starts
    from ladd_dist.engine.loop import Bar
    from ladd_dist.levels.search import Pairs

    recipe = run.recipe
    size, image = recipe.evaluate.batch_size, recipe.latent()
    require_memory(8 * num_pairs * image.num_values, f"--num-pairs {num_pairs}")  # noise and samples
    seed = derive_seed("levels-search", recipe.evaluate.seed)
    noise, cond = sample_starts(seed, range(num_pairs), recipe.latent(), run.device)
    denoise = guided_teacher(recipe, load_teacher(run))
    parts = []
    with torch.inference_mode(), Bar(f"teacher@{len(recipe.shards.sampler.levels())}", num_pairs) as bar:
        for x, classes in zip(torch.split(noise, size), torch.split(cond, size), strict=True):
            parts.append(recipe.shards.sampler(denoise, x, classes)[0])
            bar.update(sum(map(len, parts)))
    return Pairs(denoise, noise, cond, torch.cat(parts), batch_size=size)


def _good(recipe: Recipe, steps: int) -> tuple[float, ...] | None:
    """The recipe's own `good` levels, else the default ones; None for a number of steps that `good` does not have."""
    from ladd_dist.levels.named import Good

    try:
        return (recipe.levels if isinstance(recipe.levels, Good) else Good())(steps)
    except ValueError:
        return None


def _result(
    recipe: Recipe,
    found: Found,
    pairs: Pairs,
    num_pairs: int,
    karras: tuple[float, ...],
    good: tuple[float, ...] | None,
) -> SearchResult:
    """The errors of the found levels, of Karras' and of `good` on the same pairs."""
    from ladd_dist.levels.named import Good

    levels = tuple(float(f"{level:.4g}") for level in found.levels)  # the rounded levels of the flag are measured
    rows = {"karras": karras} | ({"good": good} if good is not None else {}) | {"found": levels}
    errors = {name: pairs(row) for name, row in rows.items()}
    if errors["found"] > min(errors.values()):  # rounding, or nothing better was found
        name = min(errors, key=lambda key: errors[key])
        levels, errors["found"] = rows[name], errors[name]
    swap = "" if isinstance(recipe.levels, Good) else "--swap levels=good "
    field = FIELDS.get(len(levels))
    return SearchResult(
        recipe=recipe.name,
        teacher=recipe.teacher_signature(),
        steps=len(levels),
        num_pairs=num_pairs,
        levels=levels,
        error=errors["found"],
        karras_levels=karras,
        karras_error=errors["karras"],
        good_levels=good,
        good_error=errors.get("good"),
        tried=found.tried,
        flags=f"{swap}--levels.{field} {' '.join(f'{level:g}' for level in levels)}" if field else None,
    )


def _show(result: SearchResult) -> None:
    from rich.table import Table

    table = Table(title=f"{result.steps} steps, teacher {result.teacher}, {result.num_pairs} held-out pairs")
    for heading in ("levels", "noise levels", "mean square error"):
        table.add_column(heading, justify="right" if heading.startswith("mean") else "left")
    rows = (
        ("karras", result.karras_levels, result.karras_error),
        ("good, as the recipe has them", result.good_levels, result.good_error),
        ("found", result.levels, result.error),
    )
    for name, levels, error in rows:
        if levels is not None:
            table.add_row(name, ", ".join(f"{level:.4g}" for level in levels), f"{error:.6f}")
    console = open_console()
    console.print(Fitted(table, keep=None))
    if result.flags is None:
        console.print(f"The choice `good` has no field for {result.steps} levels: register a plug-in of kind levels.")
        return
    print(f"To use them: {result.flags}")


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Options", "main", "search"]
