"""A table of conditions in several files, without padding: rows are read from the disk when they are asked for.

A file is mapped while its rows are copied, and no longer: memory does not grow with the part of the table that was
read, and pages stay in the cache of the operating system as long as it has room.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.condition_index import Form, TableIndex, require_piece
from ladd_dist.core.errors import UserError

Array = np.ndarray[Any, Any]


class PackedTable:
    """The rows of a table in several files."""

    def __init__(self, folder: Path, index: TableIndex) -> None:
        """Look at the files' sizes; nothing else is read yet.

        Raises:
            UserError: a file is missing or has another size than the index says.
        """
        self.forms, self.nbytes, self.num_rows = index.tensors, index.nbytes, len(index.rows)
        self._paths = [require_piece(folder, piece) for piece in index.files]
        self._sizes = [piece.bytes for piece in index.files]
        self._places = np.array(index.rows, dtype=np.int64)
        self._files = np.repeat(np.arange(len(index.files)), [piece.num_rows for piece in index.files])
        self._lengths, self._starts = dict[str, Array](), dict[str, Array]()
        for name, form in self.forms.items():
            lengths = [np.array(piece.lengths[name], dtype=np.int64) for piece in index.files]
            self._starts[name] = np.concatenate(
                [
                    piece.starts[name] + form.entry_bytes * (np.cumsum(of) - of)
                    for piece, of in zip(index.files, lengths, strict=True)
                ]
            )
            self._lengths[name] = np.concatenate(lengths)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each tensor, with its padding."""
        return {name: form.shape for name, form in self.forms.items()}

    def rows(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B,...] by name for ids [B] int64 on the CPU, with zeros as padding.

        Raises:
            IndexError: no condition has such an id.
            UserError: a file has become shorter since it was opened.
        """
        places = self._places[ids.numpy()]
        found = {name: torch.zeros(len(places), *form.shape, dtype=form.torch_dtype) for name, form in self._items()}
        targets = {name: _bytes_of(tensor) for name, tensor in found.items()}
        files = self._files[places]
        for file in np.unique(files).tolist():
            with self._mapped(file) as content:
                for number in np.flatnonzero(files == file).tolist():
                    for name, form in self.forms.items():
                        size = int(self._lengths[name][places[number]]) * form.entry_bytes
                        start, to = int(self._starts[name][places[number]]), number * form.row_bytes
                        targets[name][to : to + size] = content[start : start + size]
        return found

    def resident(self, device: torch.device) -> ResidentTable:
        """A copy of all rows on a device."""
        packed, lengths = dict[str, Tensor](), dict[str, Tensor]()
        for name, form in self.forms.items():
            total = int(self._lengths[name].sum())
            rows = torch.zeros(total + 1, *form.shape[1:], dtype=form.torch_dtype)  # the last entry is padding
            self._fill(name, _bytes_of(rows), form.entry_bytes)
            packed[name], lengths[name] = rows.to(device), torch.from_numpy(self._lengths[name]).to(device)
        return ResidentTable(self.forms, torch.from_numpy(self._places).to(device), packed, lengths)

    def _fill(self, name: str, target: memoryview, entry_bytes: int) -> None:
        sizes, to = self._lengths[name] * entry_bytes, 0
        for file in range(len(self._paths)):
            own = self._files == file
            start, size = int(self._starts[name][own][0]), int(sizes[own].sum())
            with self._mapped(file) as content:
                target[to : to + size] = content[start : start + size]
            to += size

    def _items(self) -> Iterator[tuple[str, Form]]:
        return iter(self.forms.items())

    @contextlib.contextmanager
    def _mapped(self, file: int) -> Iterator[memoryview]:
        path, size = self._paths[file], self._sizes[file]
        with path.open("rb") as stream:
            found = stream.seek(0, 2)
            if found < size:  # to read behind its end would kill the process
                raise UserError(f"{path} was cut to {found} bytes while it was read; make the shards again")
            with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
                yield content


class ResidentTable:
    """The rows of a table on one device, packed; gathering them makes the host wait for nothing."""

    def __init__(
        self, forms: Mapping[str, Form], places: Tensor, packed: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> None:
        """Take rows without padding.

        Args:
            places: row of each condition [N+1] int64.
            packed: entries [S+1,...] of all rows, one row behind the other, and a last one of zeros.
            lengths: number of entries of each row [R] int64.
        """
        self.forms, self._places, self._packed, self._lengths = forms, places, packed, lengths
        self._firsts = {name: of.cumsum(0) - of for name, of in lengths.items()}

    def rows(self, ids: Tensor) -> dict[str, Tensor]:
        """Rows [B,...] by name for ids [B] int64 on the same device, with zeros as padding."""
        places, found = self._places[ids], dict[str, Tensor]()
        for name, form in self.forms.items():
            packed, entry = self._packed[name], torch.arange(form.entries, device=ids.device)
            index = self._firsts[name][places][:, None] + entry
            padding = entry >= self._lengths[name][places][:, None]
            entries = packed[index.masked_fill(padding, len(packed) - 1)]
            found[name] = entries.reshape(len(ids), *form.shape)
        return found


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
