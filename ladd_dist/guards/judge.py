"""Judges findings over the checks of a run: which have lasted long enough, since when, and what follows. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from ladd_dist.core.door import decode
from ladd_dist.guards import Action, Finding, Guard, Level

ORDER: tuple[Level, ...] = ("healthy", "warning", "collapsed")


@dataclass(frozen=True)
class GuardControl:
    """A guard's say in the training steps that follow."""

    adv_factor: float = 1.0
    """Multiplies the adversarial weight."""
    heads_learn: bool = True
    """Whether the heads are updated; otherwise only their losses are evaluated."""


NO_CHANGE = GuardControl()


@dataclass(frozen=True)
class GuardState:
    """What a guard knows from the checks so far; part of every checkpoint, as JSON."""

    checked: int = 0
    """The step of the last check."""
    level: Level = "healthy"
    since: dict[str, int] = field(default_factory=dict)
    """Fault -> the first check of those in a row that found it."""
    counts: dict[str, int] = field(default_factory=dict)
    """Fault -> how many checks that counted have found it in a row."""
    faults: tuple[str, ...] = ()
    """The faults of the last verdict."""
    first: int | None = None
    """The step since which the run is collapsed: the first check that saw the worst fault of the verdict."""
    headline: str = ""
    healthy: int | None = None
    """The last full check that found nothing, which a rollback goes back to."""
    acted: int | None = None
    """The check of the last action."""
    lowered: int = 0
    """How often the adversarial weight was halved."""
    frozen: bool = False
    """Whether the heads learn no more."""
    rollbacks: int = 0
    stopped: bool = False

    @property
    def adv_factor(self) -> float:
        """The factor by which the adversarial weight is lowered."""
        return 0.5**self.lowered

    @property
    def control(self) -> GuardControl:
        """The actions taken so far, for the training step."""
        return GuardControl(self.adv_factor, heads_learn=not self.frozen)

    def to_data(self) -> dict[str, Any]:
        """The fields as JSON data."""
        return {**asdict(self), "faults": list(self.faults)}


def from_data(data: Mapping[str, Any]) -> GuardState:
    """The inverse of `to_data`; fields of other versions are ignored.

    Raises:
        UserError: a field has another type.
    """
    return decode(json.dumps(data), GuardState, "the guard's state in a checkpoint", "delete that checkpoint")


class GuardVerdict(NamedTuple):
    """The outcome of a check, where it is news."""

    step: int
    level: Level
    headline: str
    reasons: tuple[str, ...]
    action: Action | None
    """The action that follows; None where none is needed, or no further one."""
    since: int | None


class Judgement(NamedTuple):
    """The state after one check, and the verdict if it is news or something is to be done."""

    state: GuardState
    verdict: GuardVerdict | None


def judge(guard: Guard, state: GuardState, figures: Mapping[str, float], step: int, num_steps: int) -> Judgement:
    """Judge the figures of one check, made after `step` updates."""
    found = guard.findings(figures)
    early, full = guard.is_early(step, num_steps), guard.is_full(step, num_steps)
    since, counts = _remember(state, found, step, early=early, full=full)
    sure = [item for item in found if item.at_once or counts[item.fault] >= guard.patience]
    faults = {item.fault for item in sure} | {fault for fault in since if fault in state.faults}
    level: Level = max((item.level for item in sure), key=ORDER.index, default="healthy")
    if level == "healthy" and faults:  # seen at full checks alone, and this is none
        level = state.level
    worst = next((item for item in sure if item.level == level), None)
    headline = state.headline if worst is None else sentence(worst, since[worst.fault])
    first = None if level == "healthy" else state.first if worst is None else since[worst.fault]
    now = replace(
        state, checked=step, level=level, since=since, counts=counts, faults=tuple(sorted(faults)),
        first=first, headline=headline if level != "healthy" else "",
        healthy=step if full and not found and not early else state.healthy,
        acted=state.acted if level == "collapsed" else None,
    )  # fmt: skip
    action = _action(guard, now, is_seen=worst is not None)
    is_news = level != state.level or (level != "healthy" and set(now.faults) - set(state.faults))
    if action is None and not is_news:
        return Judgement(now, None)
    now = _follow(now, action, step)
    if level == "healthy":
        return Judgement(now, GuardVerdict(step, level, "recovered" if state.faults else "healthy", (), None, None))
    rest = tuple(sentence(item, since[item.fault]) for item in sure if item is not worst)
    return Judgement(now, GuardVerdict(step, level, now.headline, rest, action, now.first))


def sentence(item: Finding, since: int) -> str:
    """A finding in words, with the step since which it holds."""
    return f"{item.text} since step {since}" + (f": {item.means}" if item.means else "")


def _remember(
    state: GuardState, found: tuple[Finding, ...], step: int, *, early: bool, full: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """The step since which each fault is found, and in how many checks that count.

    A check at one step alone says nothing of faults at more steps: these stay as they were.
    """
    unseen = set() if full else {fault for fault in state.since if _is_few_step(fault)}
    since = {fault: state.since[fault] for fault in unseen}
    counts = {fault: state.counts[fault] for fault in unseen}
    for item in found:
        since[item.fault] = state.since.get(item.fault, step)
        counts[item.fault] = 0 if early and not item.at_once else state.counts.get(item.fault, 0) + 1
    return since, counts


def _is_few_step(fault: str) -> bool:
    return fault.startswith("student@") and not fault.startswith("student@1 ")


def _action(guard: Guard, state: GuardState, *, is_seen: bool) -> Action | None:
    """The action at this check: at the beginning of a collapse, and again when that has not helped for a while."""
    if state.level != "collapsed" or not is_seen:
        return None
    if state.acted is not None and (guard.action != "lower_adv" or state.lowered >= 10):
        return None
    if state.acted is not None and state.counts[_worst(state)] % guard.patience:
        return None
    if guard.action == "rollback" and state.rollbacks >= guard.max_rollbacks:
        return "stop"
    return guard.action


def _worst(state: GuardState) -> str:
    return max(state.counts, key=lambda fault: state.counts[fault])


def _follow(state: GuardState, action: Action | None, step: int) -> GuardState:
    if action is None:
        return state
    state = replace(state, acted=step)
    if action == "lower_adv":
        return replace(state, lowered=state.lowered + 1)
    if action == "freeze_heads":
        return replace(state, frozen=True)
    return replace(state, stopped=True) if action == "stop" else state


def rolled_back(state: GuardState) -> GuardState:
    """The state of the step gone back to, with the weight halved: unchanged, it would end in the same place."""
    return replace(state, rollbacks=state.rollbacks + 1, lowered=state.lowered + 1)
