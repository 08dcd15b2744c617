"""A tuning that is driven into collapse, twenty pictures and a high weight, raises the guard's alarm."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tuned import tune_recipe, write_student

from ladd_dist.builders.sampling import sample_class
from ladd_dist.builders.student_file import load_student
from ladd_dist.guards.collapse import Collapse
from ladd_dist.reports.grids import write_pictures
from ladd_dist.stages.distill import distill
from ladd_dist.stages.old_samples import make_old_samples
from ladd_dist.stages.shards import make_shards
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.schedules.constant import Constant


def alarms(folder: Path, weight: float, lr: float) -> list[str]:
    """The levels of the guard's verdicts over forty updates."""
    recipe = tune_recipe(folder, steps=40, dump_every=40, evaluate_every=0, lr_student=lr, log_every=10)
    guard = Collapse(every=5, samples=16, grace=0.0)
    recipe = dataclasses.replace(recipe, name=f"at-{weight:g}", guard=guard, adv_weight=Constant(value=weight))
    run = Run(recipe, Workspace(folder / "tuned", folder / "shared", torch.device("cpu")))
    run.folder.create()
    make_shards(run)
    make_old_samples(run)
    distill(run)
    return [verdict["level"] for verdict in json.loads((run.folder.path / "guard.json").read_text())["verdicts"]]


@pytest.mark.slow
def test_a_provoked_collapse_is_an_alarm_and_a_calm_tuning_is_none(tmp_path: Path) -> None:
    network, card = load_student(write_student(tmp_path), torch.device("cpu"))
    pictures = sample_class(network, tuple(card["levels"]["1"]), card["rule"], 3, 20, seed=0)  # as varied as its own
    (tmp_path / "pictures").mkdir()
    write_pictures([tmp_path / "pictures" / f"{number:02d}.png" for number in range(20)], pictures)
    assert "collapsed" in alarms(tmp_path, weight=1000.0, lr=1.0)
    assert "collapsed" not in alarms(tmp_path, weight=0.01, lr=1e-5)
