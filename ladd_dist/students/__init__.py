"""Kind `student`: the choice of the copied teacher's weights that train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Denoiser
from ladd_dist.students.start import start_identity


class StudentForm(Plugin):
    """Form of the student, made from a copy of the teacher."""

    kind = "student"
    init: str = ""
    """Where the student starts, for a form that has a field of this name; empty: at the teacher."""
    digest: str = ""
    """Recorded hash of `init`'s content, for such a form."""

    @property
    def needs_teacher(self) -> bool:
        """Whether a student's file holds a part of the weights only and needs the teacher's besides."""
        return False

    def pinned(self) -> Self:
        """The form with the hash of its start recorded: the start may be gone later."""
        return self

    def identity(self) -> Mapping[str, object]:
        return start_identity(self.init, self.digest)

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
