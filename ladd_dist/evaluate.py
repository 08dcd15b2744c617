"""`python -m ladd_dist.evaluate RUN|FILE.safetensors`: measure a finished student, by metrics you choose."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tyro

from ladd_dist.cli.arguments import path_first, read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.consent import Consent
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import one_line
from ladd_dist.core.ranges import AnyInteger, CountOrZero, Positive, Steps, Threads
from ladd_dist.evaluation.student_evaluation import EvaluationFile, Student, measured, signature_of

if TYPE_CHECKING:
    from ladd_dist.metrics import Metric
    from ladd_dist.recipe import EvaluateStage, Recipe
    from ladd_dist.workspace.opening import OpenedRun

PROG = "python -m ladd_dist.evaluate"


@dataclass(frozen=True)
class Options(Consent):
    """Measure a finished student against its teacher and the real images, from noise held out from training."""

    source: tyro.conf.Positional[Path]
    """A run's folder, or a student's file, which needs --like."""
    like: Path | None = None
    """For a file: the run whose data, teacher and stored samples it is measured against."""
    steps: tuple[Steps, ...] = ()
    """Numbers of steps, like 1,2,4; those of the run's recipe unless given."""
    levels: tuple[Positive, ...] = ()
    """Noise levels of your own, descending, for as many steps as there are."""
    hybrid: tuple[CountOrZero, ...] = ()
    """Measure also with the teacher taking the first of the student's steps: how many, like 0..2 or 0,2."""
    metrics: tuple[str, ...] = ()
    """Metrics by name, like digit_color,manifold,clean_fid; those of the run's recipe unless given."""
    num_samples: CountOrZero = 0
    """Samples of each kind; as many as the run's recipe says unless given."""
    seed: AnyInteger | None = None
    """Seed of the noise and the classes; those of the run's recipe unless given."""
    seeds: tuple[AnyInteger, ...] = ()
    """Several such seeds, like 11,12,13: figures are means over them, with intervals that cover them."""
    cache: Path | None = None
    """The folder with the run's teacher and shards; unless given, the one that it used."""
    out: Path | None = None
    """The JSON file to write; RUN/evaluations/SIGNATURE.json, or beside the file, unless given."""
    again: bool = False
    """Measure also where the file to write holds these figures already."""
    json: bool = False
    """Print what is written instead of a table."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: Threads = 0
    """CPU threads; 0: as OMP_NUM_THREADS says, else as PyTorch chooses."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, path_first(Options, arguments), prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.core.door import read_typed
    from ladd_dist.core.run_forms import classes_now, evaluation_now
    from ladd_dist.core.rundir import write_json
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.core.targets import is_stream, output_file
    from ladd_dist.parallel.devices import compute_on
    from ladd_dist.workspace.opening import open_run

    wanted = output_file(options.out) if options.out is not None else None
    is_file = options.source.is_file()
    if not options.source.exists():
        raise UserError(f"{options.source} does not exist; give a finished run's folder, or a student's file")
    if is_file and options.like is None:
        raise RecipeError(
            f"{options.source} is a student's file, which does not say what it is measured against: name a run of the "
            "same data with --like RUN"
        )
    if not is_file and options.like is not None:
        raise RecipeError("--like goes with a student's file; a run is measured against its own teacher")
    like, device = options.like or options.source, compute_on(options.device, options.threads)
    opened = open_run(like, consent=options, cache=options.cache, device=device)
    workspace = opened.run.workspace
    if not workspace.cache.is_dir():
        raise UserError(f"the cache folder {workspace.cache} does not exist: name the one of the run with --cache")
    student = _student(options, opened)
    name = signature_of(student)
    out = wanted or (
        options.source.with_name(f"{options.source.stem}-evaluation-{name}.json")
        if is_file
        else options.source / "evaluations" / f"{name}.json"
    )
    again = "--again measures anew and replaces it"
    known = out.exists() and not (options.again or is_stream(out))
    found = read_typed(out, EvaluationFile, again) if known else None
    if found is not None and found["signature"] == name:
        found["figures"], found["classes"] = evaluation_now(found["figures"]), classes_now(found["classes"])
        print(f"measured before: {out}", file=sys.stderr)
    else:
        if wanted is None:
            output_file(out)  # said before the work: somebody else's run may be read-only
        found = measured(student, name, workspace)
        write_json(out, found)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
        print(out)
    return 0


def _student(options: Options, opened: OpenedRun) -> Student:
    from ladd_dist.builders.networks import require_within
    from ladd_dist.builders.student_file import load_student, require_same_space
    from ladd_dist.core.noise import is_descending
    from ladd_dist.core.rundir import weights_sha256
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.evaluation.hybrid import splits_of

    recipe = opened.run.recipe
    network, card = load_student(options.source, opened.run.device)
    require_same_space(options.source, network, card, opened.folder.path, recipe)
    if options.levels:
        if not is_descending(options.levels):
            raise RecipeError(f"--levels must be descending numbers above 0, got {options.levels}")
        require_within(network, options.levels, "--levels")
        card["levels"][str(len(options.levels))] = list(options.levels)
    recipe = with_settings(recipe, options)
    splits = splits_of(options.hybrid, recipe.evaluate.steps)
    return Student(network, card, recipe, weights_sha256(network.state_dict()), splits)


def with_settings(recipe: Recipe, options: Options) -> Recipe:
    """The recipe with the evaluation settings of the command line.

    Raises:
        RecipeError: the recipe does not allow the settings.
        PluginError: a metric is unknown.
    """
    from ladd_dist.core.plugin import create
    from ladd_dist.recipe import validate
    from ladd_dist.stages.sizes import require_evaluation

    settings = recipe.evaluate
    if options.metrics:
        own = {metric.name: metric for metric in settings.metrics}  # with the settings that the recipe gives it
        names = list(dict.fromkeys(options.metrics))
        metrics = tuple(own.get(name) or cast("Metric", create("metric", name)) for name in names)
        settings = dataclasses.replace(settings, metrics=metrics)
    if options.steps:
        settings = dataclasses.replace(settings, steps=tuple(dict.fromkeys(options.steps)))
    elif options.levels:
        settings = dataclasses.replace(settings, steps=(len(options.levels),))
    if options.num_samples:
        settings = dataclasses.replace(settings, num_samples=options.num_samples)
    settings = _with_seeds(settings, options)
    # The run's own steps: `validate` asks the run's law for levels, and the student's card may have others.
    validate(dataclasses.replace(recipe, evaluate=dataclasses.replace(settings, steps=recipe.evaluate.steps)))
    recipe = dataclasses.replace(recipe, evaluate=settings)
    require_evaluation(recipe, "--num-samples")
    return recipe


def _with_seeds(settings: EvaluateStage, options: Options) -> EvaluateStage:
    """The settings with the seeds of --seed or --seeds.

    Raises:
        RecipeError: both are given, or --seeds holds the seed of what is shown in training.
    """
    from ladd_dist.core.serialize import RecipeError

    if not options.seeds:
        return settings if options.seed is None else dataclasses.replace(settings, seed=options.seed, seeds=())
    if options.seed is not None:
        several = ",".join(map(str, options.seeds))
        raise RecipeError(f"--seed {options.seed} and --seeds {several} contradict each other; give one of them")
    numbers = tuple(dict.fromkeys(options.seeds))
    if len(numbers) == 1:
        return dataclasses.replace(settings, seed=numbers[0], seeds=())
    try:
        return dataclasses.replace(settings, seeds=numbers)
    except ValueError as error:
        raise RecipeError(f"--seeds: {error}") from error


def show(found: EvaluationFile) -> None:
    """Print a table with a row for each figure and half of its interval."""
    from ladd_dist.core.run_forms import features_of
    from ladd_dist.evaluation.noise_seeds import means_of
    from ladd_dist.reports.distances import FLOOR
    from ladd_dist.reports.evaluation_table import hybrid_table, table_of
    from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD

    console, figures = open_console(), means_of(found["figures"])
    console.print(Fitted(table_of(figures, features_of(found["figures"])), rest="the file"))
    if hybrid := found.get("hybrid"):  # files of older versions have none
        console.print(Fitted(hybrid_table(hybrid, figures), rest="the file"))
    for metric, reason in found["classes"].get("left_out", {}).items():
        what = "not measured" if metric in (FLOOR, KID_HELD_OUT, KID_OLD) else "no figures by class"
        print(one_line(f"{metric}: {what}, {reason}"), file=sys.stderr)
    for label, told in found["classes"].get("networks", {}).items():
        print(one_line(f"{label}: {told}"), file=sys.stderr)
    for metric, reason in found["classes"].get("unfit", {}).items():
        print(one_line(f"{metric}: not measured, {reason}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
