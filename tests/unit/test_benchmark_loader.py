"""The benchmark of the shard reader works: a toy run prints every figure it promises."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loader.py"


def test_the_loader_benchmark_gives_rates_memory_and_the_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, str(BENCHMARK), "--quick", "--steps", "2", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # From elsewhere, to see that it finds the recipes by itself.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [case["samples"] for case in result["rates"]] == [300, 130]
    for case in result["rates"]:
        assert all(rate > 0 for rate in case["samples_per_s"].values())
        assert case["samples_per_s"].keys() - case["rate_over"].keys() == {"shards"}
    few, many = result["memory"]
    assert many["descriptors"] == few["descriptors"]  # however many files a set has
    assert many["anonymous_read"] < 8
    assert 0 < result["wait"]["share"] < 1
    assert result["wait"]["share"] == result["wait"]["ms_wait"] / result["wait"]["ms_step"]

    runpy.run_path(str(BENCHMARK))["show"](result)
    printed = capsys.readouterr().out
    for wanted in ("samples/s", "memmap", "torch.load", "anonymous", "waits", "aim < 2%"):
        assert wanted in printed
