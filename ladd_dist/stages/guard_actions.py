"""What follows from a guard's verdicts in stage `distill`: words, alerts, actions, and `RUN/guard.json`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ladd_dist.builders.codec import is_pixels
from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import sample_noise
from ladd_dist.core.rundir import read_json, write_json
from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import Batch
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.guard_monitor import Watch
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.loop import Figures
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.guards.judge import Memory, Verdict, rolled_back
from ladd_dist.parallel import Trainable
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.verdict import cause
from ladd_dist.trackers import RunLog
from ladd_dist.workspace.run import Run

FORMAT = 1
FILE = "guard.json"


class RollBack(BaseException):  # no error: handlers of errors must let it through, as with a signal
    """The training goes back to an earlier step."""

    def __init__(self, to: int) -> None:
        self.to = to
        super().__init__(f"back to step {to}")


class StoppedByGuardError(UserError):
    """The guard ended the run."""


class Guarding:
    """The guard of one training. `after` is called after each update, on every rank."""

    def __init__(self, run: Run, reader: ShardReader, sums: HeadSums, checkpoints: Checkpoints) -> None:
        recipe = run.recipe
        self.recipe, self.guard, self.ranks, self.checkpoints = recipe, recipe.guard, run.ranks, checkpoints
        self.path = run.folder.path / FILE
        self.verdicts: list[dict[str, Any]] = []
        self.rollbacks: list[dict[str, Any]] = []
        self.watch = _watch(run, reader, sums) if recipe.guard.num_samples() else None
        self.pending: dict[str, float] = {}

    @property
    def memory(self) -> Memory:
        """What the guard knows; an empty memory where there is none."""
        return Memory() if self.watch is None else self.watch.memory

    # --- going on ---

    def restore(self, step: int, state: Mapping[str, Any] | None) -> None:
        """Go on after `step` updates, with the state of that checkpoint (None: there is none, or an older one).

        Raises:
            StoppedByGuardError: this run was stopped at this step.
        """
        if self.watch is None:
            return
        if state is not None:
            self.watch.restore(state)
        told = self.ranks.from_rank0(lambda: _read(self.path))
        self.verdicts = [item for item in told["verdicts"] if item["step"] <= step]
        self.rollbacks = [item for item in told["rollbacks"] if item["to"] <= step]
        for _ in self.rollbacks[self.memory.rollbacks :]:  # later than this checkpoint
            self.watch.memory = rolled_back(self.memory)
        if self.memory.stopped and not self.guard.neutral:
            raise StoppedByGuardError(self._farewell(step, self.memory.headline))

    def steer(self, ladd_step: LaddStep) -> None:
        """Put what was decided so far in force."""
        ladd_step.adv_factor, ladd_step.heads_learn = self.memory.adv_factor, not self.memory.frozen

    def state(self) -> dict[str, Any] | None:
        """For a checkpoint; every rank calls this."""
        return None if self.watch is None else self.watch.state()

    def wants_save(self, updates: int) -> bool:
        """Whether a rollback may come back to this step: the guard's own choice, whenever else checkpoints are due."""
        return self.guard.action == "rollback" and self.memory.healthy == updates

    def pinned(self) -> tuple[int, ...]:
        """The checkpoint that must stay."""
        healthy = self.memory.healthy
        return (healthy,) if self.guard.action == "rollback" and healthy is not None else ()

    def news(self) -> dict[str, float]:
        """Figures of the last check, once, for the metrics."""
        found, self.pending = self.pending, {}
        return found

    # --- checks ---

    def after(
        self, updates: int, figures: Figures, student: Trainable, ladd_step: LaddStep, log: RunLog,
        save: Callable[[int], None],
    ) -> None:  # fmt: skip
        """Check if it is due, and do what follows.

        Raises:
            RollBack: to the last healthy step. StoppedByGuardError: the state is saved.
        """
        judgement = None if self.watch is None else self.watch.after(updates, figures, student)
        if self.watch is None or judgement is None:
            return
        self.pending = {
            f"guard/{name}": value for name, value in self.watch.seen.items() if name.startswith("student@")
        }
        verdict = judgement.verdict
        if verdict is not None:
            self._tell(self._explained(verdict, figures), log)
            self.steer(ladd_step)
        self._write(last=updates == self.recipe.train.steps, news=verdict is not None)
        if verdict is not None and verdict.action == "rollback":
            raise RollBack(self.turn_back(updates, verdict.headline))
        if verdict is not None and verdict.action == "stop":
            if not any("not finite" in fault for fault in self.memory.faults):
                save(updates)
            raise StoppedByGuardError(self._farewell(updates, verdict.headline))

    def turn_back(self, updates: int, headline: str) -> int:
        """Write down that the run goes back to its last healthy step, or what is left before it; returns the step."""
        self.checkpoints.wait()
        healthy = self.memory.healthy or 0
        to = max((step for step in self.ranks.from_rank0(self.checkpoints.steps) if step <= healthy), default=0)
        self.rollbacks.append({"found": updates, "to": to, "headline": headline})
        self._write(last=False, news=True)
        return to

    def may_go_back(self) -> bool:
        """Whether figures that are no numbers, seen between two checks, lead to a rollback."""
        return self.guard.action == "rollback" and self.memory.rollbacks < self.guard.max_rollbacks

    def _explained(self, verdict: Verdict, figures: Figures) -> Verdict:
        """With the cause that the recipe alone gives away."""
        weights = {key: float(value) for key, value in figures.items() if key.startswith("weight/")}
        found = cause(ShownConfig(recipe=JsonObject(to_data(self.recipe))), [weights])
        if found is None or verdict.level != "collapsed" or "finite" in verdict.headline:
            return verdict
        return verdict._replace(headline=f"{verdict.headline}; {found[0]}", reasons=(found[1], *verdict.reasons))

    def _tell(self, verdict: Verdict, log: RunLog) -> None:
        """One line on stderr, one row in the file, and the tracker's alert where the recipe wants it."""
        if verdict.level == "healthy" and not self.verdicts:
            return
        self.verdicts.append({**verdict._asdict(), "reasons": list(verdict.reasons)})
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
        """The file, whole, where there is something to say: news, the first check that counts, the end."""
        if not self.ranks.is_first or not (news or last or not self.path.exists()):
            return
        memory = self.memory
        told = {
            "format": FORMAT, "action": self.guard.action, "checked": memory.checked, "level": memory.level,
            "since": memory.first, "headline": self._newest(), "last_healthy": memory.healthy,
            "adv_factor": memory.adv_factor, "heads_frozen": memory.frozen,
            "verdicts": self.verdicts, "rollbacks": self.rollbacks,
        }  # fmt: skip
        write_json(self.path, told)

    def _newest(self) -> str:
        return str(self.verdicts[-1]["headline"]) if self.verdicts and self.memory.level != "healthy" else ""


def _watch(run: Run, reader: ShardReader, sums: HeadSums) -> Watch:
    """The watch on the first stored samples; classes come in turns there, so that each is among them."""
    recipe = run.recipe
    num = min(recipe.guard.num_samples(), len(reader))
    fixed = reader.take(np.arange(num))
    if fixed.noise is None:  # other people's samples: the sets are compared, not sample by sample
        fixed = fixed._replace(noise=sample_noise(recipe.evaluate.seed, range(num), tuple(fixed.x0.shape[1:])))
    fixed = Batch(fixed.x0, fixed.cond, fixed.noise, None, ())
    levels = {steps: recipe.levels(steps) for steps in dict.fromkeys((1, recipe.student_steps))}
    coloured = is_pixels(recipe) and fixed.x0.shape[1] == 3  # latents are judged as they are: training never decodes
    return Watch(
        recipe.guard, fixed, sums, levels=levels, rule=recipe.start.rule, coloured=coloured,
        num_steps=recipe.train.steps, ranks=run.ranks, device=run.device,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    """What an earlier part of the run wrote; nothing where there is no file, or one of another version."""
    told = read_json(path) if path.exists() else {}
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return {"verdicts": [], "rollbacks": []}
    return {name: told[name] for name in ("verdicts", "rollbacks")}
