"""The table of texts is hashed once a start, whoever reads it: each rank its share."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from text_shards import recipe_in, workspace_in
from tiny_texts import write_pipeline

from ladd_dist.builders.networks import TABLE, read_table, share_table
from ladd_dist.core import known_digests
from ladd_dist.core.errors import UserError
from ladd_dist.engine.loop import StopFlag
from ladd_dist.networks.diffusers.texts import BATCH
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.stages.texts import encode_texts
from ladd_dist.workspace.run import Run

NUM_FILES = 4


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Run]:
    """A run of any rank of two, as if its process had just begun; its shards' folder has a table of several files."""
    monkeypatch.setattr("ladd_dist.stages.texts.FILE_TEXTS", BATCH)
    recipe = recipe_in(tmp_path, write_pipeline(tmp_path / "checkpoint", "sd"))
    Path(recipe.dataset.file).write_text("\n".join(f"a cat and {n} dogs" for n in range(NUM_FILES * BATCH - 3)))  # type: ignore[attr-defined]
    alone = Run(recipe, workspace_in(tmp_path))
    encode_texts(alone, alone.shards_folder, StopFlag())

    def begin(rank: int) -> Run:
        monkeypatch.setattr(known_digests, "_known", {})
        return Run(recipe, dataclasses.replace(alone.workspace, ranks=Ranks(rank=rank, size=2)))

    return begin


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed."""
    names, plain = list[str](), hashlib.file_digest

    def heard(stream: Any, algorithm: str) -> Any:
        names.append(Path(stream.name).name)
        return plain(stream, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", heard)
    return names


def test_two_ranks_hash_each_file_of_the_table_once_and_have_all_of_it_compared(
    table: Callable[[int], Run], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[int, Any] = {}

    def gathered(self: Ranks, value: Any, **more: Any) -> list[Any]:
        told[self.rank] = value
        return list(told.values())

    monkeypatch.setattr(Ranks, "from_all", gathered)
    share_table(table(0))
    first = [*read]
    run = table(1)
    share_table(run)
    assert read_table(run.shards_folder).num == NUM_FILES * BATCH - 3
    names = [TABLE, *(f"conditions-{number:06d}.safetensors" for number in range(NUM_FILES))]
    assert len(first) < len(names) > len(read) - len(first)
    assert sorted(read) == sorted(names)

    piece = run.shards_folder / names[2]
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=rf"{names[2]} is damaged: its sha256 is not that in {TABLE}"):
        read_table(run.shards_folder)


def test_what_another_rank_read_wrong_is_compared_too(
    table: Callable[[int], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(self: Ranks, value: dict[Any, str], **more: Any) -> list[Any]:
        return [value, dict.fromkeys(value, 64 * "0")]

    monkeypatch.setattr(Ranks, "from_all", gathered)
    run = table(0)
    share_table(run)
    with pytest.raises(UserError, match="is damaged: its sha256 is not that in"):
        read_table(run.shards_folder)
