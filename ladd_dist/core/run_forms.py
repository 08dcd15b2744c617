"""The forms of the JSON files in a run's folder: one for each file, and the reader that every command reads it with.

Files of older versions lack what has a default here, and keys of later versions are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

from msgspec import Meta

from ladd_dist.core.door import DAMAGED, decode, read_bytes, read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.figure_names import named_now, without_former
from ladd_dist.core.printable import one_line

T = TypeVar("T")
MOST_FIGURE = 1e76
"""The largest figure that is read, in absolute value: no samples have one, and its fourth power is finite."""
Number = Annotated[int, Meta(ge=-(10**18), le=10**18)] | Annotated[float, Meta(ge=-MOST_FIGURE, le=MOST_FIGURE)]
MOST_NAME, MOST_PATH = 255, 4000
"""Bytes of a file's name, and characters of a path, that every system takes."""
FORMAT = 1  # of config.json and guard.json
LARGE_GAP = 15.0
"""Mean logit of real minus that of fake samples at which heads of `bce` are sure of each: D = .9994."""
MAKE_EVALUATION = "make it again with `--stages evaluate`"


class _Head(TypedDict, total=False):
    """The part of a file that says who can read the rest."""

    format: Any
    version: Any


def require_format(content: bytes, known: int, what: str, remedy: str = DAMAGED, *, may_lack: bool = False) -> None:
    """Refuse the file of another version, before its form is looked at.

    Args:
        may_lack: let a file pass that names no format.

    Raises:
        UserError: another format, or no JSON object.
    """
    head = decode(content, _Head, what, remedy)
    found = head.get("format")
    if (type(found) is int and found == known) or (may_lack and "format" not in head):
        return
    by = (
        f"use ladd_dist {one_line(str(head['version'])[:40])}, which wrote it"
        if "version" in head
        else "use the version that wrote it"
    )
    raise UserError(f"{what} has format {found!r}, this version reads {known}: {by}")


def require_paths(*texts: str) -> None:
    """Refuse texts that cannot be paths, which the system's calls answer with errors of many kinds.

    Raises:
        ValueError: a NUL, or a name or a path that is too long; `ladd_dist.core.door` names the place in the file.
    """
    for text in texts:
        names = os.fsencode(text).split(b"/")
        if "\0" in text or max(map(len, names)) > MOST_NAME or len(text) > MOST_PATH:
            raise ValueError(f"{text[:40]!r} is no path: it has a NUL, or a name of more than {MOST_NAME} bytes")


@dataclass(frozen=True)
class RunConfig:
    """The content of a config.json: what a run is, and what it ran on."""

    version: str = ""
    """Of ladd_dist, when the run's figures were made."""
    command: str = ""
    recipe_path: str = ""
    scale: str = ""
    signature: str = ""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe as data (`ladd_dist.core.serialize.to_data`)."""
    environment: dict[str, str | int] = field(default_factory=dict)
    """Versions, machine and commit."""
    params: dict[str, int] = field(default_factory=dict)
    """Parameters by network."""
    taps: tuple[str, ...] = ()
    flops: dict[str, int] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    """What there was to learn from, of a dataset that tells (`Dataset.facts`)."""
    shards: str | None = None
    """The folder of the shards, of a run whose samples need their table of texts."""
    large_gap: Annotated[float, Meta(ge=0, le=MOST_FIGURE)] | None = LARGE_GAP
    """The gap between real and fake logits that the recipe's game calls large; None: it calls none so."""
    cache: str = ""
    """The folder of what runs share, absolute."""
    sweep: str = ""
    """NAME-SIGNATURE; empty for a run of no sweep."""
    axes: dict[str, str] = field(default_factory=dict)
    """Axis to the label of the run's value."""

    def __post_init__(self) -> None:
        require_paths(self.recipe_path, self.shards or "", self.cache)


def read_run_config(path: Path, remedy: str = DAMAGED, *, may_lack_format: bool = True) -> RunConfig:
    """The content of a config.json; what it lacks is empty.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    content = read_bytes(path)
    require_format(content, FORMAT, str(path), remedy, may_lack=may_lack_format)
    return decode(content, RunConfig, str(path), remedy)


Values = Mapping[str, Number | None]
"""Figures by name; None where a figure is known to be none."""
Evaluation = dict[str, dict[str, Number | Mapping[str, Values | str] | None]]
"""The content of eval.json: entry, such as `student@4`, -> figure -> value; where there are several seeds also
`per_seed` -> seed -> figure -> value; and `features` -> figure -> name of the features that it was measured in."""
FEATURES = "features"
"""Key of an entry's names of features; missing in files of older versions."""


def read_evaluation(path: Path, remedy: str = MAKE_EVALUATION) -> Evaluation:
    """The content of eval.json; figures of older versions have their present names.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; {remedy}")
    return evaluation_now(read_typed(path, Evaluation, remedy))


def evaluation_now(found: Evaluation) -> Evaluation:
    """An evaluation whose figures have their present names, those of each seed too.

    Older versions gave the floor of the distance to the teacher as `fd` too, which is no distance to real pictures.
    """

    def now(own: Mapping[str, Number | Mapping[str, Values | str] | None]) -> dict[str, Any]:
        return {
            name: {key: item if isinstance(item, str) else named_now(item) for key, item in value.items()}
            if isinstance(value, Mapping)
            else value
            for name, value in named_now(own).items()
        }

    return {entry: now(without_former(own) if entry.startswith("floor@") else own) for entry, own in found.items()}


def figures_of(found: Evaluation) -> dict[str, Values]:
    """The figures of eval.json without those of each seed."""
    return {
        entry: {name: value for name, value in own.items() if not isinstance(value, Mapping)}
        for entry, own in found.items()
    }


def features_of(found: Evaluation) -> dict[str, str]:
    """Names of the features that the figures of eval.json were measured in; figures without any are absent."""
    named = (own.get(FEATURES) for own in found.values())
    return {
        name: label
        for own in named
        if isinstance(own, Mapping)
        for name, label in own.items()
        if isinstance(label, str)
    }


class ClassFigures(TypedDict):
    """The content of eval_classes.json: figures by class; `shown` labels the columns of a tuning's last grid."""

    left_out: NotRequired[dict[str, str]]
    """Reasons, by metric without figures by class and by figure that is not measured at all."""
    entries: NotRequired[Mapping[str, Mapping[str, Values]]]
    """Entry -> class -> figure -> value."""
    unfit: NotRequired[dict[str, str]]
    """Reasons, by metric that was left out because it was made for other images; missing in older files."""
    networks: NotRequired[dict[str, str]]
    """A sentence on each feature network that was trained on the data, by the name of its features."""
    shown: NotRequired[dict[str, list[str]]]


def read_classes(path: Path, remedy: str = MAKE_EVALUATION) -> ClassFigures:
    """The content of eval_classes.json, with present names; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    return classes_now(read_typed(path, ClassFigures, remedy)) if path.exists() else ClassFigures()


def classes_now(found: ClassFigures) -> ClassFigures:
    """Figures by class with their present names."""
    result = found.copy()
    if "entries" in found:
        result["entries"] = {
            entry: {number: named_now(own) for number, own in of.items()} for entry, of in found["entries"].items()
        }
    if "left_out" in found:
        result["left_out"] = named_now(found["left_out"])
    return result


class HybridRow(TypedDict):
    """One split of the steps between teacher and student, as the file of `ladd evaluate` holds it."""

    entry: str
    steps: int
    teacher_steps: int
    forwards: int


Timings = dict[str, Annotated[float, Meta(ge=0, le=1e10)]]
"""The content of timings.json: seconds by stage, of three hundred years at most."""


def read_timings(path: Path) -> Timings:
    """The content of timings.json; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    return read_typed(path, Timings, "delete it: only the page shows it") if path.exists() else {}


Step = Annotated[int, Meta(ge=0)]


class VerdictRow(TypedDict):
    """A verdict in guard.json; see `GuardVerdict`."""

    step: Step
    level: str
    headline: str
    reasons: NotRequired[list[str]]
    action: NotRequired[str | None]
    since: NotRequired[int | None]


class RollBackRow(TypedDict):
    """A rollback in guard.json."""

    found: Step
    """The step at which the fault was found."""
    to: Step
    """The step that the run went back to."""
    headline: NotRequired[str]


@dataclass(frozen=True)
class GuardFile:
    """The content of guard.json, as far as it is read back."""

    level: str | None = None
    checked: int | None = None
    """The step of the last look."""
    since: int | None = None
    """The step at which the present fault began."""
    headline: str | None = None
    verdicts: list[VerdictRow] | None = None
    """None in a file that does not say."""
    rollbacks: list[RollBackRow] = field(default_factory=list)


def read_guard(path: Path) -> GuardFile:
    """The content of guard.json; empty where there is none.

    Raises:
        UserError: it is damaged, or of another format.
    """
    if not path.exists():
        return GuardFile()
    content, remedy = read_bytes(path), "move it away; the run goes on as if its guard had said nothing yet"
    require_format(content, FORMAT, str(path), remedy, may_lack=True)
    return decode(content, GuardFile, str(path), remedy)


class Marker(TypedDict):
    """The content of a done.json, as far as it is read back."""

    signature: NotRequired[str]


def read_marker(path: Path) -> Marker:
    """The mark that a finished stage leaves.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_typed(path, Marker)
