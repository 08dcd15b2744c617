"""One step of Latent Adversarial Diffusion Distillation (Sauer et al. 2024, arXiv 2403.12015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.gan import over_heads
from ladd_dist.core.rng import generator
from ladd_dist.core.types import Batch
from ladd_dist.engine.discriminator import FrozenTeacher, Seen, join, split
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.parallel import Trainable
from ladd_dist.regularisers import Regulariser
from ladd_dist.schedules import Schedule
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.starts import Start


class Draws(NamedTuple):
    """The random numbers of one step."""

    sigma: Tensor  # [B] level the student starts from
    start_eps: Tensor  # [B,C,H,W] fresh noise of the student's input
    tau: Tensor  # [B] level at which the heads compare
    renoise_eps: Tensor  # [B,C,H,W] shared by real and fake: only x0 and the fake differ


@dataclass
class LaddStep:
    """The two updates of a cycle; calling it trains both networks once.

    Cost of `fused`, with S a student forward and e a teacher forward up to the last tap: 3 S + 3 e (+ heads).
    `alternate` computes the student and the features once for each update: 4 S + 4 e, the same gradients.
    """

    student: Trainable
    heads: Trainable
    teacher: FrozenTeacher
    start: Start
    student_sigma: SigmaLaw
    renoise_sigma: SigmaLaw
    levels: tuple[float, ...]
    adversarial: Adversarial
    distance: Distance
    regulariser: Regulariser
    adv_weight: Schedule
    distill_weight: Schedule
    mode: Literal["fused", "alternate"]
    head_updates: int
    seed: int

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """Train on batch; `step` = student updates done. Returns figures as 0-d tensors (no host sync) or floats."""
        draws = self.draw(batch, step, turn=0)
        adv_weight, distill_weight = self.adv_weight(step), self.distill_weight(step)
        student_sees_heads = adv_weight != 0  # otherwise its adversarial branch would be computed for nothing

        if self.mode == "fused":
            fake = self.fake(batch, draws)
            with torch.set_grad_enabled(student_sees_heads):
                seen_fake = self.teacher.features(fake, batch.cond, draws.tau, draws.renoise_eps)
            metrics, real_logits = self.update_heads(batch, fake, seen_fake, draws, step)
        else:
            with torch.no_grad():
                fake = self.fake(batch, draws)
                seen_fake = self.teacher.features(fake, batch.cond, draws.tau, draws.renoise_eps)
            metrics, real_logits = self.update_heads(batch, fake, seen_fake, draws, step)
            fake = self.fake(batch, draws)
            if student_sees_heads:
                seen_fake = self.teacher.features(fake, batch.cond, draws.tau, draws.renoise_eps)

        # Student: fool the updated heads, and stay near the teacher's sample.
        loss_distill = self.distance(fake, batch.x0, draws.sigma)
        loss = distill_weight * loss_distill
        if student_sees_heads:
            with self.heads.frozen():
                fake_logits = self.heads(seen_fake.features, seen_fake.cond_vec)
            loss_adversarial = over_heads(self.adversarial.generator, fake_logits, real_logits)
            loss = loss + adv_weight * loss_adversarial
            metrics["loss/adversarial"] = loss_adversarial.detach()
        metrics["grad_norm/student"] = self.student.update(loss)
        metrics["loss/distill"] = loss_distill.detach()
        metrics["weight/adversarial"], metrics["weight/distill"] = adv_weight, distill_weight
        return metrics

    def draw(self, batch: Batch, step: int, turn: int) -> Draws:
        """The step's random numbers; they depend on (seed, step, turn) alone.

        Levels are drawn on the CPU: drawing from a set of levels on an accelerator would wait for it in every step.
        """
        num, device = len(batch.x0), batch.x0.device

        def level(law: SigmaLaw, purpose: str) -> Tensor:
            drawn = law(num, step, generator(purpose, self.seed, step, turn), levels=self.levels)
            return drawn.to(device, non_blocking=True)

        def noise(purpose: str) -> Tensor:
            source = generator(purpose, self.seed, step, turn, device=device)
            eps = torch.randn(batch.x0.shape, generator=source, device=device)
            return eps.contiguous(memory_format=torch.channels_last)

        sigma, tau = level(self.student_sigma, "sigma"), level(self.renoise_sigma, "tau")
        return Draws(sigma, noise("start"), tau, noise("renoise"))

    def fake(self, batch: Batch, draws: Draws) -> Tensor:
        """The student's samples [B,C,H,W]."""
        noised = self.start(batch, draws.sigma, draws.start_eps)
        denoised: Tensor = self.student(noised, draws.sigma, batch.cond).denoised
        return denoised

    def update_heads(
        self, batch: Batch, fake: Tensor, seen_fake: Seen, draws: Draws, step: int
    ) -> tuple[dict[str, Tensor | float], dict[str, Tensor]]:
        """`head_updates` updates on one set of fakes; every further one re-noises at new levels with new noise.

        Returns figures of the last update, and the logits of real samples at the levels of `draws`: a relativistic
        loss compares the student's fakes with them, row by row.
        """
        for turn in range(self.head_updates):
            if turn > 0:
                draws = self.draw(batch, step, turn)
                with torch.no_grad():
                    seen_fake = self.teacher.features(fake.detach(), batch.cond, draws.tau, draws.renoise_eps)
            with torch.no_grad():
                seen_real = self.teacher.features(batch.x0, batch.cond, draws.tau, draws.renoise_eps)
            both = join(seen_real, seen_fake)
            real_logits, fake_logits = split(self.heads(both.features, both.cond_vec))
            if turn == 0:
                first_real_logits = {tap: value.detach() for tap, value in real_logits.items()}
            loss = over_heads(self.adversarial.discriminator, real_logits, fake_logits)
            loss = loss + self._penalty(seen_real, seen_fake, step, turn)
            grad_norm = self.heads.update(loss)
        metrics = logit_metrics(real_logits, fake_logits)
        metrics |= {"loss/heads": loss.detach(), "grad_norm/heads": grad_norm}
        return metrics, first_real_logits

    def _penalty(self, real: Seen, fake: Seen, step: int, turn: int) -> Tensor:
        detached = {tap: value.detach() for tap, value in fake.features.items()}
        source = generator("regulariser", self.seed, step, turn, device=real.cond_vec.device)
        return self.regulariser(self.heads, real.features, detached, real.cond_vec, source)


@torch.no_grad()
def logit_metrics(real: dict[str, Tensor], fake: dict[str, Tensor]) -> dict[str, Tensor | float]:
    """Accuracy (share of logits on the right side of 0) and logit gap E[l_real] - E[l_fake], per head and overall."""
    metrics: dict[str, Tensor | float] = {}
    rows = []
    for tap in real:
        right_real, right_fake = (real[tap] > 0).float().mean(), (fake[tap] < 0).float().mean()
        gap = real[tap].mean() - fake[tap].mean()
        rows.append(torch.stack([right_real, right_fake, gap]))
        metrics |= {f"accuracy/real/{tap}": right_real, f"accuracy/fake/{tap}": right_fake, f"logit_gap/{tap}": gap}
    right_real, right_fake, gap = torch.stack(rows).mean(dim=0)
    metrics |= {"accuracy/real": right_real, "accuracy/fake": right_fake, "accuracy": (right_real + right_fake) / 2}
    return {**metrics, "logit_gap": gap}
