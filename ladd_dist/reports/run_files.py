"""The JSON files of a run's folder, read once into types: its configuration, its figures, its guard's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ladd_dist.core.errors import UserError
from ladd_dist.core.gan import LARGE_GAP
from ladd_dist.core.rundir import RunDir, read_json
from ladd_dist.reports.json_object import JsonObject, Values

Figures = Mapping[str, Values]
"""The contents of eval.json: "student@4" -> {"fd": ..., ...}."""
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
    large_gap: float | None = LARGE_GAP
    """The logit gap that the recipe's game calls large; None: it calls none so."""

    @classmethod
    def of(cls, data: JsonObject) -> ShownConfig:
        """The configuration in an object as config.json holds it."""
        environment = data.part("environment")
        return cls(
            recipe=data.part("recipe"),
            recipe_path=data.text("recipe_path"),
            scale=data.text("scale"),
            signature=data.text("signature"),
            version=data.text("version"),
            command=data.text("command"),
            plugins=data.texts("plugins"),
            taps=data.texts("taps"),
            params=data.part("params").values(),
            flops=data.part("flops").values(),
            environment={name: environment.text(name) for name in environment.fields},
            large_gap=data.number("large_gap") if "large_gap" in data.fields else LARGE_GAP,
        )


class GuardEntry(NamedTuple):
    """One verdict of the guard while the run trained; `action` is empty where it only spoke."""

    step: int | None
    level: str
    headline: str
    reasons: tuple[str, ...]
    action: str


class GuardRollback(NamedTuple):
    """One return to an earlier checkpoint: the step where the fault was found, and the step it went back to."""

    found: int | None
    to: int | None
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


def read_run(folder: Path) -> RunFiles:
    """Read a run's folder; all but config.json and eval.json may be missing.

    Raises:
        UserError: a needed file is missing, or one is damaged; the message names it and the stage that makes it.
    """
    paths = RunDir(folder)
    by_class = _read_optional(paths.eval_classes)
    classes, unfit = by_class.part("entries").parts(), by_class.part("unfit")
    return RunFiles(
        ShownConfig.of(_read(paths.config, "run the same command again")),
        _read_evaluation(paths.eval),
        {entry: {label: own.values() for label, own in found.parts().items()} for entry, found in classes.items()},
        _read_optional(paths.timings).values(),
        _guard(_read_optional(folder / "guard.json")),
        {name: unfit.text(name) for name in unfit.fields},
    )


def _read(path: Path, remedy: str) -> JsonObject:
    try:
        data: object = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not an object; {remedy}")
    return JsonObject(data)


def _read_evaluation(path: Path) -> Figures:
    remedy = "make it again with `--stages evaluate`"
    data = _read(path, remedy)
    if not data.fields or not all(isinstance(figures, dict) for figures in data.fields.values()):
        raise UserError(f"{path} has no figures of the form {{'student@4': {{'fd': ...}}, ...}}; {remedy}")
    return {entry: figures.values() for entry, figures in data.parts().items()}


def _read_optional(path: Path) -> JsonObject:
    return _read(path, "delete it or run the same command again") if path.exists() else JsonObject()


def _guard(data: JsonObject) -> GuardRecord | None:
    level = data.text("level")
    if not level or data.fields.get("verdicts") is None:
        return None
    verdicts = [
        GuardEntry(
            item.whole("step"), item.text("level"), item.text("headline"), item.texts("reasons"), item.text("action")
        )
        for item in data.listed("verdicts")
    ]
    rollbacks = [
        GuardRollback(item.whole("found"), item.whole("to"), item.text("headline")) for item in data.listed("rollbacks")
    ]
    return GuardRecord(level, data.whole("checked"), data.whole("since"), verdicts, rollbacks)
