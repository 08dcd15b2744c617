"""What a run is before it runs: its config, its cost, its stages."""

from __future__ import annotations

import dataclasses
import glob
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladd_dist import __version__
from ladd_dist.core.rundir import RunDir, read_json, write_json
from ladd_dist.core.serialize import RecipeError, to_data
from ladd_dist.engine.cost import count_flops, count_parameters
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import Recipe
from ladd_dist.stages import Place
from ladd_dist.stages.autoencoder import is_autoencoder_done, train_autoencoder
from ladd_dist.stages.diagnosis.views import write_page
from ladd_dist.stages.distill import distill, is_distilled
from ladd_dist.stages.evaluate import evaluate, is_evaluated
from ladd_dist.stages.shards import are_shards_done, make_shards
from ladd_dist.stages.teacher import is_teacher_done, train_teacher
from ladd_dist.stages.trial import Trial, trial


@dataclass(frozen=True)
class Stage:
    """A stage as `launch` runs it."""

    doc: str
    run: Callable[[Recipe, Place], Any]
    is_done: Callable[[Recipe, Place], bool]


def stage_table(recipe: Recipe) -> dict[str, Stage]:
    """Every stage of the recipe, in order."""
    codec = {"autoencoder": Stage("training the codec", train_autoencoder, is_autoencoder_done)}
    return (codec if recipe.codec.trained else {}) | {
        "teacher": Stage("training the diffusion teacher", train_teacher, is_teacher_done),
        "shards": Stage("the teacher makes its samples", make_shards, are_shards_done),
        "distill": Stage("training student and heads", distill, is_distilled),
        "evaluate": Stage("sampling and measuring on held-out noise", evaluate, is_evaluated),
        # Never skipped: it takes seconds, and a page older than its figures would lie.
        "report": Stage("writing the page", write_page, lambda r, p: False),
    }


def describe_run(recipe: Recipe, place: Place, scale: str) -> dict[str, Any]:
    """Parameters, taps, FLOPs (per sample for forwards, per batch for the step) and which stages are done.

    Raises:
        RecipeError: the network cannot take the images or lacks a tap, or a head returns the wrong shape.
    """
    try:
        facts = _cost(recipe)
    except (KeyError, ValueError) as error:
        raise RecipeError(str(error.args[0]) if error.args else repr(error)) from error
    except Exception as error:
        error.add_note("This came from a trial of the recipe's training step; `ladd plugins --check NAME` may help.")
        raise
    source = recipe.shards.source
    if source and not glob.glob(source) and not are_shards_done(recipe, place):
        raise RecipeError(f"shards.source: nothing matches {source!r}")  # said now, not after the teacher's training
    stages = stage_states(recipe, place)
    names = {"recipe": recipe.name, "scale": scale, "signature": recipe.distill_signature()}
    return {**names, **facts, "stages": stages}


def stage_states(recipe: Recipe, place: Place) -> list[dict[str, Any]]:
    """`{"name", "cached"}` of each stage."""
    cached = {name: stage.is_done(recipe, place) for name, stage in stage_table(recipe).items()}
    cached["report"] = place.run(recipe).report.exists()
    return [{"name": name, "cached": done} for name, done in cached.items()]


def _cost(recipe: Recipe) -> dict[str, Any]:
    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=Compute()))
    # A pretrained network may be of any size, and its weights elsewhere: it is counted on tensors without data.
    with trial(plain, with_data=not recipe.network.pretrained) as rehearsal:
        return _count(recipe, rehearsal)


def _count(recipe: Recipe, rehearsal: Trial) -> dict[str, Any]:
    teacher, critic, student = rehearsal.teacher, rehearsal.frozen.critic, rehearsal.student
    taps, num = recipe.taps(critic.taps), 2
    batch = rehearsal.batch(num)
    ones = torch.ones(num)
    with torch.no_grad():
        forward = count_flops(lambda: student(batch.x0, ones, batch.cond)) // num
        to_tap = count_flops(lambda: critic(batch.x0, ones, batch.cond, taps=taps, denoise=False)) // num
    last = recipe.train.steps - 1  # the weights of a finished warm-up
    whole = count_flops(lambda: rehearsal.step(batch, last)) * recipe.train.batch_size // num
    networks = (("teacher", teacher), ("student", student.module), ("heads", rehearsal.heads.module))
    params = {name: count_parameters(network) for name, network in networks}
    if recipe.codec.trained:
        params["codec"] = count_parameters(recipe.codec.build(image=recipe.dataset.spec()))
    return {
        "params": params,
        "taps": list(taps),
        "flops": {"student_forward": forward, "teacher_to_last_tap": to_tap, "step": whole},
    }


def show(facts: dict[str, Any]) -> None:
    """Print `describe_run` for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{facts['recipe']} at scale {facts['scale']}, signature {facts['signature']}", show_header=False
    )
    for name, count in facts["params"].items():
        table.add_row(f"parameters of the {name}", f"{count / 1e6:.3f} M")
    table.add_row("taps", f"{len(facts['taps'])}: {', '.join(facts['taps'])}")
    for name, unit in (("student_forward", "a sample"), ("teacher_to_last_tap", "a sample"), ("step", "a batch")):
        table.add_row(f"FLOPs {name}", f"{facts['flops'][name] / 1e9:.3f} G {unit}")
    table.add_row("stages", ", ".join(f"{s['name']} ({'done' if s['cached'] else 'to do'})" for s in facts["stages"]))
    Console().print(table)


def write_config(
    recipe: Recipe,
    run: RunDir,
    facts: dict[str, Any],
    *,
    path: Path,
    plugins: tuple[str, ...],
    device: torch.device,
    command: str,
) -> None:
    """Write config.json: all a worker needs to rebuild the recipe, and what the run ran on.

    A launch that finds the figures made, and has at most the page to write, leaves the command, version and environment
    that made them: the new ones would claim another's work.

    Args:
        facts: what `describe_run` gave.
    """
    config: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "command": command,
        "recipe_path": str(path),
        "scale": facts["scale"],
        "signature": recipe.distill_signature(),
        "plugins": list(plugins),
        "recipe": to_data(recipe),
        "environment": environment(device),
        **{name: facts[name] for name in ("params", "taps", "flops", "shards") if name in facts},
    }
    before = read_json(run.config) if run.config.exists() else None
    if before is not None and run.eval.exists() and all(s["cached"] for s in facts["stages"] if s["name"] != "report"):
        config |= {name: before[name] for name in ("version", "command", "environment") if name in before}
    if config != before:
        write_json(run.config, config)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "commit": current_commit(),
    }


def current_commit() -> str:
    """The commit of the code that runs, with `-dirty` behind it if files differ from it."""
    here = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def add_timing(run: RunDir, stage: str, seconds: float) -> None:
    """Record how long a stage took in this run's folder: the pieces of an interrupted one add up.

    A stage that is found done adds nothing, and a piece that was killed is lost.
    """
    timings = read_json(run.timings) if run.timings.exists() else {}
    before = 0.0 if stage == "report" else float(timings.get(stage, 0.0))  # the page is written anew by each launch
    write_json(run.timings, {**timings, stage: round(before + seconds, 2)})
