"""`--to diffusers`: a folder for `DiffusionPipeline.from_pretrained`: the student, its scheduler, all other parts."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import locate
from ladd_dist.core.rundir import commit_folder, read_json, write_bytes, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.exporting.card import CARD, README, Card, page
from ladd_dist.exporting.schedulers import Sampling, sampling_of
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.diffusers.checkpoint import FAMILIES, Checkpoint, open_checkpoint
from ladd_dist.networks.diffusers.denoiser import DiffusersDenoiser

INDEX = "model_index.json"
_WEIGHTS = [f"{stem}{end}.safetensors" for stem in ("model", "diffusion_pytorch_model") for end in ("", "-*")]
_KEPT = ("*.json", "*.txt", "*.model", "*.jinja", *_WEIGHTS)
"""Files that are copied of a pipeline's other parts: no pickles, and weights in one precision alone."""
_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")


class Source(NamedTuple):
    """The checkpoint that was distilled."""

    network: Diffusers
    checkpoint: Checkpoint
    root: Path
    """The folder of the pipeline, or of the model alone."""
    parts: Mapping[str, object]
    """What `model_index.json` says; empty where there is none."""

    @property
    def part(self) -> str:
        """The model's own folder in the pipeline; empty: the model lies there alone."""
        return "" if self.checkpoint.folder == self.root else self.checkpoint.folder.name

    def takes(self) -> frozenset[str]:
        """Names of the arguments of the pipeline's call."""
        cls = self.pipeline()
        return frozenset(inspect.signature(cls.__call__).parameters) if cls else frozenset()

    def pipeline(self) -> Any:
        """The pipeline's class; None where the library has none of this name that samples."""
        import diffusers

        found = getattr(diffusers, str(self.parts.get("_class_name", "")), None)
        return (
            found if inspect.isclass(found) and callable(found) and found is not diffusers.DiffusionPipeline else None
        )


def source_of(card: Card, to: str) -> Source:
    """The checkpoint that a student's teacher came from.

    Raises:
        UserError: not from diffusers, or it cannot be found any more.
    """
    network = card.network
    if not isinstance(network, Diffusers):
        raise UserError(
            f"--to {to}: this run's network is {network.name!r}, which diffusers does not have; --to safetensors "
            "writes one file for `ladd sample --from`"
        )
    where = {"subfolder": network.subfolder, "revision": network.revision}
    checkpoint = open_checkpoint(network.source, **where, weights=False)
    root = locate(network.source, field="network.source", revision=network.revision, patterns=["*.json"])
    path = root / INDEX
    return Source(network, checkpoint, root, read_json(path) if path.is_file() else {})


def samplings_of(card: Card, student: DiffusersDenoiser, source: Source, own: int) -> dict[str, Sampling]:
    """The samplings by number of calls; first the number for which the student was trained (`own`)."""
    counts = sorted(card.levels, key=lambda count: (int(count) != own, -int(count)))
    ways = (student.prediction, source.checkpoint.scheduler)
    return {count: sampling_of(*ways, tuple(card.levels[count]), card.rule, source.takes()) for count in counts}


def require_free(out: Path, run: Path) -> None:
    """Refuse a folder that holds anything but an older export.

    Raises:
        UserError: it does, or lies in the run's folder.
    """
    if out.resolve() == run.resolve() or run.resolve() in out.resolve().parents:
        raise UserError(f"--out {out}: lies in the run's own folder; choose another")
    if out.exists() and not (out / CARD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is there already, and is no export of a student; choose another")


def write_pipeline(out: Path, student: Denoiser, card: Card, own: int) -> None:
    """Write the folder, whole or not at all.

    Args:
        own: the number of calls for which it was trained.

    Raises:
        UserError: a student of another library, or the source's other parts are not there.
    """
    source = source_of(card, "diffusers")
    assert isinstance(student, DiffusersDenoiser)
    samplings = samplings_of(card, student, source, own)
    commit_folder(out, lambda folder: _fill(folder, out, student, card, source, samplings))


def _fill(
    folder: Path, out: Path, student: DiffusersDenoiser, card: Card, source: Source,
    samplings: Mapping[str, Sampling],
) -> None:  # fmt: skip
    model: Any = student.model
    name = type(model).__name__
    model.save_pretrained(folder / source.part)
    scheduler = next(iter(samplings.values())).scheduler
    scheduler.save_pretrained(folder / "scheduler")
    own = {source.part: ["diffusers", name], "scheduler": ["diffusers", type(scheduler).__name__]}
    opening = f'import torch\nfrom diffusers import {name}\n\nmodel = {name}.from_pretrained("{out.name}")\n'
    if source.parts and source.part:
        opening = (
            "import torch\nfrom diffusers import DiffusionPipeline\n\n"
            f'pipe = DiffusionPipeline.from_pretrained("{out.name}", torch_dtype=torch.bfloat16).to("cuda")\n'
        )
        write_json(folder / INDEX, {**source.parts, **_copy_parts(folder, source, leave_out=set(own)), **own})
    write_json(folder / CARD, card.with_samplings(samplings))
    write_bytes(folder / README, page(card, source.network.source, samplings, opening, call_of(card, source)).encode())


def call_of(card: Card, source: Source) -> str:
    """Arguments of the pipeline's call beside the steps: no guidance, and the size that the student learned."""
    told = {"height": card.size[0], "width": card.size[1], "use_resolution_binning": False}
    takes = source.takes()  # binning would sample another size and resize to the one that is asked for
    return guidance_of(source) + "".join(f", {name}={value}" for name, value in told.items() if name in takes)


def guidance_of(source: Source) -> str:
    """The argument that turns the pipeline's guidance off, or sets the guidance with which the model was distilled."""
    name, value = FAMILIES[str(source.checkpoint.config["_class_name"])].guidance_off
    if source.checkpoint.config.get("guidance_embeds"):
        value = source.network.embedded_guidance
    return f", {name}={value}" if name in source.takes() else ""


def _copy_parts(folder: Path, source: Source, *, leave_out: set[str]) -> dict[str, list[None]]:
    """Copy the other parts of the pipeline; returns the index's entries of parts that are left out."""
    parts = {
        name: str(entry[1]) for name, entry in source.parts.items()
        if isinstance(entry, list) and entry[0] is not None and name not in leave_out
    }  # fmt: skip
    wanted = [f"{name}/{pattern}" for name in parts for pattern in _KEPT]
    root = locate(source.network.source, field="network.source", revision=source.network.revision, patterns=wanted)
    changed: dict[str, list[None]] = {}
    for name, cls in parts.items():
        files = [path for pattern in _KEPT for path in sorted((root / name).glob(pattern))]
        if not _is_whole(cls, files):
            if name not in _OPTIONAL:
                raise UserError(f"{root / name} has no safetensors to copy; the pipeline would not open without them")
            changed[name] = [None, None]
            continue
        (folder / name).mkdir()
        for path in files:
            shutil.copyfile(path, folder / name / path.name)
    return changed


def _is_whole(cls: str, files: list[Path]) -> bool:
    """Whether a part has what it needs: weights, unless it is a tokenizer or reads pictures."""
    has_none = any(word in cls for word in ("Tokenizer", "Processor", "Extractor", "Scheduler"))
    return bool(files) and (has_none or any(path.suffix == ".safetensors" for path in files))
