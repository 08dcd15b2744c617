"""Third-party checkpoints: find them, identify them, and refuse files that could run code.

A file from outside may name any repository of the hub. What it names is read from the local copy, and fetched only if
the command line asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladd_dist.core.budget import require_declared
from ladd_dist.core.door import read_bytes, require_regular
from ladd_dist.core.errors import ConsentError, UserError, reading
from ladd_dist.core.serialize import to_data
from ladd_dist.core.typed_line import again

if TYPE_CHECKING:
    import torch

_SAMPLED_BYTES = 1024
MOST_HEADER = 100_000_000
"""Bytes of the longest header of safetensors, by its format."""
_PICKLES = ("bin", "pt", "pth", "ckpt", "pkl")


_named_outside: dict[str, str] = {}
"""Texts of files from outside, any of which may be the name of a repository, and the file of each."""
_allowed: set[str] = set()


def from_outside(data: object, where: str) -> None:
    """Take note that a file from outside says this: the repositories that it names are not fetched unasked.

    Args:
        data: JSON.
        where: the file, for messages.
    """
    _named_outside.update(dict.fromkeys(texts_in(data), where))


def allow(repositories: Iterable[str]) -> None:
    """Allow repositories of the hub to be fetched, whoever names them."""
    _allowed.update(repositories)


def named_outside(text: str) -> str:
    """The file from outside that names this repository or folder, if nobody has asked for it; else empty."""
    return "" if text in _allowed else _named_outside.get(text, "")


def allow_own(recipe: Any) -> None:
    """Allow what a recipe names that is the user's own, not read from a file from outside."""
    allow(texts_in(to_data(recipe)))


def texts_in(data: object) -> set[str]:
    """All texts in JSON data, without the keys."""
    found, waiting = set(), [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.add(item)
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return found


def locate(source: str, *, field: str, revision: str = "", patterns: Sequence[str] = ()) -> Path:
    """Folder of a checkpoint: a local one, or a hub repository of which the files that match `patterns` are fetched.

    Args:
        field: name of the recipe's field that holds `source`, for messages.

    Raises:
        UserError: there is no such folder, and no such repository on the hub.
        ConsentError: a file from outside names the repository, nobody asked for it, and there is no local copy of it.
    """
    if not source:
        raise UserError(f"{field} is empty; name a folder, or a repository of the hub, with a checkpoint of diffusers")
    root = Path(source).expanduser()
    if root.is_dir():
        return root
    if root.exists() or source.startswith(("/", ".", "~")):
        raise UserError(f"{field}: {source} is no folder")
    if named_outside(source):
        return _local_copy(source, revision, tuple(patterns))
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
    """Local copy of a hub repository; cached, because every use of a recipe's latent shape asks for it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    asked: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(patterns)}
    try:
        return Path(snapshot_download(source, **asked))
    except OfflineModeIsEnabled:  # version 1.33 asks for a list of files that a copy made by others lacks; 2.4 does not
        return Path(snapshot_download(source, local_files_only=True, **asked))


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a model or scheduler.

    Raises:
        UserError: missing, damaged, no JSON object, or with a number of channels, layers or the like beyond reason.
    """
    try:
        config = json.loads(read_bytes(path))  # not by the door: schedulers of diffusers say -Infinity
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(config).__name__}; download it again")
    require_declared(config, str(path))
    return config


def weight_bytes(folder: Path, pattern: str = "*.safetensors") -> int:
    """Bytes of the weights in a folder, which are at least as many as their numbers."""
    return sum(require_regular(path) for path in folder.glob(pattern))


def weights_dtype(folder: Path) -> torch.dtype:
    """The type of the largest weight in a folder of safetensors; float32 where there is none.

    Files of a variant (`model.fp16.safetensors`) do not count, because nothing loads them unasked.

    Raises:
        UserError: a file is damaged.
    """
    import torch
    from safetensors import safe_open

    largest, found = -1, "F32"
    for path in sorted(folder.glob("*.safetensors")):
        require_regular(path)
        if "." in path.stem:
            continue
        with reading(path, "is no readable file of weights", "download it again"), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                entry = file.get_slice(name)
                if math.prod(entry.get_shape()) > largest:
                    largest, found = math.prod(entry.get_shape()), entry.get_dtype()
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(found, torch.float32)


def _local_copy(source: str, revision: str, patterns: tuple[str, ...]) -> Path:
    """What an earlier download of a repository left on this machine; asks nobody.

    Raises:
        ConsentError: there is none, or none with these files.
    """
    with contextlib.suppress(Exception):  # the hub's own: not there, or no name of a repository
        from huggingface_hub import snapshot_download

        root = Path(snapshot_download(source, revision=revision or None, local_files_only=True))
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        if any(fnmatch(name, pattern) for name in names for pattern in patterns or ("*",)):
            return root
    raise ConsentError(
        f"{_named_outside[source]} names {source!r}, of which there is no copy here: it is no folder, and a repository "
        f"of the Hugging Face hub is fetched only if you ask; if you trust it, type: {again({'--hub': [source]})}"
    )


def require_safetensors(folder: Path, stem: str) -> None:
    """Refuse a model's folder whose weights could run code when they are read.

    Raises:
        UserError: there is no `stem`.safetensors (or part of one); the message says what there is instead.
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
    """Hash of the contents of files, 16 hexadecimal digits, independent of their paths.

    For JSON it covers the values without the notes of the library that wrote them. For safetensors it covers the
    header, the size and the first kilobyte of each tensor, which tells weights apart without reading gigabytes.
    """
    total = hashlib.sha256()
    for path in files:
        status = path.stat()
        total.update(_digest(str(path.resolve()), status.st_size, status.st_mtime_ns).encode())
    return total.hexdigest()[:16]


@functools.lru_cache(maxsize=256)
def _digest(path: str, size: int, changed_ns: int) -> str:
    """Hash of one file, cached until the file changes (`changed_ns`)."""
    file = Path(path)
    if file.suffix == ".safetensors":
        return _digest_weights(file, size)
    content = read_bytes(file)
    if file.suffix == ".json":
        with contextlib.suppress(ValueError, RecursionError):  # damaged: whoever reads it says so
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
        header = stream.read(min(length, size, MOST_HEADER))
        found.update(header)
        for start, end in _places(header, size):
            stream.seek(8 + length + start)
            found.update(stream.read(min(end - start, _SAMPLED_BYTES)))
    return found.hexdigest()


def _places(header: bytes, size: int) -> list[tuple[int, int]]:
    """First and last byte of each tensor's data; none for a damaged header, of which loading the file says so."""
    try:
        table = json.loads(header)
        places = sorted(item["data_offsets"] for name, item in table.items() if name != "__metadata__")
        found = [(start, end) for start, end in places if 0 <= start <= end <= size]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return found if len(found) == len(places) else []
