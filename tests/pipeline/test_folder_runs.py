"""Launches on a folder of pictures: what was learned from stands in the run's record; bad pictures start nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import encoded, plain
from processes import Done

from ladd_dist.cluster.wandb_agents import Agents, run_trial
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import read_run_config
from ladd_dist.datasets import folder_inventory
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.evaluation.draw import asked_classes
from ladd_dist.preflight.machine_checks import Machine
from ladd_dist.preflight.storage_checks import check_data
from ladd_dist.recipe import Sweep, load_recipe
from ladd_dist.recipe.sweep import SweepRun
from ladd_dist.reports.page import _facts
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.workspace.opening import open_run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).resolve().parents[2]

Launch = Callable[..., Done]
TINY = ("--teacher.steps", "2", "--teacher.batch-size", "4", "--dataset.root", "pictures", "--stages", "teacher")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures in two classes, and one that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    root = tmp_path / "pictures"
    for number in range(12):
        path = root / ("cats", "dogs")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(plain((20 * number, 9, 9))))
    (root / "cats" / "empty.png").write_bytes(b"")
    folder_inventory.forget()
    return root


def launched(launch_here: Launch, *more: str) -> Done:
    folder_inventory.forget()
    return launch_here(str(REPO / "recipes" / "folder.py"), "--scale", "smoke", *TINY, *more)


def test_a_bad_picture_starts_nothing_and_is_left_out_if_asked(pictures: Path, launch_here: Launch) -> None:
    done = launched(launch_here)
    assert done.code == 1 and not (pictures.parent / "runs").exists()
    assert done.stderr.count("error: ") == 1
    assert "1 of 13 pictures cannot be used: cats/empty.png: it is empty (0 bytes)" in done.stderr

    done = launched(launch_here, "--dry-run")
    assert "data: cannot be used" in done.stdout and "data: left out" not in done.stdout

    done = launched(launch_here, "--dataset.on-bad", "skip", "--dataset.flip")
    assert done.code == 0, done.stderr
    assert "pictures left out: 1 (cats/empty.png: it is empty (0 bytes))" in done.stdout
    (run,) = (pictures.parent / "runs").glob("folder-*")
    data = json.loads((run / "config.json").read_text())["data"]
    assert data == {
        "pictures": "12",
        "left out": "1 (cats/empty.png: it is empty (0 bytes))",
        "classes": "2: cats (6), dogs (6)",
    }
    shown = dict(_facts(ShownConfig.of(read_run_config(run / "config.json")), {}))
    assert shown["Data: pictures"] == "12" and shown["Data: left out"].startswith("1 (")


def test_a_launch_finds_the_decoded_pictures_and_a_changed_folder_is_another_teacher(
    pictures: Path, launch_here: Launch
) -> None:
    (pictures / "cats" / "empty.png").unlink()
    cache = pictures.parent / "cache"
    assert launched(launch_here).code == 0
    (made,) = cache.glob("pictures-*")
    before = (made / "card.json").stat().st_mtime_ns
    again = launched(launch_here)
    assert "done before, skipped" in again.stdout and (made / "card.json").stat().st_mtime_ns == before
    shutil.copy(pictures / "cats" / "00.png", pictures / "dogs" / "new.png")
    assert launched(launch_here).code == 0
    assert len(list(cache.glob("pictures-*"))) == len(list(cache.glob("teacher-*"))) == 2


def test_too_few_pictures_are_said_before_one_is_decoded(pictures: Path, launch_here: Launch) -> None:
    """By --dry-run, by a launch, and by `ladd doctor`; not where the stage that needs them is not asked for."""
    root, cache = pictures.parent, pictures.parent / "cache"
    (pictures / "cats" / "empty.png").unlink()
    recipe = REPO / "recipes" / "folder.py"
    too_few = "training pictures are too few for the features of the metric 'class_features', which needs 64; add some"
    for more in (("--dry-run",), ()):
        folder_inventory.forget()
        done = launch_here(str(recipe), "--scale", "smoke", "--dataset.root", "pictures", *more)
        assert done.code == 1 and done.stderr.count("error: ") == 1
        assert too_few in " ".join(done.stderr.split()) and "docs/pictures.md" in done.stderr
        assert not (root / "runs").exists() and not list(cache.glob("pictures-*"))
    assert launched(launch_here, "--dry-run").code == 0  # the stage teacher alone

    for number in range(70):
        (pictures / "cats" / f"more-{number}.png").write_bytes(encoded(plain((9, number, 9))))
    for path in sorted((pictures / "dogs").iterdir())[1:]:
        path.unlink()
    asked = load_recipe(recipe, "smoke")
    machine = Machine(
        dataclasses.replace(asked, dataset=dataclasses.replace(asked.dataset, root="pictures")),  # type: ignore[type-var]
        Workspace(root / "runs", cache, torch.device("cpu")),
    )
    folder_inventory.forget()
    with pytest.raises(UserError, match=r"class 1, counted from 0, has 1 training picture, and .* needs two of each"):
        check_data(machine)
    for number in range(3):
        (pictures / "dogs" / f"more-{number}.png").write_bytes(encoded(plain((200, 200, number))))
    folder_inventory.forget()
    assert "pictures 80" in check_data(machine)
    assert not list(cache.glob("pictures-*"))


def test_an_agent_of_wandb_says_that_pictures_are_too_few_before_it_decodes_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (pictures / "cats" / "empty.png").unlink()
    path = REPO / "recipes" / "folder.py"
    asked = load_recipe(path, "smoke")
    recipe = dataclasses.replace(asked, dataset=dataclasses.replace(asked.dataset, root=str(pictures)))  # type: ignore[type-var]
    agents = Agents(
        Sweep(name="few", base=asked), (SweepRun(recipe, ()),), "smoke", path, tmp_path / "runs", tmp_path / "cache"
    )
    folder_inventory.forget()
    with pytest.raises(UserError, match=r"training pictures are too few for the features of the metric"):
        run_trial(agents, json.dumps({"seed": recipe.seed}), "ladd sweep")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset.root", "nowhere"], "'nowhere' cannot be opened|nowhere' cannot be opened"),
        (["--dataset.root="], "dataset.root is empty; name a folder"),
        (["--dataset.size", "0"], "dataset.size: must be at least 8"),
        (["--dataset.background", "greenish"], "'greenish' is no colour"),
        (["--dataset.captions", "metadata"], "there is no metadata.jsonl in"),
        (["--dataset.classes", "none"], "has one class alone; use --train.mismatched 0"),
        (
            ["--dataset.held-out", "0"],
            "dataset.held_out is 0, and the features of the metric 'class_features' are tried on",
        ),
        (["--dataset.on-bad", "drop"], "--dataset.on-bad"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_message(
    pictures: Path, launch_here: Launch, more: list[str], message: str
) -> None:
    import re

    done = launched(launch_here, *more)
    assert done.code in (1, 2) and re.search(message, done.stderr.replace("\n", " ")), done.stderr
    assert not (pictures.parent / "runs").exists() and not (pictures.parent / "cache").exists()


def test_the_teacher_and_an_evaluation_ask_for_classes_as_often_as_the_folder_has_them(
    pictures: Path, launch_here: Launch
) -> None:
    """Of ten cats and two dogs: distances to real pictures would else measure that dogs are asked for too often."""
    (pictures / "cats" / "empty.png").unlink()
    for path in sorted((pictures / "dogs").iterdir())[2:]:
        path.rename(pictures / "cats" / path.name)
    few = ("--shards.samples", "teacher", "--shards.num-samples", "24", "--dataset.held-out", "0.01")
    done = launched(launch_here, *few, "--shards.sampler.steps", "2", "--stages", "teacher", "shards")
    assert done.code == 0, done.stderr
    (folder,) = (pictures.parent / "cache").glob("shards-*")
    counts = torch.bincount(ShardReader(folder).take(np.arange(24)).cond, minlength=2)
    (run,) = (pictures.parent / "runs").glob("folder-*")
    asked = asked_classes(open_run(run, device=torch.device("cpu")).run)
    for share in (counts[1] / 24, (asked == 1).float().mean()):
        assert share < 0.35, "of samples, dogs are one of six, not one of two"
