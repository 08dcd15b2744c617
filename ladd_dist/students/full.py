"""The student of the LADD paper: a copy of the teacher whose weights all train."""

from __future__ import annotations

from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.types import Denoiser
from ladd_dist.students import StudentForm


@register("full")
@dataclass(frozen=True)
class Full(StudentForm):
    """Full copy of the teacher: every weight trains."""

    def prepare(self, network: Denoiser) -> Denoiser:
        return network.train().requires_grad_(True)
