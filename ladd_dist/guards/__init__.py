"""Kind `guard`: watches a distillation while it runs and says when it goes wrong. Pure: figures in, findings out.

The figures are global (over ranks, micro-batches and the steps since the last check):

* `student@N/NAME`: the student's samples in N steps from a fixed set of stored noises and classes, as shares of what
  the teacher made of the same noises: `colour_variance`, `hue_entropy` (pictures with colour only), `distance` (between
  two samples, root mean square), `class_distance` (between two of one class), `finite` (share of finite samples);
* `heads/accuracy_real`, `heads/accuracy_fake`, `heads/gap`: mean over the heads; the same of each head as
  `accuracy/TAP`, `gap/TAP`, of each noise bin as `accuracy/TAP@LOW-HIGH`; `grad_share/heads/TAP`; and
  `heads/large_gap`, the gap that the recipe's game calls large;
* `weight/adversarial`: in force now; `not_finite`: figures of steps that were no number since the last check.

A figure that there is none of is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ladd_dist.core.plugin import Plugin

Level = Literal["healthy", "warning", "collapsed"]
Action = Literal["warn", "alert", "lower_adv", "freeze_heads", "rollback", "stop"]
ACTIONS: tuple[Action, ...] = ("warn", "alert", "lower_adv", "freeze_heads", "rollback", "stop")
NEUTRAL_ACTIONS: tuple[Action, ...] = ("warn", "alert")
"""Actions that tell people and leave the training alone."""


class Finding(NamedTuple):
    """A fault found at one check."""

    fault: str
    """The name of the fault, the same words at each check."""
    text: str
    """A sentence with the figures of this check."""
    means: str
    """The cause that the fault points to; empty where the text says it all."""
    level: Level
    at_once: bool = False
    """Whether one check is enough to be sure."""


class Guard(Plugin):
    """Says when to check, on which samples, and which figures are faults. Holds settings only; see `GuardState`."""

    kind = "guard"
    action: Action = "warn"
    """The action on a collapse. Each but `warn` also alerts the tracker."""
    patience: int = 2
    """Checks in a row that must find a fault."""
    max_rollbacks: int = 3
    """Rollbacks after which a further collapse stops the run."""

    @property
    def neutral(self) -> bool:
        """Whether its action leaves the training as it is; such a guard is in no signature."""
        return self.action in NEUTRAL_ACTIONS

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether to check after `step` updates of `num_steps`. Must depend on these alone."""
        raise NotImplementedError

    def is_full(self, step: int, num_steps: int) -> bool:
        """Whether this check samples the student at all its numbers of steps, or at one step alone.

        Full checks that find nothing are what a rollback goes back to.
        """
        raise NotImplementedError

    def num_samples(self) -> int:
        """The number of stored samples that the student is compared on."""
        raise NotImplementedError

    def is_early(self, step: int, num_steps: int) -> bool:
        """Whether it is too early to judge: findings are remembered, no verdict follows."""
        raise NotImplementedError

    def findings(self, figures: Mapping[str, float]) -> tuple[Finding, ...]:
        """The faults in these figures, the worst first; empty for a healthy run."""
        raise NotImplementedError
