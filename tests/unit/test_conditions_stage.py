"""The table of texts in the shard stage: encoded once, kept with the samples, told from another recipe's."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import webdataset
from text_shards import PROMPTS, recipe_in, workspace_in
from tiny_texts import write_pipeline

from ladd_dist import stages
from ladd_dist.builders.networks import OLD_TABLE, TABLE, TEXTS
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.condition_index import read_table_index
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import read_json, write_atomic, write_json
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.engine.shard_writer import file_sha256
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.diffusers.texts import BATCH
from ladd_dist.parallel.ranks import SINGLE, Ranks
from ladd_dist.recipe import Recipe
from ladd_dist.stages.shards import are_shards_done, make_shards
from ladd_dist.stages.texts import FILE_TEXTS, encode_texts
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

IDS = torch.arange(len(PROMPTS) + 1)
MANY = [f"a cat and {number} dogs" for number in range(5 * BATCH - 3)]
FIRST = "conditions-000000.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd") / "checkpoint", "sd")


@pytest.fixture(scope="module")
def master(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with whole shards; change nothing."""
    folder = tmp_path_factory.mktemp("master")
    make_shards(Run(recipe_in(folder, checkpoint), workspace_in(folder)))
    return folder


@pytest.fixture
def made(master: Path, checkpoint: Path, tmp_path: Path) -> tuple[Recipe, Workspace, Path]:
    """The same, that a test may damage."""
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    recipe, workspace = recipe_in(tmp_path, checkpoint), workspace_in(tmp_path)
    return recipe, workspace, Run(recipe, workspace).shards_folder


def test_a_row_is_what_the_librarys_pipeline_encodes_and_the_last_one_what_it_guides_away_from(
    made: tuple[Recipe, Workspace, Path], checkpoint: Path
) -> None:
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    conditions = Conditions.read(made[2] / TABLE)
    assert conditions.num == len(PROMPTS)
    rows = conditions.take(torch.arange(len(PROMPTS) + 1))["prompt_embeds"]
    for number, prompt in enumerate(PROMPTS):
        own, null = pipeline.encode_prompt(prompt, torch.device("cpu"), 1, True)
        torch.testing.assert_close(rows[number], own[0])
        torch.testing.assert_close(rows[-1], null[0])
    assert not torch.equal(rows[0], rows[1])
    assert read_json(made[2] / TEXTS)["texts"] == list(PROMPTS)


def test_the_library_webdataset_reads_each_chunk_with_its_prompts(made: tuple[Recipe, Workspace, Path]) -> None:
    from safetensors.torch import load

    tars = [str(path) for path in sorted(made[2].glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert len(samples) == 3
    for sample in samples:
        assert sample["json"] == [PROMPTS[number] for number in load(sample["safetensors"])["cond"].tolist()]
    assert len(ShardReader(made[2])) == 6


def test_what_is_encoded_is_not_encoded_again(
    made: tuple[Recipe, Workspace, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, workspace, folder = made
    for path in (*folder.glob("0*"), folder / INDEX, folder / "done.json"):
        path.unlink()
    before = (folder / TABLE).stat().st_mtime_ns
    monkeypatch.setattr(Diffusers, "encode", None)
    make_shards(Run(recipe, workspace))
    assert (folder / TABLE).stat().st_mtime_ns == before
    open_shards(Run(recipe, workspace))


def test_a_damaged_table_is_named(made: tuple[Recipe, Workspace, Path]) -> None:
    recipe, workspace, folder = made
    whole = {name: (folder / name).read_bytes() for name in (TABLE, FIRST)}
    (folder / FIRST).write_bytes(whole[FIRST][:-1] + bytes([whole[FIRST][-1] ^ 1]))
    with pytest.raises(ShardError, match=rf"{FIRST} is damaged: its sha256"):
        open_shards(Run(recipe, workspace))
    with pytest.raises(UserError, match=rf"{FIRST} is damaged: its sha256 is not that in {TABLE}"):
        load_teacher(Run(recipe, workspace))
    (folder / FIRST).write_bytes(whole[FIRST][:-1])
    assert not are_shards_done(Run(recipe, workspace))
    make_shards(Run(recipe, workspace))
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    (folder / TABLE).write_bytes(whole[TABLE].replace(b"F32", b"F16"))
    with pytest.raises(ShardError, match=rf"{TABLE} is damaged: its sha256"):
        open_shards(Run(recipe, workspace))
    with pytest.raises(UserError, match=rf"{TABLE} is damaged: its sha256 is not that in {TEXTS}"):
        load_teacher(Run(recipe, workspace))
    (folder / TABLE).unlink()
    with pytest.raises(ShardError, match=rf"{TABLE} is missing"):
        open_shards(Run(recipe, workspace))
    with pytest.raises(ValueError, match="the stage shards encodes the texts: --stages teacher,shards"):
        load_teacher(Run(recipe, workspace))


def test_the_table_that_an_earlier_version_wrote_is_read(made: tuple[Recipe, Workspace, Path]) -> None:
    recipe, workspace, folder = made
    before = load_teacher(Run(recipe, workspace)).conditions.take(IDS)  # type: ignore[union-attr]
    as_written_before(folder)
    make_shards(Run(recipe, workspace))
    assert [path.name for path in folder.glob("conditions*")] == [OLD_TABLE]
    open_shards(Run(recipe, workspace))
    after = load_teacher(Run(recipe, workspace)).conditions.take(IDS)  # type: ignore[union-attr]
    assert all(torch.equal(after[name], before[name]) for name in before)
    (folder / "000000.tar").unlink()
    (folder / "done.json").unlink()
    make_shards(Run(recipe, workspace))
    assert [path.name for path in folder.glob("conditions*")] == [OLD_TABLE]


def as_written_before(folder: Path) -> None:
    """Put a single padded file of all rows instead of the table, and its entry instead of the table's."""
    rows = Conditions.read(folder / TABLE).take(IDS)
    for path in folder.glob("conditions*"):
        path.unlink()
    safetensors.torch.save_file(rows, folder / OLD_TABLE)
    entry = {"name": OLD_TABLE, "bytes": (folder / OLD_TABLE).stat().st_size, "sha256": file_sha256(folder / OLD_TABLE)}
    for name, key in ((INDEX, "conditions"), (TEXTS, "table")):
        data = read_json(folder / name)
        write_json(folder / name, data | {key: data[key] | entry})


def test_a_text_that_comes_twice_is_stored_once(made: tuple[Recipe, Workspace, Path]) -> None:
    index = read_table_index(made[2] / TABLE)
    assert index.rows == [0, 1, 0, 2]
    assert [piece.num_rows for piece in index.files] == [3]


def test_texts_that_are_encoded_together_lie_in_the_same_file() -> None:
    assert FILE_TEXTS % BATCH == 0


def test_a_table_that_was_interrupted_goes_on_and_has_the_same_bytes(
    many: Callable[..., tuple[Run, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five files the second, the third and the index are missing; only their texts are encoded."""
    run, folder = many("interrupted")
    encode_texts(run, folder, StopFlag())
    whole = contents(folder)
    for name in (TABLE, TEXTS, "conditions-000001.json", "conditions-000002.safetensors"):
        (folder / name).unlink()
    asked, encoded = [], Diffusers.encode

    def encode(self: Diffusers, texts: list[str], **more: Any) -> Any:
        asked.extend(texts)
        return encoded(self, texts, **more)

    monkeypatch.setattr(Diffusers, "encode", encode)
    encode_texts(run, folder, StopFlag())
    assert asked == MANY[BATCH : 3 * BATCH]
    assert len(whole) == 2 * 5 + 2
    assert contents(folder) == whole


@pytest.fixture
def many(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Run, Path]]:
    """A run with texts for five files, by name and rank, and its folder."""
    monkeypatch.setattr("ladd_dist.stages.texts.FILE_TEXTS", BATCH)

    def make(name: str, ranks: Ranks = SINGLE) -> tuple[Run, Path]:
        (tmp_path / name).mkdir(exist_ok=True)
        recipe = recipe_in(tmp_path / name, checkpoint)
        Path(recipe.dataset.file).write_text("\n".join(MANY))  # type: ignore[attr-defined]
        return Run(recipe, dataclasses.replace(workspace_in(tmp_path / name), ranks=ranks)), tmp_path / name / "table"

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_after_real_kills_the_same_command_writes_the_same_bytes(many: Callable[..., tuple[Run, Path]]) -> None:
    """One kill while the third file is written, and one between the fourth file and its record."""
    run, folder = many("whole")
    encode_texts(run, folder, StopFlag())
    killed, table = many("killed")
    for file, by in (("conditions-000002.safetensors", "ladd_dist.core.pack_rows.save_tensors"),
                     ("conditions-000003.json", "ladd_dist.stages.texts.write_json")):  # fmt: skip
        child = os.fork()
        if not child:
            _killed_at(file, by, lambda: encode_texts(killed, table, StopFlag()))
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert not (table / TABLE).exists()
        assert not (table / f"{Path(file).stem}.json").exists()
        assert (table / "conditions-000001.json").exists()
    encode_texts(killed, table, StopFlag())
    assert contents(table) == contents(folder)


def _killed_at(file: str, by: str, work: Callable[[], object]) -> None:
    """Do the work until `by` begins to write a file, half of which is there when the process is killed."""
    module, _, name = by.rpartition(".")
    write = getattr(sys.modules[module], name)

    def writes(path: Path, data: Any) -> None:
        if path.name == file:
            write_atomic(path, lambda temporary: (temporary.write_bytes(b"half"), os.kill(os.getpid(), signal.SIGKILL)))
        write(path, data)

    setattr(sys.modules[module], name, writes)
    try:
        work()
    finally:
        os._exit(3)


def test_two_ranks_encode_a_share_each_and_leave_the_bytes_of_one(many: Callable[..., tuple[Run, Path]]) -> None:
    run, folder = many("one")
    encode_texts(run, folder, StopFlag())
    written = []
    for rank in range(2):
        run, table = many("two", Ranks(rank=rank, size=2))
        table.mkdir(exist_ok=True)
        before = set(table.iterdir())
        stages.texts._write_share(run, table, StopFlag())
        written.append(sorted(path.name for path in set(table.iterdir()) - before if path.suffix == ".safetensors"))
    assert written == [[f"conditions-{n:06d}.safetensors" for n in numbers] for numbers in ((0, 2, 4), (1, 3))]
    stages.texts._write_index(run.recipe, table)
    assert contents(table) == contents(folder)


def test_shards_of_another_checkpoint_or_of_other_texts_are_refused(made: tuple[Recipe, Workspace, Path]) -> None:
    recipe, workspace, folder = made
    index = read_json(folder / INDEX)
    write_json(folder / INDEX, index | {"teacher": "0123456789"})
    with pytest.raises(ShardError, match=r"made by another teacher \(0123456789, the recipe's is"):
        open_shards(Run(recipe, workspace))
    write_json(folder / INDEX, index | {"conditions": index["conditions"] | {"texts": "0123"}})
    with pytest.raises(ShardError, match="made with other texts"):
        open_shards(Run(recipe, workspace))
    write_json(folder / INDEX, {name: item for name, item in index.items() if name != "conditions"})
    with pytest.raises(ShardError, match="no table of conditions for the recipe's 3 texts"):
        open_shards(Run(recipe, workspace))


def test_other_prompts_are_other_shards(made: tuple[Recipe, Workspace, Path], tmp_path: Path) -> None:
    recipe, _, _ = made
    before = recipe.shards_signature()
    (tmp_path / "prompts.txt").write_text("a cat\na dog on a mat\na cow")
    assert recipe.shards_signature() != before


def test_a_table_of_another_length_is_refused(made: tuple[Recipe, Workspace, Path], tmp_path: Path) -> None:
    recipe, workspace, folder = made
    (tmp_path / "prompts.txt").write_text("a cat")
    shutil.copytree(folder, Run(recipe, workspace).shards_folder)
    with pytest.raises(ValueError, match=r"holds 3 texts, the recipe has 1; delete its folder"):
        load_teacher(Run(recipe, workspace))
