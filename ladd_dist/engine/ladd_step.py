"""One step of Latent Adversarial Diffusion Distillation (Sauer et al. 2024, arXiv 2403.12015)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.gan import over_heads
from ladd_dist.core.noise import few_step_inputs
from ladd_dist.core.rng import Rows, RowSource, generator, whole_batch
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.engine.adv_norm import AdversarialNorm
from ladd_dist.engine.discriminator import FrozenCritic, Seen, join, split
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.step_metrics import Means, logit_metrics
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.parallel import Trainable
from ladd_dist.regularisers import Regulariser, Side, of_samples
from ladd_dist.rollouts import Inputs, Rollout
from ladd_dist.schedules import Schedule
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.starts import Start
from ladd_dist.targets import Pull, Target


class Draws(NamedTuple):
    """The random numbers of one step. R rows are shown to the heads: the B of the batch once, or several times."""

    sigma: Tensor  # [B] level the student starts from
    start_eps: Tensor  # [B,C,H,W] fresh noise of the student's input
    tau: Tensor  # [R] level at which the heads compare
    renoise_eps: Tensor  # [R,C,H,W] shared by real and fake: only x0 and the fake differ


class Part(NamedTuple):
    """A micro-batch: some rows of the global batch, and the random numbers that belong to them."""

    batch: Batch  # R rows
    rows: Rows  # of the batch's B
    draws: Draws
    inputs: Inputs  # R rows: what the student is asked about


def no_teacher(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """Of a run whose target asks none.

    Raises:
        UserError: it was asked.
    """
    raise UserError("the target asks the teacher, which this run does not hold: set needs_teacher = True in its class")


@dataclass
class LaddStep:
    """The two updates of a cycle; calling it trains both networks once.

    Cost of `fused`, with S a student forward and e a teacher forward up to the last tap: 3 S + 3 e (+ heads).
    `alternate` computes the student and the features once for each update: 4 S + 4 e, the same gradients. It is the way
    to accumulate: the heads learn from every micro-batch before the student sees them, and no graph waits for that.
    """

    student: Trainable
    heads: Trainable
    critic: FrozenCritic
    start: Start
    rollout: Rollout
    student_sigma: SigmaLaw
    renoise_sigma: SigmaLaw
    levels: tuple[float, ...]
    adversarial: Adversarial
    target: Target
    distance: Distance
    regulariser: Regulariser
    adv_weight: Schedule
    distill_weight: Schedule
    mode: Literal["fused", "alternate"]
    head_updates: int
    seed: int
    teacher: DenoiseFn = no_teacher
    """The frozen teacher with the recipe's guidance, for a target that asks it."""
    head_sums: HeadSums | None = None
    """Where the answers of the heads' last update of each step are added up, by head and noise level."""
    adv_norm: AdversarialNorm = field(default_factory=lambda: AdversarialNorm(0.0))
    """What the adversarial gradient at the fakes is divided by."""
    adv_factor: float = 1.0
    """What the adversarial weight is multiplied with; a guard may lower it."""
    heads_learn: bool = True
    """Whether the heads are updated; a guard may end that."""

    def __call__(self, batch: Batch, step: int, rows: Rows | None = None) -> dict[str, Tensor | float]:
        """Train on `batch`; `step` = student updates done; `rows` = its place in the global batch (default: all of it).

        Returns figures of these rows, as 0-d tensors (no host sync) or floats.
        """
        parts = self.parts(batch, step, rows or whole_batch(len(batch.x0)))
        adv_weight, distill_weight = self.adv_factor * self.adv_weight(step), self.distill_weight(step)
        student_sees_heads = adv_weight != 0  # otherwise its adversarial branch would be computed for nothing
        fused = self.mode == "fused"

        with torch.set_grad_enabled(fused):
            fakes = [self.fake(part) for part in parts]
        shared: list[Seen | None] = [None] * len(parts)
        if fused:
            with torch.set_grad_enabled(student_sees_heads):
                shared = [self.see_fake(fake, part) for fake, part in zip(fakes, parts, strict=True)]
        figures, real_logits = self.update_heads(parts, fakes, shared, step)

        # Student: fool the updated heads, and stay near the target: the teacher's sample, if nothing else is said.
        def loss_of(micro: int) -> Tensor:
            part = parts[micro]
            fake = fakes[micro] if fused else self.fake(part)
            pull = self.pull(fake, part, step)
            loss_distill = self.distance(fake, pull.x0, pull.sigma)
            figures.add({"loss/distill": loss_distill})
            loss = distill_weight * loss_distill
            if student_sees_heads:
                seen = shared[micro] or self.see_fake(fake, part)
                with self.heads.frozen():
                    fake_logits = self.heads(seen.features, seen.cond_vec)
                loss_adversarial = over_heads(self.adversarial.generator, fake_logits, real_logits[micro])
                figures.add({"loss/adversarial": loss_adversarial})
                loss = loss + adv_weight * self.adv_norm.weighed(loss_adversarial)
            return loss

        grad_norm = self.student.update(loss_of)
        weights = {"weight/adversarial": adv_weight, "weight/distill": distill_weight}
        return figures.means() | weights | {"grad_norm/student": grad_norm} | self.adv_norm.advance()

    def parts(self, batch: Batch, step: int, rows: Rows) -> list[Part]:
        """The batch in micro-batches."""
        count = self.student.accumulate
        parted = []
        for number in range(count):
            own = rows.part(number, count)
            piece = batch.rows(slice(own.first - rows.first, own.stop - rows.first))
            draws = self.draw(piece, own, step, turn=0)
            parted.append(Part(piece.repeat(self.repeats), own, draws, self.inputs(piece, own, draws, step)))
        return parted

    @property
    def repeats(self) -> int:
        """How often a row of the batch is trained on in one step: R / B."""
        return self.rollout.repeats(len(self.levels))

    def source(self, purpose: str, rows: Rows, *parts: int, device: torch.device, repeats: int = 1) -> RowSource:
        """Random numbers that depend on the seed, the parts and each row's place in the global batch."""
        return RowSource(rows, purpose, self.seed, *parts, device=device, repeats=repeats)

    def draw(self, batch: Batch, rows: Rows, step: int, turn: int) -> Draws:
        """The random numbers of some rows; they depend on (seed, step, turn) and the row's place in the global batch.

        Levels are drawn on the CPU: drawing from a set of levels on an accelerator would wait for it in every step.
        """
        device, again = batch.x0.device, self.repeats

        def level(law: SigmaLaw, purpose: str, repeats: int = 1) -> Tensor:
            source = generator(purpose, self.seed, step, turn)
            drawn = [law(rows.total, step, source, levels=self.levels)[rows.first : rows.stop] for _ in range(repeats)]
            return torch.cat(drawn).to(device, non_blocking=True)

        def noise(purpose: str, repeats: int = 1) -> Tensor:
            eps = self.source(purpose, rows, step, turn, device=device, repeats=repeats).normal(*batch.x0.shape[1:])
            return eps.contiguous(memory_format=torch.channels_last)

        sigma, tau = level(self.student_sigma, "sigma"), level(self.renoise_sigma, "tau", again)
        return Draws(sigma, noise("start"), tau, noise("renoise", again))

    @torch.no_grad()
    def inputs(self, batch: Batch, rows: Rows, draws: Draws, step: int) -> Inputs:
        """What the student is asked about: noised samples of the teacher, or what its own steps lead to."""
        device = batch.x0.device
        given = Inputs(self.start(batch, draws.sigma, draws.start_eps), draws.sigma)

        def own() -> Iterator[Tensor]:
            # From the coupling's own noise, with nothing of the sample in it: as the sampler starts.
            top, nothing = torch.full_like(draws.sigma, self.levels[0]), batch._replace(x0=torch.zeros_like(batch.x0))
            x = self.start(nothing, top, draws.start_eps)
            again = self.source("rollout_noise", rows, step, device=device)
            return few_step_inputs(self.denoise, x, batch.cond, self.levels, self.start.rule, again)

        return self.rollout(given, own, self.levels, self.source("rollout", rows, step, device=device))

    def denoise(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        """The student as a function."""
        denoised: Tensor = self.student(x, sigma, cond).denoised
        return denoised

    def fake(self, part: Part) -> Tensor:
        """The student's samples [R,C,H,W]."""
        return self.denoise(part.inputs.x, part.inputs.sigma, part.batch.cond)

    @torch.no_grad()
    def pull(self, fake: Tensor, part: Part, step: int) -> Pull:
        """What the student's samples [R,C,H,W] should be like."""
        source = self.source("target", part.rows, step, device=fake.device, repeats=self.repeats)
        return self.target(fake, *part.inputs, part.batch, teacher=self.teacher, source=source)

    def see(self, x0: Tensor, part: Part, draws: Draws) -> Seen:
        """The critic's features of x0 [R,C,H,W], re-noised."""
        return self.critic.features(x0, part.batch.cond, draws.tau, draws.renoise_eps)

    def see_fake(self, fake: Tensor, part: Part) -> Seen:
        """The same of the student's own samples, whose gradient from here may be normalised."""
        return self.see(self.adv_norm.towards_heads(fake), part, part.draws)

    def update_heads(
        self, parts: list[Part], fakes: list[Tensor], shared: list[Seen | None], step: int
    ) -> tuple[Means, list[dict[str, Tensor]]]:
        """`head_updates` updates on one set of fakes; every further one re-noises at new levels with new noise.

        Returns figures of the last update, and for each micro-batch the logits of real samples at the levels of its
        own draws: a relativistic loss compares the student's fakes with them, row by row.
        """
        first_real_logits: list[dict[str, Tensor]] = []
        figures = Means()
        for turn in range(self.head_updates):
            figures = Means()

            def loss_of(micro: int, turn: int = turn, figures: Means = figures) -> Tensor:
                part, fake = parts[micro], fakes[micro].detach()
                draws = part.draws if turn == 0 else self.draw(part.batch, part.rows, step, turn)
                with torch.no_grad():
                    seen_real = self.see(part.batch.x0, part, draws)
                    known = shared[micro] if turn == 0 else None
                    seen_fake = known or self.see(fake, part, draws)
                both = join(seen_real, seen_fake)
                real_logits, fake_logits = split(self.heads(both.features, both.cond_vec))
                if turn == 0:
                    first_real_logits.append({tap: value.detach() for tap, value in real_logits.items()})
                loss = over_heads(self.adversarial.discriminator, real_logits, fake_logits)
                if self.heads_learn:
                    loss = loss + self._penalty(part._replace(draws=draws), fake, seen_real, seen_fake, step, turn)
                figures.add(logit_metrics(real_logits, fake_logits) | {"loss/heads": loss})
                if self.head_sums is not None and turn == self.head_updates - 1:
                    level = draws.tau if self.critic.renoises else part.inputs.sigma
                    self.head_sums.add(real_logits, fake_logits, level)
                return loss

            if self.heads_learn:
                figures.add({"grad_norm/heads": self.heads.update(loss_of)})
            else:
                self._only_look(loss_of)
        if self.head_sums is not None and self.heads_learn:
            self.head_sums.add_norms(self.heads.group_norms)
        return figures, first_real_logits

    def _only_look(self, loss_of: Callable[[int], Tensor]) -> None:
        """What `update` computes, but for the update."""
        with self.heads.frozen(), torch.no_grad():
            for micro in range(self.heads.accumulate):
                loss_of(micro)

    def _penalty(self, part: Part, fake: Tensor, seen_real: Seen, seen_fake: Seen, step: int, turn: int) -> Tensor:
        detached = {tap: value.detach() for tap, value in seen_fake.features.items()}
        source = self.source("regulariser", part.rows, step, turn, device=fake.device, repeats=self.repeats)

        def nearby(side: Side, rows: slice, eps: float) -> dict[str, Tensor]:
            x0, num = part.batch.x0 if side == "real" else fake, len(part.rows)
            noise = source.normal(*x0.shape[1:])
            shown = (x0, part.batch.cond, part.draws.tau, part.draws.renoise_eps, noise)
            x0, cond, tau, renoise_eps, noise = (of_samples(value, num, rows) for value in shown)
            return self.critic.nearby(x0, cond, (tau, renoise_eps), eps * noise)

        return self.regulariser(self.heads, seen_real.features, detached, seen_real.cond_vec, source, nearby)
