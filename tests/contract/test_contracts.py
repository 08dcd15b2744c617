"""Every registered plug-in keeps its kind's contract, and the contract catches those that do not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import ladd_dist.recipe
import plugins
from ladd_dist.core.plugin import Plugin, register, registered
from ladd_dist.core.types import Batch, Denoiser, TapSpec
from ladd_dist.critics.pixels import Pixels
from ladd_dist.heads import Head
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.regularisers import Regulariser
from ladd_dist.rollouts import Inputs, Rollout
from ladd_dist.schedules import Schedule
from ladd_dist.taps import TapLayout
from ladd_dist.targets import Target, TargetSample
from ladd_dist.targets.pulls import TeacherDenoised
from ladd_dist.testing import ContractError, check_head, check_plugin, check_taps
from plugins.heads import MaxPool, SmallConv, SpectralNorm
from plugins.taps import Named

assert plugins and ladd_dist.recipe  # imported for their registration
THEIR_FILES_ARE_NOT_SHIPPED = ("mnist", "fashion_mnist", "folder", "webdataset")
"""tests/unit/test_own_data.py, test_fashion.py, test_folder.py and test_webdataset.py check them."""
EVERY = [
    cls for table in registered().values() for cls in table.values() if cls.name not in THEIR_FILES_ARE_NOT_SHIPPED
]


pytestmark = pytest.mark.usefixtures("own_tables")


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: f"{cls.kind}-{cls.name}")
def test_every_registered_plugin_keeps_its_contract(cls: type[Plugin]) -> None:
    check_plugin(cls)


@pytest.mark.parametrize(
    "head",
    [
        SmallConv(width=3, pool=3, conditioned=True),
        MaxPool(width=3, blocks=4, conditioned=True),
        SpectralNorm(width=3, blocks=3, conditioned=True),
        SpectralNorm(width=3, spectral_classifier=False, conditioned=True),
    ],
    ids=str,
)
def test_heads_keep_their_contract_with_other_settings(head: Head) -> None:
    check_head(head)


def test_the_checks_leave_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_head(SmallConv())
    assert torch.equal(torch.rand(3), expected)


def test_an_unregistered_head_is_told_to_register() -> None:
    @dataclass(frozen=True)
    class Loose(Head):
        """Without a name."""

    for plugin in (Loose, Loose()):
        with pytest.raises(ContractError, match=r"Loose' is not registered"):
            check_plugin(plugin)


def test_a_field_that_json_cannot_hold_is_caught() -> None:
    @register("with_list")
    @dataclass(frozen=True)
    class WithList(Schedule):
        """Its field is a list."""

        points: list[int] = dataclasses.field(default_factory=list)

    with pytest.raises(ContractError, match="schedule 'with_list' fails the type check"):
        check_plugin(WithList)


def test_a_class_with_a_field_without_default_asks_for_an_instance() -> None:
    @register("needs_value")
    @dataclass(frozen=True)
    class NeedsValue(Schedule):
        """Its value must be given."""

        value: float

        def __call__(self, step: int) -> float:
            return self.value

    check_plugin(NeedsValue(value=2.0))
    with pytest.raises(ContractError, match=r"check an instance.*no default for value"):
        check_plugin(NeedsValue)


BASES: dict[str, type[Plugin]] = {base.kind: base for base in (TapLayout, Schedule, Adversarial, Distance, Regulariser)}


def broken(kind: str, **methods: Any) -> Plugin:
    namespace = {"__doc__": "Broken on purpose.", "__module__": __name__, **methods}
    return register("broken")(dataclass(frozen=True)(type("Broken", (BASES[kind],), namespace)))()


class Counter:
    """A schedule's forbidden memory."""

    calls: ClassVar[Iterator[int]] = iter(range(10**6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda self, step: math.nan, "must return a finite float, at step 0 it returned nan"),
        (lambda self, step: torch.ones(()), "must return a finite float"),
        (lambda self, step: 1 / (step - 10), "fails at step 10: ZeroDivisionError"),
        (lambda self, step: float(next(Counter.calls)), "depends on more than the step"),
    ],
)
def test_a_broken_schedule_is_caught(call: Callable[..., float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_plugin(broken("schedule", __call__=call))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda self, catalog: (), "at least one name"),
        (lambda self, catalog: ["input"], "must return a tuple"),
        (lambda self, catalog: ("block9",), "not in the catalog"),
        (lambda self, catalog: ("middle", "input"), "in the catalog's order"),
        (lambda self, catalog: ("input", "input"), "each name once"),
        (lambda self, catalog: tuple(name for name in catalog if "down" in name), "must raise KeyError"),
        (lambda self, catalog: ("input",) if catalog["input"] else (), "its KeyError must list the catalog"),
    ],
)
def test_a_broken_layout_is_caught(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_plugin(broken("taps", __call__=call))


def test_a_layout_for_another_network_is_checked_on_its_own_catalog() -> None:
    layout = Named(names=("block7",))
    check_taps(layout, {"block3": TapSpec(4, 1), "block7": TapSpec(4, 1)})
    with pytest.raises(ContractError, match="give its own to check_taps"):
        check_taps(layout)


@pytest.mark.parametrize(
    ("discriminator", "generator", "message"),
    [
        (lambda s, r, f: f - r, lambda s, f, r: -f.mean(), "discriminator must return a scalar"),
        (lambda s, r, f: torch.relu(1 - r.sum(1)).mean() + torch.relu(1 + f.sum(1)).mean(), lambda s, f, r: -f.mean(),
         "discriminator must average over logits after the non-linearity"),
        (lambda s, r, f: f.mean() - r.mean(), lambda s, f, r: -f.sum(), "generator must average"),
        (lambda s, r, f: r.mean() - f.mean(), lambda s, f, r: -f.mean(), "must fall when real logits rise"),
        (lambda s, r, f: -r.mean() - f.mean(), lambda s, f, r: -f.mean(), "must rise when fake logits rise"),
        (lambda s, r, f: f.mean() - r.mean(), lambda s, f, r: f.mean(), "generator's loss must fall"),
        (lambda s, r, f: f.exp().mean() - r.mean(), lambda s, f, r: -f.mean(), "on logits of 10,000 returned inf"),
    ],
)  # fmt: skip
def test_a_broken_game_is_caught(
    discriminator: Callable[..., Tensor], generator: Callable[..., Tensor], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        check_plugin(broken("adversarial", discriminator=discriminator, generator=generator))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"margins": lambda s, r, f: (r.mean(1), f.mean(1))}, r"margins must return two tensors \[6, 4\]"),
        ({"margins": lambda s, r, f: (-r, -f)}, "a real logit that moves to its side must have a larger margin"),
        ({"margins": lambda s, r, f: (r, f)}, "a fake logit that moves to its side"),
        ({"margins": lambda s, r, f: (r - f.mean(), r.mean() - f)}, "must depend on the two logits at its place alone"),
        ({"large_gap": 0.0}, "large_gap must be above 0, got 0.0"),
    ],
)
def test_a_game_that_judges_logits_wrongly_is_caught(given: dict[str, Any], message: str) -> None:
    losses = {"discriminator": lambda s, r, f: f.mean() - r.mean(), "generator": lambda s, f, r: -f.mean()}
    check_plugin(broken("adversarial", **losses))  # one that says nothing of it has its threshold at 0
    with pytest.raises(ContractError, match=message):
        check_plugin(broken("adversarial", **losses, **given))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda self, x, y, s: (x - y).float(), "must return a scalar"),
        (lambda self, x, y, s: (x - y).square().mean(), "computed in float32, got torch.bfloat16"),
        (lambda self, x, y, s: (x - y).float().square().sum(), "must average over the batch"),
        (lambda self, x, y, s: (x - y).float().square().mean() + 1, "of equal samples must be 0"),
        (lambda self, x, y, s: (x - y).float().flatten(1).norm(dim=1).sqrt().mean(), "gradient is not finite"),
        (lambda self, x, y, s: (x - y).float()[0].square().mean(), "some sample gets no gradient"),
    ],
)
def test_a_broken_distance_is_caught(call: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_plugin(broken("distance", __call__=call))


def _own_generator(num: int) -> Tensor:
    """Reproducible, and a mean over samples, but each process would draw the first rows' numbers."""
    return torch.rand(num, generator=torch.Generator().manual_seed(0)).mean()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda self, inputs: -torch.ones(()), "must not be negative"),
        (lambda self, inputs: torch.rand(()), "two calls differ"),
        (lambda self, inputs: torch.zeros(2), "must return a scalar"),
        (lambda self, inputs: inputs.heads(inputs.real)["a"], "fails on two taps: TypeError"),
        (lambda self, inputs: inputs.real["a"].square().sum(), "must average over samples"),
        (lambda self, inputs: _own_generator(len(inputs.cond_vec)), "draw for each from its row"),
    ],
)
def test_a_broken_regulariser_is_caught(call: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_plugin(broken("regulariser", __call__=call))


def test_a_target_that_draws_from_elsewhere_is_caught() -> None:
    @register("careless")
    @dataclass(frozen=True)
    class Careless(Target):
        """Draws from the global generator."""

        def __call__(self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, **_: Any) -> TargetSample:
            return TargetSample(fake + torch.randn_like(fake), sigma)

    with pytest.raises(ContractError, match="must draw from the given source only"):
        check_plugin(Careless())


def test_a_target_that_asks_a_teacher_it_did_not_ask_for_is_caught() -> None:
    @register("sly")
    @dataclass(frozen=True)
    class Sly(TeacherDenoised):
        """Without saying so."""

        needs_teacher = False

    with pytest.raises(ContractError, match="set needs_teacher = True"):
        check_plugin(Sly())


def test_a_rollout_that_asks_as_often_as_its_rows_need_is_caught() -> None:
    @register("thrifty")
    @dataclass(frozen=True)
    class Thrifty(Rollout):
        """Stops where no row needs a further step: ranks would wait for each other for ever."""

        def __call__(self, given: Inputs, own: Callable[[], Iterator[Tensor]], levels: Any, source: Any) -> Inputs:
            for _, level in zip(own(), levels, strict=False):
                if bool((given.sigma >= level).all()):
                    break
            return given

    with pytest.raises(ContractError, match="must ask the student as often for any rows"):
        check_plugin(Thrifty())


def test_a_critic_whose_weights_could_be_trained_is_caught() -> None:
    @register("loose_pixels")
    @dataclass(frozen=True)
    class Loose(Pixels):
        """Forgets to freeze."""

        def build(self, **given: Any) -> Denoiser:
            return super().build(**given).requires_grad_(True)

    with pytest.raises(ContractError, match="requires a gradient"):
        check_plugin(Loose())
