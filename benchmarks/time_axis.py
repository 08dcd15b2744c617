"""The report's own time axis: experiments 1 to 6 with its settings and 20,000 updates, in the laptop network.

    python -m benchmarks.time_axis                          # runs what time_axis.json lacks, then prints the tables
    python -m benchmarks.time_axis --write docs/results.md  # and puts them, with both pictures, into that page
    python -m benchmarks.time_axis --jobs 6 --train.compute.graph --train.compute.data device   # on a GPU

Every run is an ordinary `python -m ladd_dist.launch` with the flags of `arguments_of`; one that was cut goes on from
its checkpoint. Kept checkpoints are measured by `python -m ladd_dist.evaluate`, on the noises that no recipe was tuned
on. The guard watches and does nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._runs import (
    Failed,
    Kept,
    Launched,
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
from benchmarks._time_axis_page import draw_curves, draw_dumps, text_of
from benchmarks.results import kept_of, why_stale
from benchmarks.variants import VARIANTS
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse
from ladd_dist.core.run_forms import read_guard
from ladd_dist.recipe import Recipe
from ladd_dist.reports.collapse import variance_share
from recipes._base import SEEDS

STORE = Path(__file__).with_name("time_axis.json")
UPDATES = 20_000
SAMPLES = {"exp1": 10_000, "exp2": 50_000, "exp3": 50_000, "exp4": 50_000, "exp5": 50_000, "exp6": 20_000}
"""Stored samples of each experiment, as published."""
MEASURED = (0.05, 0.1, 0.175, 0.25, 0.375, 0.5, 0.75)
"""Shares of the updates whose checkpoints are measured, besides the untrained student and the finished one."""
WATCHED = 400
"""Rows of a run's log; the guard looks at every second, the 32 samples are dumped with every tenth."""


@dataclass(frozen=True)
class Options(RunOptions):
    """Train the report's six experiments as long as the report did."""

    updates: int = UPDATES
    """Updates of a run; intervals and the warm-up shrink with them, for trials."""
    samples: int = 0
    """Stored samples of every experiment, for trials; 0: as published."""
    measured: tuple[float, ...] = MEASURED
    """Shares of the updates whose checkpoints are measured."""
    only: tuple[str, ...] = ()
    """Experiments, like exp2 exp6; all when empty."""
    store: Path = STORE
    """The file of the runs."""
    pictures: Path = Path("docs/images")
    """The folder of both pictures."""


def main() -> int:
    """Run, measure, draw, print."""
    options = read_options(Options)
    names = [name for name in SAMPLES if not options.only or name in options.only]
    recipes = {name: recipe_of(options, name) for name in names}
    store, kept = Store(options.store), Store(options.store).read()

    def lacks(name: str) -> str:
        return why_stale(kept.get(name, {}), recipes[name], dirty=options.dirty)

    missing = [name for name in names if not options.show and (options.again or lacks(name))]
    if missing:
        require_clean(options)
    others = list(kept.values())
    seconds = {name: expected_s([kept[name]] if name in kept else [], others, options.updates) for name in missing}
    failures = run_all(options.jobs, seconds, lambda name: measure(options, name, recipes[name]), store.keep)
    kept = store.read()
    found = {name: kept[name] for name in names if not lacks(name)}
    text = text_of(found, options.updates)
    print(text)
    if found:
        options.pictures.mkdir(parents=True, exist_ok=True)
        draw_curves(options.pictures / "time_axis.svg", found)
        draw_dumps(options.pictures / "time_axis_dumps.png", found, options.updates)
    if options.write:
        put_between(options.write, "time-axis", text)
    for failure in failures:
        say(failure)
    return 1 if failures else 0


def arguments_of(options: Options, name: str) -> list[str]:
    """The report's settings over a laptop recipe: everything but the network, its preconditioning and the data.

    The recipes at paper scale have the same numbers (`PAPER` in recipes/_base.py).
    """
    steps = options.updates
    every = max(1, steps // WATCHED)
    warm_up = [] if name == "exp1" else ["--adv-weight.steps", str(steps // 10)]
    kept_steps = [str(step) for step in measured_steps(options)]
    return [
        *VARIANTS[name].arguments,
        *("--swap", "levels=karras"),
        *("--shards.guidance", "4", "--shards.num-samples", str(options.samples or SAMPLES[name])),
        *("--renoise-sigma.mean", "0.307", "--renoise-sigma.std", "1.0"),
        *("--adv-weight.value", "0.1", *warm_up),
        *("--train.steps", str(steps), "--train.lr-student", "1e-4", "--train.lr-heads", "5e-5"),
        *("--train.ema.half-life", "64000"),
        *("--train.log-every", str(every), "--train.evaluate-every", str(5 * every)),
        *("--train.dump-every", str(10 * every), "--train.checkpoint-every", str(max(1, steps // 20))),
        *("--train.keep-steps", *kept_steps),
        # From the first checks on, at one step and at four; the defaults would be silent for a tenth of the run.
        *("--guard.action", "warn", "--guard.every", str(2 * every), "--guard.full-every", "2"),
        *("--guard.grace", "0.02", "--evaluate.seeds", ",".join(map(str, SEEDS))),
    ]


def measured_steps(options: Options) -> list[int]:
    """The steps whose checkpoints are measured."""
    return sorted({max(1, round(share * options.updates)) for share in options.measured})


def recipe_of(options: Options, name: str) -> Recipe:
    """The recipe of a run, as its launch makes it."""
    return parse(RecipeOptions, [*arguments_of(options, name), "--scale", options.scale], prog="time_axis")[1]


def measure(options: Options, name: str, recipe: Recipe) -> Kept:
    """Make a run and measure its kept checkpoints; returns what is kept of it."""
    stages = ("--stages", "teacher,shards,distill,evaluate")
    made = launch(options, [*arguments_of(options, name), *stages])
    entries = {entry: kept_of(found) for entry, found in made.evaluation.items()}
    workers = max(1, (os.cpu_count() or 1) // options.jobs)

    def measured(at: int) -> Kept:
        return {"step": at, **measured_at(options, made.folder, recipe, at)}

    with ThreadPoolExecutor(workers) as pool:  # of one thread each
        between = list(pool.map(measured, measured_steps(options)))
    points = [{"step": 0, **entries["untrained@4"]}, *between, {"step": options.updates, **entries["student@4"]}]
    return {
        "signature": made.config["signature"],
        "evaluation": recipe.evaluate_signature(),
        "commit": commit_of(made.config),
        "device": device_of(made.config),
        "updates": options.updates,
        "seconds": made.seconds,
        "flops_a_step": made.config["flops"]["step"],
        "run": str(made.folder),
        **{entry: figures for entry, figures in entries.items() if entry.startswith(("teacher", "floor", "student"))},
        "points": [{key: value for key, value in point.items() if not key.endswith("_per_seed")} for point in points],
        **watched(made),
    }


def watched(made: Launched) -> dict[str, Any]:
    """What was looked at while the run trained: colour variance by step, and the guard's verdicts.

    `watched`: at four steps, averaged weights, on the 32 samples of each dump, as a share of the teacher's.
    """
    dumps = sorted((made.folder / "dumps").glob("step-*.safetensors"))
    shares = [(int(path.stem.removeprefix("step-")), variance_share(path)) for path in dumps]
    verdicts = read_guard(made.folder / "guard.json").verdicts or []
    return {
        "watched": [[step, round(share, 4)] for step, share in shares if share is not None],
        "guard": [
            {"step": row["step"], "level": row["level"], "says": [row["headline"], *(row.get("reasons") or [])]}
            for row in verdicts
        ],
    }


def measured_at(options: Options, folder: Path, recipe: Recipe, step: int) -> dict[str, Any]:
    """Figures of the averaged student of a kept checkpoint at four steps, by `ladd evaluate`.

    Raises:
        Failed: that command ended with an error.
    """
    student = folder / f"student-{step:06d}.safetensors"
    write_student(options, recipe, folder, step, student)
    out = student.with_suffix(".json")
    command = [sys.executable, "-m", "ladd_dist.evaluate", str(student), "--like", str(folder), "--steps", "4"]
    command += ["--metrics", "digit_color,color", "--seeds", ",".join(map(str, SEEDS)), "--out", str(out)]
    command += ["--cache", str(options.cache), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return kept_of(json.loads(done.stdout)["figures"]["student@4"])


def write_student(options: Options, recipe: Recipe, folder: Path, step: int, path: Path) -> None:
    """Write the averaged student of a checkpoint as a student's file."""
    import torch

    from ladd_dist.builders.student import new_student, save_student
    from ladd_dist.engine.checkpoint import Checkpoints, replicated
    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace

    run = Run(recipe, Workspace(options.out, options.cache, torch.device("cpu")))
    saved = Checkpoints(folder / "checkpoints", identity=recipe.distill_signature(), keep=1).at(step)
    network = new_student(run)
    saved.fill({f"average/{name}": replicated(value) for name, value in network.named_parameters()})
    save_student(path, network, run)


if __name__ == "__main__":
    sys.exit(main())
