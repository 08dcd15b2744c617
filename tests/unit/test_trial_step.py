"""The trial of a training step before any training: who gives NaN, whose line raised, in one message."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ladd_dist.cli.errors import fault
from ladd_dist.core.errors import UserError
from ladd_dist.core.own_code import place_of
from ladd_dist.core.plugin import register
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import Batch
from ladd_dist.heads import Head
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.regularisers import PenaltyInputs, Regulariser
from ladd_dist.schedules import Schedule
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.starts import Start
from ladd_dist.targets import Target, TargetSample
from ladd_dist.testing import ContractError, check_head
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_tables")
REPO = Path(__file__).resolve().parents[2]


def exp4(**changed: Any) -> Recipe:
    return dataclasses.replace(load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke"), **changed)


def dry_run(recipe: Recipe) -> None:
    describe_run(Run(recipe, Workspace(Path("nowhere"), Path("nowhere"), torch.device("cpu"))), "smoke")


class Scaled(nn.Module):
    """A linear head whose logits are multiplied by a number; with 0, they are the log of something negative."""

    def __init__(self, channels: int, factor: float) -> None:
        super().__init__()
        self.body, self.factor = nn.Linear(channels, 1), factor

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        logits: Tensor = self.body(features.mean(dim=(2, 3)))
        return logits * self.factor if self.factor else (-logits.square() - 1).log()


@dataclass(frozen=True)
class NotFiniteHead(Head):
    """Gives NaN (factor 0) or infinity."""

    factor: float = 0.0

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return Scaled(channels, self.factor)


@dataclass(frozen=True)
class NotFiniteDistance(Distance):
    """Gives NaN."""

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        return (sample - target).square().mean() * math.nan


@dataclass(frozen=True)
class NotFiniteGradient(Distance):
    """Its value is finite, its gradient is not: the root of nothing."""

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        return (0 * (sample - target)).abs().sum().sqrt()


@dataclass(frozen=True)
class NotFinitePenalty(Regulariser):
    """Gives infinity."""

    def __call__(self, inputs: PenaltyInputs) -> Tensor:
        return inputs.cond_vec.sum() * 0 + math.inf


@dataclass(frozen=True)
class NotFiniteGame(Adversarial):
    """Its generator's loss is NaN."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return fake.mean() * math.nan


@dataclass(frozen=True)
class NotFiniteTarget(Target):
    """Divides by nothing."""

    def __call__(self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, **_: Any) -> TargetSample:
        return TargetSample(batch.x0 / 0, sigma)


@dataclass(frozen=True)
class NotFiniteStart(Start):
    """Inputs of NaN."""

    def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
        return batch.x0 * math.nan


@dataclass(frozen=True)
class NotFiniteLevels(SigmaLaw):
    """Levels of infinity."""

    def __call__(self, num: int, step: int, source: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        return torch.full((num,), math.inf)


@dataclass(frozen=True)
class NotFiniteWeight(Schedule):
    """A weight of NaN."""

    def __call__(self, step: int) -> float:
        return math.nan


def named(cls: type[Any], **given: Any) -> Any:
    return register("not_finite")(cls)(**given)


@pytest.mark.parametrize(
    ("field", "make", "message"),
    [
        ("head", lambda: named(NotFiniteHead), r"head 'not_finite' gives NaN \(logits on tap 'down0'\)"),
        ("head", lambda: named(NotFiniteHead, factor=math.inf), r"head 'not_finite' gives (infinite values|NaN)"),
        ("distance", lambda: named(NotFiniteDistance), "distance 'not_finite' gives NaN"),
        ("regulariser", lambda: named(NotFinitePenalty), r"regulariser 'not_finite' gives infinite values \(a penalty"),
        ("adversarial", lambda: named(NotFiniteGame), r"adversarial 'not_finite' gives NaN \(the student's loss"),
        ("target", lambda: named(NotFiniteTarget), r"target 'not_finite' gives (NaN|infinite values) \(samples"),
        ("start", lambda: named(NotFiniteStart), "start 'not_finite' gives NaN"),
        ("renoise_sigma", lambda: named(NotFiniteLevels), r"sigma 'not_finite' gives infinite values \(noise levels"),
        ("distill_weight", lambda: named(NotFiniteWeight), "schedule 'not_finite' gives NaN"),
        ("distance", lambda: named(NotFiniteGradient), r"grad_norm/student: not finite.*distance 'not_finite"),
    ],
)  # fmt: skip
def test_the_part_whose_output_is_not_finite_is_named_before_any_training(
    field: str, make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        dry_run(exp4(**{field: make()}))
    assert "learning rate" not in str(caught.value) and "checkpoint" not in str(caught.value)


def test_the_message_names_the_file_and_the_command_that_looks_closer() -> None:
    with pytest.raises(RecipeError, match=rf"Look at NotFiniteHead in {__file__}; `ladd plugins --check not_finite`"):
        dry_run(exp4(head=named(NotFiniteHead)))


def test_the_trial_is_on_random_data_and_finds_nothing_in_a_sound_recipe() -> None:
    dry_run(exp4())

    class Normalised(Scaled):
        def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
            return super().forward(features / features.std(dim=0, keepdim=True), cond_vec)

    @register("normalised")
    @dataclass(frozen=True)
    class NormalisedHead(Head):
        """Divides by the spread over the batch, which is 0 for a batch of equal pictures."""

        def build(self, *, channels: int, cond_dim: int) -> nn.Module:
            return Normalised(channels, 1.0)

    dry_run(exp4(head=NormalisedHead()))


HEADS = '''
from dataclasses import dataclass
from torch import nn
from ladd_dist.core.plugin import register
from ladd_dist.heads import Head


class Module(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Linear(channels, 1)

    def forward(self, features, cond_vec):
        return self.body(features)  # no mean over places


@register("raises")
@dataclass(frozen=True)
class Raises(Head):
    """Fails inside torch, many frames below."""

    def build(self, *, channels, cond_dim):
        return nn.Sequential(Module(channels)) if False else Module(channels)
'''
LINE = next(number for number, line in enumerate(HEADS.splitlines(), start=1) if "no mean over places" in line)


@pytest.fixture
def raising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "raising_heads.py").write_text(HEADS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    module = importlib.import_module("raising_heads")
    yield module.Raises()
    sys.modules.pop("raising_heads", None)


def test_an_exception_in_a_head_is_one_message_with_the_users_own_line(raising: Head, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        dry_run(exp4(head=raising))
    message = str(caught.value)
    assert message.startswith("head 'raises' raised RuntimeError: ")
    assert f"{tmp_path / 'raising_heads.py'}:{LINE}: `return self.body(features)  # no mean over places`" in message
    assert "a trial of the recipe's training step" in message and "--check raises" in message
    assert "\n" not in message and "torch/nn" not in message


def test_a_contract_check_shows_the_users_own_line_too(raising: Head, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=rf"RuntimeError: .*, at {tmp_path}/raising_heads\.py:{LINE}: `return"):
        check_head(raising)


def test_a_fault_inside_the_package_has_no_place_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladd_dist.stages import dry_run as module

    def fails(recipe: Recipe) -> None:
        torch.zeros(2) @ torch.zeros(3)

    fails.__code__ = fails.__code__.replace(co_filename=module.__file__)
    monkeypatch.setattr(module, "_cost", fails)
    with pytest.raises(RuntimeError) as caught:
        dry_run(exp4())
    assert place_of(caught.value) is None
    assert "your own code" not in fault(caught.value)


def test_code_of_ones_own_that_calls_the_package_wrongly_is_not_taken_for_its_plugin() -> None:
    with pytest.raises(TypeError) as caught:
        exp4().latent(3)  # type: ignore[call-arg]
    assert place_of(caught.value) is None


def test_the_closing_line_of_a_later_fault_names_the_users_own_line(raising: Head, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        build_and_call(raising)
    assert f"{tmp_path / 'raising_heads.py'}:{LINE}" in fault(caught.value)


def build_and_call(head: Head) -> None:
    from ladd_dist.engine.discriminator import Heads
    from ladd_dist.networks.cunet import CUNet

    network = CUNet(widths=(8, 8), blocks=1, patch=2, embed_dim=8).build(image=exp4().dataset.spec())
    heads = Heads(head, network, ("input",))
    heads({"input": torch.zeros(2, network.taps["input"].channels, 4, 5)}, torch.zeros(2, 8))
