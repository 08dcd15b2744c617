"""A flipped bit in the weights of a finished run: every command that reads them refuses them, in one message."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import Done, Ladd
from safetensors.torch import load_file, save_file

from ladd_dist import control, diagnose, evaluate, export, sample
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.errors import UserError
from ladd_dist.reports.collapse import variance_share
from ladd_dist.stages.locking import write_lock
from ladd_dist.workspace.opening import open_run


@pytest.fixture
def run(smoke: tuple[Done, Ladd], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (sample.main, ("--columns", "1")),
        (evaluate.main, ()),
        (export.main, ()),
        (control.main, ("--network", "student", "--steps", "1")),
        (diagnose.main, ("--no-search",)),
    ],
    ids=["sample", "evaluate", "export", "control", "diagnose"],
)
def test_a_flipped_bit_in_the_student_is_refused_by_every_command(
    smoke: tuple[Done, Ladd],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[list[str]], int],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    flip(run / "student.safetensors")
    start = ["train"] if main is control.main else []
    capsys.readouterr()
    where = [] if main in (sample.main, export.main) else ["--cache", str(smoke[1].cache)]
    code = 0 if main is diagnose.main else 1  # it is worked out from the shards, and names the views that it leaves out
    assert main([*start, str(run), *words, *where]) == code
    said = " ".join(capsys.readouterr().err.split())
    assert "student.safetensors is damaged: its content does not have the sha256 in its header" in said
    assert "Traceback" not in said


def test_a_launch_again_compares_the_student_with_the_lock(run: Path, smoke: tuple[Done, Ladd]) -> None:
    opened = open_run(run, cache=smoke[1].cache, device=torch.device("cpu")).run
    assert write_lock(opened) == run / "recipe.lock"
    before = (run / "recipe.lock").read_bytes()
    weights = {name: tensor.clone() for name, tensor in load_file(run / "student.safetensors").items()}
    flip(run / "student.safetensors")
    with pytest.raises(UserError, match=r"student\.safetensors is damaged"):
        write_lock(opened)
    from safetensors import safe_open

    with safe_open(smoke[0].run / "student.safetensors", framework="pt") as file:
        card = {"ladd_dist": file.metadata()["ladd_dist"]}
    save_file(weights, run / "student.safetensors", card)  # as an older version wrote it: the same weights
    assert write_lock(opened) == run / "recipe.lock"
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, run / "student.safetensors", card)
    with pytest.raises(UserError, match="does not hold the weights whose figures"):
        write_lock(opened)
    assert (run / "recipe.lock").read_bytes() != before  # of the older file in between


def test_a_flipped_bit_in_the_teacher_is_refused_and_one_in_a_dump_makes_it_unknown(
    run: Path, smoke: tuple[Done, Ladd], tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(smoke[1].cache, tmp_path / "cache"))
    opened = open_run(run, cache=cache, device=torch.device("cpu")).run
    load_teacher(opened)
    flip(opened.teacher_folder / "teacher.safetensors")
    with pytest.raises(UserError, match=r"teacher\.safetensors is damaged: .*delete its folder, then --stages teacher"):
        load_teacher(opened)
    dump = max((run / "dumps").glob("*.safetensors"))
    assert variance_share(dump) is not None
    flip(dump)
    assert variance_share(dump) is None
