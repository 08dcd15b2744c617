"""A student whose low-rank adapters train (LoRA; Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import AnyInteger, Positive, Within
from ladd_dist.core.rng import derive_seed
from ladd_dist.core.serialize import ADDED
from ladd_dist.core.types import Denoiser
from ladd_dist.students import StudentForm
from ladd_dist.students.adapter import (
    adapter_state,
    add_adapter,
    merge_adapter,
    require_patterns,
    set_adapter,
    targeted,
)


@register("lora")
@dataclass(frozen=True)
class Lora(StudentForm):
    """Low-rank adapters of linear layers and convolutions train; the teacher's weights stay, bit for bit."""

    rank: Annotated[int, Within("[1, 4096]")] = 16
    """Rank of the adapters."""
    alpha: Positive = 16.0
    """Scale of the adapters: their product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Regular expressions; layers whose names contain a match get an adapter, all layers if there are none."""
    seed: AnyInteger = 0
    """Seed of the adapters' random halves."""
    init: str = field(default="", metadata=ADDED)
    """Weights to start from instead of the teacher's: a student's file or run, or a checkpoint like the network's."""
    needs_teacher = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_patterns(self.targets, "lora.targets")

    def prepare(self, network: Denoiser) -> Denoiser:
        return self._added(network).train()

    def weights(self, network: Denoiser) -> dict[str, Tensor]:
        return adapter_state(network)

    def restore(self, network: Denoiser, weights: Mapping[str, Tensor]) -> Denoiser:
        self._added(network)
        set_adapter(network, weights)
        return merge_adapter(network)

    def _added(self, network: Denoiser) -> Denoiser:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("lora", self.seed))
            return add_adapter(network, rank=self.rank, alpha=self.alpha, layers=targeted(network, self.targets))
