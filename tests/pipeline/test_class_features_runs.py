"""A run whose metrics learn their features from its own pictures, from the command to the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Done

RECIPE = """
from dataclasses import replace
from ladd_dist.metrics.class_features import ClassFeatures
from ladd_dist.metrics.color import Color
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.zoo.recipes._base import SMOKE

RECIPE = replace(SMOKE, name="own", evaluate=replace(SMOKE.evaluate, num_samples=32, steps=(4,), metrics=(
    ClassFeatures(steps=20, batch_size=32, most_pictures=500, seed={seed}),
    Kid(features="pixels"), Color(of="picture"), Manifold(features="class_features"))))
"""


@pytest.mark.slow
def test_a_run_trains_its_features_first_and_every_figure_names_them(
    launch_here: Callable[..., Done], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ladd_dist import compare, evaluate

    runs = []
    for seed in (0, 1):
        file = tmp_path / f"own{seed}.py"
        file.write_text(RECIPE.format(seed=seed), encoding="utf-8")
        done = launch_here(str(file), "--threads", "1", "--seed", str(seed), "--train.steps", "4")
        assert done.code == 0, done.stderr
        assert done.stdout.index("[features]") < done.stdout.index("[teacher]")
        told = re.search(r"(class_features-[0-9a-f]{6}): trained on the 10 classes", done.stdout)
        assert told is not None
        label = told[1]
        (run,) = (path.parent for path in tmp_path.glob("runs/*/eval.json") if path.parent not in runs)
        runs.append(run)
        rows = json.loads((run / "eval.json").read_text())
        for entry in ("student@4", "teacher@50", "untrained@4", "floor@real"):
            named = rows[entry]["features"]
            assert named["fd_real"] == named["precision"] == label
            assert named["kid"] == "pixels" and "hue_entropy" not in named
        assert rows["student@4"]["fd_real"] > 0 and rows["floor@real"]["fd_real"] > 0
        assert rows["floor@real"]["num_samples"] == 32
        assert f"Distance to real [{label}]" in (run / "report.md").read_text().replace("\\", "")
        html = (run / "report.html").read_text()
        assert f"in {label}" in html and "held-out pictures it reads" in html
        watched = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert any("watch/accuracy" in row for row in watched)
    capfd.readouterr()
    assert compare.main([str(runs[0]), str(runs[1]), "--mixed"]) == 1
    refused = capfd.readouterr().err
    assert re.search(r"measured fd_real in different features \(class_features-\w+, class_features-\w+\)", refused)
    assert evaluate.main([str(runs[0]), "--num-samples", "16", "--steps", "4"]) == 0
    assert re.search(r"fd_real \[class_features-", capfd.readouterr().out)
