"""Forwards without gradients, critics and targets of their own, under the strategies: as in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.distributed.distill_worker import recipe_of
from tests.distributed.test_parity import start, trace

METHODS = ("every_step", "on_policy", "mismatched", "heads_see_level")
STRATEGIES: dict[str, dict[str, Any]] = {"ddp": {}, "fsdp": {"settings": {"shard_teacher": True}}, "zero3": {}}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of each."""
    folder = tmp_path_factory.mktemp("methods")
    recipe = recipe_of({"parallel": "single"})
    workspace = Workspace(folder / "runs", folder / "cache", torch.device("cpu"))
    train_teacher(Run(recipe, workspace))
    make_shards(Run(recipe, workspace))
    for ranks, names in ((1, {"single": {}}), (2, STRATEGIES)):
        jobs = [
            {"name": f"{method}-{name}", "parallel": name, "method": method, "steps": 4, **more}
            for method in METHODS
            for name, more in names.items()
        ]
        start(folder, ranks, jobs)
    return folder / "runs"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_as_in_a_single_process(runs: Path, method: str, strategy: str) -> None:
    expected, found = trace(runs, f"{method}-single"), trace(runs, f"{method}-{strategy}")
    assert list(found) == [1, 2, 3, 4]
    for step, row in found.items():
        for figure in (name for name in row if name in ("loss/heads", "loss/distill", "grad_norm/student")):
            assert row[figure] == pytest.approx(expected[step][figure], rel=1e-4), (step, figure)
