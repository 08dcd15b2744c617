"""Records of a W&B run's files, as `wandb leet inspect` prints them: what they add up to, and the figures in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ladd_dist.core.metrics_log import MOST_STEPS
from ladd_dist.core.run_forms import MOST_FIGURE


class Change(TypedDict, total=False):
    """A change of the run's configuration or summary."""

    update: dict[str, object]
    remove: list[str]


class RunBody(TypedDict, total=False):
    """What W&B knows of a run when it starts."""

    run_id: str
    display_name: str
    run_group: str
    tags: list[str] | None
    config: Change | None
    summary: Change | None


class HistoryBody(TypedDict, total=False):
    """One call of `run.log`."""

    item: dict[str, object]


class Record(TypedDict, total=False):
    """A line of `wandb leet inspect --json`: `type` names the one body that it has."""

    type: str
    code: int
    """Of our own line between two folders."""
    run: RunBody | None
    config: Change | None
    summary: Change | None
    history: HistoryBody | None
    exit: dict[str, object] | None


@dataclass
class Parts:
    """What the records of a folder add up to."""

    run: RunBody = field(default_factory=RunBody)
    config: dict[str, object] = field(default_factory=dict)
    summary: dict[str, object] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    state: str = "crashed"


def add_record(parts: Parts, record: Record) -> None:
    """Add what one record says to the parts."""
    kind = record.get("type")
    if kind == "run" and (run := record.get("run")):
        parts.run = {**parts.run, **run}
        _update(parts.config, run.get("config") or {})
        _update(parts.summary, run.get("summary") or {})
    elif kind == "config":
        _update(parts.config, record.get("config") or {})
    elif kind == "summary":
        _update(parts.summary, record.get("summary") or {})
    elif kind == "history":
        parts.rows += rows_of([(record.get("history") or {}).get("item", {})])
    elif kind == "exit":
        parts.state = "failed" if (record.get("exit") or {}).get("exit_code") else "finished"


def _update(target: dict[str, object], change: Change) -> None:
    target.update(change.get("update", {}))
    for name in change.get("remove", []):
        target.pop(name, None)


def rows_of(history: Iterable[Mapping[str, object]]) -> list[dict[str, float]]:
    """Rows with `step` and the figures, without W&B's own keys, without pictures, and without rows of nothing else."""
    rows = []
    for item in history:
        numbers = numbers_of(item)
        figures = {name: value for name, value in numbers.items() if not name.startswith("_")}
        if figures and 0 <= (step := numbers.get("_step", -1)) <= MOST_STEPS:
            rows.append({"step": int(step), **figures})
    return rows


def numbers_of(values: Mapping[str, object]) -> dict[str, float]:
    """The numbers, without those that describe a picture (in a folder's records NAME._type, NAME.width and so on)."""
    media = tuple(name.removesuffix("_type") for name in values if name.endswith("._type"))
    numbers = {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if media:
        numbers = {name: value for name, value in numbers.items() if not name.startswith(media)}
    return {name: value for name, value in numbers.items() if abs(value) <= MOST_FIGURE}
