"""Contract checks that authors of plug-ins can call: in a test, or by `python -m ladd_dist.plugins --check NAME`.

Each check takes an instance, returns None if all is well and raises `ContractError` with a sentence that says what is
wrong. A check knows the interface only, never a particular plug-in; it runs on the CPU, seeded, in well under a second,
and leaves torch's global generator as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ladd_dist.core.plugin import Plugin, PluginError, create
from ladd_dist.core.rng import Rows, RowSource, whole_batch
from ladd_dist.core.types import TapSpec
from ladd_dist.guards import ACTIONS, Finding, Guard
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.regularisers import PenaltyInputs, Regulariser, Side, require_current
from ladd_dist.schedules import Schedule
from ladd_dist.taps import TapLayout
from ladd_dist.testing.basics import TOLERANCE, ContractError, call, check_basics, label, require, seeded
from ladd_dist.testing.critics import check_critic
from ladd_dist.testing.datasets import check_dataset
from ladd_dist.testing.heads import check_head
from ladd_dist.testing.rollouts import check_rollout
from ladd_dist.testing.targets import check_target


def check_plugin(plugin: Plugin | type[Plugin]) -> None:
    """Run all checks of a plug-in's kind; kinds without any are checked for serialisation and docstring.

    Args:
        plugin: an instance, or a class whose fields all have defaults.

    Raises:
        ContractError: the contract of the kind is broken.
    """
    if isinstance(plugin, type):
        who = f"{plugin.kind} {plugin.name or plugin.__name__!r}"
        require(bool(plugin.name), f"{who} is not registered: put @register('snake_name') above it")
        if issubclass(plugin, Regulariser):
            try:
                require_current(plugin)
            except PluginError as error:
                raise ContractError(str(error)) from error
        plugin = call(
            who, "to be made with its default fields (else check an instance)", create, plugin.kind, plugin.name
        )
    assert isinstance(plugin, Plugin)
    _CHECKS.get(plugin.kind, check_basics)(plugin)


def unet_catalog(levels: int) -> dict[str, TapSpec]:
    """The catalog of a U-Net with that many levels: input, down0.., middle, up0.. in order of execution."""
    strides = [2**level for level in range(levels)]
    catalog = {"input": TapSpec(8, 1)}
    catalog |= {f"down{i}": TapSpec(8 * stride, stride) for i, stride in enumerate(strides)}
    catalog["middle"] = TapSpec(8 * strides[-1], strides[-1])
    return catalog | {f"up{i}": TapSpec(8 * stride, stride) for i, stride in enumerate(reversed(strides))}


def check_taps(layout: TapLayout, catalog: Mapping[str, TapSpec] | None = None) -> None:
    """Check that a layout gives names of the catalog, in its order, each once, and a KeyError for a foreign network.

    Args:
        catalog: the taps of the network the layout is for; None tries U-Nets with 2 to 4 levels.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(layout)
    who = label(layout)
    for tried in [catalog] if catalog is not None else [unet_catalog(levels) for levels in (2, 3, 4)]:
        taps = call(who, f"on the catalog {', '.join(tried)} (give its own to check_taps)", layout, tried)
        require(
            isinstance(taps, tuple) and bool(taps), f"{who} must return a tuple with at least one name, got {taps!r}"
        )
        foreign = [tap for tap in taps if tap not in tried]
        require(not foreign, f"{who} returns {foreign[:1]}, which is not in the catalog {', '.join(tried)}")
        ordered = tuple(tap for tap in tried if tap in taps)
        require(taps == ordered, f"{who} must return each name once, in the catalog's order {ordered}, got {taps}")
    try:
        taps = layout({"unrelated": TapSpec(1, 1)})
    except KeyError as error:
        require("unrelated" in str(error), f"{who}: its KeyError must list the catalog, it says {error}")
    else:
        require(taps == ("unrelated",), f"{who} must raise KeyError on a network without its taps, it returned {taps}")


def check_schedule(schedule: Schedule) -> None:
    """Check that a schedule is a pure function from steps to finite floats.

    Raises:
        ContractError: not a float, not finite, or another value for the same step.
    """
    check_basics(schedule)
    who = label(schedule)
    steps = (0, 1, 2, 10, 499, 500, 20_000, 1_000_000)
    values = [call(who, f"at step {step}", schedule, step) for step in steps]
    for step, value in zip(steps, values, strict=True):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        require(number, f"{who} must return a finite float, at step {step} it returned {value!r}")
    again = [schedule(step) for step in reversed(steps)]
    require(again[::-1] == values, f"{who} depends on more than the step: a resumed run would differ")


def _scalar(who: str, what: str, value: Any) -> Tensor:
    scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
    require(scalar, f"{who}: {what} must return a scalar tensor, got {getattr(value, 'shape', value)!r}")
    assert isinstance(value, Tensor)
    require(bool(value.isfinite()), f"{who}: {what} returned {value.item()}")
    return value


def check_adversarial(game: Adversarial) -> None:
    """Check for scalars, finite at large logits, averaged after the non-linearity, with gradients of the right sign.

    And that `margins` judges each pair of logits by itself.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(game)
    who = label(game)
    with seeded():
        real, fake = 3 * torch.randn(6, 4), 3 * torch.randn(6, 4)
    for name, loss in (("discriminator", game.discriminator), ("generator", lambda r, f: game.generator(f, r))):
        value = _scalar(who, name, call(who, f"in {name}", loss, real, fake))
        _scalar(who, f"{name} on logits of 10,000", loss(1e4 * real.sign(), 1e4 * fake.sign()))
        parts = torch.stack([loss(real[:, k : k + 1], fake[:, k : k + 1]) for k in range(4)]).mean()
        after = torch.allclose(value, parts, atol=TOLERANCE)
        require(after, f"{who}: {name} must average over logits after the non-linearity, it gives {value} for {parts}")
    half = [torch.full((6, 1), 0.5, requires_grad=True) for _ in range(2)]  # least squares is flat at its label 0
    up_real, up_fake = torch.autograd.grad(game.discriminator(half[0], half[1]), half)
    require(bool((up_real < 0).all()), f"{who}: the discriminator's loss must fall when real logits rise from 0.5")
    require(bool((up_fake > 0).all()), f"{who}: the discriminator's loss must rise when fake logits rise from 0.5")
    (up,) = torch.autograd.grad(game.generator(half[1], half[0].detach()), half[1])
    require(bool((up < 0).all()), f"{who}: the generator's loss must fall when fake logits rise from 0.5")
    _check_margins(game, real, fake)


def _check_margins(game: Adversarial, real: Tensor, fake: Tensor) -> None:
    who = label(game)
    found = call(who, "in margins", game.margins, real, fake)
    shapes = [tuple(side.shape) for side in found]
    require(shapes == [(6, 4)] * 2, f"{who}: margins must return two tensors [6, 4] for logits [6, 4], got {shapes}")
    for place, better in enumerate((game.margins(real + 1, fake)[0], game.margins(real, fake - 1)[1])):
        side = ("real", "fake")[place]
        rises = bool((better > found[place]).all())
        require(rises, f"{who}: a {side} logit that moves to its side must have a larger margin")
        alone = torch.cat([game.margins(real[:, k : k + 1], fake[:, k : k + 1])[place] for k in range(4)], dim=1)
        require(torch.equal(alone, found[place]), f"{who}: a margin must depend on the two logits at its place alone")
    require(game.large_gap > 0, f"{who}: large_gap must be above 0, got {game.large_gap}")


def check_distance(distance: Distance) -> None:
    """Check for a float32 scalar >= 0, 0 for equal samples, with finite gradients, the same for a batch repeated.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(distance)
    who = label(distance)
    with seeded():
        sample, target = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    sigma = torch.tensor([0.002, 0.5, 80.0])
    value = _scalar(who, "the distance", call(who, "on [3,2,4,4]", distance, sample, target, sigma))
    require(bool(value > 0), f"{who}: the distance of different samples must be > 0, got {value}")
    half = _scalar(who, "the distance", distance(sample.bfloat16(), target.bfloat16(), sigma))
    require(half.dtype == torch.float32, f"{who}: the loss must be computed in float32, got {half.dtype}")
    twice = distance(sample.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1), sigma.repeat(2))
    require(torch.allclose(value, twice, rtol=1e-4), f"{who} must average over the batch: repeated, it gives {twice}")
    same = target.clone().requires_grad_()
    zero = distance(same, target, sigma)
    require(abs(zero.item()) < 1e-5, f"{who}: the distance of equal samples must be 0, got {zero}")
    for at in (same, sample.requires_grad_()):
        (gradient,) = torch.autograd.grad(distance(at, target, sigma), at)
        require(
            bool(gradient.isfinite().all()), f"{who}: the gradient is not finite, at {'0' if at is same else 'random'}"
        )
    require(bool(gradient.flatten(1).any(dim=1).all()), f"{who}: some sample gets no gradient")


def check_regulariser(regulariser: Regulariser) -> None:
    """Check for a finite scalar >= 0, a mean over samples, reproducible, with finite gradients of the heads.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(regulariser)
    who = label(regulariser)
    with seeded():
        heads = nn.ModuleDict({"a": nn.Linear(12, 2), "b": nn.Linear(20, 1)})
        real = {"a": torch.randn(4, 3, 2, 2), "b": torch.randn(4, 5, 2, 2)}
        fake = {tap: value + 1 for tap, value in real.items()}
        cond_vec = torch.randn(4, 6)

    def logits(features: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
        return {tap: torch.tanh(heads[tap](value.flatten(1))) for tap, value in features.items()}

    def penalty(rows: Rows) -> Tensor:
        own = slice(rows.first, rows.stop)
        features = [{tap: value[own] for tap, value in seen.items()} for seen in (real, fake)]
        source = RowSource(rows, "contract")

        def nearby(side: Side, which: slice, eps: float) -> dict[str, Tensor]:
            seen = features[side == "fake"]
            return {tap: (value + eps * source.normal(*value.shape[1:]))[which] for tap, value in seen.items()}

        inputs = PenaltyInputs(logits, features[0], features[1], cond_vec[own], source, nearby)
        return _scalar(who, "the penalty", call(who, "on two taps", regulariser, inputs))

    rows = whole_batch(4)
    first, second = penalty(rows), penalty(rows)
    require(bool(first >= 0), f"{who}: the penalty must not be negative, got {first}")
    require(torch.equal(first, second), f"{who} must draw from the given source only: two calls differ")
    halves = torch.stack([penalty(rows.part(number, 2)) for number in range(2)]).mean()
    require(
        torch.allclose(first, halves, rtol=TOLERANCE),
        f"{who} must average over samples, and draw for each from its row of the source, because other processes may "
        f"compute them: the mean over two halves of a batch is {halves}, over the whole {first}",
    )
    if first.requires_grad:
        for gradient in torch.autograd.grad(first, list(heads.parameters()), allow_unused=True):
            finite = gradient is None or bool(gradient.isfinite().all())
            require(finite, f"{who}: the heads' gradient is not finite")


def check_guard(guard: Guard) -> None:
    """Check that steps alone decide when it is due, and that findings are a pure function of any figures.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(guard)
    who = label(guard)
    require(guard.action in ACTIONS, f"{who}: action must be one of {', '.join(ACTIONS)}, got {guard.action!r}")
    steps = range(1, 1001)
    due, again = (
        [call(who, f"at step {step}", guard.is_due, step, 1000) for step in order] for order in (steps, steps[::-1])
    )
    require(due == again[::-1], f"{who}: is_due depends on more than the step: ranks, and resumed runs, would differ")
    full = [guard.is_full(step, 1000) for step in steps]
    idle = [step for step, now, all_ in zip(steps, due, full, strict=True) if all_ and not now]
    require(not idle, f"{who}: step {idle[:1]} is a full check, but no check is due")
    num = guard.num_samples()
    require(num >= 2 or not any(due), f"{who}: num_samples must be at least 2 where checks are due, got {num}")
    for figures in ({}, {"student@1/finite": 0.0, "not_finite": 1.0}, {"student@1/colour_variance": math.nan}):
        found = call(who, f"on the figures {figures}", guard.findings, figures)
        require(isinstance(found, tuple), f"{who}: findings must return a tuple, got {found!r}")
        wrong = [item for item in found if not (isinstance(item, Finding) and item.fault and item.text)]
        require(not wrong, f"{who}: a finding needs a fault and a text, got {wrong[:1]}")
        require(guard.findings(figures) == found, f"{who}: the same figures must give the same findings")
    require(guard.findings({}) == (), f"{who}: nothing seen is nothing wrong, it finds {guard.findings({})[:1]}")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "head": check_head,
    "taps": check_taps,
    "schedule": check_schedule,
    "adversarial": check_adversarial,
    "distance": check_distance,
    "regulariser": check_regulariser,
    "guard": check_guard,
    "critic": check_critic,
    "dataset": check_dataset,
    "target": check_target,
    "rollout": check_rollout,
}
