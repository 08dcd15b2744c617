"""The benchmark's recipes at smoke scale, on synthetic files in the format of Fashion-MNIST."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from idx_files import write_idx
from processes import Done

from ladd_dist import compare
from ladd_dist.core.features import CLOTHES
from ladd_dist.metrics import extract

REPO = Path(__file__).resolve().parents[2]
HEADS, GAMES = (str(REPO / "recipes" / f"{name}.py") for name in ("bench_heads", "bench_games"))
BRIEFLY = ("--scale", "smoke", "--train.steps", "6", "--stages", "teacher,shards,distill,evaluate")


@pytest.mark.slow
def test_variants_are_trained_measured_with_the_clothes_network_and_compared_by_axis(
    launch_here: Callable[..., Done],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.bench import report

    read: list[str] = []
    shipped = extract._shipped
    monkeypatch.setattr(extract, "_shipped", lambda network: (read.append(network), shipped(network))[1])
    root = str(write_idx(tmp_path, "FashionMNIST"))
    for head in ("small_conv", "max_pool"):
        for seed in ("0", "1"):
            own = ("--swap", f"head={head}", "--head.conditioned", "--seed", seed)
            words = (*own, "--dataset.root", root, "--dataset.no-download")
            done = launch_here(HEADS, *BRIEFLY, *words)
            assert done.code == 0, done.stderr
    assert set(read) == {CLOTHES}
    evaluations = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/eval.json")]
    assert len(evaluations) == 4
    for found in evaluations:
        assert {"fd_teacher", "accuracy", "colour_variance"} <= set(found["student@4"])
    capfd.readouterr()
    assert compare.main(["runs", "--metric", "fd_teacher", "--json"]) == 0
    text = report(json.loads(capfd.readouterr().out))
    assert "| head | max_pool | small_conv | 2 |" in text and "fd_teacher of student@4" in text


def test_without_the_files_one_message_says_where_they_belong(launch_here: Callable[..., Done], tmp_path: Path) -> None:
    done = launch_here(GAMES, *BRIEFLY, "--dataset.no-download")
    assert done.code == 1 and "Traceback" not in done.stderr
    assert str(tmp_path / "data" / "fashion-mnist" / "FashionMNIST" / "raw") in done.stderr.replace("\n", "")
    assert not list(tmp_path.rglob("*.safetensors"))
