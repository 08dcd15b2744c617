"""A low-rank student under every strategy: the same losses and weights, and the teacher's weights as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ladd_dist.stages.distill import distill
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.distributed.distill_worker import recipe_of
from tests.distributed.test_parity import STRATEGIES, TOLERANCE, start, trace

STEPS = 6
COMMON = {"student": "lora", "steps": STEPS}
pytestmark = pytest.mark.slow


def job(name: str) -> dict[str, Any]:
    return {"name": name, "parallel": name, **COMMON}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    recipe = recipe_of(job("single"))
    workspace = Workspace(folder / "runs", folder / "cache", torch.device("cpu"))
    train_teacher(Run(recipe, workspace))
    make_shards(Run(recipe, workspace))
    own = Workspace(folder / "runs" / "single", folder / "cache", torch.device("cpu"))
    Run(recipe, own).folder.create()
    distill(Run(recipe, own))
    start(folder, 2, [job(name) for name in STRATEGIES])
    return folder / "runs"


def weights(runs: Path, name: str) -> dict[str, torch.Tensor]:
    (path,) = (runs / name).glob("*/student.safetensors")
    return load_file(path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_compute_what_one_process_does(runs: Path, name: str) -> None:
    expected, found = trace(runs, "single"), trace(runs, name)
    assert list(found) == list(range(1, STEPS + 1))
    for step, row in found.items():
        for figure in (name for name in row if name.startswith("loss")):
            assert row[figure] == pytest.approx(expected[step][figure], rel=TOLERANCE), (step, figure)
    own = weights(runs, name)
    assert own and all(".lora_" in key for key in own)
    for key, value in weights(runs, "single").items():
        torch.testing.assert_close(own[key], value, rtol=0, atol=TOLERANCE, msg=lambda text, key=key: f"{key}: {text}")


def test_what_was_trained_moved(runs: Path) -> None:
    moved = [key for key, value in weights(runs, "single").items() if key.endswith("lora_B.weight") and value.any()]
    assert len(moved) > 10
