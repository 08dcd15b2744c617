"""Checkpoints that others made: where they are, what identifies them, and that nothing in them can run code."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ladd_dist.core.errors import UserError

_SAMPLED_BYTES = 1024
_PICKLES = ("bin", "pt", "pth", "ckpt", "pkl")


def locate(source: str, *, field: str, revision: str = "", patterns: Sequence[str] = ()) -> Path:
    """A local folder, or else a repository of the hub, of which the files that match `patterns` are fetched.

    Args:
        field: the recipe's field that names the source, for messages.

    Raises:
        UserError: there is no such folder, and the hub does not give such a repository.
    """
    if not source:
        raise UserError(f"{field} is empty; name a folder, or a repository of the hub, with a checkpoint of diffusers")
    root = Path(source).expanduser()
    if root.is_dir():
        return root
    if root.exists() or source.startswith(("/", ".", "~")):
        raise UserError(f"{field}: {source} is no folder")
    try:
        return _snapshot(source, revision, tuple(patterns))
    except Exception as error:  # the hub's own, its HTTP client's, the operating system's
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{field}: {source!r} is no folder here, and the hub does not give it ({reason}); download it where there "
            "is a network (`hf download`), and give the folder"
        ) from error


@functools.cache
def _snapshot(source: str, revision: str, patterns: tuple[str, ...]) -> Path:
    """A repository's files here. Asked for once a process: a recipe's latent shape is, wherever samples are drawn."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=revision or None, allow_patterns=list(patterns)))


def require_safetensors(folder: Path, stem: str) -> None:
    """Refuse a model's folder whose weights could run code when they are read.

    Raises:
        UserError: there is no `stem`.safetensors (or a part of one); the message says what there is instead.
    """
    if any(folder.glob(f"{stem}*.safetensors")):
        return
    pickles = [path.name for suffix in _PICKLES for path in sorted(folder.glob(f"*.{suffix}"))]
    if pickles:
        raise UserError(
            f"{folder} has its weights only as a pickle ({pickles[0]}), which could run code when it is read; convert "
            "it where you trust it: Model.from_pretrained(folder).save_pretrained(folder) writes safetensors"
        )
    raise UserError(f"{folder} has no weights ({stem}.safetensors)")


def digest(files: Iterable[Path]) -> str:
    """16 hexadecimal digits for what some files hold: the same wherever they lie.

    Of JSON its values, without the notes of the library that wrote it; of safetensors their table, their size and the
    first kilobyte of each tensor: gigabytes of weights are told apart without reading them.
    """
    total = hashlib.sha256()
    for path in files:
        status = path.stat()
        total.update(_digest(str(path.resolve()), status.st_size, status.st_mtime_ns).encode())
    return total.hexdigest()[:16]


@functools.lru_cache(maxsize=256)
def _digest(path: str, size: int, changed_ns: int) -> str:
    """Of one file, kept while it is not written to (`changed_ns`)."""
    file = Path(path)
    if file.suffix == ".safetensors":
        return _digest_weights(file, size)
    content = file.read_bytes()
    if file.suffix == ".json":
        with contextlib.suppress(ValueError):  # damaged: whoever reads it says so
            content = json.dumps(_plain(json.loads(content)), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _plain(data: object) -> object:
    if not isinstance(data, dict):
        return data
    return {name: item for name, item in data.items() if name == "_class_name" or not str(name).startswith("_")}


def _digest_weights(path: Path, size: int) -> str:
    found = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(length, size))
        found.update(header)
        try:
            table = json.loads(header)
            places = sorted(item["data_offsets"] for name, item in table.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            places = []  # damaged: loading it says so
        for start, end in places:
            stream.seek(8 + length + start)
            found.update(stream.read(min(end - start, _SAMPLED_BYTES)))
    return found.hexdigest()
