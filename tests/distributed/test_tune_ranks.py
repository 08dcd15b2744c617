"""Two ranks tune as one process does: losses, old samples, the early stop's distances, the student."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import run_ranks
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tuned import write_pictures, write_student

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = ("ddp", "fsdp")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    write_student(folder)
    write_pictures(folder / "pictures", 20)
    for ranks, names in ((1, ("single",)), (2, STRATEGIES)):
        run_ranks(ranks, "tests.distributed.tune_worker", folder, *names, cwd=ROOT, out=folder / f"said-{ranks}.txt")
    return folder


def run_of(folder: Path, name: str) -> Path:
    (found,) = (folder / name).glob("tune_folder-*")
    return found


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_of(folder, name) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_tune_as_one_process_does(folder: Path, name: str) -> None:
    expected, found = rows(folder, "single"), rows(folder, name)
    assert len(found) == len(expected) >= 6
    for mine, theirs in zip(found, expected, strict=True):
        for figure in (key for key in theirs if key.startswith(("loss", "held_out"))):
            assert mine[figure] == pytest.approx(theirs[figure], rel=2e-3, abs=1e-6), (mine["step"], figure)
    told, same = (json.loads((run_of(folder, which) / "early_stop.json").read_text()) for which in (name, "single"))
    assert told["kept"] == same["kept"]
    for one, other in zip(told["measured"], same["measured"], strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    mine, theirs = (load_file(run_of(folder, which) / "student.safetensors") for which in (name, "single"))
    assert all(torch.allclose(mine[key], theirs[key], atol=2e-5) for key in theirs)


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_make_the_same_old_samples(folder: Path, name: str) -> None:
    expected, found = (sorted((folder / which / "cache").glob("old-*/0*.tar")) for which in ("single", name))
    assert expected and [path.name for path in found] == [path.name for path in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
