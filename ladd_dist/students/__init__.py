"""Kind `student`: which of the copied teacher's weights train."""

from __future__ import annotations

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Denoiser


class StudentForm(Plugin):
    """Turns a copy of the teacher into a student."""

    kind = "student"

    def prepare(self, network: Denoiser) -> Denoiser:
        """The student, in training mode: what trains requires grad, nothing else does. Called on a copy of the teacher.

        Raises:
            ValueError: this network has no such weights.
        """
        raise NotImplementedError
