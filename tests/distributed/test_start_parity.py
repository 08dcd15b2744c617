"""A student with a start of its own under ddp and fsdp: the same start, losses and weights as in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladd_dist.builders.networks import save_weights
from ladd_dist.builders.student import new_student, save_student
from ladd_dist.builders.teacher import fresh_network, load_teacher
from ladd_dist.stages.distill import distill
from ladd_dist.stages.shards import make_shards
from ladd_dist.students.adapter import adaptable, adapter_state, add_adapter
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.distributed.distill_worker import recipe_of
from tests.distributed.test_parity import TOLERANCE, start, trace

STEPS = 3
STARTS = {"student": "full", "adapter": "lora"}
"""Start -> form of the student that takes it."""
CASES = (("student", "ddp"), ("student", "fsdp"), ("adapter", "fsdp"))
pytestmark = pytest.mark.slow


def job(folder: Path, what: str, strategy: str) -> dict[str, Any]:
    init = {"student": folder / "earlier", "adapter": folder / "adapter.safetensors"}[what]
    of_student = {"student": STARTS[what], "init": str(init)}
    return {"name": f"{what}-{strategy}", "parallel": strategy, "steps": STEPS, **of_student}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each start and strategy, from an earlier student and a LoRA whose weights are far from the teacher's."""
    folder = tmp_path_factory.mktemp("starts")
    workspace = Workspace(folder / "runs", folder / "cache", torch.device("cpu"))
    run = Run(recipe_of({"parallel": "single"}), workspace)
    run.teacher_folder.mkdir(parents=True)
    save_weights(run.teacher_folder / "teacher.safetensors", fresh_network(run.recipe))
    make_shards(run)
    torch.manual_seed(0)
    earlier = new_student(run)
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    (folder / "earlier").mkdir()
    save_student(folder / "earlier" / "student.safetensors", earlier, run)
    teacher = load_teacher(run)
    adapted = add_adapter(teacher, rank=2, alpha=2, layers=adaptable(teacher))
    state = {name: 0.05 * torch.randn_like(tensor) for name, tensor in adapter_state(adapted).items()}
    save_file(state, folder / "adapter.safetensors")
    for what in STARTS:
        one = job(folder, what, "single")
        alone = Run(recipe_of(one), Workspace(folder / "runs" / one["name"], folder / "cache", torch.device("cpu")))
        alone.folder.create()
        distill(alone)
    start(folder, 2, [job(folder, *case) for case in CASES])
    return folder


def weights(folder: Path, name: str, file: str) -> dict[str, torch.Tensor]:
    (path,) = (folder / "runs" / name).glob(f"*/{file}.safetensors")
    return load_file(path)


@pytest.mark.parametrize(("what", "strategy"), CASES)
def test_two_ranks_train_from_the_start_as_one_process_does(folder: Path, what: str, strategy: str) -> None:
    alone, name = f"{what}-single", f"{what}-{strategy}"
    kept = {which: weights(folder, which, "init") for which in (alone, name)}
    assert all(torch.equal(kept[name][key], value) for key, value in kept[alone].items())
    expected, found = trace(folder / "runs", alone), trace(folder / "runs", name)
    assert list(found) == list(range(1, STEPS + 1))
    for step, row in found.items():
        for figure in (key for key in row if key.startswith("loss")):
            assert row[figure] == pytest.approx(expected[step][figure], rel=TOLERANCE), (step, figure)
    own = weights(folder, name, "student")
    for key, value in weights(folder, alone, "student").items():
        torch.testing.assert_close(own[key], value, rtol=0, atol=TOLERANCE, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("what", STARTS)
def test_the_start_is_not_the_teacher(folder: Path, what: str) -> None:
    (teacher,) = (folder / "cache").glob("teacher-*/teacher.safetensors")
    own, kept = load_file(teacher), weights(folder, f"{what}-single", "init")
    assert own.keys() == kept.keys()
    moved = [key for key, value in own.items() if (kept[key] - value).norm() > 0.02 * value.norm()]
    assert len(moved) > 10
