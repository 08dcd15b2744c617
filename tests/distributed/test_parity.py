"""The same mathematics under every strategy and any number of ranks: losses, weights, resuming from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import run_ranks
from safetensors import safe_open

from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.distributed.distill_worker import HALF, STEPS, recipe_of

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5

STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
MICRO = {"mode": "alternate", "accumulate": 4}
JOBS: dict[int, list[dict[str, Any]]] = {
    1: [
        {"name": "single", "parallel": "single"},
        {"name": "single-micro", "parallel": "single", **MICRO},
        {"name": "single-from-zero3", "parallel": "single", "resume": "zero3-2"},
    ],
    2: [
        *({"name": f"{name}-2", "parallel": name} for name in STRATEGIES),
        *({"name": f"{name}-2-micro", "parallel": name, **MICRO} for name in ("ddp", "fsdp", "zero2", "zero3")),
        {"name": "fsdp-2-sharded-teacher", "parallel": "fsdp", "settings": {"shard_teacher": True}},
        {"name": "fsdp-from-ddp", "parallel": "fsdp", "resume": "ddp-2"},
        {"name": "zero2-from-fsdp", "parallel": "zero2", "resume": "fsdp-2"},
    ],
    4: [
        {"name": "ddp-4", "parallel": "ddp"},
        {"name": "fsdp-4", "parallel": "fsdp"},
        {"name": "fsdp-4-from-zero1", "parallel": "fsdp", "resume": "zero1-2"},
        {"name": "ddp-4-from-single", "parallel": "ddp", "resume": "single"},
    ],
}  # fmt: skip
EVERY = [job["name"] for jobs in JOBS.values() for job in jobs if job["name"] != "single"]
OF_HEADS = ("grad_norm/heads/", "grad_share/heads/")
"""What DeepSpeed does not tell."""
pytestmark = pytest.mark.slow


def start(folder: Path, ranks: int, jobs: list[dict[str, Any]]) -> None:
    """Run jobs in `ranks` processes of one thread each."""
    plan = folder / f"jobs-{ranks}.json"
    plan.write_text(json.dumps({"jobs": jobs, "runs": str(folder / "runs"), "cache": str(folder / "cache")}))
    run_ranks(ranks, "tests.distributed.distill_worker", plan, cwd=ROOT, out=folder / f"said-{ranks}.txt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All jobs, run; one starts from another's checkpoint only if that one had its turn."""
    folder = tmp_path_factory.mktemp("parity")
    recipe = recipe_of(JOBS[1][0])
    workspace = Workspace(folder / "runs", folder / "cache", torch.device("cpu"))
    train_teacher(Run(recipe, workspace))
    make_shards(Run(recipe, workspace))
    start(folder, 2, JOBS[2])
    start(folder, 1, JOBS[1])
    start(folder, 4, JOBS[4])
    return folder / "runs"


def trace(runs: Path, name: str) -> dict[int, dict[str, float]]:
    """Figures by step."""
    (path,) = (runs / name).glob("*/metrics.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["step"]: row for row in rows}


def state(runs: Path, name: str) -> dict[str, torch.Tensor]:
    """All that the last checkpoint holds, put together from the ranks' ranges."""
    (folder,) = (runs / name).glob(f"*/checkpoints/step-{STEPS:08d}")
    ranges: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            offsets = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            for key in file.keys():  # noqa: SIM118  # no mapping
                ranges.setdefault(key, []).append((offsets[key]["saved_offsets"][0], file.get_tensor(key)))
    return {key: torch.cat([piece for _, piece in sorted(held, key=lambda h: h[0])]) for key, held in ranges.items()}


@pytest.mark.parametrize("name", EVERY)
def test_every_step_has_the_losses_of_the_single_process(runs: Path, name: str) -> None:
    expected, found = trace(runs, "single"), trace(runs, name)
    resumed = "from" in name
    assert list(found) == list(range(HALF + 1 if resumed else 1, STEPS + 1))
    for step, row in found.items():
        lacking = {key for key in expected[step] if name.startswith("zero") and key.startswith(OF_HEADS)}
        assert row.keys() == expected[step].keys() - lacking
        for figure in (name for name in row if name.startswith(("loss", "grad_norm"))):
            tolerance = TOLERANCE * (10 if figure.startswith("grad_norm") else 1)
            assert row[figure] == pytest.approx(expected[step][figure], rel=tolerance), (step, figure)


@pytest.mark.parametrize("name", EVERY)
def test_the_final_weights_and_averages_are_those_of_the_single_process(runs: Path, name: str) -> None:
    expected, found = state(runs, "single"), state(runs, name)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        if key.split("/")[1] in ("weight", "buffer") or key.startswith("average/"):
            torch.testing.assert_close(
                found[key], value, rtol=0, atol=TOLERANCE, msg=lambda text, key=key: f"{key}: {text}"
            )


@pytest.mark.parametrize("name", EVERY)
def test_the_guard_sees_the_same_samples_and_the_same_answers_of_the_heads(runs: Path, name: str) -> None:
    """Before rounding has grown; over ranks and micro-batches, and on a student that is spread over ranks."""
    expected, found = trace(runs, "single"), trace(runs, name)
    for step in [step for step in (5, 30) if step in found]:
        seen = [key for key in expected[step] if key.startswith(("guard/", "gap/"))]
        assert sum(key.startswith("guard/") for key in seen) >= 2
        for key in seen:
            assert found[step][key] == pytest.approx(expected[step][key], rel=1e-3, abs=1e-4), (step, key)


def test_accumulation_equals_one_large_batch(runs: Path) -> None:
    expected, found = trace(runs, "single"), trace(runs, "single-micro")
    for step in (1, 2, 5):  # before rounding has grown through the steps
        assert found[step]["loss/heads"] == pytest.approx(expected[step]["loss/heads"], rel=1e-6)
        assert found[step]["loss/distill"] == pytest.approx(expected[step]["loss/distill"], rel=1e-6)


@pytest.mark.parametrize("name", ["ddp-2", "fsdp-2", "zero1-2", "zero2-2", "zero3-2", "ddp-4"])
def test_both_networks_were_updated_in_every_step(runs: Path, name: str) -> None:
    """Freezing the heads wrongly leaves them untrained without any error."""
    (path,) = (runs / name).glob(f"*/checkpoints/step-{STEPS:08d}/meta.json")
    counters = json.loads(path.read_text())["counters"]
    assert counters["student"]["updates"] == counters["heads"]["updates"] == STEPS
