"""The student of the LADD paper: a copy of the teacher whose weights all train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from ladd_dist.core.plugin import register
from ladd_dist.core.serialize import ADDED
from ladd_dist.core.types import Denoiser
from ladd_dist.students import StudentForm
from ladd_dist.students.start import start_digest


@register("full")
@dataclass(frozen=True)
class Full(StudentForm):
    """Full copy of the teacher, or of another start: every weight trains."""

    init: str = field(default="", metadata=ADDED)
    """Start of the student: empty for the teacher's weights, or a checkpoint of the same architecture: a folder or hub
    repository of diffusers, a finished run, a student's file, or a LoRA that is merged into the teacher's weights."""
    digest: str = field(default="", metadata=ADDED)
    """Hash of `init`'s content, as a run's config.json records it; leave it empty."""

    def pinned(self) -> Self:
        return replace(self, digest=self.digest or start_digest(self.init))

    def prepare(self, network: Denoiser) -> Denoiser:
        return network.train().requires_grad_(True)
