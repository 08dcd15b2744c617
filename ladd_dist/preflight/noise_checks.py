"""Checks of noise levels, of the student's inputs, and of samplers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ladd_dist.builders.sampling import sample_student
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import SampleSource, added_noise, generator, whole_batch
from ladd_dist.core.types import Batch, Denoiser, NetOutput
from ladd_dist.preflight.check import Check, Fail, Warn
from ladd_dist.preflight.fixture import BATCH, OWN_SAMPLES, Fixture
from ladd_dist.preflight.teacher_checks import correlation, rms
from ladd_dist.targets.pulls import Input

LOW = 0.1
"""A level at which the student's input is mostly x0, so that pure noise stands out."""
ALIKE, UNLIKE = 0.99, 0.2
PATH_SLACK = 0.35
DRAWN = 256


def check_last_level(fixture: Fixture) -> str:
    """Check that every sampler ends at level 0: with a perfect denoiser its sample is the answer."""
    recipe = fixture.recipe
    image = recipe.latent()
    source = torch.Generator().manual_seed(0)
    shape = (4, image.channels, 4, 4)
    noise, answer = (torch.randn(shape, generator=source, dtype=torch.float64) for _ in range(2))
    answer = answer.clamp(-1, 1)  # the range of images, to which a sampler may clip
    cond = torch.zeros(4, dtype=torch.int64)

    def knows(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        return answer

    ends = {"shards.sampler": recipe.shards.sampler(knows, noise, cond)[0]}
    for rule in ("ode", "sde"):
        levels, new_noise = recipe.student_levels(), SampleSource(range(len(noise)), "doctor")
        ends[f"the student's {rule} rule"] = few_step_sample(knows, noise, cond, levels, rule, new_noise)
    for who, end in ends.items():
        left = rms(end - answer)
        if left > 1e-6:
            raise Fail(
                f"{who} leaves noise of {left:.2g} in its samples",
                cause="its last level is not 0, or its result is not the last x0",
                cure="append 0 to the levels of the sampler: the last step must end at sigma = 0",
            )
    return "samplers end at sigma 0: " + ", ".join(ends)


def check_student_input(fixture: Fixture) -> str:
    """Check the signal-to-noise ratio of the inputs that the start makes, sample by sample."""
    start, batch = fixture.recipe.start, fixture.batch
    levels = fixture.recipe.student_levels()
    if start.needs_path:
        return _on_the_path(fixture, batch, levels)
    levels = (*levels, LOW)
    sigma = torch.tensor([levels[i % len(levels)] for i in range(len(batch.x0))], device=batch.x0.device)
    eps = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(1)).to(batch.x0)
    x = start(batch, sigma, eps)
    residual = (x - batch.x0).double() / sigma.double().view(-1, 1, 1, 1)
    slack = 6 / math.sqrt(2 * residual[0].numel())  # six standard errors of a sample's own standard deviation
    for i, row in enumerate(residual):
        size = rms(row)
        if abs(size - 1) > slack:
            raise Fail(
                f"at sigma {float(sigma[i]):g} sample {i} has noise of {size * float(sigma[i]):.3g}",
                cause=f"start {start.name!r} is not x = x0 + sigma n, sample by sample: pure noise whatever the level, "
                "one sample's level for all, or noise that is not of unit variance",
                cure="return batch.x0 + sigma.view(-1, 1, 1, 1) * noise; sigma is [B], one level a sample",
            )
    _as_the_network_is_told(fixture)
    return f"noise over sigma has standard deviation {rms(residual):.3f} at {', '.join(f'{s:g}' for s in levels)}"


def _as_the_network_is_told(fixture: Fixture) -> None:
    """Check that in the training step the sigma that the network is told is that of its input.

    Raises:
        Fail: it is another one.
    """
    found = fixture.require_steps()
    signal = rms(found.training.reader.batch(0, OWN_SAMPLES, 0).x0)  # an untrained teacher's samples may be huge
    for call in found.watch.students:
        for x, sigma in zip(call.x, call.sigma, strict=True):
            rough = rms(x) / math.sqrt(signal**2 + float(sigma) ** 2)
            if float(sigma) > 2 * signal and not 0.5 < rough < 2:
                raise Fail(
                    f"the student is told sigma {float(sigma):g} with an input of size {rms(x):.3g}",
                    cause="input and level come from different draws",
                    cure="MicroBatches.inputs passes draws.sigma to the start, LaddStep.fake to the student",
                )


def _on_the_path(fixture: Fixture, batch: Batch, levels: tuple[float, ...]) -> str:
    """Check that states of the teacher's path have the variance of data and noise together."""
    name = fixture.recipe.start.name
    own = fixture.untouched.reader.batch(0, BATCH, 0) if batch.path is None else batch
    for level in levels:
        sigma = torch.full((len(own.x0),), level, device=own.x0.device)
        x = fixture.recipe.start(own, sigma, torch.zeros_like(own.x0))
        expected = math.sqrt(rms(own.x0) ** 2 + level**2)
        if abs(rms(x) / expected - 1) > PATH_SLACK:
            raise Fail(
                f"at sigma {level:g} the student's input has size {rms(x):.3g}, the level says {expected:.3g}",
                cause=f"start {name!r} takes the state of another level, or no state at all",
                cure="return batch.path at the stored level that is sigma, sample by sample",
            )
    _as_the_network_is_told(fixture)
    return f"states of the path have the variance of {', '.join(f'{s:g}' for s in levels)}"


def check_levels(fixture: Fixture) -> str:
    """Check that each sample of a batch has its own level, from the noise distributions and in the training step."""
    recipe = fixture.recipe
    laws = {"student_sigma": recipe.student_sigma, "renoise_sigma": recipe.renoise_sigma}
    micro_batches = fixture.untouched.ladd_step.micro_batches
    rows = whole_batch(DRAWN)
    like = fixture.batch.x0[:1]
    batch = Batch(like.expand(DRAWN, *like.shape[1:]), torch.zeros(DRAWN, dtype=torch.int64), None, None, ())
    steps = range(fixture.step, fixture.step + 4)
    drawn = [micro_batches.draw(batch, rows, number, 0) for number in steps]
    drawn = [d._replace(tau=d.tau[:DRAWN]) for d in drawn]
    in_step = {"student_sigma": [d.sigma for d in drawn], "renoise_sigma": [d.tau for d in drawn]}
    counts = {}
    for field, law in laws.items():
        own = [law(DRAWN, number, generator("doctor", number), levels=recipe.student_levels()) for number in steps]
        for who, draws in ((f"{law.kind} law {law.name!r}", own), ("the training step", in_step[field])):
            distinct = {float(value) for draw in draws for value in draw}
            if any(draw.shape != (DRAWN,) for draw in draws) or not all(value > 0 for value in distinct):
                raise Fail(
                    f"{field}: {who} gives levels of shape {tuple(draws[0].shape)}, the smallest {min(distinct):g}",
                    cause=f"{DRAWN} positive levels were asked for",
                    cure="return a tensor [num] of levels above 0",
                )
            alone = all(len(set(draw.tolist())) == 1 for draw in draws)
            if alone and (len(distinct) > 1 or len(set(own[0].tolist())) > 1):
                raise Fail(
                    f"{field}: {who} draws one level for a whole batch of {DRAWN}",
                    cause="a level is drawn once and repeated: a step trains one level, and steps pull apart",
                    cure="draw `num` levels, one a sample",
                )
            counts[field] = len(distinct)
    return ", ".join(f"{field}: {count} levels in {len(steps)} batches of {DRAWN}" for field, count in counts.items())


class Deaf(Denoiser):
    """A denoiser that returns x0 = 0 and records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self.levels: list[float] = []

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor, **_: object) -> NetOutput:
        self.inputs.append(x)
        self.levels.append(float(sigma[0]))
        return NetOutput(torch.zeros_like(x), {}, cond)


def check_coupling(fixture: Fixture) -> str:
    """Check that the student is sampled as it is trained: `sde` with fresh noise, `ode` with stored noise."""
    recipe, batch = fixture.recipe, fixture.batch
    start = recipe.start
    own = fixture.untouched.reader.batch(0, BATCH, 0) if start.needs_path and batch.path is None else batch
    top = torch.full((len(own.x0),), recipe.student_levels()[0], device=own.x0.device)
    first, second = (
        torch.randn(own.x0.shape, generator=torch.Generator().manual_seed(seed)).to(own.x0) for seed in (2, 3)
    )
    is_fresh = not torch.equal(start(own, top, first), start(own, top, second))
    # A target `input` makes the map from noise to sample itself.
    wanted: str = "sde" if is_fresh and recipe.target != Input() else "ode"
    if is_fresh and recipe.student.init:
        wanted = start.rule  # that of the student from which this one goes on, which has such a map or needs none
    if start.rule != wanted:
        raise Fail(
            f"start {start.name!r} feeds {'fresh' if is_fresh else 'stored'} noise and is sampled by {start.rule!r}",
            cause="the student is sampled on inputs that it never saw in training: quality is lost silently",
            cure=f'set `rule = "{wanted}"` in the class of the start',
        )
    if not is_fresh and own.noise is not None:
        kept = correlation(start(own, top, first) - own.x0, own.noise)
        if kept < ALIKE:
            raise Fail(
                f"start {start.name!r} feeds noise that is not the sample's own (correlation {kept:.2f})",
                cause="rows are shuffled, or the noise comes from somewhere else: then there is no map to learn",
                cure="use batch.noise of the same row",
            )
    levels = recipe.student_levels()
    noise = torch.randn(own.x0.shape, generator=torch.Generator().manual_seed(4)).to(own.x0)
    turned = correlation(_last_input(fixture, noise, own.cond), noise)
    if len(levels) > 1 and not (turned > ALIKE if wanted == "ode" else abs(turned) < UNLIKE):
        raise Fail(
            f"start {start.name!r} wants {wanted!r}, and the sampler's last input has correlation {turned:.2f} with "
            "its noise",
            cause="the sampler follows the other rule: the student sees inputs that it was not trained on",
            cure="sample_student must pass recipe.start.rule",
        )
    return f"{'fresh' if is_fresh else 'kept'} noise, sampled by {wanted!r} at {', '.join(f'{s:g}' for s in levels)}"


def _last_input(fixture: Fixture, noise: Tensor, cond: Tensor) -> Tensor:
    """The few-step sampler's last input [B,C,H,W].

    Raises:
        Fail: its levels or the size of its noise are wrong.
    """
    recipe, deaf = fixture.recipe, Deaf()
    deaf.register_buffer("place", torch.zeros(1, device=noise.device))
    source = added_noise(recipe.evaluate.seed, range(len(noise)))
    sample_student(recipe, deaf, noise, cond, recipe.student_steps, source)
    levels = recipe.student_levels()
    if not all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(deaf.levels, levels, strict=True)):
        raise Fail(
            f"the student is sampled at levels {deaf.levels}, and trained at {levels}",
            cause="sampler and training take their levels from different places",
            cure="both must use recipe.levels(student_steps)",
        )
    for level, x in zip(levels, deaf.inputs, strict=True):
        if abs(rms(x) / level - 1) > UNLIKE:
            raise Fail(
                f"the sampler's input at sigma {level:g} has noise of {rms(x):.3g}",
                cause="a step of the sampler scales the noise wrongly",
                cure="ode: x' = x0 + s'/s (x - x0); sde: x' = x0 + s' n",
            )
    return deaf.inputs[-1]


def check_waste(fixture: Fixture) -> str:
    """Check that the last call of the few-step sampler changes the sample noticeably."""
    levels = fixture.recipe.student_levels()
    if len(levels) > 1 and levels[-1] < WASTED:
        raise Warn(
            f"the last of {len(levels)} calls is at sigma {levels[-1]:g}, where it changes almost nothing",
            cause=f"levels {fixture.recipe.levels.name!r} end at sigma_min",
            cure="--swap levels=good, or search levels for your teacher: `ladd levels RECIPE`",
        )
    return f"the last call is at sigma {levels[-1]:g}"


WASTED = 0.01

CHECKS: list[Check[Fixture]] = [
    Check("last-level", "Every sampler ends at level 0", check_last_level),
    Check("last-call", "The student's last call does something", check_waste),
    Check("student-input", "The student's input has the signal-to-noise ratio of its level", check_student_input),
    Check("levels-per-sample", "Every sample of a batch has a level of its own", check_levels),
    Check("sampler-coupling", "The student is sampled as it is trained", check_coupling),
]
