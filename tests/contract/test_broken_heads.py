"""Heads that break the contract, each in one place: `check_head` catches all of them and says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ladd_dist.core.plugin import register
from ladd_dist.heads import Head
from ladd_dist.testing import ContractError, check_head

pytestmark = pytest.mark.usefixtures("own_tables")


class Plain(nn.Module):
    """A correct little head to break in one place each."""

    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 1)
        self.out = nn.Linear(4, 1)

    def pooled(self, features: Tensor) -> Tensor:
        return torch.tanh(self.conv(features)).mean(dim=(2, 3))

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        logits: Tensor = self.out(self.pooled(features))
        return logits


class BatchNorm(Plain):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__(channels, cond_dim)
        self.norm = nn.BatchNorm2d(channels)

    def pooled(self, features: Tensor) -> Tensor:
        return super().pooled(self.norm(features))


class BatchMean(Plain):
    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        logits = super().forward(features, cond_vec)
        return logits if self.training else logits - logits.detach().flip(0)


class Flat(Plain):
    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return super().forward(features, cond_vec).squeeze(1)


class Map(Plain):
    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return self.conv(features)


class WholeBatch(Plain):
    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return super().forward(features, cond_vec).sum(0, keepdim=True)


class NotANumber(Plain):
    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return super().forward(features, cond_vec) / 0 * 0


class FixedSize(Plain):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__(channels, cond_dim)
        self.out = nn.Linear(4 * 64, 1)

    def pooled(self, features: Tensor) -> Tensor:
        return torch.tanh(self.conv(features)).flatten(1)


class Detached(Plain):
    def pooled(self, features: Tensor) -> Tensor:
        return super().pooled(features.detach())


class Unused(Plain):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__(channels, cond_dim)
        self.spare = nn.Linear(2, 2)


class HiddenState(Plain):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__(channels, cond_dim)
        self.scale = torch.rand(()) + 0.5  # a plain attribute: no checkpoint holds it

    def pooled(self, features: Tensor) -> Tensor:
        return super().pooled(features) * self.scale


class Counting(Plain):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__(channels, cond_dim)
        self.register_buffer("calls", torch.zeros(()))

    def pooled(self, features: Tensor) -> Tensor:
        self.calls += 1
        return super().pooled(features)


class Noisy(Plain):
    def pooled(self, features: Tensor) -> Tensor:
        pooled = super().pooled(features)
        return pooled + torch.randn_like(pooled) * 1e-6


class Empty(nn.Module):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


def head_of(module: Callable[[int, int], Any], name: str = "broken") -> Head:
    @register(name)
    @dataclass(frozen=True)
    class Built(Head):
        """A head under test."""

        def build(self, *, channels: int, cond_dim: int) -> Any:
            return module(channels, cond_dim)

    return Built()


def test_a_correct_little_head_passes() -> None:
    check_head(head_of(Plain))


def test_dropout_and_zero_initialised_outputs_are_allowed() -> None:
    class Gentle(Plain):
        def __init__(self, channels: int, cond_dim: int) -> None:
            super().__init__(channels, cond_dim)
            nn.init.zeros_(self.out.weight)

        def pooled(self, features: Tensor) -> Tensor:
            return nn.functional.dropout(super().pooled(features), 0.2, self.training)

    check_head(head_of(Gentle))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (BatchNorm, r"a logit depends on other samples \(training mode\).*group normalisation"),
        (BatchMean, r"permuting the batch does not permute the logits"),
        (Flat, r"on tap 'test' returned shape \(3,\), expected logits \[B, K\] with B = 3"),
        (Map, r"returned shape \(3, 4, 8, 8\), expected logits \[B, K\]"),
        (WholeBatch, r"returned shape \(1, 1\), expected logits \[B, K\] with B = 3"),
        (NotANumber, r"NaN or infinity"),
        (FixedSize, r"fails in training mode, features \[1, 5, 1, 1\]: RuntimeError"),
        (Detached, r"no gradient reaches features"),
        (Unused, r"no gradient reaches parameter 'spare.weight'"),
        (HiddenState, r"other logits after a state_dict round trip"),
        (Counting, r"eval-mode forward changes \['calls'\]"),
        (Noisy, r"different logits in eval mode"),
        (Empty, r"has no trainable parameter"),
        (lambda channels, cond_dim: "text", r"build returned a str, not a Module"),
        (lambda channels, cond_dim: 1 // 0, r"fails to build for 5 channels: ZeroDivisionError"),
    ],
)
def test_a_broken_head_is_caught_and_told_why(module: Callable[[int, int], Any], message: str) -> None:
    with pytest.raises(ContractError, match=f"^head 'broken'.*{message}"):
        check_head(head_of(module))


def test_heads_that_share_one_module_over_taps_are_caught() -> None:
    shared: dict[int, Plain] = {}
    head = head_of(lambda channels, cond_dim: shared.setdefault(channels, Plain(channels, cond_dim)))
    with pytest.raises(ContractError, match="share parameters"):
        check_head(head)


def test_a_conditioned_head_that_ignores_the_embedding_is_caught() -> None:
    @register("deaf")
    @dataclass(frozen=True)
    class Deaf(Head):
        """Says it is conditioned."""

        conditioned: bool = True

        def build(self, *, channels: int, cond_dim: int) -> nn.Module:
            return Plain(channels, cond_dim)

    check_head(dataclasses.replace(Deaf(), conditioned=False))
    with pytest.raises(ContractError, match="with conditioned=True cond_vec must change the logits"):
        check_head(Deaf())
