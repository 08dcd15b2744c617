"""Variants: groups of runs that differ in nothing but seeds, their labels, and which of them may be compared."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ladd_dist.comparison.runs import Run
from ladd_dist.core.plugin import Plugin, PluginError, lookup
from ladd_dist.core.serialize import RecipeError, from_data, to_data
from ladd_dist.recipe import Recipe

Value = str | float | bool | None | tuple["Value", ...]
"""A setting that can be hashed."""
Fields = dict[str, Value]
"""Path -> value of every field that changes results; a plug-in's path holds its name."""

ABSENT = "–"


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but the seed of the distillation, and that of the teacher."""

    label: str
    fields: Fields
    runs: tuple[Run, ...]
    over_teachers: bool = False
    """Whether a draw is a teacher, with all its students: figures and intervals are then over teachers."""

    @property
    def teacher_seeds(self) -> tuple[int, ...]:
        """The seeds that the runs' teachers were trained with, each once."""
        return tuple(sorted({run.teacher_seed for run in self.runs}))

    def values(self, sampler: str, metric: str) -> dict[int, float]:
        """The figure of each seed that has a finite one; over teachers, by the teacher's seed, the mean of its runs.

        Runs on one teacher share all that is by chance in it: as draws of their own, they would make an interval over
        teachers too small.
        """
        found: dict[int, list[float]] = {}
        for run in self.runs:
            value = run.figures.get(sampler, {}).get(metric)
            if value is not None and abs(value) < float("inf"):
                found.setdefault(run.teacher_seed if self.over_teachers else run.seed, []).append(value)
        return {seed: math.fsum(values) / len(values) for seed, values in found.items()}


def group(runs: Iterable[Run]) -> tuple[list[Variant], list[str]]:
    """Group runs into variants, ordered by label; a sentence for each run left out as another's recipe and seed again.

    Two runs of one seed are no two draws: counted twice they would make an interval too small. Where a variant has
    several teachers, all are pooled over teachers.
    """
    found: dict[tuple[Any, ...], tuple[Fields, dict[tuple[int, int], Run]]] = {}
    twice = []
    for run in sorted(runs, key=lambda run: (run.teacher_seed, run.seed, run.source)):
        fields = essential(run.recipe)
        _, by_seed = found.setdefault(tuple(sorted(fields.items())), (fields, {}))
        if (seeds := (run.teacher_seed, run.seed)) in by_seed:
            twice.append(f"{run.source} is the same recipe and seed as {by_seed[seeds].source}")
        else:
            by_seed[seeds] = run
    groups = [(fields, tuple(by_seed.values())) for fields, by_seed in found.values()]
    labels = name_all(groups)
    over_teachers = any(len({run.teacher_seed for run in runs}) > 1 for _, runs in groups)
    variants = [Variant(label, *item, over_teachers) for label, item in zip(labels, groups, strict=True)]
    return sorted(variants, key=lambda variant: variant.label), twice


# --- what counts as a difference ---


def essential(recipe: Mapping[str, object]) -> Fields:
    """Every field of a recipe (as data) but its seeds and those that change nothing (names, intervals, trackers).

    The seeds are that of the distillation and that of the teacher's training.
    """
    teacher = recipe.get("teacher")
    same = {"teacher": {**teacher, "seed": 0}} if isinstance(teacher, Mapping) else {}
    return dict(_essential(json.dumps({**recipe, **same, "seed": 0})))


@lru_cache(maxsize=512)
def _essential(recipe: str) -> Fields:
    fields: Fields = {}  # the same for all seeds of a variant: walked once
    _walk(Recipe, json.loads(recipe), "", fields)
    for seed in ("seed", "teacher.seed"):
        fields.pop(seed, None)
    return fields


def _walk(cls: type | None, data: Mapping[str, object], path: str, fields: Fields) -> None:
    known = _known(cls) if cls else {}
    for key, value in data.items():
        field = known.get(key, _Field(None, False, None))
        where = f"{path}.{key}" if path else key
        if field.neutral or key == "plugin" or (field.default is not None and value == field.default):
            continue
        if isinstance(value, Mapping):
            named = value.get("plugin")
            name = None if named is None else str(named)
            cls_of_value = _class_of(field.hint, name)
            if _is_neutral(cls_of_value, value):
                continue
            if name is not None:
                fields[where] = name
            _walk(cls_of_value, value, where, fields)
        else:
            fields[where] = _frozen(value)


def _is_neutral(cls: type | None, data: Mapping[str, object]) -> bool:
    """Whether a plug-in says of itself, with these settings, that it changes nothing."""
    if cls is None or not issubclass(cls, Plugin) or cls.neutral is Plugin.neutral:
        return False
    try:
        return bool(from_data(cls, data).neutral)
    except (RecipeError, PluginError):  # settings of another version
        return False


class _Field(typing.NamedTuple):
    hint: Any
    neutral: bool
    default: Any  # of a field that came after runs had been made: at its default it says nothing


@lru_cache(maxsize=512)
def _known(cls: type) -> dict[str, _Field]:
    hints = typing.get_type_hints(cls)
    return {
        field.name: _Field(
            hints[field.name],
            bool(field.metadata.get("neutral")),
            to_data(field.default) if field.metadata.get("added") else None,
        )
        for field in dataclasses.fields(cls)
    }


@lru_cache(maxsize=4096)
def _class_of(hint: Any, plugin: str | None) -> type | None:
    """The class that a part of a recipe was made from; None for a plug-in that is not installed here."""
    if not isinstance(hint, type):
        return None
    if not issubclass(hint, Plugin):
        return hint if dataclasses.is_dataclass(hint) else None
    try:
        return lookup(hint.kind, plugin or "")
    except PluginError:
        return None


def _frozen(value: object) -> Value:
    """A JSON value that can be hashed; 1 and 1.0 stay equal."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


# --- names ---


def differing(all_fields: Sequence[Fields]) -> list[str]:
    """Paths whose value is not the same everywhere, in the order of the recipe."""
    paths = list(dict.fromkeys(path for fields in all_fields for path in fields))
    return [path for path in paths if len({fields.get(path, ABSENT) for fields in all_fields}) > 1]


def name_all(groups: Sequence[tuple[Fields, tuple[Run, ...]]]) -> list[str]:
    """A label for each group: the sweep's, else the recipe's name where names differ, and what differs within a name.

    Fields that only some plug-ins of a kind have are left out where the plug-in's name already tells them apart.
    """
    of_sweep = [", ".join(f"{axis}={label}" for axis, label in _shared_axes(runs)) for _, runs in groups]
    if all(of_sweep) and len(set(of_sweep)) == len(of_sweep):
        return of_sweep
    alike: dict[str, list[Fields]] = {}
    for fields, runs in groups:
        alike.setdefault(runs[0].name, []).append(fields)
    telling = {name: _telling(fields) for name, fields in alike.items()}
    labels = []
    for fields, runs in groups:
        name = runs[0].name
        parts = [f"{path}={show(fields.get(path, ABSENT))}" for path in telling[name]]
        labels.append(", ".join(([name] if len(alike) > 1 or not parts else []) + parts))
    if len(set(labels)) == len(labels):
        return labels
    every = differing([fields for fields, _ in groups])
    return [", ".join(f"{path}={show(fields.get(path, ABSENT))}" for path in every) for fields, _ in groups]


def _shared_axes(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The axes of the sweep at which all runs have one label, and that label: a seed's axis tells no variants apart."""
    first = runs[0].axes.items()
    return [(axis, label) for axis, label in first if all(run.axes.get(axis) == label for run in runs)]


def _telling(alike: Sequence[Fields]) -> list[str]:
    """Paths that tell variants apart; a plug-in's name stands for those of its fields that the others do not have."""
    paths = differing(alike)
    found = set(paths)

    def is_told(path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in found for end in range(1, len(parts)))

    return [path for path in paths if not is_told(path) or all(path in fields for fields in alike)]


def show(value: Value) -> str:
    """A field's value as short text."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{' '.join(show(item) for item in value)}]"
    return str(value)


# --- what may be compared ---


@dataclass(frozen=True)
class Mismatch:
    """A reason why figures of these variants do not mean the same; a `fatal` one makes the comparison wrong."""

    text: str
    fatal: bool


def features_named(variants: Sequence[Variant], metric: str) -> list[str]:
    """Names of the features that the runs measured a figure in; runs of older versions name none."""
    named = (run.features.get(metric, "") for variant in variants for run in variant.runs)
    return sorted({name for name in named if name})


def mismatches(variants: Sequence[Variant], metric: str) -> list[Mismatch]:
    """The reasons why figures of these variants do not mean the same.

    They do only on the same data, measured in the same way, against the same teacher.
    """
    fields = [variant.fields for variant in variants]
    differ = differing(fields)

    def among(*parts: str) -> list[str]:
        return [path for path in differ if path.split(".")[0] in parts and path != "evaluate.steps"]

    def listed(paths: Sequence[str]) -> str:
        texts = []
        for path in paths[:4]:
            values = list(dict.fromkeys(show(item.get(path, ABSENT)) for item in fields))
            texts.append(f"{path} ({', '.join(values[:4])})")
        return "; ".join(texts) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")

    found = []
    to_teacher = "_teacher" in metric
    if paths := among("dataset", "evaluate"):
        text = f"the runs were not measured alike, so their figures do not mean the same: {listed(paths)}"
        found.append(Mismatch(text, fatal=True))
    if paths := among("network", "teacher"):
        text = f"the runs have different teachers: {listed(paths)}"
        if to_teacher:
            text += f". {metric} is a distance to each run's own teacher; compare them by --metric fd_real"
        found.append(Mismatch(text, fatal=to_teacher))
    if len({variant.teacher_seeds for variant in variants}) > 1:
        seeds = "; ".join(f"{v.label}: {', '.join(map(str, v.teacher_seeds))}" for v in variants[:4])
        more = f" and {len(variants) - 4} more" if len(variants) > 4 else ""
        text = f"the runs have different teachers, of these seeds (teacher.seed): {seeds}{more}"
        found.append(Mismatch(text, fatal=to_teacher))
    if to_teacher and (paths := among("shards")):
        text = (
            f"{metric} is a distance to each run's own set of the teacher's samples, and these differ: {listed(paths)}"
        )
        found.append(Mismatch(text, fatal=False))
    return found
