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

from benchmarks import _runs, results

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


def test_results_keep_the_mean_and_the_distances_on_each_noise_by_their_present_names() -> None:
    per_seed = {"11": {"fd": 1.1, "fd_teacher": 0.1, "kid": 1.0}, "12": {"fd": 1.3, "fd_teacher": 0.3, "kid": 1.0}}
    found = results.kept_of({"fd": 1.2, "fd_teacher": 0.2, "kid": 1.0, "num_seeds": 2.0, "per_seed": per_seed})
    means = {"fd_real": 1.2, "fd_teacher": 0.2}
    assert found == {**means, "fd_real_per_seed": [1.1, 1.3], "fd_teacher_per_seed": [0.1, 0.3]}
    assert results.kept_of(means) == means


def test_only_stale_runs_are_made_again_and_none_of_code_that_was_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(BENCHMARK.parents[1])
    store, kept = tmp_path / "results.json", {}
    for name in ("exp6", "exp7"):
        recipe = results.row_recipe(name, "smoke")
        kept[f"{name} / seed 0"] = {
            "signature": recipe.distill_signature(), "evaluation": recipe.evaluate_signature(), "commit": "0",
            "flops_a_step": 1e9,
        }  # fmt: skip
    store.write_text(json.dumps(kept | {"exp7 / seed 0": kept["exp7 / seed 0"] | {"evaluation": "of another noise"}}))
    ran = []
    monkeypatch.setattr(results, "measure", lambda options, run: ran.append(run.key) or kept[run.key])
    arguments = ["results", "--scale", "smoke", "--store", str(store), "--only", "exp6", "exp7", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--teachers", "0"])
    monkeypatch.setattr(_runs, "current_commit", lambda: "0123456789-dirty")
    with pytest.raises(SystemExit, match="uncommitted changes"):
        results.main()
    assert not ran
    monkeypatch.setattr(_runs, "current_commit", lambda: "0123456789")
    assert results.main() == 0 and ran == ["exp7 / seed 0"]
    assert json.loads(store.read_text()) == kept
    assert "1 runs, 2 at a time: about 30 s" in capsys.readouterr().err
