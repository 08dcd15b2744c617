"""Kind `student`: which of the copied teacher's weights train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Denoiser


class StudentForm(Plugin):
    """Turns a copy of the teacher into a student."""

    kind = "student"
    needs_teacher: ClassVar[bool] = False
    """Whether a student's file is a part of it only: the teacher's weights are needed besides."""

    def prepare(self, network: Denoiser) -> Denoiser:
        """The student, in training mode: what trains requires grad, nothing else does. Called on a copy of the teacher.

        Raises:
            ValueError: this network has no such weights.
        """
        raise NotImplementedError

    def weights(self, network: Denoiser) -> dict[str, Tensor]:
        """What a student's file holds of a trained network: all of it, unless `needs_teacher`."""
        return {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}

    def restore(self, network: Denoiser, weights: Mapping[str, Tensor]) -> Denoiser:
        """The trained student, a plain network, from what its file holds; called on a copy of the teacher.

        Raises:
            ValueError, RuntimeError: the weights are of another network.
        """
        network.load_state_dict(weights)
        return network
