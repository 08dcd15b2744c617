"""The JSON files of a run's folder, read once into types: its configuration, its figures, its guard's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ladd_dist.core.early_stop_file import EarlyStopFile, read_early_stop
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import (
    LARGE_GAP,
    MAKE_EVALUATION,
    Evaluation,
    GuardFile,
    RunConfig,
    features_of,
    figures_of,
    read_classes,
    read_evaluation,
    read_guard,
    read_run_config,
    read_timings,
)
from ladd_dist.core.rundir import RunDir
from ladd_dist.reports.json_object import JsonObject, Values

Figures = Mapping[str, Values]
"""The contents of eval.json: "student@4" -> {"fd_real": ..., ...}."""
Metrics = Sequence[Values]
"""The rows of metrics.jsonl, one for each logged step."""


@dataclass(frozen=True)
class ShownConfig:
    """What a page shows of config.json: the recipe, the command, the machine and the sizes of the networks.

    A field that an older version did not write is empty.
    """

    recipe: JsonObject = JsonObject()
    recipe_path: str = ""
    scale: str = ""
    signature: str = ""
    version: str = ""
    command: str = ""
    plugins: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    params: Values = field(default_factory=dict)
    flops: Values = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    large_gap: float | None = LARGE_GAP
    """The logit gap that the recipe's game calls large; None: it calls none so."""

    @classmethod
    def of(cls, config: RunConfig) -> ShownConfig:
        """What is shown of a config.json."""
        return cls(
            recipe=JsonObject(config.recipe),
            recipe_path=config.recipe_path,
            scale=config.scale,
            signature=config.signature,
            version=config.version,
            command=config.command,
            plugins=config.plugins,
            taps=config.taps,
            params=config.params,
            flops=config.flops,
            environment={name: str(value) for name, value in config.environment.items()},
            data=config.data,
            large_gap=config.large_gap,
        )


class GuardEntry(NamedTuple):
    """One verdict of the guard while the run trained; `action` is empty where it only spoke."""

    step: int
    level: str
    headline: str
    reasons: tuple[str, ...]
    action: str


class GuardRollback(NamedTuple):
    """One return to an earlier checkpoint: the step where the fault was found, and the step it went back to."""

    found: int
    to: int
    headline: str


class GuardRecord(NamedTuple):
    """The contents of guard.json; `since` is the step at which the present fault began, None without a fault."""

    level: str
    checked: int | None
    since: int | None
    verdicts: list[GuardEntry]
    rollbacks: list[GuardRollback]


class RunFiles(NamedTuple):
    """All that a report reads of a run besides its curves, its pictures and its diagnosis."""

    config: ShownConfig
    evaluation: Figures
    classes: Mapping[str, Figures]
    """The contents of eval_classes.json: "student@4" -> class -> figures."""
    timings: Values
    """Seconds by stage."""
    guard: GuardRecord | None
    unfit: Mapping[str, str] = MappingProxyType({})
    """Reasons, by metric that was left out because it was made for other images."""
    left_out: Mapping[str, str] = MappingProxyType({})
    """Reasons, by metric without figures by class, and by figure or entry that is not measured at all."""
    features: Mapping[str, str] = MappingProxyType({})
    """Name of the features that each figure was measured in; missing in older files."""
    networks: Mapping[str, str] = MappingProxyType({})
    """A sentence on each feature network that was trained on the data, by the name of its features."""
    early_stop: EarlyStopFile | None = None
    """What an early stop measured, and the step that it kept; None without one."""
    shown: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Of a tuning: what the columns of the last grid ask for, in the rows of `new` and of `old` conditions."""


def read_run(folder: Path) -> RunFiles:
    """Read a run's folder; all but config.json and eval.json may be missing.

    Raises:
        UserError: a needed file is missing, or one is damaged; the message names it and the stage that makes it.
    """
    paths = RunDir(folder)
    classes, evaluation = read_classes(paths.eval_classes), read_evaluation(paths.eval)
    return RunFiles(
        ShownConfig.of(read_run_config(paths.config, "run the same command again")),
        _figures_of(evaluation, paths.eval),
        classes.get("entries", {}),
        read_timings(paths.timings),
        _shown(read_guard(folder / "guard.json")),
        classes.get("unfit", {}),
        classes.get("left_out", {}),
        features_of(evaluation),
        classes.get("networks", {}),
        read_early_stop(folder),
        classes.get("shown", {}),
    )


def _figures_of(evaluation: Evaluation, path: Path) -> Figures:
    found = figures_of(evaluation)
    if not found:
        raise UserError(f"{path} has no figures; {MAKE_EVALUATION}")
    return found


def _shown(guard: GuardFile) -> GuardRecord | None:
    if not guard.level or guard.verdicts is None:
        return None
    verdicts = [
        GuardEntry(
            item["step"], item["level"], item["headline"], tuple(item.get("reasons", ())), item.get("action") or ""
        )
        for item in guard.verdicts
    ]
    rollbacks = [GuardRollback(item["found"], item["to"], item.get("headline", "")) for item in guard.rollbacks]
    return GuardRecord(guard.level, guard.checked, guard.since, verdicts, rollbacks)
