"""A run's student with its card, ready to be written in any format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ladd_dist.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ladd_dist.core.run_forms import RunConfig
    from ladd_dist.core.rundir import RunDir
    from ladd_dist.core.types import Denoiser
    from ladd_dist.exporting.card import Card


class Exported(NamedTuple):
    """A student to be written."""

    network: Denoiser
    card: Card
    codec: Mapping[str, Tensor]
    """Weights of its codec, if that was trained."""
    kept: Mapping[str, Tensor]
    """Weights that the student's own file holds: the network's, or the adapter's alone."""


def finished_student(run: RunDir, config: RunConfig) -> Exported:
    """The student that a run ended with.

    Raises:
        UserError: its file is damaged, or of another recipe.
    """
    student = _read(run.student, config)
    if student.card.signature != config.signature:
        raise UserError(
            f"{run.student} has signature {student.card.signature}, its run has {config.signature}; make it anew "
            f"with: {config.command} --from-scratch"
        )
    return student


def _read(file: Path, config: RunConfig) -> Exported:
    """A student from its file."""
    import torch

    from ladd_dist.builders.networks import adapter_weights, own_weights
    from ladd_dist.builders.student_file import codec_weights, load_student, read_student
    from ladd_dist.exporting.card import Card

    network, card = load_student(file, torch.device("cpu"))
    step = card.get("step", config.recipe["train"]["steps"])
    whole = Card.of({**card, "step": step, **dataclasses.asdict(facts(network, config))})
    held = read_student(file)[0].tensors
    return Exported(network, whole, codec_weights(file), adapter_weights(held) or own_weights(held))


def student_at(folder: Path, step: int | None) -> Exported:
    """The student with the averaged weights of a checkpoint (None: the newest), and the card it would end with.

    Args:
        folder: the run's, whose plug-ins are known.

    Raises:
        UserError: no such checkpoint, a damaged one, or one of another recipe.
    """
    import tempfile

    import torch

    from ladd_dist.builders.student import new_student, save_student
    from ladd_dist.builders.teacher import fresh_network
    from ladd_dist.engine.checkpoint import Checkpoints, buffers_of, replicated
    from ladd_dist.students.full import Full
    from ladd_dist.workspace.opening import open_run

    opened = open_run(folder, device=torch.device("cpu"))
    run, config, recipe = opened.folder, opened.config, opened.run.recipe
    checkpoints = Checkpoints(run.checkpoints, identity=config.signature, keep=1)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{run.path} is not finished and has no checkpoint yet; go on with: {config.command}")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"--step {step}: no checkpoint of it in {run.checkpoints}; there are {there}")
    saved = checkpoints.at(steps[-1] if step is None else step)
    network = fresh_network(recipe) if isinstance(recipe.student, Full) else new_student(opened.run)
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    saved.fill({f"average/{name}": replicated(weight) for name, weight in trained.items()})
    saved.fill(buffers_of("student", network))
    with tempfile.TemporaryDirectory() as temporary:  # the card is then the one that the finished run would get
        file = Path(temporary) / "student.safetensors"
        save_student(file, network, opened.run, step=saved.step)
        return _read(file, config)


@dataclass(frozen=True)
class Versions:
    """The software with which a run was made."""

    ladd_dist: str
    torch: str
    commit: str | None


@dataclass(frozen=True)
class Facts:
    """What an exported card says beyond how to build and sample the student."""

    scale: str
    parameters: int
    precision: str
    versions: Versions
    weights_sha256: str


def facts(network: Denoiser, config: RunConfig) -> Facts:
    """The facts of a run's student.

    Raises:
        UserError: weights that are not finite.
    """
    from ladd_dist.core.rundir import weights_sha256

    weights = network.state_dict()
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"the student's weight {broken[0]} holds NaN or infinity; nothing was written")
    environment = config.environment
    return Facts(
        scale=config.scale,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        precision=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})),
        versions=Versions(config.version, str(environment["torch"]), str(environment["commit"])),
        weights_sha256=weights_sha256(weights),
    )


def write_student(out: Path, network: Denoiser, card: Card, codec: Mapping[str, Tensor]) -> None:
    """Write the file and the JSON, each whole or not at all; the JSON comes last and names the file's sha256.

    Raises:
        OSError: no room or not writable.
    """
    import hashlib

    from ladd_dist.builders.codec import packed
    from ladd_dist.core.rundir import save_tensors, write_json

    weights = {name: tensor.contiguous() for name, tensor in (network.state_dict() | packed(codec)).items()}
    readable = out.with_suffix(".json")
    readable.unlink(missing_ok=True)  # that of a file before: it never stands beside weights it does not describe
    save_tensors(out, weights, {"ladd_dist": json.dumps(card.data)})
    with out.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    write_json(readable, {"file": out.name, "file_sha256": digest, **card.data})
