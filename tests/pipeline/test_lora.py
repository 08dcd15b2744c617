"""A student of which low-rank adapters train: its file, what reads it, and going on from a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import RECIPE, Done, Ladd, error_of
from safetensors import safe_open
from safetensors.torch import load_file

from ladd_dist.builders.student_file import load_student

CPU = torch.device("cpu")


def card_of(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()["ladd_dist"]))


def run_of(launch_here: Callable[..., Done], cache: Path, *words: str) -> Done:
    lora = ["--swap", "student=lora", "--student.rank", "2", "--cache", str(cache)]
    return launch_here(str(RECIPE), "--scale", "smoke", *lora, *words)


def test_a_low_rank_student_from_training_to_export(
    launch_here: Callable[..., Done], smoke: tuple[Done, Ladd], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ladd_dist.export import main as export
    from ladd_dist.sample import main as sample

    cache = tmp_path / "cache"
    shutil.copytree(smoke[1].cache, cache)
    done = run_of(launch_here, cache, "--stages", "distill,evaluate")
    assert done.code == 0, done.stderr
    run = done.run
    held = load_file(run / "student.safetensors")
    assert held and all(".lora_A." in name or ".lora_B." in name for name in held)
    assert card_of(run / "student.safetensors")["student"] == {
        "plugin": "lora", "rank": 2, "alpha": 16.0, "targets": [], "seed": 0, "init": "", "digest": "",
    }  # fmt: skip

    # Going on from a checkpoint gives the same bytes.
    before = (run / "student.safetensors").read_bytes()
    steps = sorted((run / "checkpoints").glob("step-*"))
    assert len(steps) == 2
    shutil.rmtree(steps[-1])
    (run / "distill.done.json").unlink()
    assert run_of(launch_here, cache, "--stages", "distill").code == 0
    assert (run / "student.safetensors").read_bytes() == before

    # The exported file is a whole network and needs nothing else.
    merged = tmp_path / "merged.safetensors"
    assert export([str(run), "--out", str(merged)]) == 0
    assert export([str(run), "--out", str(tmp_path / "last.safetensors"), "--step", str(int(steps[0].name[5:]))]) == 0
    assert card_of(merged)["merged"] == card_of(run / "student.safetensors")["student"]
    assert not {"student", "teacher"} & set(card_of(merged))
    whole = load_file(merged)
    (teacher,) = cache.glob("teacher-*/teacher.safetensors")
    assert {name: value.shape for name, value in whole.items()} == {
        name: value.shape for name, value in load_file(teacher).items()
    }
    assert all(torch.equal(value, whole[name]) for name, value in load_student(run, CPU)[0].state_dict().items())

    # Without its teacher the run's own file says so, the exported one does not care.
    cache.rename(tmp_path / "elsewhere")
    capfd.readouterr()
    assert sample([str(run), "--columns", "1"]) == 1
    message = capfd.readouterr().err
    assert "holds the lora weights of a student alone and needs its teacher" in message
    assert "python -m ladd_dist.export RUN" in message
    assert sample(["--from", str(merged), "--columns", "1", "--out", "merged.png"]) == 0


def test_a_target_that_is_in_no_layers_name_is_said_before_anything_is_trained(
    launch_here: Callable[..., Done], tmp_path: Path
) -> None:
    done = run_of(launch_here, tmp_path / "cache", "--student.targets", "attention")
    assert done.code != 0
    assert "'attention' is in no layer's name; layers: embed.level.0" in error_of(done)
    assert not list(tmp_path.glob("cache/teacher-*"))
