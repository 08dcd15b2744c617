"""The report's time axis runs at toy numbers: runs, checkpoints, guard, both pictures and the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import time_axis


@pytest.mark.slow
def test_the_time_axis_measures_checkpoints_and_writes_pictures_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(time_axis, "SEEDS", time_axis.SEEDS[:1])
    page, store, pictures = tmp_path / "a.md", tmp_path / "a.json", tmp_path / "images"
    page.write_text("<!-- time-axis -->\nold\n<!-- /time-axis -->\n")
    folders = ["--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), "--store", str(store)]
    toys = ["--scale", "smoke", "--updates", "40", "--samples", "128", "--measured", "0.25", "--only", "exp1", "exp6"]
    command = ["time_axis", *folders, *toys, "--pictures", str(pictures), "--write", str(page), "--dirty"]
    monkeypatch.setattr(sys, "argv", command)
    assert time_axis.main() == 0
    kept = json.loads(store.read_text())
    for run in kept.values():
        assert [point["step"] for point in run["points"]] == [0, 10, 40]
        first, middle, last = (point["fd_real"] for point in run["points"])
        assert first != middle != last  # three students, not one
        assert [step for step, _ in run["watched"]] == [10, 20, 30, 40]
    config = json.loads((Path(kept["exp6"]["run"]) / "config.json").read_text())["recipe"]
    assert config["shards"]["guidance"] == 4 and config["levels"]["plugin"] == "karras"
    assert (config["train"]["lr_student"], config["train"]["lr_heads"]) == (1e-4, 5e-5)
    text = page.read_text()
    assert "| exp1 | collapse to one colour |" in text and "| teacher@50 |" in text and "old" not in text
    assert (pictures / "time_axis_dumps.png").stat().st_size > 1_000
    assert (pictures / "time_axis.svg").read_text().count("exp6") > 0
    assert capsys.readouterr().err.count("[") == 2
    monkeypatch.setattr(time_axis, "measure", None)  # nothing is made again
    assert time_axis.main() == 0
    assert page.read_text() == text
