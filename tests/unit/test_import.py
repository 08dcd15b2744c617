"""The import of somebody else's shards: in bounded memory, resumable, and the same bytes whoever reads what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladd_dist.core.errors import ShardError
from ladd_dist.core.signals import Stopped
from ladd_dist.core.types import ImageSpec
from ladd_dist.engine.foreign_samples import Wanted
from ladd_dist.engine.foreign_survey import survey_shards
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.stages import imported
from ladd_dist.stages.imported import Imported
from ladd_dist.stages.shards import make_shards
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.foreign_source import (
    NUM,
    SIZES,
    expected,
    foreign_sample,
    member,
    npy,
    recipe_of,
    tars,
    write_source,
    write_tar,
)


def run_of(source: Path, folder: Path, **shards: Any) -> Run:
    return Run(recipe_of(source, **shards), Workspace(folder / "runs", folder / "cache", torch.device("cpu")))


@pytest.mark.parametrize("wanted", [NUM, 21, 20, 3])
def test_an_import_writes_the_samples_as_they_are_and_leaves_no_records(tmp_path: Path, wanted: int) -> None:
    run = run_of(write_source(tmp_path / "source"), tmp_path, num_samples=wanted)
    folder = make_shards(run)
    assert tars(folder) == expected(tmp_path / "expected", wanted)
    assert not (folder / "verified").exists()


def test_shards_behind_the_last_sample_that_is_wanted_are_not_read(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    (source / "004.tar").write_bytes(b"damaged")
    make_shards(run_of(source, tmp_path, num_samples=41))
    with pytest.raises(ShardError, match=r"004\.tar is truncated"):
        make_shards(run_of(source, tmp_path, num_samples=42))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards whose samples are read from now on, in turn."""
    from ladd_dist.engine import foreign_survey

    found: list[str] = []
    real = foreign_survey.read_samples

    def counted(path: Path, wanted: Wanted) -> Iterator[tuple[str, Chunk]]:
        found.append(path.name)
        return real(path, wanted)

    monkeypatch.setattr(foreign_survey, "read_samples", counted)
    return found


def stopping(after: int) -> Callable[[StopFlag], None]:
    """A check of signals that finds one at its call number `after`."""
    calls = iter(range(after))

    def check(flag: StopFlag) -> None:
        if next(calls, None) is None:
            raise Stopped(15)

    return check


@pytest.mark.parametrize("after", [0, 10, 20, 25, NUM - 1, NUM + 1, NUM + 30, NUM + 50])
def test_an_import_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """It is stopped while it verifies and while it writes; no shard that was verified is verified again."""
    run = run_of(write_source(tmp_path / "source"), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StopFlag, "check", stopping(after))
        with pytest.raises(Stopped):
            make_shards(run)
    folder = run.shards_folder
    verified = len(list((folder / "verified").glob("*.json"))) if folder.exists() else 0
    made = tars(folder)
    assert verified == [n for n in range(6) if sum(SIZES[:n]) <= after][-1]
    read = opened(monkeypatch)
    make_shards(run)
    assert tars(folder) == expected(tmp_path / "expected")
    assert read[: 5 - verified] == [f"{number:03d}.tar" for number in range(verified, 5)]
    assert tars(folder).items() >= made.items()


def test_a_verified_shard_that_has_changed_since_is_verified_again_and_nothing_of_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source")
    run = run_of(source, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StopFlag, "check", stopping(NUM + 40))
        with pytest.raises(Stopped):
            make_shards(run)
    assert tars(run.shards_folder)
    path = source / "000.tar"
    write_tar(path, [member("s000.npy", npy(-foreign_sample(0))), member("s000.cls", b"1")])
    os.utime(path, ns=(1, 1))
    folder = make_shards(run)
    assert "the files of shards.source have changed" in capsys.readouterr().err
    fresh = make_shards(run_of(source, tmp_path / "other"))
    assert tars(folder) == tars(fresh)


def test_a_shard_that_changes_between_verification_and_reading_is_an_error(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    survey = survey_shards(str(source), imported.wanted_samples(recipe_of(source)))
    write_source(source, (7, 12, 1, 20, 6))
    with pytest.raises(ShardError, match=r"shard .*001\.tar has changed while it was imported; run the same command"):
        list(survey.read_from(8)[1])


def test_a_damaged_record_is_one_message_that_names_it(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    wanted, records = imported.wanted_samples(recipe_of(source)), tmp_path / "records"
    survey_shards(str(source), wanted, records=records)
    (records / "000002.json").write_text("{")
    with pytest.raises(ValueError, match=r"000002\.json is not valid JSON .*; delete it and run the same command"):
        survey_shards(str(source), wanted, records=records)


def test_a_count_that_came_beside_a_verified_shard_is_compared(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    wanted, records = imported.wanted_samples(recipe_of(source)), tmp_path / "records"
    survey_shards(str(source), wanted, records=records)
    (source / "sizes.json").write_text('{"001.tar": 14}')
    with pytest.raises(ShardError, match=r"001\.tar holds 13 samples, .*sizes\.json says 14"):
        survey_shards(str(source), wanted, records=records)


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """300 MB of latents in three shards."""
    image, num = ImageSpec(4, 64, 64, 10), 1536
    source = np.random.default_rng(0)
    for number in range(3):
        members = []
        for index in range(num):
            members.append(member(f"s{index:04d}.npy", npy(source.standard_normal((4, 64, 64), np.float32))))
            members.append(member(f"s{index:04d}.cls", b"3"))
        write_tar(tmp_path / f"{number}.tar", members)
        del members
    assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) > 300e6
    Path("/proc/self/clear_refs").write_text("5")  # the highest RSS so far is forgotten
    before = memory("VmRSS")
    survey = survey_shards(str(tmp_path), Wanted(image, "latents"))
    write_shards(
        tmp_path / "made", num_samples=len(survey), samples_per_chunk=125, chunks_per_shard=8, dtype=torch.float16,
        make=Imported(survey, StopFlag()), image=image, card={},
    )  # fmt: skip
    grown = memory("VmHWM") - before
    print(f"peak growth {grown / 1e6:.0f} MB")
    assert grown < 150e6


def memory(name: str) -> float:
    """Bytes of this process, by its status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1]) * 1024
