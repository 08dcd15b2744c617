"""From findings to verdicts: what must last to be believed, since when it does, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from ladd_dist.guards import Action, Finding, Guard, Level

ORDER: tuple[Level, ...] = ("healthy", "warning", "collapsed")


@dataclass(frozen=True)
class Memory:
    """What a guard knows from the checks before; part of every checkpoint, as JSON."""

    checked: int = 0
    """The step of the last check."""
    level: Level = "healthy"
    since: dict[str, int] = field(default_factory=dict)
    """Fault -> the first check of those in a row that found it."""
    counts: dict[str, int] = field(default_factory=dict)
    """Fault -> how many checks that counted have found it in a row."""
    faults: tuple[str, ...] = ()
    """Those of the last verdict."""
    first: int | None = None
    """Since when the run is collapsed: the first check that saw the worst fault of the verdict."""
    headline: str = ""
    healthy: int | None = None
    """The last full check that found nothing: where a rollback goes."""
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
        """What the adversarial weight is multiplied with."""
        return 0.5**self.lowered

    def to_data(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "faults": list(self.faults)}


def from_data(data: Mapping[str, Any]) -> Memory:
    """The inverse of `to_data`; fields of other versions are left out."""
    known = {name: data[name] for name in Memory.__dataclass_fields__ if name in data}
    return Memory(**{**known, "faults": tuple(known.get("faults", ()))})


class Verdict(NamedTuple):
    """What a check came to, when that is news."""

    step: int
    level: Level
    headline: str
    reasons: tuple[str, ...]
    action: Action | None
    """What is done about it; None for what needs nothing, or no more than before."""
    since: int | None


class Judgement(NamedTuple):
    """After one check: what to remember, and the verdict if it is news or something is to be done."""

    memory: Memory
    verdict: Verdict | None


def judge(guard: Guard, memory: Memory, figures: Mapping[str, float], step: int, num_steps: int) -> Judgement:
    """One check after `step` updates."""
    found = guard.findings(figures)
    early, full = guard.is_early(step, num_steps), guard.is_full(step, num_steps)
    since, counts = _remember(memory, found, step, early=early, full=full)
    sure = [item for item in found if item.at_once or counts[item.fault] >= guard.patience]
    faults = {item.fault for item in sure} | {fault for fault in since if fault in memory.faults}
    level: Level = max((item.level for item in sure), key=ORDER.index, default="healthy")
    if level == "healthy" and faults:  # seen at full checks alone, and this is none
        level = memory.level
    worst = next((item for item in sure if item.level == level), None)
    headline = memory.headline if worst is None else sentence(worst, since[worst.fault])
    first = None if level == "healthy" else memory.first if worst is None else since[worst.fault]
    now = replace(
        memory, checked=step, level=level, since=since, counts=counts, faults=tuple(sorted(faults)),
        first=first, headline=headline if level != "healthy" else "",
        healthy=step if full and not found and not early else memory.healthy,
        acted=memory.acted if level == "collapsed" else None,
    )  # fmt: skip
    action = _action(guard, now, is_seen=worst is not None)
    is_news = level != memory.level or (level != "healthy" and set(now.faults) - set(memory.faults))
    if action is None and not is_news:
        return Judgement(now, None)
    now = _follow(now, action, step)
    if level == "healthy":
        return Judgement(now, Verdict(step, level, "recovered" if memory.faults else "healthy", (), None, None))
    rest = tuple(sentence(item, since[item.fault]) for item in sure if item is not worst)
    return Judgement(now, Verdict(step, level, now.headline, rest, action, now.first))


def sentence(item: Finding, since: int) -> str:
    """A finding in words, with the step since which it holds."""
    return f"{item.text} since step {since}" + (f": {item.means}" if item.means else "")


def _remember(
    memory: Memory, found: tuple[Finding, ...], step: int, *, early: bool, full: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Since when, and in how many checks that count, each fault was found.

    A check at one step alone says nothing of faults at more steps: these stay as they were.
    """
    unseen = set() if full else {fault for fault in memory.since if _is_few_step(fault)}
    since = {fault: memory.since[fault] for fault in unseen}
    counts = {fault: memory.counts[fault] for fault in unseen}
    for item in found:
        since[item.fault] = memory.since.get(item.fault, step)
        counts[item.fault] = 0 if early and not item.at_once else memory.counts.get(item.fault, 0) + 1
    return since, counts


def _is_few_step(fault: str) -> bool:
    return fault.startswith("student@") and not fault.startswith("student@1 ")


def _action(guard: Guard, memory: Memory, *, is_seen: bool) -> Action | None:
    """What to do at this check: at the beginning of a collapse, and again when that has not helped for a while."""
    if memory.level != "collapsed" or not is_seen:
        return None
    if memory.acted is not None and (guard.action != "lower_adv" or memory.lowered >= 10):
        return None
    if memory.acted is not None and memory.counts[_worst(memory)] % guard.patience:
        return None
    if guard.action == "rollback" and memory.rollbacks >= guard.max_rollbacks:
        return "stop"
    return guard.action


def _worst(memory: Memory) -> str:
    return max(memory.counts, key=lambda fault: memory.counts[fault])


def _follow(memory: Memory, action: Action | None, step: int) -> Memory:
    if action is None:
        return memory
    memory = replace(memory, acted=step)
    if action == "lower_adv":
        return replace(memory, lowered=memory.lowered + 1)
    if action == "freeze_heads":
        return replace(memory, frozen=True)
    return replace(memory, stopped=True) if action == "stop" else memory


def rolled_back(memory: Memory) -> Memory:
    """The memory of the step gone back to, and the lesson: with the same weight it would end in the same place."""
    return replace(memory, rollbacks=memory.rollbacks + 1, lowered=memory.lowered + 1)
