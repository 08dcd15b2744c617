"""What a checkpoint's folder holds besides tensors: `meta.json`, with a sha256 of each file and of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ladd_dist.core.door import decode, read_bytes, require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_json
from ladd_dist.engine.guard_monitor import MonitorState
from ladd_dist.parallel.ranks import Ranks

META = "meta.json"
REMEDY = "delete its folder: the run goes on from the checkpoint before it"


class DataPosition(TypedDict):
    """The place in the order of the samples, for readers of `meta.json`: it follows from seed and step."""

    seed: int
    epoch: int
    position: int


class EarlyState(TypedDict):
    """The state of an early stop."""

    measured: list[list[float]]  # [step, distance], in order


class Facts(TypedDict, total=False):
    """Everything besides tensors that a training needs to go on, as JSON."""

    counters: dict[str, dict[str, float]]  # of each network's optimizer
    data: DataPosition
    guard: MonitorState | None
    early: EarlyState | None


class FileFacts(TypedDict):
    """The size and sha256 of a file."""

    bytes: int
    sha256: str


class Meta(Facts):
    """The contents of `meta.json`."""

    identity: str
    step: int
    ranks: int  # how many wrote it
    files: NotRequired[dict[str, FileFacts]]  # by name; checkpoints of older versions have none
    sha256: NotRequired[str]  # of everything else in `meta.json`


def facts_together(folder: Path, ranks: Ranks) -> dict[str, FileFacts]:
    """The facts of all files of tensors in a folder; each rank's writing thread calls this, and reads a share of them.

    Raises:
        OSError: one cannot be read.
    """
    share: dict[str, FileFacts] | OSError
    try:
        share = {path.name: _facts(path) for path in _tensor_files(folder)[ranks.rank :: ranks.size]}
    except OSError as error:  # told after the exchange, for which the other ranks wait
        share = error
    files: dict[str, FileFacts] = {}
    for part in ranks.from_all(share, in_background=True):
        if isinstance(part, OSError):
            raise part
        files |= part
    return files


def write_meta(path: Path, meta: Meta) -> None:
    """Write `meta.json` with its own sha256."""
    write_json(path, {**meta, "sha256": _own_sha256(meta)})


def verified_meta(folder: Path, step: int, ranks: Ranks) -> tuple[Meta | None, str]:
    """The contents of a whole checkpoint's `meta.json`, or None and what is wrong; the same on every rank.

    Every rank calls this, and reads a share of the files.

    Args:
        step: the one in the folder's name.
    """
    meta, problem = ranks.from_rank0(lambda: _read_meta(folder, step))
    if meta is None:
        return None, problem
    share = sorted(meta.get("files", {}).items())[ranks.rank :: ranks.size]
    problems = [found for found in ranks.from_all(_damage_in(folder, dict(share))) if found]
    return (None, problems[0]) if problems else (meta, "")


def _read_meta(folder: Path, step: int) -> tuple[Meta | None, str]:
    path = folder / META
    try:
        content = read_bytes(path)
        meta, plain = decode(content, Meta, str(path), REMEDY), decode(content, dict[str, Any], str(path), REMEDY)
    except UserError as error:
        return None, str(error)
    stated = plain.pop("sha256", None)
    if (stated is not None or "files" in plain) and stated != _own_sha256(plain):
        return None, f"{path} does not have its sha256"
    if meta["step"] != step:
        return None, f"{path} is of step {meta['step']}"
    if "files" in meta and sorted(meta["files"]) != [file.name for file in _tensor_files(folder)]:
        return None, f"{path} lists other files than are there"
    return meta, ""


def _damage_in(folder: Path, files: Mapping[str, FileFacts]) -> str:
    """What is wrong with the first damaged one of these files; empty if they are whole."""
    for name, stated in files.items():
        path = folder / name
        try:
            if require_regular(path) != stated["bytes"] or _facts(path) != stated:
                return f"{path} does not have the size and sha256 in {META}"
        except (OSError, UserError) as error:
            return str(error)
    return ""


def _tensor_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))  # all that are there are read


def _facts(path: Path) -> FileFacts:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _own_sha256(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(meta), sort_keys=True).encode()).hexdigest()
