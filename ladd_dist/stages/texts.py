"""The table of conditions beside the shards: the dataset's texts, each encoded once by the checkpoint's text encoder.

The distinct texts are cut into files of `FILE_TEXTS`, of which each rank encodes its share. A file that is there with
its record is not made again, so the same command goes on after a kill; neither that nor the ranks change a byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.networks import OLD_TABLE, TABLE, TEXTS, ConditionsEntry
from ladd_dist.builders.texts import read_texts, texts_digest
from ladd_dist.core.condition_index import FORMAT, Form, Piece, TableIndex, read_table_index, require_piece
from ladd_dist.core.door import read_typed, require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.pack_rows import forms_of, write_piece
from ladd_dist.core.rundir import make_folder, write_bytes, write_json
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_writer import file_sha256
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

FILE_TEXTS = 128
"""Number of texts in a file: 15 MB of CLIP's, half a GB of the longest of T5's. A kill costs at most a file a rank. It
is a multiple of the texts that are encoded together, so the same texts are together whoever encodes the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """What `conditions-000000.json` says about the file beside it."""

    texts: str
    """Digest of the file's texts."""
    tensors: dict[str, Form]
    file: Piece


def encode_texts(run: Run, folder: Path, stop: StopFlag) -> ConditionsEntry:
    """Write what is missing of the table; returns its entry in the shards' index, on every rank.

    Each rank encodes its share. The text encoder does not stay in memory.

    Raises:
        UserError: the checkpoint's text encoder is missing, cannot be read, or gives values that are not finite.
    """
    found = run.ranks.from_rank0(lambda: _found(run.recipe, folder))
    if found is not None:
        return found
    make_folder(folder)
    _write_share(run, folder, stop)
    run.ranks.barrier()
    return run.ranks.from_rank0(lambda: _write_index(run.recipe, folder))


def _found(recipe: Recipe, folder: Path) -> ConditionsEntry | None:
    """The entry of the table in `folder`, if it is whole and of the recipe's texts."""
    if not (folder / TEXTS).exists():
        return None
    entry = read_texts(folder)["table"]
    table = folder / entry["name"]
    if entry["name"] not in (TABLE, OLD_TABLE) or entry["texts"] != texts_digest(recipe.dataset.texts()):
        return None
    try:
        whole = require_regular(table) == entry["bytes"]
        if table.name == TABLE:
            for piece in read_table_index(table).files:
                require_piece(folder, piece)
    except UserError:
        return None
    return entry if whole else None


def _pieces(texts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The distinct texts, cut into files in the order in which they come first. The last file has the null row too."""
    distinct = tuple(dict.fromkeys(texts))
    return [distinct[first : first + FILE_TEXTS] for first in range(0, len(distinct), FILE_TEXTS)]


def _record_path(folder: Path, number: int) -> Path:
    return folder / f"conditions-{number:06d}.json"


def _recorded(folder: Path, number: int, texts: tuple[str, ...]) -> Record | None:
    """The record of a file that is whole and of these texts."""
    path = _record_path(folder, number)
    if not path.exists():
        return None
    try:
        record = read_typed(path, Record)
        require_piece(folder, record.file)
    except UserError:  # it is written again
        return None
    return record if record.texts == texts_digest(texts) and record.file.name == f"{path.stem}.safetensors" else None


def _write_share(run: Run, folder: Path, stop: StopFlag) -> None:
    ranks, pieces = run.ranks, _pieces(run.recipe.dataset.texts())
    share = [number for number in range(len(pieces)) if number % ranks.size == ranks.rank]
    missing = [number for number in share if _recorded(folder, number, pieces[number]) is None]
    total = sum(len(pieces[number]) for number in share)
    done = total - sum(len(pieces[number]) for number in missing)
    if not missing:
        return
    with Bar("texts", total, done, quiet=not ranks.is_first) as bar:
        rows = _Rows(_encoded(run, [text for number in missing for text in pieces[number]], stop))
        for number in missing:
            # Every encoding ends with the null condition; the table's is that behind its last text.
            null = number == len(pieces) - 1
            taken = rows.take(len(pieces[number]) + null, bar, done)
            path = folder / f"conditions-{number:06d}.safetensors"
            piece = write_piece(path, taken)
            record = Record(texts_digest(pieces[number]), forms_of(taken), piece)
            write_json(_record_path(folder, number), asdict(record))
            done += len(pieces[number])
            bar.update(done)
        rows.finish()


def _encoded(run: Run, texts: Sequence[str], stop: StopFlag) -> Iterator[dict[str, Tensor]]:
    """Rows of the texts and of the null condition, in the type that is stored: the encoder's, or less of float32."""
    recipe, done = run.recipe, 0
    dtype = getattr(torch, recipe.shards.dtype)
    for rows in recipe.network.encode(texts, image=recipe.dataset.spec(), device=run.device):
        stop.check()
        stored = {name: row.to(dtype) if row.dtype == torch.float32 else row for name, row in rows.items()}
        _require_finite(stored, texts, done)
        yield stored
        done += len(next(iter(rows.values())))


class _Rows:
    """Rows that come in batches, taken in other numbers."""

    def __init__(self, batches: Iterator[dict[str, Tensor]]) -> None:
        self.batches, self.held = batches, list[dict[str, Tensor]]()

    def take(self, num: int, bar: Bar, done: int) -> dict[str, Tensor]:
        """The next `num` rows.

        Raises:
            UserError: there are fewer, or their forms differ.
        """
        while (count := sum(map(_count, self.held))) < num:
            batch = next(self.batches, None)
            if batch is None:
                raise UserError(f"{count} conditions of the {num} announced: the network's encode() gives too few rows")
            if self.held and forms_of(batch) != forms_of(self.held[0]):
                raise UserError(f"rows of conditions differ: {forms_of(self.held[0])}, then {forms_of(batch)}")
            self.held.append(batch)
            bar.update(done + min(count + _count(batch), num))
        whole = {name: torch.cat([batch[name] for batch in self.held]) for name in self.held[0]}
        rest = {name: rows[num:] for name, rows in whole.items()}
        self.held = [rest] if _count(rest) else []
        return {name: rows[:num] for name, rows in whole.items()}

    def finish(self) -> None:
        """Let the encoder come to its end, where it says which texts were cut."""
        for _ in self.batches:
            pass


def _count(rows: dict[str, Tensor]) -> int:
    return len(next(iter(rows.values())))


def _write_index(recipe: Recipe, folder: Path) -> ConditionsEntry:
    texts = recipe.dataset.texts()
    records = [_recorded(folder, number, piece) for number, piece in enumerate(_pieces(texts))]
    whole = [record for record in records if record is not None]
    if len(whole) < len(records) or any(record.tensors != whole[0].tensors for record in whole):
        raise UserError(
            f"{folder}: the files of the table of conditions do not go together; delete the folder, then --stages "
            "shards"
        )
    number = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    rows = [*(number[text] for text in texts), len(number)]
    digest = texts_digest(texts)
    index = TableIndex(rows, whole[0].tensors, [record.file for record in whole], digest, FORMAT)
    write_bytes(folder / TABLE, json.dumps(asdict(index), separators=(",", ":")).encode())
    entry: ConditionsEntry = {
        "name": TABLE,
        "bytes": (folder / TABLE).stat().st_size,
        "sha256": file_sha256(folder / TABLE),
        "texts": digest,
    }
    write_json(folder / TEXTS, {"table": entry, "texts": list(texts)})
    return entry


def _require_finite(rows: dict[str, Tensor], texts: Sequence[str], first: int) -> None:
    for name, tensor in rows.items():
        broken = (~tensor.flatten(1).isfinite().all(dim=1)).nonzero()
        if len(broken):
            number = first + int(broken[0])
            text = repr(texts[number][:60]) if number < len(texts) else "the null condition"
            raise UserError(
                f"{name} of {text} is not finite as {str(tensor.dtype).removeprefix('torch.')}; with float16, take "
                "--shards.dtype float32, or a checkpoint whose text encoder is not stored in float16"
            )
