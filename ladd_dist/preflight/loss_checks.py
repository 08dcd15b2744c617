"""Checks of the adversarial game: what heads and student are shown, and what their losses are."""

from __future__ import annotations

import dataclasses
import functools
from typing import cast

import torch
from torch import Tensor

from ladd_dist.core.types import Batch
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.parallel import Trainable
from ladd_dist.preflight.check import Check, Fail, Skip
from ladd_dist.preflight.fixture import BATCH, Fixture
from ladd_dist.preflight.recorder import Echo, HeadsCall, Recorder, TeacherCall, watched
from ladd_dist.preflight.teacher_checks import correlation
from ladd_dist.regularisers.penalties import NoRegulariser
from ladd_dist.targets import TargetSample
from ladd_dist.targets.pulls import StoredSample

CLOSE = 1e-3
"""Relative tolerance for a loss whose sums are made in another order."""
APART = 3.0
"""Offset that is added to and subtracted from the logits of alternate heads, so that some are past any margin."""
WRONG = "real under another class"


def same(first: float, second: float, slack: float = CLOSE) -> bool:
    """Whether two numbers are equal up to a relative tolerance."""
    return abs(first - second) <= slack * max(1.0, abs(first), abs(second))


def check_what_is_compared(fixture: Fixture) -> str:
    """Check that heads compare the teacher's sample with the student's at the same level, noise and class."""
    found = fixture.require_steps()
    training, watch = found.training, found.watch
    batches = [
        to_device(training.reader.batch(found.first + i, BATCH, fixture.recipe.seed), fixture.run.device).repeat(
            training.ladd_step.micro_batches.repeats
        )
        for i in range(2)
    ]
    reals = [batch.x0 for batch in batches]
    fakes = [call.denoised for call in watch.students]
    groups: dict[bytes, set[str]] = {}
    for call in watch.teachers:
        kind = next((name for name, known in (("real", reals), ("fake", fakes)) if _is_one_of(call.x0, known)), "")
        if not kind:
            noises = [batch.noise for batch in batches if batch.noise is not None]
            alike = max((correlation(call.x0, noise) for noise in noises), default=0.0)
            raise Fail(
                "the heads are shown something that is neither the teacher's sample nor the student's",
                cause="it is the stored noise" if alike > 1 - CLOSE else "a tensor mixed up in the training step",
                cure="HeadsUpdate shows the critic batch.x0 for real and the student's output for fake",
            )
        if training.ladd_step.mismatched and any(_is_mismatched(call, batch) for batch in batches):
            kind = WRONG
        elif abs(float(call.eps.std()) - 1) > 0.2 or not any(torch.equal(call.cond, b.cond) for b in batches):
            raise Fail(
                "the heads' view is made with other noise or classes than the batch's",
                cause="noise that is not of unit variance, or classes that are not the batch's",
                cure="FrozenCritic.features takes batch.cond and unit noise",
            )
        groups.setdefault(_key(call), set()).add(kind)
    lonely = [kinds for kinds in groups.values() if kinds - {WRONG} != {"real", "fake"}]
    if lonely:
        raise Fail(
            f"{len(lonely)} of {len(groups)} views have {' and '.join(sorted(lonely[0]))} alone at their noise",
            cause="real and fake are re-noised with different levels or noise: the heads can tell them by that",
            cure="MicroBatches.draw once for both: only x0 and the fake may differ",
        )
    _check_sides(watch, 3 if training.ladd_step.mismatched else 2)
    return f"{len(groups)} views, each of real and fake at the same level and noise"


def _is_one_of(x: Tensor, known: list[Tensor]) -> bool:
    return any(torch.equal(x, one) for one in known)


def _is_mismatched(call: TeacherCall, batch: Batch) -> bool:
    """Whether a call shows a batch's real samples, each under another class (`train.mismatched`)."""
    return torch.equal(call.x0, batch.x0) and bool((call.cond != batch.cond).all())


def _key(call: TeacherCall) -> bytes:
    return bytes(call.tau.cpu().numpy().tobytes() + call.eps.contiguous().cpu().numpy().tobytes())


def _check_sides(watch: Recorder, num_sides: int) -> None:
    """On the heads' turn real comes first and fake second: their labels depend on it. A third are mismatched."""
    tap = next(iter(watch.teachers[0].features))
    views = {len(call.features[tap]) for call in watch.teachers}
    for call in (call for call in watch.heads if not call.frozen and len(call.features[tap]) / num_sides in views):
        real, fake, *_ = call.features[tap].chunk(num_sides)
        seen = [view.features[tap] for view in watch.teachers]
        if not _is_one_of(real, seen) or not _is_one_of(fake, seen) or torch.equal(real, fake):
            raise Fail(
                "the heads' batch is not real and fake, one behind the other",
                cause="rows of both are mixed: labels do not fit",
                cure="engine.discriminator.join puts real first, split takes it apart in the same way",
            )


def check_equal_sides(fixture: Fixture) -> str:
    """Check that with the teacher's samples as fakes the heads have accuracy 50 % and a logit gap of 0."""
    training = fixture.training()
    training.heads.module.eval()  # dropout would tell them apart, and that is no fault of the step
    batch = to_device(training.reader.batch(0, BATCH, fixture.recipe.seed), fixture.run.device)
    step, watch = watched(training.ladd_step, regulariser=NoRegulariser())
    step = dataclasses.replace(step, student=cast(Trainable, Echo(training.student, batch)))
    figures = step(batch, fixture.step)
    pairs = [value.chunk(2) for value in watch.heads[0].logits.values()]
    logits = torch.cat([side.flatten() for pair in pairs for side in pair])
    margins = torch.cat([side.flatten() for pair in pairs for side in step.adversarial.margins(*pair)])
    undecided = float((margins == 0).double().mean())  # heads that begin at 0 are right about nothing
    accuracy, gap = float(figures["accuracy"]), float(figures["logit_gap"])
    size = float(logits.double().square().mean().sqrt())
    rounding = float(((margins != 0) & (margins.abs() <= CLOSE * size)).double().mean())  # pairs that are equal
    if abs(gap) > CLOSE * max(size, CLOSE) or abs(accuracy - (1 - undecided) / 2) > 0.01 + rounding / 2:
        raise Fail(
            f"real against real the heads are right in {accuracy:.1%}, with a logit gap of {gap:.3g}",
            cause="real and fake are treated differently: other noise or level, a head that looks at the place in the "
            "batch (batch normalisation), or figures that are computed wrongly",
            cure="`ladd plugins --check HEAD`; see also check `compared`",
        )
    told = f", {undecided:.1%} undecided" if undecided else ""
    return f"accuracy {accuracy:.1%}{told}, logit gap {gap:.1g}"


@functools.lru_cache(maxsize=1)  # two checks look at it
def _loud(fixture: Fixture) -> tuple[Recorder, dict[str, Tensor | float], int, Batch]:
    """A step whose heads disagree strongly, and its batch."""
    fixture.require_steps()
    training = fixture.training()
    taps = training.ladd_step.critic.taps
    offsets = {tap: APART if i % 2 else -2 * APART for i, tap in enumerate(taps)}
    step, watch = watched(training.ladd_step, offsets=offsets, regulariser=NoRegulariser())
    batch = to_device(training.reader.batch(0, BATCH, fixture.recipe.seed), fixture.run.device)
    figures = step(batch, fixture.step)
    return watch, figures, fixture.step, batch


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())


def check_heads_loss(fixture: Fixture) -> str:
    """Check that the heads' loss is the mean over heads of the game's loss of each head."""
    game = fixture.recipe.adversarial
    watch, figures, _, _ = _loud(fixture)
    last = [call for call in watch.heads if not call.frozen][-1]
    pairs = [value.chunk(2) for value in last.logits.values()]
    expected = _mean([game.discriminator(real, fake) for real, fake in pairs])
    found = float(figures["loss/heads"])
    if not same(found, expected):
        raise Fail(
            f"the heads' loss is {found:.4f}, the mean over {len(pairs)} heads {expected:.4f}",
            cause="logits are summed or averaged over heads before the non-linearity: once the sum is past a margin "
            "every head starves, wrong ones included",
            cure="reduce over logits of a head, then over heads (core.gan.over_heads), after the non-linearity",
        )
    return f"{found:.4f} over {len(pairs)} heads, in closed form too"


def check_student_loss(fixture: Fixture) -> str:
    """Check that the student's loss is w_adv times the mean over heads plus w_distill times the distance."""
    recipe = fixture.recipe
    watch, figures, step, batch = _loud(fixture)
    weight_adv, weight_distill = recipe.adv_weight(step), recipe.distill_weight(step)
    call = watch.students[-1]
    target = watch.targets[-1]
    if recipe.target == StoredSample():
        target = TargetSample(batch.repeat(fixture.untouched.ladd_step.micro_batches.repeats).x0, call.sigma)
    distance = float(recipe.distance(call.denoised, target.x0, target.sigma))
    said = float(figures["loss/distill"])
    if not same(said, distance):
        raise Fail(
            f"the distance to target {recipe.target.name!r} is {distance:.4f}, the step says {said:.4f}",
            cause="it is taken to something else than the target, or at other levels",
            cure="distance(fake, target.x0, target.sigma), with target 'stored' batch.x0 at the student's levels",
        )
    expected = weight_distill * distance
    if weight_adv != 0:
        frozen = _require_frozen(watch.heads)
        real = next(call for call in watch.heads if not call.frozen)
        pairs = [(fake, real.logits[tap].chunk(2)[0]) for tap, fake in frozen.logits.items()]
        expected += weight_adv * _mean([recipe.adversarial.generator(fake, real) for fake, real in pairs])
    found = watch.turns[-1].losses[0]
    if not same(found, expected):
        raise Fail(
            f"the student's loss is {found:.4f}, its parts give {expected:.4f}",
            cause="weights of the losses, or the mean over heads, are not what the recipe says",
            cure="loss = w_adv x mean over heads of generator(...) + w_distill x distance",
        )
    if weight_adv == 0:
        return f"{found:.4f}; the heads have no weight at step {step}"
    return f"{found:.4f} at step {step} (w_adv {weight_adv:g}, w_distill {weight_distill:g}), in closed form too"


def _require_frozen(calls: list[HeadsCall]) -> HeadsCall:
    frozen = [call for call in calls if call.frozen]
    if not frozen:
        raise Fail(
            "the student's turn asks the heads without freezing them",
            cause="their gradients are computed, kept and reduced on the student's turn",
            cure="with self.heads.frozen(): ...",
        )
    return frozen[-1]


def check_weights(fixture: Fixture) -> str:
    """Check that each loss has a weight above 0 at some step."""
    recipe, steps = fixture.recipe, fixture.recipe.train.steps
    probes = sorted({round(i * (steps - 1) / 40) for i in range(41)})
    adversarial = [recipe.adv_weight(step) for step in probes]
    distill = [recipe.distill_weight(step) for step in probes]
    if not any(adversarial) and not any(distill):
        raise Fail(
            f"both weights are 0 in all of {steps} steps",
            cause="adv_weight and distill_weight of the recipe",
            cure="--distill-weight.value 1, or a warm-up shorter than the training",
        )
    for name, values in (("adv_weight", adversarial), ("distill_weight", distill)):
        if not any(values):
            raise Skip(f"{name} is 0 in all of {steps} steps: one loss alone, as the recipe says")
    return f"adv_weight up to {max(adversarial):g}, distill_weight up to {max(distill):g}"


CHECKS: list[Check[Fixture]] = [
    Check("weights", "Both losses count", check_weights),
    Check("compared", "Heads compare the teacher's sample with the student's, at one noise", check_what_is_compared),
    Check("real-real", "The discriminator on real against real is 50 %", check_equal_sides),
    Check("heads-loss", "The heads' loss is a mean over heads, after the non-linearity", check_heads_loss),
    Check("student-loss", "The student's loss is what the recipe says", check_student_loss),
]
