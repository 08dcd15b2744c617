"""Acts on a guard's verdicts in stage `distill`: messages, alerts, rollbacks, stops, and `RUN/guard.json`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ladd_dist.builders.codec import is_pixels
from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import sample_noise
from ladd_dist.core.run_forms import FORMAT, RollBackRow, VerdictRow, read_guard
from ladd_dist.core.rundir import write_json
from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import Batch
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.guard_monitor import GuardMonitor, MonitorState
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.loop import Figures
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.guards.judge import GuardControl, GuardState, GuardVerdict
from ladd_dist.parallel import Trainable
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.verdict import cause
from ladd_dist.trackers import RunLog
from ladd_dist.workspace.run import Run

FILE = "guard.json"


class RollBack(BaseException):  # no error: handlers of errors must let it through, as with a signal
    """Raised to take the training back to an earlier step."""

    def __init__(self, to: int) -> None:
        self.to = to
        super().__init__(f"back to step {to}")


class StoppedByGuardError(UserError):
    """The guard ended the run."""


class Story(NamedTuple):
    """The verdicts and rollbacks of a run, in order."""

    verdicts: list[VerdictRow]
    rollbacks: list[RollBackRow]


class Guarding:
    """The guard of one training. `after` is called after each update, on every rank."""

    def __init__(self, run: Run, reader: ShardReader, sums: HeadSums, checkpoints: Checkpoints) -> None:
        recipe = run.recipe
        self.recipe, self.guard, self.ranks, self.checkpoints = recipe, recipe.guard, run.ranks, checkpoints
        self.path = run.folder.path / FILE
        self.story = Story([], [])
        self.monitor = _monitor(run, reader, sums) if recipe.guard.num_samples() else None
        self.pending: dict[str, float] = {}

    @property
    def state(self) -> GuardState:
        """The guard's state; a fresh one where no guard watches."""
        return GuardState() if self.monitor is None else self.monitor.state

    @property
    def control(self) -> GuardControl:
        """The guard's say in the next training step."""
        return self.state.control

    # --- going on ---

    def restore(self, step: int, saved: MonitorState | None) -> None:
        """Go on after `step` updates, with the state of that checkpoint (None: there is none, or it holds no guard's).

        Raises:
            StoppedByGuardError: this run was stopped at this step.
        """
        if self.monitor is None:
            return
        told = self.ranks.from_rank0(lambda: _read(self.path))
        self.story = Story(
            [item for item in told.verdicts if item["step"] <= step],
            [item for item in told.rollbacks if item["to"] <= step],
        )
        self.monitor.restore(saved, len(self.story.rollbacks))
        if self.state.stopped and not self.guard.neutral:
            raise StoppedByGuardError(self._farewell(step, self.state.headline))

    def to_checkpoint(self) -> MonitorState | None:
        """The state for a checkpoint; every rank calls this."""
        return None if self.monitor is None else self.monitor.to_checkpoint()

    def wants_save(self, updates: int) -> bool:
        """Whether a rollback may come back to this step, which then needs a checkpoint."""
        return self.guard.action == "rollback" and self.state.healthy == updates

    def pinned(self) -> tuple[int, ...]:
        """The step whose checkpoint must stay, if any: a rollback goes back to it."""
        healthy = self.state.healthy
        return (healthy,) if self.guard.action == "rollback" and healthy is not None else ()

    def take_metrics(self) -> dict[str, float]:
        """The figures of the last check, for the log; the second call in a row returns none."""
        found, self.pending = self.pending, {}
        return found

    # --- checks ---

    def after(
        self, updates: int, figures: Figures, student: Trainable, log: RunLog, save: Callable[[int], None]
    ) -> None:
        """Check the student if a check is due, and act on the verdict; `control` then has its say in the steps to come.

        Raises:
            RollBack: to the last healthy step. StoppedByGuardError: the state is saved.
        """
        judgement = None if self.monitor is None else self.monitor.after(updates, figures, student)
        if self.monitor is None or judgement is None:
            return
        self.pending = {
            f"guard/{name}": value for name, value in self.monitor.seen.items() if name.startswith("student@")
        }
        verdict = judgement.verdict
        if verdict is not None:
            self._tell(self._explained(verdict, figures), log)
        self._write(last=updates == self.recipe.train.steps, news=verdict is not None)
        if verdict is not None and verdict.action == "rollback":
            raise RollBack(self.roll_back(updates, verdict.headline))
        if verdict is not None and verdict.action == "stop":
            if not any("not finite" in fault for fault in self.state.faults):
                save(updates)
            raise StoppedByGuardError(self._farewell(updates, verdict.headline))

    def roll_back(self, updates: int, headline: str) -> int:
        """Record a rollback after `updates` updates; returns the step of the checkpoint that the run goes back to.

        It is that of the last healthy step, or where that is gone the newest before it, or 0.
        """
        self.checkpoints.wait()
        healthy = self.state.healthy or 0
        to = max((step for step in self.ranks.from_rank0(self.checkpoints.steps) if step <= healthy), default=0)
        self.story.rollbacks.append({"found": updates, "to": to, "headline": headline})
        self._write(last=False, news=True)
        return to

    def can_roll_back(self) -> bool:
        """Whether figures that are not finite, seen between two checks, lead to a rollback."""
        return self.guard.action == "rollback" and self.state.rollbacks < self.guard.max_rollbacks

    def _explained(self, verdict: GuardVerdict, figures: Figures) -> GuardVerdict:
        """The verdict with the cause, where the recipe alone reveals it."""
        weights = {key: float(value) for key, value in figures.items() if key.startswith("weight/")}
        found = cause(ShownConfig(recipe=JsonObject(to_data(self.recipe))), [weights])
        if found is None or verdict.level != "collapsed" or "finite" in verdict.headline:
            return verdict
        return verdict._replace(headline=f"{verdict.headline}; {found[0]}", reasons=(found[1], *verdict.reasons))

    def _tell(self, verdict: GuardVerdict, log: RunLog) -> None:
        """Print one line on stderr, add a row to the file, and alert the tracker where the recipe asks for it."""
        if verdict.level == "healthy" and not self.story.verdicts:
            return
        row = VerdictRow(
            step=verdict.step, level=verdict.level, headline=verdict.headline, reasons=list(verdict.reasons),
            action=verdict.action, since=verdict.since,
        )  # fmt: skip
        self.story.verdicts.append(row)
        if not self.ranks.is_first:
            return
        does = f"; action: {verdict.action}" if verdict.action not in (None, "warn", "alert") else ""
        line = f"guard at step {verdict.step}: {verdict.level}: {verdict.headline}{does}"
        print(line if verdict.level != "healthy" else f"guard at step {verdict.step}: recovered", file=sys.stderr)
        if verdict.action is not None and verdict.action not in ("warn", "stop"):  # a stop is an alert by itself
            log.alert(f"guard: {verdict.level} at step {verdict.step}", "\n".join([verdict.headline, *verdict.reasons]))

    def _farewell(self, step: int, headline: str) -> str:
        return (
            f"the guard stopped this run at step {step}: {headline}. {self.path} has the story; change the recipe, or "
            "look on without stopping: --guard.action warn"
        )

    def _write(self, *, last: bool, news: bool) -> None:
        """Write the file, whole, where there is something to say: news, the first check that counts, the end."""
        if not self.ranks.is_first or not (news or last or not self.path.exists()):
            return
        state = self.state
        told = {
            "format": FORMAT, "action": self.guard.action, "checked": state.checked, "level": state.level,
            "since": state.first, "headline": self._newest(), "last_healthy": state.healthy,
            "adv_factor": state.adv_factor, "heads_frozen": state.frozen, **self.story._asdict(),
        }  # fmt: skip
        write_json(self.path, told)

    def _newest(self) -> str:
        verdicts = self.story.verdicts
        return verdicts[-1]["headline"] if verdicts and self.state.level != "healthy" else ""


def _monitor(run: Run, reader: ShardReader, sums: HeadSums) -> GuardMonitor:
    """The monitor on the first stored samples; classes come in turns there, so that each is among them."""
    recipe = run.recipe
    num = min(recipe.guard.num_samples(), len(reader))
    fixed = reader.take(np.arange(num))
    if fixed.noise is None:  # other people's samples: the sets are compared, not sample by sample
        fixed = fixed._replace(noise=sample_noise(recipe.evaluate.seed, range(num), tuple(fixed.x0.shape[1:])))
    fixed = Batch(fixed.x0, fixed.cond, fixed.noise, None, ())
    levels = {steps: recipe.levels(steps) for steps in dict.fromkeys((1, recipe.student_steps))}
    coloured = is_pixels(recipe) and fixed.x0.shape[1] == 3  # latents are judged as they are: training never decodes
    return GuardMonitor(
        recipe.guard, fixed, sums, levels=levels, rule=recipe.start.rule, coloured=coloured,
        num_steps=recipe.train.steps, ranks=run.ranks, device=run.device, large_gap=recipe.adversarial.large_gap,
    )  # fmt: skip


def _read(path: Path) -> Story:
    """The story that an earlier part of the run wrote; an empty one without a file."""
    told = read_guard(path)
    return Story(told.verdicts or [], told.rollbacks)
