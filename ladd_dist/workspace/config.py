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
from ladd_dist.core.gan import LARGE_GAP
from ladd_dist.core.rundir import RunDir, read_json, write_json
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

FORMAT = 1


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


@dataclass(frozen=True)
class SweepMembership:
    """The place that a run has in a sweep."""

    sweep: str
    """NAME-SIGNATURE; empty for a run of no sweep."""
    axes: dict[str, str]
    """Axis to the label of the run's value."""


@dataclass(frozen=True)
class RunConfig:
    """The content of a config.json. Files of older versions lack what has a default here."""

    version: str
    """Of ladd_dist, when the run's figures were made."""
    command: str
    recipe_path: str
    scale: str
    signature: str
    plugins: tuple[str, ...]
    """Modules that register plug-ins."""
    recipe: dict[str, Any]
    """The recipe as data (`ladd_dist.core.serialize.to_data`)."""
    environment: dict[str, str | int]
    """As `environment` gives it."""
    params: dict[str, int] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    flops: dict[str, int] = field(default_factory=dict)
    shards: str | None = None
    """The folder of the shards, of a run whose samples need their table of texts."""
    large_gap: float | None = LARGE_GAP
    """The gap between real and fake logits that the recipe's game calls large; None: it calls none so."""
    cache: str = ""
    """The folder of what runs share, absolute."""
    sweep: str = ""
    """As in `SweepMembership`."""
    axes: dict[str, str] = field(default_factory=dict)

    @property
    def membership(self) -> SweepMembership:
        """The run's place in a sweep."""
        return SweepMembership(self.sweep, self.axes)

    def facts(self) -> RunFacts:
        """What was known of the run when this was written; nothing of its stages."""
        name = str(self.recipe.get("name", ""))
        return RunFacts(name, self.scale, self.signature, self.params, self.taps, self.flops, ())


def read_config(run: RunDir) -> RunConfig:
    """The config.json of a run's folder.

    Raises:
        UserError: the folder has none, it is damaged, or this version does not read its format.
    """
    if not run.config.is_file():
        raise UserError(f"{run.path} is no run's folder (it has no {run.config.name}): `ladd launch` prints it last")
    data = read_json(run.config)
    found = data.get("format") if isinstance(data, dict) else data
    if found != FORMAT:
        raise UserError(f"{run.config} has format {found!r}, this version reads {FORMAT}")
    fields = {field.name: field for field in dataclasses.fields(RunConfig)}
    needed = [name for name, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING]
    if lacking := [name for name in needed if name not in data]:
        raise UserError(f"{run.config} lacks {', '.join(lacking)}; run the same `ladd launch` again")
    known = {name: value for name, value in data.items() if name in fields}
    return RunConfig(**{**known, "plugins": tuple(known["plugins"]), "taps": tuple(known.get("taps", ()))})


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
    before = read_json(folder.config) if folder.config.exists() else {}
    own = membership or SweepMembership(before.get("sweep", ""), before.get("axes", {}))
    config = RunConfig(
        version=__version__,
        command=command,
        recipe_path=str(path),
        scale=facts.scale,
        signature=run.recipe.distill_signature(),
        plugins=plugins,
        recipe=to_data(run.recipe),
        environment=environment(run.device),
        params=facts.params,
        taps=facts.taps,
        flops=facts.flops,
        shards=str(run.shards_folder.resolve()) if run.recipe.dataset.texts() else None,  # samples need their table
        large_gap=gap if math.isfinite(gap := run.recipe.adversarial.large_gap) else None,
        cache=str(run.workspace.cache.resolve()),
        sweep=own.sweep,
        axes=own.axes,
    )
    made = before and folder.eval.exists()
    if made and all(stage.cached for stage in facts.stages if stage.name != "report"):
        kept = {name: before[name] for name in ("version", "command", "environment") if name in before}
        config = dataclasses.replace(config, **kept)
    data = {"format": FORMAT, **asdict(config), "plugins": list(config.plugins), "taps": list(config.taps)}
    if config.shards is None:
        del data["shards"]
    if data != before:
        write_json(folder.config, data)


def tracked_config(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """What a tracker is told about a run: its config.json, and which run it is."""
    known = read_json(run.config) if run.config.exists() else {}
    own = {"name": run.path.name, "signature": recipe.distill_signature(), "seed": recipe.seed}
    return {"sweep": "", "axes": {}, **known, **own, "recipe": to_data(recipe)}


def environment(device: torch.device) -> dict[str, str | int]:
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


def add_timing(run: RunDir, stage: str, seconds: float) -> None:
    """Record how long a stage took in this run's folder: the pieces of an interrupted one add up.

    A stage that is found done adds nothing, and a piece that was killed is lost.
    """
    timings = read_json(run.timings) if run.timings.exists() else {}
    before = 0.0 if stage == "report" else float(timings.get(stage, 0.0))  # the page is written anew by each launch
    write_json(run.timings, {**timings, stage: round(before + seconds, 2)})
