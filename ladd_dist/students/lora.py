"""A student whose low-rank adapters train (LoRA; Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Self

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
from ladd_dist.students.start import start_digest


@register("lora")
@dataclass(frozen=True)
class Lora(StudentForm):
    """Low-rank adapters of linear layers and convolutions train; the teacher's weights stay, bit for bit.

    With an `init` of its own the student's file holds all weights, the adapters merged: nobody else has its start. The
    adapters lie beside them, under `adapter.`, for programs that have the start and take adapters.
    """

    rank: Annotated[int, Within("[1, 4096]")] = 16
    """Rank of the adapters."""
    alpha: Positive = 16.0
    """Scale of the adapters: their product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Regular expressions; layers whose names contain a match get an adapter, all layers if there are none."""
    seed: AnyInteger = 0
    """Seed of the adapters' random halves."""
    init: str = field(default="", metadata=ADDED)
    """Start of the student: empty for the teacher's weights, or a checkpoint of the same architecture: a folder or hub
    repository of diffusers, a finished run, a student's file, or a LoRA that is merged into the teacher's weights."""
    digest: str = field(default="", metadata=ADDED)
    """Hash of `init`'s content, as a run's config.json records it; leave it empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_patterns(self.targets, "lora.targets")

    @property
    def needs_teacher(self) -> bool:
        return not self.init

    def pinned(self) -> Self:
        return replace(self, digest=self.digest or start_digest(self.init))

    def prepare(self, network: Denoiser) -> Denoiser:
        return self._added(network).train()

    def weights(self, network: Denoiser) -> dict[str, Tensor]:
        if self.init:
            adapter = {f"adapter.{name}": tensor for name, tensor in adapter_state(network).items()}
            return {**super().weights(merge_adapter(copy.deepcopy(network))), **adapter}
        return adapter_state(network)

    def restore(self, network: Denoiser, weights: Mapping[str, Tensor]) -> Denoiser:
        self._added(network)
        set_adapter(network, weights)
        return merge_adapter(network)

    def _added(self, network: Denoiser) -> Denoiser:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("lora", self.seed))
            return add_adapter(network, rank=self.rank, alpha=self.alpha, layers=targeted(network, self.targets))
