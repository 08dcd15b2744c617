"""Names are one component of a path, whether typed or recorded in a file of somebody else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist import export, jobs, launch
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.names import inside, is_name
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.recipe.sweep import Sweep, expand
from ladd_dist.workspace.run import Run, as_begun, as_found
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).parents[2]
FILE = REPO / "recipes" / "exp4_specnorm.py"
RECIPE = load_recipe(FILE, "smoke")
LEAD_OUT = [
    "../../x", "/abs", "a/b", ".", "..", "", "x\n", "x\x1b[2J", "-x", ".hidden", "+x", " x", "a\\b", "a\0", "a\u202eb",
    "\udcff", "x" * 201, "ü" * 101,
]  # fmt: skip
GOOD = ["exp4_specnorm+head=max_pool", "unnamed", "a+b", "größe", "my run (2)", "1e-4,0.9@v=2", "x" * 200]


@pytest.mark.parametrize("name", LEAD_OUT)
def test_a_name_that_is_no_plain_component_is_refused_before_any_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--scale", "smoke", "--out", "runs", "--cache", "cache", "--name=" + name]
    assert launch.main([str(FILE), *words]) == 2
    err = " ".join(capsys.readouterr().err.split())
    control = "--name: a control character in" in err or "--name: a byte that is no UTF-8 in" in err
    assert control or ("recipe.name" in err and "letters, digits, blanks and" in err)
    assert not list(tmp_path.iterdir())
    assert not is_name(name)


@pytest.mark.parametrize("name", LEAD_OUT)
def test_names_of_recipes_sweeps_and_recorded_runs_are_held_to_the_same(name: str) -> None:
    with pytest.raises(RecipeError, match="name"):
        dataclasses.replace(RECIPE, name=name)
    with pytest.raises(RecipeError, match="name"):
        from_data(Recipe, {**to_data(RECIPE), "name": name})
    with pytest.raises(RecipeError, match=r"SWEEP\.name"):
        expand(Sweep(name, RECIPE), "smoke")


@pytest.mark.parametrize("name", GOOD)
def test_names_that_runs_have_had_still_open(name: str) -> None:
    assert is_name(name)
    assert from_data(Recipe, {**to_data(RECIPE), "name": name}).name == name


def test_every_recipe_of_the_package_has_a_name_at_every_scale() -> None:
    for path in sorted((REPO / "recipes").glob("[a-z]*.py")):
        if "RECIPE" in path.read_text(encoding="utf-8"):
            assert is_name(load_recipe(path, "paper").name)


def test_a_folder_with_a_strange_name_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    run = Run(RECIPE, Workspace(tmp_path, tmp_path, torch.device("cpu")))
    strange = tmp_path / f".x\x1b-{RECIPE.distill_signature()}"
    strange.mkdir()
    (strange / "config.json").write_text("{}")
    assert as_found(run) == run
    plain = dataclasses.replace(run, recipe=dataclasses.replace(RECIPE, name="a+b"))
    assert as_begun(plain, []) == plain


def sweep_json(out: Path, **changes: Any) -> Path:
    folder = out / "sweeps" / "heads-0123456789"
    folder.mkdir(parents=True)
    run = {"label": "head=a", "axes": {}, "seed": 0, "run": "a-0000000001", "signature": None, "teacher": "t"}
    job = {"id": "12", "kind": "run", "of": "a-0000000001", "cluster": "debug"}
    run |= {name: value for name, value in changes.items() if name != "of"}
    job |= {name: value for name, value in changes.items() if name == "of"}
    data = {"format": 1, "name": "heads", "signature": "0123456789", "runs": [run], "jobs": [job]}
    (folder / "sweep.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("field", ["run", "of", "teacher", "shards"])
@pytest.mark.parametrize("value", ["../../secret", "/etc", "a/../../b", "a\0b"])
def test_a_sweep_that_leads_out_of_its_folder_is_one_message(
    field: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep_json(tmp_path, **{field: value})
    for words in ([], ["--json"], ["--cancel"]):
        assert jobs.main([str(folder), *words]) == 1
        err = " ".join(capsys.readouterr().err.split())
        assert "leads out of its folder" in err and field in err and "Traceback" not in err


def test_a_sweep_of_plain_names_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.main([str(sweep_json(tmp_path, shards="", run="group/a-0000000001"))]) == 0
    assert "head=a" in capsys.readouterr().out


def test_what_is_recorded_stays_inside_its_folder() -> None:
    assert inside(Path("out"), "a-1", "x") == Path("out/a-1")
    for value in ("", ".", "..", "a/..", "/a", "../a", "a\0"):
        with pytest.raises(UserError, match=r"x is .* leads out"):
            inside(Path("out"), value, "x")


def test_a_folder_of_an_export_has_a_name_that_its_page_can_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / 'x"); import os; ("-0123456789'
    run.mkdir()
    assert export.main([str(run), "--to", "lora"]) == 2
    assert "letters, digits, blanks and" in " ".join(capsys.readouterr().err.split())
