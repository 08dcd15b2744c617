"""`--to lora`: low-rank weights that `pipe.load_lora_weights` takes, in a folder with their scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ladd_dist.builders.student_file import file_of
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import commit_folder, save_tensors, write_bytes, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.exporting.card import CARD, README, Card, page
from ladd_dist.exporting.pipeline import Source, call_of, samplings_of, source_of
from ladd_dist.networks.diffusers.denoiser import DiffusersDenoiser
from ladd_dist.students.lora import Lora

FILE = "pytorch_lora_weights.safetensors"
_MODEL = "model."
"""Prefix of the library's names inside our network."""


def write_lora(
    out: Path, student: Denoiser, card: Card, adapter: Mapping[str, Tensor], own: int
) -> None:  # fmt: skip
    """Write the folder, whole or not at all.

    Args:
        adapter: weights by PEFT's names, as the student's file holds them.
        own: the number of calls for which it was trained.

    Raises:
        UserError: a student without an adapter, or one of a model into which the library cannot load any.
    """
    source = source_of(card, "lora")
    form = card.adapter
    if not isinstance(form, Lora):
        raise UserError("--to lora: all of this student's weights were trained, not an adapter; use --to diffusers")
    start = form.init or source.network.source
    if form.init and (file_of(Path(form.init)).is_file() or (Path(form.init) / FILE).is_file()):
        raise UserError(
            f"--to lora: the adapter belongs to the student in {form.init}, which no pipeline opens; use "
            "--to diffusers, which writes both in one"
        )
    assert isinstance(student, DiffusersDenoiser)
    _require_loader(student, source)
    weights = _named(adapter, source.part, form.alpha / form.rank)
    samplings = samplings_of(card, student, source, own)
    scheduler = next(iter(samplings.values())).scheduler
    name, kind = out.name, type(scheduler).__name__
    opening = (
        f"import torch\nfrom diffusers import DiffusionPipeline, {kind}\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{start}", torch_dtype=torch.bfloat16).to("cuda")\n'
        f'pipe.load_lora_weights("{name}")\n'
        f'pipe.scheduler = {kind}.from_pretrained("{name}", subfolder="scheduler")\n'
    )

    def fill(folder: Path) -> None:
        save_tensors(folder / FILE, weights, {"format": "pt"})
        scheduler.save_pretrained(folder / "scheduler")
        write_json(folder / CARD, card.with_samplings(samplings))
        write_bytes(folder / README, page(card, start, samplings, opening, call_of(card, source)).encode())

    commit_folder(out, fill)


def _require_loader(student: DiffusersDenoiser, source: Source) -> None:
    loads = hasattr(source.pipeline() or object, "load_lora_weights")
    if not (loads and hasattr(student.model, "load_lora_adapter")):
        raise UserError(
            f"--to lora: diffusers cannot load adapters into {type(student.model).__name__}; --to diffusers writes the "
            "whole model with the adapter in its weights"
        )


def _named(adapter: Mapping[str, Tensor], part: str, scale: float) -> dict[str, Tensor]:
    """The library's names; the scale goes into B, because a file without one means 1."""
    return {
        f"{part}.{name.removeprefix(_MODEL)}": (tensor * scale if ".lora_B." in name else tensor).contiguous()
        for name, tensor in adapter.items()
    }
