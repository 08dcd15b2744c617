"""Training in fp16 through the loop: an overflow of the loss scale skips an update, is counted, and ends no run."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from prepared import run_ranks
from safetensors.torch import load_file

from tests.distributed.fp16_worker import HALF, STEPS

REPO = Path(__file__).resolve().parents[2]
Row = dict[str, float]
CUDA = pytest.mark.gpu


class Trained(NamedTuple):
    folder: Path
    device: str
    ranks: int

    def rows(self, pattern: str) -> list[Row]:
        (path,) = self.folder.glob(pattern)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def counters(self, name: str, step: int) -> dict[str, Row]:
        (path,) = self.folder.glob(f"{name}/*/checkpoints/step-{step:08d}/meta.json")
        found: dict[str, Row] = json.loads(path.read_text(encoding="utf-8"))["counters"]
        return found

    def student(self, name: str) -> dict[str, torch.Tensor]:
        (path,) = self.folder.glob(f"{name}/*/student.safetensors")
        return load_file(path)


@pytest.fixture(
    scope="module",
    params=[("single", "cpu"), ("ddp", "cpu"), pytest.param(("single", "cuda"), marks=CUDA),
            pytest.param(("ddp", "cuda"), marks=CUDA)],
    ids="-".join,
)  # fmt: skip
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One training of teacher and student, and the student's again from its middle; DDP on two ranks where it can."""
    parallel, device = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    folder = tmp_path_factory.mktemp("fp16")
    ranks = 2 if (parallel, device) == ("ddp", "cpu") else 1
    words = ("tests.distributed.fp16_worker", folder, device, parallel)
    run_ranks(ranks, *words, cwd=REPO, out=folder / "said.txt")
    return Trained(folder, device, ranks)


@pytest.mark.slow
def test_skipped_updates_are_counted_and_none_of_their_figures_is_logged(trained: Trained) -> None:
    rows = trained.rows("whole/*/metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for name in ("student", "heads"):
        counts = [0.0, *(row[f"skipped/{name}"] for row in rows)]
        scales = [row[f"loss_scale/{name}"] for row in rows]
        assert counts == sorted(counts) and 0 < counts[-1] < STEPS
        assert any(later > earlier for earlier, later in pairwise(scales))  # it grew again
        for row, (before, after) in zip(rows, pairwise(counts), strict=True):
            if after > before:
                assert not {"loss/heads", "loss/distill", "accuracy", "grad_norm/student"} & row.keys()
        assert trained.counters("whole", STEPS)[name]["updates"] == STEPS - counts[-1]
    assert any("loss/distill" in row for row in rows)
    assert all(value.isfinite().all() for value in trained.student("whole").values())


@pytest.mark.slow
def test_the_guard_takes_no_skipped_update_for_a_divergence(trained: Trained) -> None:
    (path,) = trained.folder.glob("whole/*/guard.json")
    guard = json.loads(path.read_text(encoding="utf-8"))
    assert guard["checked"] == STEPS
    assert "finite" not in json.dumps(guard)


@pytest.mark.slow
def test_scale_and_count_go_on_over_a_resume(trained: Trained) -> None:
    assert trained.counters("whole", HALF)["student"]["skipped"] > 0
    assert trained.counters("resumed", STEPS) == trained.counters("whole", STEPS)
    own, whole = trained.rows("resumed/*/metrics.jsonl"), trained.rows("whole/*/metrics.jsonl")[HALF:]
    exact = trained.device == "cpu"  # some kernels of an accelerator sum in another order each time
    for one, other in zip(own, whole, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if name.startswith(("skipped/", "loss_scale/")) or (exact and not name.startswith("rate/")):
                assert one[name] == other[name], (one["step"], name)
            elif name.startswith("loss/"):
                assert one[name] == pytest.approx(other[name], rel=1e-2, abs=1e-2), (one["step"], name)
    first, second = (
        torch.cat([value.flatten() for value in trained.student(n).values()]) for n in ("resumed", "whole")
    )
    assert float((first - second).abs().mean()) <= (0.0 if exact else 1e-4)  # an update moves a weight by 1e-3


@pytest.mark.slow
def test_a_teacher_in_fp16_skips_and_counts_as_well(trained: Trained) -> None:
    rows = trained.rows("cache/teacher-*/metrics.jsonl")
    assert len(rows) == 2 * STEPS
    assert all(math.isfinite(value) for row in rows for value in row.values())
    skips = [row["skipped/teacher"] for row in rows]
    assert 0 < skips[-1] < 2 * STEPS
    assert [row["step"] for row in rows if "loss/teacher" not in row] == [
        row["step"] for row, before in zip(rows, [0.0, *skips], strict=False) if row["skipped/teacher"] > before
    ]


@pytest.mark.slow
def test_an_overflow_on_one_rank_skips_the_update_on_all(trained: Trained) -> None:
    seen: list[Any] = [json.loads((trained.folder / f"overflow-{n}.json").read_text()) for n in range(trained.ranks)]
    assert all(one == seen[0] for one in seen)
    (first, weight, counters), (second, moved, later) = seen[0]
    assert (first, weight, counters["skipped"], counters["updates"]) == (True, 1.0, 1.0, 0.0)
    assert (second, later["skipped"], later["updates"]) == (False, 1.0, 1.0)
    assert moved < weight
