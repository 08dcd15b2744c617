"""The micro-batches of a training step, and the random numbers and inputs of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.augment import Augment, Moves
from ladd_dist.core.noise import few_step_inputs
from ladd_dist.core.rng import Rows, RowSource, generator
from ladd_dist.core.transfer import sent
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.rollouts import Inputs, Rollout
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.starts import Start


class Draws(NamedTuple):
    """The random numbers of one step. R rows are shown to the heads: the B of the batch once, or several times."""

    sigma: Tensor  # [B] level the student starts from
    start_eps: Tensor  # [B,C,H,W] fresh noise of the student's input
    tau: Tensor  # [R] level at which the heads compare
    renoise_eps: Tensor  # [R,C,H,W] shared by real and fake: only x0 and the fake differ
    moves: Moves | None = None  # of the R rows, shared by real and fake
    ahead: Tensor | None = None  # [R] int64, 1 .. K - 1: how many conditions after its own a row's wrong one is

    def shown(self, x0: Tensor) -> Tensor:
        """Samples x0 [R,C,H,W] as the critic is shown them, moved."""
        return x0 if self.moves is None else self.moves(x0)


class Part(NamedTuple):
    """A micro-batch: some rows of the global batch, and the random numbers that belong to them."""

    batch: Batch  # R rows
    rows: Rows  # of the batch's B
    draws: Draws
    inputs: Inputs  # R rows that the student denoises


@dataclass(frozen=True)
class MicroBatches:
    """Splits batches into micro-batches and draws their random numbers, each from (seed, purpose, step, row)."""

    start: Start
    rollout: Rollout
    student_sigma: SigmaLaw
    renoise_sigma: SigmaLaw
    levels: tuple[float, ...]
    """The student's levels, descending."""
    seed: int
    augment: Augment = Augment()
    before: DenoiseFn | None = None
    """The student before training, where some rows ask for old conditions: it says what they should give."""
    num_old: int = 0
    """How many rows of a global batch these are, spread as `MixedReader` spreads them."""
    wrong_of: int = 0
    """K, the number of conditions among which each row has a wrong one drawn; 0: none is drawn."""

    @property
    def repeats(self) -> int:
        """How often a row of the batch is trained on in one step: R / B."""
        return self.rollout.repeats(len(self.levels))

    def split(self, batch: Batch, step: int, rows: Rows, *, count: int, student: DenoiseFn) -> list[Part]:
        """The batch as `count` micro-batches of equal size.

        Args:
            rows: the batch's place in the global batch.
            student: for a rollout that trains on the student's own steps.

        Raises:
            ValueError: `count` does not divide the batch.
        """
        parts = []
        for number in range(count):
            own = rows.part(number, count)
            piece = batch.rows(slice(own.first - rows.first, own.stop - rows.first))
            draws = self.draw(piece, own, step, turn=0)
            inputs = self.inputs(piece, own, draws, step, student)
            parts.append(Part(self._kept(piece.repeat(self.repeats), inputs, own), own, draws, inputs))
        return parts

    def source(self, purpose: str, rows: Rows, *parts: int, device: torch.device, repeats: int = 1) -> RowSource:
        """Random numbers that depend on the seed, the parts and each row's place in the global batch."""
        return RowSource(rows, purpose, self.seed, *parts, device=device, repeats=repeats)

    def source_of(self, part: Part, purpose: str, *parts: int) -> RowSource:
        """Random numbers for each of the R rows of a micro-batch; see `source`."""
        return self.source(purpose, part.rows, *parts, device=part.batch.x0.device, repeats=self.repeats)

    def draw(self, batch: Batch, rows: Rows, step: int, turn: int) -> Draws:
        """The random numbers of some rows; they depend on (seed, step, turn) and the row's place in the global batch.

        Levels are drawn on the CPU: drawing from a set of levels on an accelerator would wait for it in every step.
        """
        device, again = batch.x0.device, self.repeats

        def level(law: SigmaLaw, purpose: str, repeats: int = 1) -> Tensor:
            source = generator(purpose, self.seed, step, turn)
            drawn = [law(rows.total, step, source, levels=self.levels)[rows.first : rows.stop] for _ in range(repeats)]
            return sent(torch.cat(drawn), device)

        def noise(purpose: str, repeats: int = 1) -> Tensor:
            eps = self.source(purpose, rows, step, turn, device=device, repeats=repeats).normal(*batch.x0.shape[1:])
            return eps.contiguous(memory_format=torch.channels_last)

        sigma, tau = level(self.student_sigma, "sigma"), level(self.renoise_sigma, "tau", again)
        moves = None
        if self.augment.moves():
            moving = self.source("augment", rows, step, turn, device=device, repeats=again)
            moves = self.augment.draw(moving, *batch.x0.shape[2:])
        ahead = None
        if self.wrong_of:
            place = self.source("mismatched", rows, step, turn, device=device, repeats=again).uniform().double()
            ahead = 1 + (place * (self.wrong_of - 1)).long()  # 1 .. K - 1: never back to itself
        return Draws(sigma, noise("start"), tau, noise("renoise", again), moves, ahead)

    def wrong(self, part: Part) -> Tensor:
        """A wrong condition [R] int64 for each row of a micro-batch, uniform among the others of 0 .. K - 1.

        Raises:
            ValueError: none was drawn.
        """
        if part.draws.ahead is None:
            raise ValueError("these micro-batches draw no wrong conditions: give wrong_of")
        return (part.batch.cond + part.draws.ahead) % self.wrong_of

    @torch.no_grad()
    def inputs(self, batch: Batch, rows: Rows, draws: Draws, step: int, student: DenoiseFn) -> Inputs:
        """The student's inputs: noised samples of the teacher, or the states that its own steps lead to."""
        device = batch.x0.device
        batch, eps = self._paired(batch, draws)
        given = Inputs(self.start(batch, draws.sigma, eps), draws.sigma)

        def own() -> Iterator[Tensor]:
            # From the coupling's own noise, with nothing of the sample in it: as the sampler starts.
            top, nothing = torch.full_like(draws.sigma, self.levels[0]), batch._replace(x0=torch.zeros_like(batch.x0))
            x = self.start(nothing, top, eps)
            again = self.source("rollout_noise", rows, step, device=device)
            return few_step_inputs(student, x, batch.cond, self.levels, self.start.rule, again)

        return self.rollout(given, own, self.levels, self.source("rollout", rows, step, device=device))

    @torch.no_grad()
    def _kept(self, batch: Batch, inputs: Inputs, rows: Rows) -> Batch:
        """The batch whose old samples are what the student before training makes of their inputs, at every level.

        The stored samples are its answers in several steps; asked for these in one, the student would learn their mean.
        """
        if batch.old is None or self.before is None:
            return batch
        first, stop = (row * self.num_old // rows.total for row in (rows.first, rows.stop))
        # How many there are is known, so that the host need not wait for the device to count them.
        where = batch.old.int().argsort(descending=True, stable=True)[: (stop - first) * self.repeats]
        answers = self.before(inputs.x[where], inputs.sigma[where], batch.cond[where])
        return batch._replace(x0=batch.x0.index_copy(0, where, answers.to(batch.x0.dtype)))

    def _paired(self, batch: Batch, draws: Draws) -> tuple[Batch, Tensor]:
        """The batch and the noise of its inputs: old samples have the noise they were made from, others that drawn.

        Only so are they inputs that the student meets, where it keeps the noise; the rule `sde` adds new noise.
        """
        if batch.old is None or self.start.rule == "sde":
            return batch, draws.start_eps
        assert batch.noise is not None
        eps = torch.where(batch.old.view(-1, 1, 1, 1), batch.noise, draws.start_eps)
        return batch._replace(noise=eps), eps
