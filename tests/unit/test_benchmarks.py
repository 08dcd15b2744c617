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
