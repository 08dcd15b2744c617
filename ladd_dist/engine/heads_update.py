"""The heads' turn of a training step: the discriminator learns to tell the teacher's samples from the student's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.gan import over_heads
from ladd_dist.engine.discriminator import CriticOutput, FrozenCritic, join, split
from ladd_dist.engine.draws import MicroBatches, Part
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.step_metrics import SKIPPED, Means, accuracy_mismatched, logit_metrics, skipped
from ladd_dist.losses import Adversarial
from ladd_dist.parallel import Trainable
from ladd_dist.regularisers import PenaltyInputs, Regulariser, Side, of_samples


def critique(critic: FrozenCritic, x0: Tensor, part: Part) -> CriticOutput:
    """The critic's features of x0 [R,C,H,W], moved and re-noised by the draws of the micro-batch."""
    return critic.features(
        part.draws.shown(x0), part.batch.cond, part.draws.tau, part.draws.renoise_eps, part.inputs.sigma
    )


@dataclass(frozen=True)
class HeadsUpdate:
    """Updates the heads `head_updates` times on one set of fakes; each further turn re-noises with new draws.

    With `mismatched` = w > 0 the fakes of the heads' game are a mixture: a share 1 - w is the student's, a share w are
    real samples under a wrong condition (GAN-CLS, Reed et al. 2016, arXiv 1605.05396, algorithm 1, where w is 1/2). The
    loss is (1 - w) L(real, fake) + w L(real, mismatched), whatever the game's L; the student's loss stays as it is.
    """

    heads: Trainable
    critic: FrozenCritic
    adversarial: Adversarial
    regulariser: Regulariser
    micro_batches: MicroBatches
    head_updates: int
    head_sums: HeadSums | None = None
    """Adds up the logits of the last turn by head and noise level; None keeps nothing."""
    mismatched: float = 0.0
    """Share, in [0, 1), of real samples under a wrong condition among the fakes; 0 computes nothing for them."""

    def __call__(
        self, parts: list[Part], fakes: list[Tensor], shared: list[CriticOutput | None], step: int, *, learn: bool
    ) -> tuple[Means, list[dict[str, Tensor]]]:
        """Train the heads, or only evaluate their losses where they are not to `learn`.

        Args:
            fakes: the student's samples [R,C,H,W] of each micro-batch.
            shared: the critic's output on each of them at the micro-batch's own draws, where it is there already.

        Returns the figures of the last turn, and for each micro-batch the logits of real samples at the levels of its
        own draws: a relativistic loss compares the student's fakes with them, row by row.
        """
        first_real_logits: list[dict[str, Tensor]] = []
        figures = Means()
        before = self.head_sums.windows_now() if self.head_sums is not None else []
        for turn in range(self.head_updates):
            figures = Means()

            def loss_of(micro: int, turn: int = turn, figures: Means = figures) -> Tensor:
                part, fake = self.redrawn(parts[micro], step, turn), fakes[micro].detach()
                with torch.no_grad():
                    on_real = critique(self.critic, part.batch.x0, part)
                    known = shared[micro] if turn == 0 else None
                    on_fake = known or critique(self.critic, fake, part)
                    shown = [on_real, on_fake, *self.critique_mismatched(part)]
                joined = join(*shown)
                real_logits, fake_logits, *wrong = split(self.heads(joined.features, joined.cond_vec), len(shown))
                if turn == 0:
                    first_real_logits.append({tap: value.detach() for tap, value in real_logits.items()})
                loss = self.game(real_logits, fake_logits)
                if wrong:
                    loss = (1 - self.mismatched) * loss + self.mismatched * self.game(real_logits, wrong[0])
                    figures.add(accuracy_mismatched(real_logits, wrong[0], self.adversarial.margins))
                if learn:
                    loss = loss + self.penalty(part, fake, on_real, on_fake, step, turn)
                figures.add(logit_metrics(real_logits, fake_logits, self.adversarial.margins) | {"loss/heads": loss})
                if self.head_sums is not None and turn == self.head_updates - 1:
                    level = part.draws.tau if self.critic.renoises else part.inputs.sigma
                    self.head_sums.add(real_logits, fake_logits, level, self.adversarial.margins)
                return loss

            if learn:
                figures.add({"grad_norm/heads": self.heads.update(loss_of)})
            else:
                self._only_look(loss_of)
        if self.head_sums is not None and learn:
            self.head_sums.add_norms(self.heads.group_norms)
            if skip := skipped(self.heads):
                self.head_sums.go_back(before, where=skip[SKIPPED])
        return figures, first_real_logits

    def game(self, real_logits: dict[str, Tensor], fake_logits: dict[str, Tensor]) -> Tensor:
        """The loss of the game (0-d) against one kind of fakes, a mean over heads."""
        return over_heads(self.adversarial.discriminator, real_logits, fake_logits)

    def redrawn(self, part: Part, step: int, turn: int) -> Part:
        """The micro-batch with the random numbers of a turn; turn 0 has the micro-batch's own."""
        return part if turn == 0 else part._replace(draws=self.micro_batches.draw(part.batch, part.rows, step, turn))

    def critique_mismatched(self, part: Part) -> list[CriticOutput]:
        """The critic's output on the real samples under wrong conditions, as a list of one; none without `mismatched`.

        The critic itself is told the wrong condition, at the levels and noise of the real samples: one more forward
        without a graph. Features of the real pass with another `cond_vec` for the heads would be free, but the critic's
        layers are modulated by the condition that it is given. The heads would learn to compare that trace with
        `cond_vec`, without a look at the picture. A student's sample has one condition in both: it would learn nothing.
        """
        if not self.mismatched:
            return []
        wrong = part._replace(batch=part.batch._replace(cond=self.micro_batches.wrong(part)))
        return [critique(self.critic, part.batch.x0, wrong)]

    def _only_look(self, loss_of: Callable[[int], Tensor]) -> None:
        """Compute what `Trainable.update` computes, without the update."""
        with self.heads.frozen(), torch.no_grad():
            for micro in range(self.heads.accumulate):
                loss_of(micro)

    def penalty(
        self, part: Part, fake: Tensor, on_real: CriticOutput, on_fake: CriticOutput, step: int, turn: int
    ) -> Tensor:
        """The regulariser's penalty (0-d) on one micro-batch."""
        detached = {tap: value.detach() for tap, value in on_fake.features.items()}
        source = self.micro_batches.source_of(part, "regulariser", step, turn)

        def nearby(side: Side, rows: slice, eps: float) -> dict[str, Tensor]:
            x0, num = part.batch.x0 if side == "real" else fake, len(part.rows)
            noise = source.normal(*x0.shape[1:])
            shown = (part.draws.shown(x0), part.batch.cond, part.draws.tau, part.draws.renoise_eps, noise)
            x0, cond, tau, renoise_eps, noise = (of_samples(value, num, rows) for value in shown)
            return self.critic.nearby(x0, cond, (tau, renoise_eps), eps * noise)

        return self.regulariser(PenaltyInputs(self.heads, on_real.features, detached, on_real.cond_vec, source, nearby))
