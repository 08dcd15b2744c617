"""One step of Latent Adversarial Diffusion Distillation (Sauer et al. 2024, arXiv 2403.12015)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.gan import over_heads
from ladd_dist.core.rng import Rows, whole_batch
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.engine.adv_norm import AdversarialNorm
from ladd_dist.engine.discriminator import CriticOutput, FrozenCritic
from ladd_dist.engine.draws import MicroBatches, Part
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.heads_update import HeadsUpdate, critique
from ladd_dist.engine.step_metrics import skipped
from ladd_dist.guards.judge import NO_CHANGE, GuardControl
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.parallel import Trainable
from ladd_dist.regularisers import Regulariser
from ladd_dist.schedules import Schedule
from ladd_dist.targets import Target, TargetSample, no_teacher


class Weights(NamedTuple):
    """Weights of the student's losses in one step."""

    adversarial: float | Tensor
    distill: float | Tensor

    def figures(self) -> dict[str, Tensor | float]:
        """Their entries among the figures of the step."""
        return {"weight/adversarial": self.adversarial, "weight/distill": self.distill}


@dataclass(frozen=True)
class LaddStep:
    """The two updates of a cycle; calling it trains both networks once.

    Cost of `fused`, with S a student forward and e a teacher forward up to the last tap: 3 S + 3 e (+ heads).
    `alternate` computes the student and the features once for each update: 4 S + 4 e, the same gradients. It is the way
    to accumulate: the heads learn from every micro-batch before the student sees them, and no graph waits for that.
    """

    student: Trainable
    heads: Trainable
    critic: FrozenCritic
    micro_batches: MicroBatches
    adversarial: Adversarial
    target: Target
    distance: Distance
    regulariser: Regulariser
    adv_weight: Schedule
    distill_weight: Schedule
    mode: Literal["fused", "alternate"]
    head_updates: int
    teacher: DenoiseFn = no_teacher  # frozen, with the recipe's guidance
    mismatched: float = 0.0  # share of real samples under a wrong condition among the heads' fakes
    head_sums: HeadSums | None = None  # adds up the logits of each step by head and noise level
    adv_norm: AdversarialNorm = field(default_factory=lambda: AdversarialNorm(0.0))

    def __call__(
        self, batch: Batch, step: int, rows: Rows | None = None, control: GuardControl = NO_CHANGE
    ) -> dict[str, Tensor | float]:
        """Train on `batch`; `step` = student updates done; `rows` = its place in the global batch (default: all of it).

        Returns figures of these rows, as 0-d tensors (no host sync) or floats. In fp16 `skipped` is one of them: where
        an update was skipped, the other tensors may be no numbers.
        """
        parts = self.parts(batch, step, rows or whole_batch(len(batch.x0)))
        weights = self.weights(step, control)
        sees_heads, learn = bool(weights.adversarial != 0), control.heads_learn
        found = self.updates(parts, weights, step, sees_heads=sees_heads, learn=learn)
        return found | weights.figures()

    def weights(self, step: int, control: GuardControl) -> Weights:
        """The weights of the student's losses."""
        return Weights(control.adv_factor * self.adv_weight(step), self.distill_weight(step))

    def updates(
        self, parts: list[Part], weights: Weights, step: int, *, sees_heads: bool, learn: bool
    ) -> dict[str, Tensor | float]:
        """Update the heads (if they `learn`) and the student; returns the figures.

        Args:
            sees_heads: whether the adversarial weight is not 0; otherwise the student's adversarial branch would be
                computed for nothing.
        """
        fused = self.mode == "fused"
        with torch.set_grad_enabled(fused):
            fakes = [self.fake(part) for part in parts]
        shared: list[CriticOutput | None] = [None] * len(parts)
        if fused:
            with torch.set_grad_enabled(sees_heads):
                shared = [self.critique_fake(fake, part) for fake, part in zip(fakes, parts, strict=True)]
        figures, real_logits = self.heads_update(parts, fakes, shared, step, learn=learn)

        # Student: fool the updated heads, and stay near the target: the teacher's sample, if nothing else is said.
        def loss_of(micro: int) -> Tensor:
            part = parts[micro]
            fake = fakes[micro] if fused else self.fake(part)
            target = self.target_of(fake, part, step)
            loss_distill = self.distance(fake, target.x0, target.sigma)
            figures.add({"loss/distill": loss_distill})
            loss = weights.distill * loss_distill
            if sees_heads:
                on_fake = shared[micro] or self.critique_fake(fake, part)
                with self.heads.frozen():
                    fake_logits = self.heads(on_fake.features, on_fake.cond_vec)
                loss_adversarial = over_heads(self.adversarial.generator, fake_logits, real_logits[micro])
                figures.add({"loss/adversarial": loss_adversarial})
                loss = loss + weights.adversarial * self.adv_norm.weighed(loss_adversarial)
            return loss

        grad_norm = self.student.update(loss_of)
        found = figures.means() | {"grad_norm/student": grad_norm} | self.adv_norm.advance()
        return found | skipped(self.student, *([self.heads] if learn else []))

    @property
    def heads_update(self) -> HeadsUpdate:
        """The heads' turn of this step."""
        sides = (self.heads, self.critic, self.adversarial, self.regulariser)
        return HeadsUpdate(*sides, self.micro_batches, self.head_updates, self.head_sums, self.mismatched)

    def parts(self, batch: Batch, step: int, rows: Rows) -> list[Part]:
        """The batch in micro-batches."""
        return self.micro_batches.split(batch, step, rows, count=self.student.accumulate, student=self.denoise)

    def denoise(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        """The student as a function."""
        denoised: Tensor = self.student(x, sigma, cond).denoised
        return denoised

    def fake(self, part: Part) -> Tensor:
        """The student's samples [R,C,H,W]."""
        return self.denoise(part.inputs.x, part.inputs.sigma, part.batch.cond)

    @torch.no_grad()
    def target_of(self, fake: Tensor, part: Part, step: int) -> TargetSample:
        """The samples [R,C,H,W] that the distance compares the student's with, and their levels [R]."""
        source = self.micro_batches.source_of(part, "target", step)
        return self.target(fake, *part.inputs, part.batch, teacher=self.teacher, source=source)

    def critique_fake(self, fake: Tensor, part: Part) -> CriticOutput:
        """The critic's output on the student's samples; `adv_norm` may normalise the gradient from here."""
        return critique(self.critic, self.adv_norm.towards_heads(fake), part)
