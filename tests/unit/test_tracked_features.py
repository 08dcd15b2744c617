"""Names of features in trackers: W&B runs that measured a figure in different ones are refused, as folders are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ladd_dist import compare
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import Evaluation
from ladd_dist.core.rundir import RunDir
from ladd_dist.recipe import load_recipe
from ladd_dist.reports.grids import write_grid
from ladd_dist.stages.evaluate import tell_tracker
from ladd_dist.trackers import Tracker
from ladd_dist.trackers.tensorboard import Tensorboard
from ladd_dist.trackers.wandb import Wandb
from ladd_dist.trackers.wandb_read import offline_runs

REPO = Path(__file__).parents[2]


def tell(folder: Path, features: str, tracker: Tracker, *, width: int = 16) -> RunDir:
    """Tell the tracker of a run what it came to, with a figure that was measured in these features."""
    base = load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke")
    recipe = dataclasses.replace(base, head=dataclasses.replace(base.head, width=width), tracker=tracker)
    run = RunDir(folder / f"run-{width}")
    run.create()
    write_grid(run.samples / "final.png", [("student@4", torch.zeros(1, 3, 8, 8))])
    named = {"features": {"fd_real": features}} if features else {}
    figures: Evaluation = {"student@4": {"fd_real": float(width), **named}, "floor@real": {"fd_real": 1.0}}
    tell_tracker(recipe, run, figures)
    return run


def compared(*folders: Path) -> list[str]:
    """The notes of a comparison of what W&B's files hold."""
    sources = tuple(f"wandb-offline:{folder}" for folder in folders)
    return compare.compare_sources(compare.Options(source=sources, metric="fd_real")).notes


def test_runs_of_wandb_name_the_features_of_their_figures(
    no_wandb_key: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"one": ("net-aaaaaa", 8), "other": ("net-bbbbbb", 16), "old": ("", 24)}
    for name, (features, width) in told.items():
        tell(tmp_path / name, features, Wandb(mode="offline"), width=width)
    assert "warning" not in capsys.readouterr().err
    one, other, old = (tmp_path / name for name in told)
    (run,) = offline_runs(one)
    assert run.features == {"fd_real": "net-aaaaaa"}
    assert run.evaluation() == {"student@4": {"fd_real": 8.0}, "floor@real": {"fd_real": 1.0}}
    with pytest.raises(UserError, match=r"measured fd_real in different features \(net-aaaaaa, net-bbbbbb\)"):
        compared(one, other)
    assert "fd_real is measured in the features net-aaaaaa" in compared(one, old)


def test_tensorboard_shows_the_features_as_texts(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tell(tmp_path, "net-aaaaaa", Tensorboard())
    found = EventAccumulator(str(run.path / "tensorboard")).Reload()
    (tag,) = found.Tags()["tensors"]
    assert tag.startswith("features/fd_real")
    assert found.Tensors(tag)[0].tensor_proto.string_val == [b"net-aaaaaa"]
