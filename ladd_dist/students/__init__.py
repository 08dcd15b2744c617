"""Kind `student`: the choice of the copied teacher's weights that train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.pretrained import digest
from ladd_dist.core.types import Denoiser


class StudentForm(Plugin):
    """Form of the student, made from a copy of the teacher."""

    kind = "student"
    needs_teacher: ClassVar[bool] = False
    """Whether a student's file holds a part of the weights only and needs the teacher's besides."""
    init: str = ""
    """Where the weights come from that it starts with; forms have it as a field. Empty: the teacher."""

    def first_weights(self) -> str:
        """Text that identifies the weights in `init`; empty for the teacher's, or where there is no such file."""
        if not self.init:
            return ""
        path = Path(self.init)
        files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
        return digest(files) if files else self.init

    def identity(self) -> Mapping[str, object]:
        return {"init": self.first_weights()} if self.init else {}

    def prepare(self, network: Denoiser) -> Denoiser:
        """Turn a copy of the teacher into the student, in training mode; only weights that train require gradients.

        Raises:
            ValueError: the network has no such weights.
        """
        raise NotImplementedError

    def weights(self, network: Denoiser) -> dict[str, Tensor]:
        """Weights of a trained network for a student's file: all of them, unless `needs_teacher`."""
        return {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}

    def restore(self, network: Denoiser, weights: Mapping[str, Tensor]) -> Denoiser:
        """Turn a copy of the teacher into the trained student, a plain network, with the weights of its file.

        Raises:
            ValueError, RuntimeError: the weights are of another network.
        """
        network.load_state_dict(weights)
        return network
