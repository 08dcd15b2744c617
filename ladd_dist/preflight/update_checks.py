"""Checks of the two updates: gradients, changed weights, accumulation, learning rates."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ladd_dist.engine.loop import LEAST_SCALE, Figures, cosine_factor
from ladd_dist.engine.step_metrics import SKIPPED, scaling
from ladd_dist.parallel import FlatShard
from ladd_dist.parallel.compute import Compute
from ladd_dist.preflight.check import Check, Fail
from ladd_dist.preflight.fixture import BATCH, Fixture
from ladd_dist.preflight.recorder import Role, Turn
from ladd_dist.stages.distill import Distillation

NETWORKS: tuple[Role, ...] = ("heads", "student")
OTHER: dict[Role, Role] = {"heads": "student", "student": "heads"}
SUMS = 2e-2
"""Relative tolerance for moments whose sums are made in another order; Adam carries rounding to the other network."""
FIGURES = 5e-3
RATES = 0.1
"""Relative tolerance for moves, because small gradients move a weight by less than the rate."""


def flat(parts: Mapping[str, FlatShard] | Mapping[str, Tensor]) -> Tensor:
    """All of them as one vector, in float64."""
    tensors = [part.tensor if isinstance(part, FlatShard) else part for part in parts.values()]
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def check_step(fixture: Fixture) -> str:
    """Check that a step in the recipe's precision, mode and micro-batches runs, and that its figures are finite."""
    found = fixture.watched
    if found.error is not None:
        raise found.error
    compute = dataclasses.replace(fixture.recipe.train.compute, compile=())  # compiling takes minutes
    size = compute.accumulate * max(1, BATCH // compute.accumulate)
    train = dataclasses.replace(fixture.small.train, batch_size=size, compute=compute)
    figures: Figures = {}
    if compute != Compute():
        figures = _first_that_counts(fixture.training(train=train), fixture.step)
    for name, value in [*found.figures[0].items(), *found.figures[1].items(), *figures.items()]:
        if not math.isfinite(value):
            raise Fail(
                f"{name} is {float(value)}",
                cause=f"a loss or gradient that overflows in {compute.precision}",
                cure="--train.compute.precision fp32 or bf16; look at the loss with the largest value",
            )
    return f"{len(found.figures[0])} figures, all finite, mode {fixture.recipe.train.mode}, {compute.precision}"


def _first_that_counts(training: Distillation, step: int) -> Figures:
    """The figures of a step, after the ones that fp16 skips while its loss scale falls to what the gradients allow."""
    figures = training.step(step)
    while figures.get(SKIPPED, False) and all(value >= LEAST_SCALE for value in _scales(training)):
        figures = training.step(step)
    return figures


def _scales(training: Distillation) -> list[float]:
    found = scaling({"student": training.student, "heads": training.heads})
    return [value for name, value in found.items() if name.startswith("loss_scale/")]


def check_gradients(fixture: Fixture) -> str:
    """Check that after a network's update no gradient is left in either network, and the other has not changed."""
    found = fixture.watched
    for turn in found.watch.turns:
        other = OTHER[turn.role]
        held = turn.gradients[other]
        if held:
            raise Fail(
                f"after the {_whose(turn.role)} turn {len(held)} weights of the {other} hold a gradient, {held[0]} "
                "the first",
                cause=f"the {_whose(turn.role)} loss is differentiated by the {other}, whose next update would add it",
                cure="detach the fake's features on the heads' turn; Trainable.frozen() on the student's",
            )
        moved = [name for name in turn.moved(other) if name in dict(found.watch.networks[other].named_parameters())]
        if moved:
            raise Fail(
                f"the {_whose(turn.role)} update moves weights of the {other}, {moved[0]} the first",
                cause="one optimizer has the weights of both",
                cure="each network has a Trainable of its own",
            )
        if turn.gradients[turn.role]:
            raise Fail(
                f"the {_whose(turn.role)} gradients are still there after its update",
                cause="they would add to those of the next one",
                cure="Trainable.update must end with zero_grad()",
            )
    fixture.require_steps()
    for role in NETWORKS:
        moved = [name for turn in found.watch.turns if turn.role == role for name in turn.moved(role)]
        lr = fixture.recipe.train.lr_student if role == "student" else fixture.recipe.train.lr_heads
        if not moved and lr > 0:
            raise Fail(
                f"the {_whose(role)} update moves nothing",
                cause="no gradient reaches its weights: a detach, or a loss without weight",
                cure="follow the loss back to the weights; `ladd plugins --check NAME` for heads",
            )
    return f"none left in either network in {len(found.watch.turns)} turns; each moves its own weights"


def _whose(role: Role) -> str:
    return "heads'" if role == "heads" else "student's"


def check_frozen_heads(fixture: Fixture) -> str:
    """Check that the student's update leaves the heads' buffers alone, such as those of spectral norm."""
    found = fixture.require_steps()
    turns = [turn for turn in found.watch.turns if turn.role == "student"]
    moved = sorted({name for turn in turns for name in turn.moved("heads")})
    if moved:
        raise Fail(
            f"the student's turn moves {len(moved)} buffers of the heads, {moved[0]} the first",
            cause="the frozen heads are in training mode, where spectral norm iterates and norms take statistics; or a "
            "module of yours ignores eval()",
            cure="Trainable.frozen() must call eval(); a head must keep still in eval mode",
        )
    names = {name for name, _ in found.watch.networks["heads"].named_buffers()}
    return f"{len(names)} buffers stand still"


def check_accumulation(fixture: Fixture) -> str:
    """Check that one batch of eight and eight micro-batches of one give both networks the same update."""
    whole, parts = _both_ways(fixture)
    for role in NETWORKS:
        for quantity in ("exp_avg", "exp_avg_sq"):
            first, second = (flat(getattr(way, role).local(quantity)) for way in (whole[0], parts[0]))
            size = float(first.norm())
            away = float((first - second).norm()) / size if size else float(second.norm())
            if away > SUMS:
                raise Fail(
                    f"8 x 1 gives the {role} other gradients than 1 x 8: {quantity} differs by {away:.0%}",
                    cause="micro-batches that are not averaged (a flag that only divides the loss), a distance or game "
                    "that sums over the batch, or a start or head whose samples see each other",
                    cure="losses are means over samples; Trainable.update divides by accumulate and steps once; "
                    "`ladd plugins --check NAME` for plug-ins",
                )
    for name in ("grad_norm/heads", "grad_norm/student"):
        if abs(whole[1][name] - parts[1][name]) > SUMS * abs(whole[1][name]):
            raise Fail(
                f"{name} is {whole[1][name]:.4g} for 1 x 8 and {parts[1][name]:.4g} for 8 x 1",
                cause="gradients of micro-batches are summed, not averaged; clipping and Adam hide it",
                cure="Trainable.update must divide each loss by accumulate",
            )
    return f"gradients, moments and norms agree within {SUMS:.0%}, for both networks"


def check_statistics(fixture: Fixture) -> str:
    """Check that figures are those of the whole batch, not of one micro-batch, in which a collapse could hide."""
    whole, parts = (way[1] for way in _both_ways(fixture))
    for name, value in whole.items():
        if not name.startswith("grad_norm") and abs(value - parts[name]) > FIGURES * max(1.0, abs(value)):
            raise Fail(
                f"{name} is {value:.4f} for the batch, {parts[name]:.4f} in eight micro-batches",
                cause="it is the figure of one micro-batch (or a sum of them), not of all",
                cure="engine.step_metrics.Means adds every micro-batch and divides by their number",
            )
    return f"{len(whole)} figures are the same for 1 x 8 and 8 x 1"


@functools.lru_cache(maxsize=1)  # two checks look at them
def _both_ways(fixture: Fixture) -> list[tuple[Distillation, dict[str, float]]]:
    ways = []
    fixture.require_steps()
    for accumulate, mode in ((1, fixture.recipe.train.mode), (BATCH, "alternate")):
        train = dataclasses.replace(fixture.small.train, mode=mode, compute=Compute(accumulate=accumulate))
        training = fixture.training(train=train)
        ways.append((training, {name: float(value) for name, value in training.step(fixture.step).items()}))
    return ways


def check_rates(fixture: Fixture) -> str:
    """Check that the first update moves each network's weights by its own learning rate, as Adam does."""
    found = fixture.require_steps()
    train = fixture.recipe.train
    factor = cosine_factor(found.first, train.steps, train.lr_final)
    for role, rate in (("heads", train.lr_heads), ("student", train.lr_student)):
        turn = next(turn for turn in found.watch.turns if turn.role == role)
        weights = [name for name, _ in found.watch.networks[turn.role].named_parameters()]
        moved = _largest_move(turn, weights, train.weight_decay * rate * factor)
        if abs(moved - rate * factor) > RATES * rate * factor + 1e-6:
            raise Fail(
                f"the first update moves the {role} by {moved:.3g}, its learning rate is {rate * factor:.3g}",
                cause="one learning rate, or one schedule, for both networks",
                cure="each Trainable has its own Adam(lr, ...); set_lr_factor multiplies each one's own rate",
            )
    return f"heads {train.lr_heads:g}, student {train.lr_student:g}, times {factor:.3f}"


def _largest_move(turn: Turn, names: Iterable[str], decay: float) -> float:
    """The largest change of a weight in one update, without weight decay; Adam's is the learning rate."""
    before, after = turn.before[turn.role], turn.after[turn.role]
    return max((float((after[name] - before[name] * (1 - decay)).abs().max()) for name in names), default=0.0)


CHECKS: list[Check[Fixture]] = [
    Check("step", "A training step runs, and its figures are finite", check_step),
    Check("gradients", "Gradients stay with the network whose turn it is", check_gradients),
    Check("frozen-heads", "The heads stand still on the student's turn", check_frozen_heads),
    Check("accumulation", "1 x 8 = 8 x 1, through the optimizer's step", check_accumulation),
    Check("statistics", "Figures are those of the whole batch", check_statistics),
    Check("rates", "Each network has its own learning rate", check_rates),
]
