"""The network that a student starts from: the teacher, or the weights that `student.init` names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.student_file import file_of, load_student
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.networks import Network
from ladd_dist.networks.diffusers import Diffusers


def start_from(network: Denoiser, init: str, described: Network) -> Denoiser:
    """Overwrite a copy of the teacher with the weights in `init`; returns it. Nothing to do where `init` is empty.

    Args:
        network: as `described` builds it.

    Raises:
        UserError: there are no such weights, or they are of another architecture.
    """
    if not init:
        return network
    weights = described.chosen(_weights(init, described, network.image), init)
    remedy = "name a student that was distilled from this base, or the base that it was distilled from"
    with reading(Path(init), "is of another architecture than the base", remedy):
        network.load_state_dict(weights)
    return network


def _weights(init: str, described: Network, image: ImageSpec) -> Mapping[str, Tensor]:
    source = Path(init)
    if file_of(source).is_file():
        student, _ = load_student(source, torch.device("cpu"))
        return student.state_dict()
    if not isinstance(described, Diffusers):
        raise UserError(f"student.init: {init} is no student's file, nor a run with one; name a finished student")
    return dataclasses.replace(described, source=init, subfolder="", revision="").load(image=image).state_dict()
