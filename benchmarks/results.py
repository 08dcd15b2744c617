"""All recipes at laptop scale, several seeds: the figures of docs/results.md, with intervals and paired differences.

    python -m benchmarks.results                          # runs what results.json lacks, then prints the tables
    python -m benchmarks.results --write docs/results.md  # and puts them between the markers of that page
    python -m benchmarks.results --only exp7 --again      # trains these rows, whatever results.json has

Every run is an ordinary `python -m ladd_dist.launch`; run folders that are done are not trained again. What a run
gave is added to results.json as soon as it is there, with its signatures and the commit of the code. A kept run whose
recipe, evaluation or seeds have changed since, or whose code was not committed, is stale: it is neither shown nor
compared, and is measured again. Figures are means over five noise seeds, which no recipe was tuned on.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._result_cells import Row
from benchmarks._result_tables import Tables, report
from benchmarks._runs import (
    Kept,
    RunOptions,
    Store,
    commit_of,
    device_of,
    expected_s,
    launch,
    put_between,
    read_options,
    require_clean,
    run_all,
    say,
)
from benchmarks.variants import BASE, BASE_SEEDS, HEADLINE, LEAVE_ONE_OUT, ROWS, SHORT
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse
from ladd_dist.core.checkout import DIRTY
from ladd_dist.core.figure_names import named_now
from ladd_dist.core.run_forms import read_guard
from ladd_dist.recipe import Recipe
from recipes._base import SEEDS

STAGES = ("--stages", "autoencoder,teacher,shards,distill,evaluate")
BARE = ("--train.evaluate-every", "0", "--train.dump-every", "1000000", "--evaluate.seeds", ",".join(map(str, SEEDS)))
"""Nothing looked at on the way, which changes no number; measured on the noises of figures for others."""
UNWATCHED, WATCHED = ("--swap", "guard=none"), ("--guard.every", "50", "--guard.action", "warn")
"""Only `BASE` and what is left out of it have a guard, which watches and changes no number."""
STORE = Path(__file__).with_name("results.json")
KEPT = ("fd_real", "fd_teacher", "colour_variance", "saturation", "hue_entropy", "accuracy", "recall")
"""Figures of each entry of eval.json that are kept."""
BY_SEED = ("fd_real", "fd_teacher")
"""Figures that are also kept for each noise seed, as `NAME_per_seed`."""


@dataclass(frozen=True)
class Options(RunOptions):
    """Train every recipe with several seeds and compare them."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the distillation, all on the teacher with seed 0."""
    teachers: tuple[int, ...] = (0, 1, 2)
    """Seeds of the teachers of the headline rows; each teacher has a distillation with its own seed."""
    base_seeds: tuple[int, ...] = BASE_SEEDS
    """Seeds of the distillation of the row `ladd`, on the first teacher."""
    only: tuple[str, ...] = ()
    """Names of rows; all when empty."""
    store: Path = STORE
    """The file of the runs."""


class Wanted(NamedTuple):
    """A run: its row, and the seeds of its teacher and its distillation."""

    name: str
    teacher: int
    seed: int

    @property
    def key(self) -> str:
        """The run's place in results.json."""
        return f"{self.name} / seed {self.seed}" if not self.teacher else f"{self.name} / teacher {self.teacher}"


def main() -> int:
    """Run, compare, print."""
    options = read_options(Options)
    store, wanted = Store(options.store), wanted_runs(options)
    kept, lacking = store.read(), {}
    for run in wanted if not options.show else ():
        own = kept.get(run.key, {})
        if options.again or why_stale(own, recipe_of(run, options.scale), dirty=options.dirty):
            rows = [of for key, of in kept.items() if key.startswith(f"{run.name} / ")]
            updates = recipe_of(run, options.scale).train.steps
            lacking[run.key] = expected_s(rows, list(kept.values()), updates)
    if lacking:
        require_clean(options)
    by_key = {run.key: run for run in wanted}
    failures = run_all(options.jobs, lacking, lambda key: measure(options, by_key[key]), store.keep)
    text = report(tables(store.read(), options))
    print(text)
    if options.write:
        put_between(options.write, "results", text)
    for failure in failures:
        say(failure)
    return 1 if failures else 0


def wanted_runs(options: Options) -> list[Wanted]:
    """All runs of the asked rows, the first seeds first."""
    names = [name for name in ROWS if not options.only or name in options.only]
    runs = [Wanted(name, 0, seed) for seed in options.seeds for name in names]
    # On the first teacher the headline rows are those of the table.
    others = [Wanted(name, seed, seed) for seed in options.teachers for name in HEADLINE if seed and name in names]
    more = [Wanted(BASE, 0, seed) for seed in options.base_seeds if seed not in options.seeds and BASE in names]
    return runs + more + others


def arguments_of(run: Wanted) -> list[str]:
    """What `launch` is given besides scale and folders."""
    teacher = ["--teacher.seed", str(run.teacher)] if run.teacher else []
    return [*flags_of(run.name), *STAGES, "--seed", str(run.seed), *teacher]


def flags_of(name: str) -> list[str]:
    """What every run of a row is given."""
    return [*ROWS[name], *BARE, *(WATCHED if name.partition(", ")[0] == BASE else UNWATCHED)]


@cache
def row_recipe(name: str, scale: str) -> Recipe:
    """The recipe of a row with seed 0."""
    return parse(RecipeOptions, [*flags_of(name), "--scale", scale], prog="results")[1]


def recipe_of(run: Wanted, scale: str) -> Recipe:
    """The recipe of a run, as its launch makes it."""
    recipe = row_recipe(run.name, scale)
    teacher = dataclasses.replace(recipe.teacher, seed=run.teacher)
    return dataclasses.replace(recipe, seed=run.seed, teacher=teacher)


def why_stale(kept: Mapping[str, Any], recipe: Recipe, *, dirty: bool = False) -> str:
    """The reason that a kept run is not one of the present recipe; empty if it is.

    Args:
        dirty: whether runs of code that was not committed count.
    """
    if not kept:
        return "not measured"
    if kept.get("signature") != recipe.distill_signature():
        return "the recipe has changed"
    if kept.get("evaluation") != recipe.evaluate_signature():
        return "the evaluation has changed"
    return "its code was not committed" if str(kept["commit"]).endswith(DIRTY) and not dirty else ""


def measure(options: Options, run: Wanted) -> Kept:
    """Make a run; returns what is kept of it."""
    made = launch(options, arguments_of(run))
    recipe = recipe_of(run, options.scale)
    return {
        "signature": made.config["signature"],
        "evaluation": recipe.evaluate_signature(),
        "commit": commit_of(made.config),
        "device": device_of(made.config),
        "noise_seeds": list(SEEDS),
        "updates": recipe.train.steps,
        "seconds": made.seconds,
        "flops_a_step": made.config["flops"]["step"],
        "alarms": [verdict["level"] for verdict in read_guard(made.folder / "guard.json").verdicts or []],
        **{entry: kept_of(found) for entry, found in made.evaluation.items()},
    }


def kept_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an entry of eval.json."""
    entry = named_now(found)
    figures: dict[str, Any] = {name: round(value, 6) for name, value in entry.items() if name in KEPT}
    seeds = [named_now(own) for own in found.get("per_seed", {}).values()]
    for name in BY_SEED:
        if name in figures and seeds:
            figures[f"{name}_per_seed"] = [round(own[name], 6) for own in seeds]
    return figures


def tables(kept: Mapping[str, Kept], options: Options) -> Tables:
    """The rows whose runs are all there and of the present recipes, and what the others lack."""
    lacks: dict[str, str] = {}

    def row(name: str, runs: Sequence[Wanted]) -> Row | None:
        for run in runs:
            if why := why_stale(kept.get(run.key, {}), recipe_of(run, options.scale), dirty=options.dirty):
                lacks[run.key] = why
        if any(run.key in lacks for run in runs):
            return None
        recipe = row_recipe(name, options.scale)
        found = [kept[run.key] for run in runs]
        return Row(found, recipe.shards.guidance, adds_noise=recipe.start.rule == "sde")

    asked = [name for name in ROWS if not options.only or name in options.only]
    rows, headline = {}, {}
    for name in asked:
        if found := row(name, [Wanted(name, 0, seed) for seed in options.seeds]):
            rows[name] = found
    for name in HEADLINE if len(options.teachers) > 1 else ():
        if name in asked and (found := row(name, [Wanted(name, seed, seed) for seed in options.teachers])):
            headline[name] = found
    base = row(BASE, [Wanted(BASE, 0, seed) for seed in options.base_seeds]) if BASE in asked else None
    unknown = [key for key in kept if key.partition(" / ")[0] not in ROWS]
    left_out = {name: f"{SHORT}, {name}" for name in LEAVE_ONE_OUT}
    return Tables(rows, headline, left_out, base, lacks, unknown, len(options.seeds), len(options.teachers))


if __name__ == "__main__":
    sys.exit(main())
