"""Rows of a table of conditions written to a file without the zeros at their end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.core.condition_index import DTYPES, Form, Piece
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import save_tensors

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def forms_of(rows: Mapping[str, Tensor]) -> dict[str, Form]:
    """The form of each tensor of rows [n,...], in the order of names.

    Raises:
        UserError: there are no rows, the tensors have different numbers of rows, or one has a type that tables lack.
    """
    counts = {name: len(tensor) if tensor.ndim else 0 for name, tensor in rows.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise UserError(f"a table of conditions needs tensors with one row a condition, got rows {counts}")
    for name, tensor in rows.items():
        if tensor.dtype not in _NAMES:
            raise UserError(f"conditions: {name} is {tensor.dtype}, a table holds {', '.join(map(str, _NAMES))}")
    return {name: Form(_NAMES[rows[name].dtype], tuple(rows[name].shape[1:])) for name in sorted(rows)}


def write_piece(path: Path, rows: Mapping[str, Tensor]) -> Piece:
    """Write rows [n,...] to a file of safetensors, atomically; equal rows give equal bytes.

    Raises:
        UserError: as `forms_of` raises. OSError: the disk is full or not writable.
    """
    packed, lengths = dict[str, Tensor](), dict[str, list[int]]()
    for name in forms_of(rows):
        tensor = rows[name].detach().cpu().contiguous()
        tensor = tensor[:, None] if tensor.ndim == 1 else tensor
        kept = kept_entries(tensor)
        packed[name] = tensor[torch.arange(tensor.shape[1]) < kept[:, None]]
        lengths[name] = kept.tolist()
    save_tensors(path, packed)
    with path.open("rb") as stream:
        first = 8 + (length := int.from_bytes(stream.read(8), "little"))
        header = json.loads(stream.read(length))
        stream.seek(0)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    starts = {name: first + header[name]["data_offsets"][0] for name in packed}
    return Piece(path.name, path.stat().st_size, sha256, starts, lengths)


def kept_entries(rows: Tensor) -> Tensor:
    """Number of entries [n] int64 along axis 1 of rows [n,T,...] up to the last that is not zero, bit for bit."""
    used = rows.reshape(*rows.shape[:2], -1).view(torch.uint8).any(dim=2)
    return (used * torch.arange(1, rows.shape[1] + 1)).amax(dim=1)
