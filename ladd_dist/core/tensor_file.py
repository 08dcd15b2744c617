"""Files of tensors (safetensors) that carry a sha256 of their content, and the one reader that verifies it.

The sha256 covers names, types, shapes and bytes of the tensors, and the other metadata, such as a student's card. It
finds damage, not forgery: whoever writes a file can write a sha256 that fits it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError, reading

if TYPE_CHECKING:
    import torch

KEY = "ladd_dist_sha256"
"""Key of the sha256 in the metadata of a file. Files of older versions and of others have none."""
AGAIN = "delete it and run the same command again"


class TensorFile(NamedTuple):
    """The content of a file."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    """Without the sha256."""


def encoded(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> tuple[bytes, memoryview]:
    """A file of contiguous tensors in two parts, to be written one after the other; the same content, the same bytes.

    The library puts metadata in a random order, so the header is made here.
    """
    import safetensors.torch

    content = memoryview(safetensors.torch.save(dict(tensors)))
    end = 8 + int.from_bytes(content[:8], "little")
    told = dict(metadata or {})
    told[KEY] = content_sha256(tensors, told)
    text = json.dumps({"__metadata__": told, **json.loads(bytes(content[8:end]))}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # keeps the tensors aligned
    return len(text).to_bytes(8, "little") + text, content[end:]


def read_tensors(path: Path, *, problem: str = "cannot be read", remedy: str = AGAIN) -> TensorFile:
    """The tensors (memory-mapped, on the CPU) and metadata of a file, after a check of its sha256 if it has one.

    The check reads the whole file.

    Args:
        problem: what is wrong with a file that is none of safetensors, and `remedy` what to do, for the message.

    Raises:
        UserError: the file is missing, no regular file, no safetensors, or damaged; the message names it.
    """
    require_regular(path)
    from safetensors import safe_open

    with reading(path, problem, remedy), safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    stated = metadata.pop(KEY, None)
    if stated is not None and stated != content_sha256(tensors, metadata):
        raise UserError(f"{path} is damaged: its content does not have the sha256 in its header; {remedy}")
    return TensorFile(tensors, metadata)


def load_tensors(path: Path, *, remedy: str = AGAIN) -> dict[str, torch.Tensor]:
    """The tensors of a file, as `read_tensors` reads them.

    Raises:
        UserError: as `read_tensors` raises.
    """
    return read_tensors(path, remedy=remedy).tensors


def load_weights(path: Path, *, remedy: str = AGAIN) -> dict[str, torch.Tensor]:
    """The weights in a file, as `read_tensors` reads them.

    Raises:
        UserError: as `read_tensors` raises, or a weight is NaN or infinite.
    """
    weights = load_tensors(path, remedy=remedy)
    require_finite(weights, path)
    return weights


def require_finite(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        UserError: a weight is; the message names it.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.numel():
            lowest, highest = (weight if weight.element_size() > 1 else weight.float()).aminmax()
            if not (lowest.isfinite() and highest.isfinite()):  # NaN spreads to both; faster than isfinite of each
                raise UserError(f"{path}: the weight {name} holds NaN or infinity, so the training had diverged")


def content_sha256(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Hexadecimal sha256 over metadata and tensors, in order of names."""
    digest = hashlib.sha256(f"{json.dumps(dict(metadata), sort_keys=True)}\n".encode())
    _update(digest, tensors)
    return digest.hexdigest()


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Hexadecimal sha256 over names, dtypes, shapes and bytes of tensors, in order of names, without metadata."""
    digest = hashlib.sha256()
    _update(digest, weights)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    import torch

    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
