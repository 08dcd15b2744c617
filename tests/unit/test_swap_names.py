"""What a swap makes of a run is what its name, its note, `ladd jobs` and its page say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist import jobs
from ladd_dist.core.method import in_words, method_of
from ladd_dist.core.serialize import to_data
from ladd_dist.launch import main
from ladd_dist.recipe import Recipe, load_recipe, swap
from ladd_dist.recipe.swap import LONGEST, apply_swaps
from ladd_dist.reports.grids import write_grid
from ladd_dist.reports.page import write_report
from ladd_dist.workspace.run import Run, as_begun, as_found, named
from ladd_dist.workspace.workspace import Workspace
from plugins.schedules.constant import Constant

REPO = Path(__file__).resolve().parents[2]
FILE = REPO / "recipes" / "exp4_specnorm.py"
METHOD = {"head": "max_pool", "taps": "downs_middle_ups", "start": "fresh", "adversarial": "bce", "distance": "mse"}
WORDS = "head max_pool, taps downs_middle_ups, start fresh, losses bce and mse"


def exp4() -> Recipe:
    return load_recipe(FILE, "smoke")


def run_in(folder: Path, recipe: Recipe) -> Run:
    return Run(recipe, Workspace(folder, folder, torch.device("cpu")))


def test_name_and_note_show_the_swaps_and_not_the_old_head() -> None:
    recipe = apply_swaps(exp4(), ("head=max_pool", "adv_weight=cosine", "teacher.sigma=log_normal"))
    assert recipe.name == "exp4_specnorm+head=max_pool+adv_weight=cosine+teacher.sigma=log_normal"
    assert recipe.note == "Like exp4_specnorm, but with head=max_pool, adv_weight=cosine, teacher.sigma=log_normal."
    assert "Spectral" not in recipe.note and recipe.reported.outcome == ""
    bare = swap(swap(swap(exp4(), "head=max_pool"), "adv_weight=cosine"), "teacher.sigma=log_normal")
    assert recipe.distill_signature() == bare.distill_signature()


@pytest.mark.parametrize("swaps", [(), ("parallel=zero2", "tracker=wandb"), ("start=fresh",), ("guard=none",)])
def test_a_swap_that_changes_no_result_leaves_name_and_folder(swaps: tuple[str, ...]) -> None:
    recipe = apply_swaps(exp4(), swaps)
    assert (recipe.name, recipe.note, recipe.reported) == (exp4().name, exp4().note, exp4().reported)
    assert recipe.distill_signature() == exp4().distill_signature()


def test_many_swaps_keep_the_folder_s_name_short() -> None:
    fields = {"head": "max_pool", "taps": "downs_middle", "start": "stored", "adversarial": "hinge", "levels": "karras",
              "distance": "smooth_l1", "adv_weight": "cosine"}  # fmt: skip
    recipe = apply_swaps(exp4(), [f"{field}={name}" for field, name in fields.items()])
    assert len(recipe.name) <= len(exp4().name) + LONGEST
    assert recipe.name.startswith("exp4_specnorm+") and "levels=karras" in recipe.note


def dry(capsys: pytest.CaptureFixture[str], out: Path, *words: str) -> Any:
    places = ["--scale", "smoke", "--out", str(out), "--cache", str(out), "--dry-run", "--json"]
    capsys.readouterr()
    assert main([str(FILE), *places, *words]) == 0
    return json.loads(capsys.readouterr().out)


def begun(folder: Path, recipe: Recipe) -> Path:
    """The folder of a run that was begun."""
    run = run_in(folder, recipe).folder
    run.path.mkdir()
    run.config.write_text(json.dumps({"recipe": to_data(recipe)}))
    return run.path


def test_launch_shows_the_swap_a_given_name_wins_and_an_earlier_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry(capsys, tmp_path)["recipe"] == "exp4_specnorm"
    assert dry(capsys, tmp_path, "--swap", "head=max_pool")["recipe"] == "exp4_specnorm+head=max_pool"
    assert dry(capsys, tmp_path, "--swap", "head=max_pool", "--name", "mine")["recipe"] == "mine"
    begun(tmp_path, swap(exp4(), "head=max_pool"))
    assert dry(capsys, tmp_path, "--swap", "head=max_pool")["recipe"] == "exp4_specnorm"
    assert dry(capsys, tmp_path, "--swap", "head=max_pool", "--head.width", "8")["recipe"].endswith("+head=max_pool")
    assert dry(capsys, tmp_path, "--swap", "head=max_pool", "--name=a+b")["recipe"] == "a+b"


def test_a_run_goes_on_in_the_folder_that_it_was_begun_in(tmp_path: Path) -> None:
    recipe = apply_swaps(exp4(), ["head=max_pool"])
    run = run_in(tmp_path, recipe)
    assert as_begun(run, []) == as_found(run) == run
    earlier = begun(tmp_path, dataclasses.replace(recipe, name="exp4_specnorm"))
    assert as_begun(run, []).folder.path == as_found(run).folder.path == earlier
    begun(tmp_path, recipe)
    assert as_begun(run, []) == as_found(run) == run
    assert as_found(named(run, "other")).recipe.name in ("exp4_specnorm", recipe.name)
    assert as_begun(named(run, "other"), []).recipe.name == "other"


def test_a_folder_without_a_config_is_no_run_that_goes_on(tmp_path: Path) -> None:
    run = run_in(tmp_path, apply_swaps(exp4(), ["head=max_pool"]))
    earlier = begun(tmp_path, dataclasses.replace(run.recipe, name="exp4_specnorm"))
    run.folder.path.mkdir()
    assert as_begun(run, []).folder.path == earlier
    assert as_begun(run, ["--name", run.recipe.name]) == as_begun(run, ["--name=x"]) == run


def test_jobs_and_the_page_say_head_taps_start_and_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = swap(exp4(), "head=max_pool")
    assert method_of(to_data(recipe)) == METHOD and in_words(METHOD) == WORDS
    assert method_of({}) == {} and in_words({}) == ""
    runs = tmp_path / "runs"
    runs.mkdir()
    folder = begun(runs, recipe)
    assert jobs.main([str(runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sweeps"][0]["runs"][0]["method"] == METHOD
    assert jobs.main([str(runs)]) == 0
    assert capsys.readouterr().out.count(WORDS) == 1
    other = begun(runs, exp4())
    assert jobs.main([str(runs)]) == 0
    shown = capsys.readouterr().out
    assert f"{WORDS}: {folder.name}\n" in shown
    assert f"{WORDS.replace('max_pool', 'spectral_norm')}: {other.name}\n" in shown
    (folder / "eval.json").write_text(json.dumps({"student@4": {"fd_real": 1.0}, "teacher@50": {"fd_real": 0.5}}))
    first_screen = write_report(folder).read_text(encoding="utf-8").partition('id="verdict"')[0]
    assert f"Method: {WORDS}." in first_screen


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_loss_of_weight_0_is_no_part_of_the_method_and_its_student_need_not_repeat_the_teacher(
    tmp_path: Path, weight: float
) -> None:
    recipe = dataclasses.replace(exp4(), distill_weight=Constant(value=weight))
    recipe = dataclasses.replace(recipe, shards=dataclasses.replace(recipe.shards, samples="dataset"))
    assert ("distance" in method_of(to_data(recipe))) == bool(weight)
    folder = begun(tmp_path, recipe)
    (folder / "eval.json").write_text(json.dumps({"student@4": {"fd_real": 1.0}, "teacher@50": {"fd_real": 0.5}}))
    (folder / "samples").mkdir()
    write_grid(folder / "samples" / "final.png", [("teacher@50", torch.zeros(2, 3, 8, 8))])
    page = write_report(folder).read_text(encoding="utf-8")
    assert ("a good student repeats it" in page) == ("arrive at the same pictures" in page) == bool(weight)
    assert ("need not repeat it" in page) != bool(weight)
    assert "tell real pictures" in page


def test_the_page_names_the_metrics_that_did_not_fit(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"name": "it"}}))
    (tmp_path / "eval.json").write_text(json.dumps({"student@4": {"fd_real": 1.0}, "teacher@50": {"fd_real": 0.5}}))
    unfit = {"kid": "made for digits", "manifold": "made for digits", "color": "made for ink"}
    (tmp_path / "eval_classes.json").write_text(json.dumps({"left_out": {}, "unfit": unfit, "entries": {}}))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "does not fit these pictures: kid, manifold (made for digits)" in page
    assert "does not fit these pictures: color (made for ink)" in page
