"""Checks of state that outlives a step (the weight average, checkpoints) and of the parallel strategy."""

from __future__ import annotations

import torch

from ladd_dist.parallel.ranks import join
from ladd_dist.preflight.check import Check, Fail, Skip, Warn
from ladd_dist.preflight.fixture import Fixture
from ladd_dist.preflight.update_checks import NETWORKS, SUMS, flat
from ladd_dist.stages.distill import Distillation

STALE = 0.2
"""Share of the initial weights in the average at the end of training that is too much."""
MEETS_WITHIN_S = 60.0


def check_average(fixture: Fixture) -> str:
    """Check that the average follows the student once a step, and that it is what is evaluated."""
    found = fixture.require_steps()
    watch, training = found.watch, found.training
    students = [turn for turn in watch.turns if turn.role == "student"]
    beta = 0.5 if fixture.recipe.train.ema.half_life > 0 else 0.0
    expected = watch.turns[0].before["average"]
    for turn in watch.turns:
        if turn.role == "heads" and turn.moved("average"):
            raise Fail(
                "the average moves on the heads' turn",
                cause="it is updated once for each update of either network: its half-life is not what the recipe says",
                cure="WeightAverage.update once a step, after the student's update",
            )
    for turn in students:
        weights = turn.after["student"]
        expected = {name: beta * value + (1 - beta) * weights[name] for name, value in expected.items()}
    live = {name: part.tensor for name, part in training.average.weights.items()}
    step = float((flat(students[-1].after["student"]) - flat(students[0].before["student"])).norm())
    if float((flat(live) - flat(expected)).norm()) > SUMS * step:
        raise Fail(
            "after two steps the average is not beta w + (1 - beta) w_new, twice",
            cause="it is updated more than once a step, at another place than after the student's update, or never",
            cure="WeightAverage.update once a step, after the student's update",
        )
    shown = training.averaged()
    assert shown is not None
    own = dict(shown.named_parameters())
    if float((flat(live) - flat({name: own[name] for name in live})).norm()) > SUMS * step:
        raise Fail(
            "what is evaluated and saved is not the average",
            cause="the live weights are taken instead of the average",
            cure="builders.teacher.averaged takes average.weights",
        )
    return "moves once a step, after the student's update; it is what is evaluated"


def check_span(fixture: Fixture) -> str:
    """Check that the average forgets the weights that it began with."""
    ema, updates = fixture.recipe.train.ema, fixture.recipe.train.steps * fixture.recipe.train.batch_size
    left = 0.5 ** (updates / ema.half_life) if ema.half_life > 0 and ema.ramp == 0 else 0.0
    if left > STALE:
        raise Warn(
            f"at the end of training the average is still {left:.0%} what it began with",
            cause=f"a half-life of {ema.half_life} samples in a training of {updates}",
            cure=f"--train.ema.half-life {max(1, updates // 5)}",
        )
    return f"{left:.0%} of it is what it began with, at the end of training"


def check_resume(fixture: Fixture) -> str:
    """Check that a checkpoint restores weights, moments, counters and average, and that the next step is the same."""
    training = fixture.training()
    first = fixture.step
    training.step(first)
    with training.checkpoints.complete():
        training.save(first + 1)
    again = Distillation(training.run)
    if again.first_step != first + 1:
        raise Fail(
            f"the checkpoint of step {first + 1} is not found",
            cause="a checkpoint of another recipe, or none was written",
            cure="see check `disk`",
        )
    cure = "all state in parameters and buffers; Saved.fill_optimizer for both networks"
    for role in NETWORKS:
        one, other = getattr(training, role), getattr(again, role)
        for quantity in ("weight", "exp_avg", "exp_avg_sq"):
            if not torch.equal(flat(one.local(quantity)), flat(other.local(quantity))):
                raise Fail(f"resumed, the {role} has other values in {quantity}", cause="reset silently", cure=cure)
        if one.counters() != other.counters():
            raise Fail(f"resumed, the {role} has other counters", cause="Adam would begin anew", cure=cure)
    if not torch.equal(flat(training.average.weights), flat(again.average.weights)):
        raise Fail("resumed, the average is another", cause="it begins again from the live weights", cure=cure)
    for way in (training, again):
        way.step(first + 1)
    # Kernels of accelerators may sum in another order each time.
    slack = 0.0 if fixture.run.device.type == "cpu" else SUMS * fixture.small.train.lr_student
    for role in NETWORKS:
        one, other = (flat(getattr(way, role).local("weight")) for way in (training, again))
        if float((one - other).abs().max()) > slack:
            raise Fail(
                f"the step after resuming gives the {role} other weights",
                cause="state that no checkpoint holds (a plain attribute of a head), or random numbers that do not "
                "follow from seed and step",
                cure=cure,
            )
    return "weights, moments, counters and average come back; the next step has the same bits"


def check_strategy(fixture: Fixture) -> str:
    """Check that the recipe's strategy, in a group of one process, computes the step of a process without one."""
    recipe = fixture.recipe
    if recipe.parallel.name == "single":
        raise Skip("one process: nothing to spread (--parallel ddp, fsdp, zero1 ...)")
    fixture.require_steps()
    backend = "nccl" if fixture.run.device.type == "cuda" else "gloo"
    expected = fixture.watched.figures[0]
    with join(backend, MEETS_WITHIN_S, device=fixture.run.device, needs_group=True) as ranks:
        training = fixture.training(parallel=recipe.parallel, workspace=fixture.own.among(ranks).workspace)
        figures = {name: float(value) for name, value in training.step(fixture.step).items()}
    for name, value in expected.items():
        if abs(value - figures[name]) > SUMS * max(1e-3, abs(value)):
            raise Fail(
                f"{name} is {figures[name]:.5g} under {recipe.parallel.name!r}, {value:.5g} in one process",
                cause="the strategy computes another step",
                cure="--parallel ddp; a strategy of your own must keep the contract of Trainable",
            )
    return f"{recipe.parallel.name!r} gives the figures of one process"


CHECKS: list[Check[Fixture]] = [
    Check("average", "The average moves on student updates alone, and is what is evaluated", check_average),
    Check("average-span", "The average forgets what it began with", check_span),
    Check("resume", "A resumed training goes on with the same bits", check_resume),
    Check("strategy", "The recipe's strategy computes the same step", check_strategy),
]
