"""The student of the LADD paper: a copy of the teacher whose weights all train."""

from __future__ import annotations

from dataclasses import dataclass, field

from ladd_dist.core.plugin import register
from ladd_dist.core.serialize import ADDED
from ladd_dist.core.types import Denoiser
from ladd_dist.students import StudentForm


@register("full")
@dataclass(frozen=True)
class Full(StudentForm):
    """Full copy of the teacher: every weight trains."""

    init: str = field(default="", metadata=ADDED)
    """Weights to start from instead of the teacher's: a student's file or run, or a checkpoint like the network's."""

    def prepare(self, network: Denoiser) -> Denoiser:
        return network.train().requires_grad_(True)
