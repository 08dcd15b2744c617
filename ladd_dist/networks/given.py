"""`Given`: a network that was trained before, with its weights from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ladd_dist.core.budget import at_most
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import digest
from ladd_dist.core.ranges import CountOrZero
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.tensor_file import load_weights
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.networks import Network
from ladd_dist.networks.cunet import CUNet

_REMEDY = "copy it again from the cache of the run that trained it"


@register("given")
@dataclass(frozen=True)
class Given(Network):
    """A teacher that was trained before: an architecture, and the weights of the file that its stage wrote."""

    network: Network = CUNet()
    """The architecture."""
    weights: str = field(default="", metadata=NEUTRAL)
    """The file, like cache/teacher-SIGNATURE/teacher.safetensors."""
    classes: tuple[CountOrZero, ...] = ()
    """The file's class for each class of the dataset; empty: the same numbers."""
    pretrained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network.pretrained:
            raise UserError(f"given.network: {self.network.name!r} has weights of its own; take it itself")

    def identity(self) -> Mapping[str, object]:
        return {"weights": digest([self._file()])} if self.weights else {}

    def build(self, *, image: ImageSpec) -> Denoiser:
        return self.network.build(image=image)

    def load(self, *, image: ImageSpec) -> Denoiser:
        path = self._file()
        weights = self.chosen(load_weights(path, remedy=_REMEDY), str(path))
        with at_most(weights, str(path)):
            network = self.build(image=image)
        problem = "is of another architecture than network.network, which is the student's"
        with reading(path, problem, "name the teacher that the student was distilled from"):
            network.load_state_dict(weights)
        return network

    def _file(self) -> Path:
        path = Path(self.weights)
        if not path.is_file():
            raise UserError(
                f"network.weights: {self.weights!r} is no file; name a trained teacher, "
                "cache/teacher-SIGNATURE/teacher.safetensors"
            )
        return path

    def chosen(self, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """The weights with those rows of the table of classes that `classes` picks, and the one for none."""
        table = weights.get(self.network.class_table)
        if not self.classes:
            return dict(weights)
        if table is None:
            raise UserError(f"{where} has no table of classes to pick {self.classes} from; leave network.classes empty")
        known = len(table) - 1
        if wrong := [number for number in self.classes if number >= known]:
            raise UserError(f"network.classes: {where} knows the classes 0 to {known - 1}, got {wrong[0]}")
        return {**weights, self.network.class_table: table[torch.tensor([*self.classes, known])]}
