"""The benchmarks work: a toy run prints every figure they promise."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import results

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "ladd_step.py"


def test_the_step_benchmark_gives_ratios_rates_and_a_breakdown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, str(BENCHMARK), "--quick", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # From elsewhere, to see that it finds the recipes by itself.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["best_convolution"]["gflops"] > 0
    (net,) = result["nets"]
    assert net["flops_ratio"] < 0.9
    # 3 S + 3 e against 4 S + 4 e; first layers and embeddings have no gradient to their input.
    assert net["flops_ratio_without_heads"] == pytest.approx(0.75, abs=0.02)
    assert net["share_of_best_convolution"] == net["gflops"]["fused"] / result["best_convolution"]["gflops"]
    assert net["wall_ratio_range"][0] <= net["wall_ratio"] <= net["wall_ratio_range"][1]
    assert all(share >= 0 for share in net["breakdown"].values())
    assert math.isclose(sum(net["breakdown"].values()), 1.0, abs_tol=1e-6)
    assert min(net["breakdown"][name] for name in ("convolution", "norm", "elementwise", "heads", "optimizer")) > 0
    assert "most time goes to" in net["limit"]

    runpy.run_path(str(BENCHMARK))["show"](result)
    printed = capsys.readouterr().out
    for wanted in ("FLOPs ratio", "wall ratio", "images/s", "of the best rate", "time in heads", "most time goes to"):
        assert wanted in printed


def test_results_keep_the_mean_and_the_distance_on_each_noise() -> None:
    per_seed = {"11": {"fd_teacher": 0.1, "kid": 1.0}, "12": {"fd_teacher": 0.3, "kid": 1.0}}
    found = results.kept({"fd_teacher": 0.2, "kid": 1.0, "num_seeds": 2.0, "per_seed": per_seed})
    assert found == {"fd_teacher": 0.2, "fd_teacher_per_seed": [0.1, 0.3]}
    assert results.kept({"fd_teacher": 0.2}) == {"fd_teacher": 0.2}


def test_a_row_that_was_measured_on_the_noise_of_the_tuning_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"fd_teacher": 0.2, "colour_variance": 1, "accuracy": 1}
    entries = ("student@4", "student@2", "student@1", "teacher@4:good", "teacher@4:karras", "teacher@50")
    row = {"signature": "a", "commit": "b", "flops_a_step": 1e9, **dict.fromkeys(entries, figures)}
    (tmp_path / "results.json").write_text(
        json.dumps({"exp7 / seed 0": row, "exp6 / seed 0": row | {"noise_seeds": [1]}})
    )
    monkeypatch.setattr(results, "STORE", tmp_path / "results.json")
    ran = []
    monkeypatch.setattr(results, "run", lambda options, *pair: ran.append(pair) or row | {"noise_seeds": [1]})
    monkeypatch.setattr(sys, "argv", ["results", "--only", "exp6", "exp7", "--seeds", "0"])
    assert results.main() == 0 and ran == [("exp7", 0)]
