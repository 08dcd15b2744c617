"""The index of a table of conditions that lies in several files: which rows there are, and where each lies.

A file holds some distinct rows. Of each row it has the entries along the first axis up to the last one that is not
zero: the padding of a text is not stored. Conditions with the same text share a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta

from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.names import is_name

INDEX = "conditions.json"
"""Name of the index, beside the files of its table."""
FORMAT = 2
"""Version of the form; a table of the first was one file of tensors, which is still read."""
MOST_ROW_BYTES = 2**28
"""Bytes of the largest row, padded: thirty times that of the longest text of T5 in float32."""
REMEDY = "delete the shards' folder, then --stages shards"
DTYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Types of a table's tensors, by the names of safetensors."""
_Size = Annotated[int, Meta(ge=0, le=2**62)]
_Count = Annotated[int, Meta(ge=1, le=2**31)]
_Length = Annotated[int, Meta(ge=0, le=2**31)]


@dataclass(frozen=True, slots=True)
class Form:
    """The dtype and the shape of a row of one tensor, with its padding."""

    dtype: str
    shape: tuple[_Count, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype[:20]!r} is none of {', '.join(DTYPES)}")
        if len(self.shape) > 4 or self.row_bytes > MOST_ROW_BYTES:
            raise ValueError(f"a row of shape {list(self.shape[:5])} is larger than {MOST_ROW_BYTES} bytes")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        return DTYPES[self.dtype]

    @property
    def entries(self) -> int:
        """Number of entries along the first axis; 1 for a row that is a single number."""
        return self.shape[0] if self.shape else 1

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry along the first axis, such as the state of one token."""
        return math.prod(self.shape[1:]) * self.torch_dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row with its padding."""
        return self.entries * self.entry_bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a table: consecutive rows."""

    name: str
    bytes: _Size
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    starts: dict[str, _Size]
    """Offset in bytes of the first row of each tensor in the file; the rows lie one behind the other."""
    lengths: dict[str, list[_Length]]
    """Number of entries that are stored of each row, for each tensor."""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(f"{self.name[:80]!r} is no file name")
        if self.starts.keys() != self.lengths.keys():
            raise ValueError(f"{self.name}: tensors with a start and those with lengths differ")
        if len({len(lengths) for lengths in self.lengths.values()}) != 1 or not self.num_rows:
            raise ValueError(f"{self.name}: its tensors have no or different numbers of rows")

    @property
    def num_rows(self) -> int:
        """Number of rows in the file."""
        return len(next(iter(self.lengths.values())))


@dataclass(frozen=True, slots=True)
class TableIndex:
    """The content of `conditions.json`."""

    rows: list[_Size]
    """Row of each condition, among those of all files; the last condition is the null one."""
    tensors: dict[str, Form]
    files: list[Piece]
    texts: str = ""
    """Digest of the texts."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, this version reads {FORMAT}")
        if len(self.rows) < 1 or not self.tensors or not self.files:
            raise ValueError("it has no condition, no tensor or no file")
        held = sum(piece.num_rows for piece in self.files)
        if max(self.rows) >= held:
            raise ValueError(f"a condition has row {max(self.rows)}, its files hold {held} rows")
        if len({piece.name for piece in self.files}) < len(self.files):
            raise ValueError("it names a file twice")
        for piece in self.files:
            _require_fitting(piece, self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows of all files."""
        return sum(
            sum(lengths) * self.tensors[name].entry_bytes
            for piece in self.files
            for name, lengths in piece.lengths.items()
        )


def _require_fitting(piece: Piece, tensors: dict[str, Form]) -> None:
    """Refuse a file whose rows are longer than their form, or do not lie in it.

    Raises:
        ValueError: the message names the file.
    """
    if piece.starts.keys() != tensors.keys():
        raise ValueError(f"{piece.name} holds {', '.join(piece.starts)[:200]}, the table {', '.join(tensors)[:200]}")
    for name, form in tensors.items():
        lengths = piece.lengths[name]
        if max(lengths) > form.entries:
            raise ValueError(f"{piece.name}: a row of {name} has {max(lengths)} entries, at most {form.entries} fit")
        if piece.starts[name] + sum(lengths) * form.entry_bytes > piece.bytes:
            raise ValueError(f"{piece.name}: {name} ends behind the file's {piece.bytes} bytes")


def read_table_index(path: Path) -> TableIndex:
    """The index in a file.

    Raises:
        UserError: it is missing or damaged, or describes rows that are not in its files; the message names it.
    """
    return read_typed(path, TableIndex, REMEDY)


def require_piece(folder: Path, piece: Piece) -> Path:
    """The path of a file of a table, which is there and has its size.

    Raises:
        UserError: it is not.
    """
    from ladd_dist.core.door import require_regular

    path = folder / piece.name
    found = require_regular(path)
    if found != piece.bytes:
        raise UserError(f"{path} is damaged: {found} bytes, {INDEX} says {piece.bytes}; {REMEDY}")
    return path
