"""Guards `collapse`, which finds students that lose their variety, and `none`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from ladd_dist.core.errors import UserError
from ladd_dist.core.gan import LARGE_GAP
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, CountOrZero, NonNegative, Share, Within
from ladd_dist.guards import ACTIONS, Action, Finding, Guard


@register("none")
@dataclass(frozen=True)
class NoGuard(Guard):
    """Watches nothing."""

    def is_due(self, step: int, num_steps: int) -> bool:
        return False

    def is_full(self, step: int, num_steps: int) -> bool:
        return False

    def num_samples(self) -> int:
        return 0

    def is_early(self, step: int, num_steps: int) -> bool:
        return True

    def findings(self, figures: Mapping[str, float]) -> tuple[Finding, ...]:
        return ()


class _Measure(NamedTuple):
    key: str
    words: str
    means: str


_MEAN, _MODES, _COLOURS = "regression to the class mean", "mode collapse", "colours are lost"
_ONE = (
    _Measure("colour_variance", "colour variance", _COLOURS),
    _Measure("class_distance", "distance between samples of one class", _MEAN),
)
_FEW = (
    _Measure("colour_variance", "colour variance", "colour collapse"),
    _Measure("hue_entropy", "hue entropy", "one-colour collapse"),
    _Measure("class_distance", "distance between samples of one class", _MODES),
    _Measure("distance", "distance between samples", _MODES),
)


@register("collapse")
@dataclass(frozen=True)
class Collapse(Guard):
    """Finds a student that loses its variety, by its samples; the heads explain, and warn when they have won.

    Thresholds are shares of the teacher's figure on the same noises and classes. The student begins as a copy of the
    teacher, which in one step gives nothing but class means: so the first tenth of the budget counts for nothing. Heads
    at chance are no fault: those of a student that repeats its teacher's stored samples are.

    The defaults are in-sample: they were chosen at laptop scale on the runs of `exp1`, `exp2`, `exp6`, `exp7` and a
    provoked collapse whose rates docs/results.md shows. Recipes recorded later are counted there by themselves.
    """

    action: Action = "warn"
    every: Count = 50
    """Updates between checks."""
    full_every: Count = 6
    """Checks between those that sample the student at its own number of steps too, not at one step alone."""
    samples: Annotated[int, Within("[2, 65536]")] = 32
    """Stored noises on which a check compares the student with the teacher."""
    grace: Share = 0.1
    """Share of the budget in which findings lead to no verdict."""
    patience: Count = 2
    one_step: Share = 0.35
    """The least share of the teacher's figure at one step; below it lies regression to the mean."""
    few_steps: Share = 0.4
    """The least share at the student's own number of steps; below it colours, or whole samples, have become one."""
    heads_won_accuracy: Share = 0.95
    """Accuracy, on the teacher's samples and on the student's, above which the heads have won."""
    heads_won_gap: NonNegative = 15.0
    """Mean logit of real minus fake above which the heads have won."""
    one_head_share: Share = 0.98
    """The largest share of the heads' squared gradient that a single head of several may have."""
    max_rollbacks: CountOrZero = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action not in ACTIONS:
            raise UserError(f"action: one of {', '.join(ACTIONS)}, got {self.action!r}")

    def is_due(self, step: int, num_steps: int) -> bool:
        return step % self.every == 0 or step == num_steps

    def is_full(self, step: int, num_steps: int) -> bool:
        return step % (self.every * self.full_every) == 0 or step == num_steps

    def num_samples(self) -> int:
        return self.samples

    def is_early(self, step: int, num_steps: int) -> bool:
        return step < self.grace * num_steps

    def findings(self, figures: Mapping[str, float]) -> tuple[Finding, ...]:
        students = sorted(
            {int(key.split("/")[0].partition("@")[2]) for key in figures if key.startswith("student@")}, reverse=True
        )
        found = self._not_finite(figures, students)
        for steps in students:
            if steps == 1:
                found += self._diversity(figures, 1, _ONE, self.one_step)
            else:
                found += self._diversity(figures, steps, _FEW, self.few_steps)
        return (*found, *self._heads(figures, student_fails=bool(found)))

    def _not_finite(self, figures: Mapping[str, float], students: list[int]) -> list[Finding]:
        found = []
        if figures.get("not_finite", 0) > 0:
            text = "losses or gradients are not finite"
            found.append(Finding("not finite", text, "training diverged", "collapsed", at_once=True))
        for steps in students:
            share = figures.get(f"student@{steps}/finite", 1.0)
            if share != 1.0:
                text = f"{1 - share:.0%} of the samples of student@{steps} are not finite"
                means = "training diverged"
                found.append(Finding(f"student@{steps} not finite", text, means, "collapsed", at_once=True))
        return found

    def _diversity(
        self, figures: Mapping[str, float], steps: int, measures: tuple[_Measure, ...], least: float
    ) -> list[Finding]:
        found = []
        for key, words, usual in measures:
            share = figures.get(f"student@{steps}/{key}")
            if share is not None and not share >= least:
                # Class means are pale and alike; pictures of one colour that still differ were not averaged.
                alike = figures.get(f"student@{steps}/class_distance", 0.0) < least
                means = _MEAN if steps == 1 and alike else usual
                text = f"student@{steps} {words} {share:.2f} of the teacher's"
                found.append(Finding(f"student@{steps} {words}", text, means, "collapsed"))
        return found

    def _heads(self, figures: Mapping[str, float], *, student_fails: bool) -> list[Finding]:
        """Findings about the heads; none where they have no weight, and at chance only beside a student that fails."""
        real, fake, gap = (figures.get(f"heads/{name}") for name in ("accuracy_real", "accuracy_fake", "gap"))
        if real is None or fake is None or gap is None or figures.get("weight/adversarial", 0.0) == 0.0:
            return []
        found = []
        words = f"right on {real:.0%} of real and {fake:.0%} of fake samples, logit gap {gap:.1f}"
        won_gap = self.heads_won_gap * figures.get("heads/large_gap", LARGE_GAP) / LARGE_GAP
        if min(real, fake) > self.heads_won_accuracy or gap > won_gap:
            found.append(Finding("heads have won", f"the heads have won: {words}", "", "warning"))
        elif student_fails:
            found.append(Finding("heads", f"the heads are {words}", "", "warning"))
        shares = {key.split("/")[2]: value for key, value in figures.items() if key.startswith("grad_share/heads/")}
        if len(shares) > 1 and max(shares.values()) > self.one_head_share:
            tap = max(shares, key=lambda name: shares[name])
            text = f"the head on {tap} has {shares[tap]:.0%} of the heads' squared gradient"
            found.append(Finding("one head", text, "the others do not learn", "warning"))
        return found
