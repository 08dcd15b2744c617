"""A run's config.json: written before the run, read back by whoever opens the run."""

from __future__ import annotations

import dataclasses
import math
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladd_dist import __version__
from ladd_dist.core.checkout import current_commit
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import FORMAT, RunConfig, read_run_config, read_timings
from ladd_dist.core.rundir import RunDir, write_json
from ladd_dist.core.serialize import to_data
from ladd_dist.core.threads import seen_busy
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run


@dataclass(frozen=True)
class StageState:
    """Whether a stage of a run is done."""

    name: str
    cached: bool


@dataclass(frozen=True)
class RunFacts:
    """What a run is before it runs, as `launch --dry-run --json` prints it."""

    recipe: str
    """The recipe's name."""
    scale: str
    signature: str
    params: dict[str, int]
    """Parameters of teacher, student and heads, and of a codec that is trained."""
    taps: tuple[str, ...]
    flops: dict[str, int]
    """`student_forward` and `teacher_to_last_tap` for a sample, `step` for a batch."""
    stages: tuple[StageState, ...]
    data: dict[str, str] = field(default_factory=dict)
    """What there is to learn from, of a dataset that tells."""


@dataclass(frozen=True)
class SweepMembership:
    """The place that a run has in a sweep."""

    sweep: str
    """NAME-SIGNATURE; empty for a run of no sweep."""
    axes: dict[str, str]
    """Axis to the label of the run's value."""


NEEDED = ("version", "signature", "recipe")
"""What a config.json has to say before its run can be opened."""


def read_config(run: RunDir) -> RunConfig:
    """The config.json of a run's folder that can be opened.

    Raises:
        UserError: the folder has none, it is damaged, or this version does not read its format.
    """
    if not run.config.exists():
        raise UserError(f"{run.path} is no run's folder (it has no {run.config.name}): `ladd launch` prints it last")
    config = read_run_config(run.config, may_lack_format=False)
    if lacking := [name for name in NEEDED if not getattr(config, name)]:
        raise UserError(f"{run.config} lacks {', '.join(lacking)}; run the same `ladd launch` again")
    return config


def facts_of(config: RunConfig) -> RunFacts:
    """What was known of the run when its config.json was written; nothing of its stages."""
    name = str(config.recipe.get("name", ""))
    return RunFacts(name, config.scale, config.signature, config.params, config.taps, config.flops, ())


def write_config(
    run: Run,
    facts: RunFacts,
    *,
    path: Path,
    plugins: tuple[str, ...],
    command: str,
    membership: SweepMembership | None = None,
) -> None:
    """Write config.json: all a worker needs to rebuild the recipe, and what the run ran on.

    A launch that finds the figures made, and has at most the page to write, leaves the command, version and environment
    that made them: the new ones would claim another's work. A run of a sweep stays one when it is launched by itself.

    Args:
        path: the recipe's file.
        plugins: modules that register plug-ins.
    """
    folder = run.folder
    before = read_run_config(folder.config) if folder.config.exists() else RunConfig()
    own = membership or SweepMembership(before.sweep, before.axes)
    config = RunConfig(
        version=__version__,
        command=command,
        recipe_path=str(path),
        scale=facts.scale,
        signature=run.recipe.distill_signature(),
        plugins=plugins,
        recipe=to_data(_pinned(run.recipe)),
        environment=environment(run.device),
        params=facts.params,
        taps=facts.taps,
        flops=facts.flops,
        data=dict(run.recipe.dataset.facts(run.workspace.cache)),
        shards=str(run.shards_folder.resolve()) if run.recipe.dataset.texts() else None,  # samples need their table
        large_gap=gap if math.isfinite(gap := run.recipe.adversarial.large_gap) else None,
        cache=str(run.workspace.cache.resolve()),
        sweep=own.sweep,
        axes=own.axes,
    )
    if before.version and folder.eval.exists() and all(s.cached for s in facts.stages if s.name != "report"):
        config = dataclasses.replace(
            config, version=before.version, command=before.command, environment=before.environment
        )
    if config != before:
        write_json(folder.config, _as_data(config))


def _pinned(recipe: Recipe) -> Recipe:
    """The recipe with the hash of the student's start, which may be gone when the run is opened again."""
    return dataclasses.replace(recipe, student=recipe.student.pinned())


def _as_data(config: RunConfig) -> dict[str, Any]:
    lists = {"plugins": list(config.plugins), "taps": list(config.taps)}
    data = {"format": FORMAT, **asdict(config), **lists}
    if config.shards is None:
        del data["shards"]
    if not config.data:
        del data["data"]
    return data


def tracked_config(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """What a tracker is told about a run: its config.json, and which run it is."""
    known = _as_data(read_run_config(run.config)) if run.config.exists() else {}
    own = {"name": run.path.name, "signature": recipe.distill_signature(), "seed": recipe.seed}
    return {"sweep": "", "axes": {}, **known, **own, "recipe": to_data(_pinned(recipe))}


def environment(device: torch.device) -> dict[str, str | int]:
    """Versions, machine and commit; how busy other programs kept the machine, where they did."""
    busy = seen_busy()
    others = {"busy": f"other programs kept {busy:.1f} cores busy at the start"} if busy else {}
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "commit": current_commit(),
        **others,
    }


def add_timing(run: RunDir, stage: str, seconds: float) -> None:
    """Record how long a stage took in this run's folder: the pieces of an interrupted one add up.

    A stage that is found done adds nothing, and a piece that was killed is lost.
    """
    timings = read_timings(run.timings)
    before = 0.0 if stage == "report" else timings.get(stage, 0.0)  # the page is written anew by each launch
    write_json(run.timings, {**timings, stage: round(before + seconds, 2)})
