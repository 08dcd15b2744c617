"""`ladd diagnose`, on a recipe before training and on a finished run; the views that a launch makes by itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import RECIPE, Done, Ladd, half_written, read_json, run_command, snapshot

from ladd_dist.builders.step import build_heads
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.diagnose import main
from ladd_dist.diagnosis.attention import trained_heads
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.launch import main as launch
from ladd_dist.recipe import load_recipe
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

VIEWS = ("strips.png", "strips.json", "attention.png", "attention.json")
HEADINGS = ("When a sample is decided", "Which head, at which noise level", "What the heads look at")
PREDICTED = "What the distance alone would do"


@pytest.fixture
def run(smoke: tuple[Done, Ladd], tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(smoke[0].run, tmp_path / "runs" / smoke[0].run.name))


def test_a_launch_leaves_a_page_with_every_view_that_needs_no_command(smoke: tuple[Done, Ladd]) -> None:
    run = smoke[0].run
    assert all((run / "samples" / name).is_file() for name in VIEWS)
    html = (run / "report.html").read_text()
    assert all(heading in html for heading in HEADINGS)
    assert PREDICTED not in html
    assert "left out" not in smoke[0].stderr
    samplers = read_json(run / "samples" / "strips.json")["samplers"]
    assert list(samplers) == ["teacher@50", "student@4", "student@1"]
    assert [len(row["sigmas"]) for row in samplers.values()] == [50, 4, 1]
    heads = read_json(run / "samples" / "attention.json")["heads"]
    assert {head["tap"] for head in heads} == set(read_json(run / "config.json")["taps"])


def test_views_are_made_once_and_again_for_another_student(run: Path, smoke: tuple[Done, Ladd]) -> None:
    words = [str(RECIPE), "--scale", "smoke", "--out", str(run.parent), "--cache", str(smoke[1].cache)]
    before = snapshot(run / "samples")
    assert launch(words) == 0
    assert snapshot(run / "samples") == before
    made = read_json(run / "samples" / "strips.json")
    (run / "samples" / "strips.json").write_text(json.dumps({**made, "made_for": [1, "another", "teacher"]}))
    (run / "samples" / "attention.json").write_text("{")
    assert launch(words) == 0
    for name in ("strips", "attention"):  # the rest is floats, which depend on the number of threads
        assert read_json(run / "samples" / f"{name}.json")["made_for"] == made["made_for"]
    assert snapshot(run / "samples").keys() == before.keys()
    assert not half_written(run)


def test_a_page_is_written_also_when_the_cache_and_the_checkpoints_are_gone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(RECIPE), "--scale", "smoke", "--out", str(run.parent), "--cache", str(tmp_path / "empty")]
    for name in VIEWS:
        (run / "samples" / name).unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "report.html").unlink()
    assert launch([*words, "--stages", "report"]) == 0
    html = (run / "report.html").read_text()
    assert "When a sample is decided" not in html
    assert "Which head, at which noise level" in html  # from metrics.jsonl
    said = capsys.readouterr().err
    assert "left out: strips (" in said
    assert "teacher.safetensors does not exist yet" in said


def test_the_heads_that_are_looked_at_are_those_that_were_trained(run: Path) -> None:
    recipe = load_recipe(RECIPE, "smoke")
    network = fresh_network(recipe)
    found = trained_heads(recipe, Run(recipe, Workspace(run.parent, run.parent, torch.device("cpu"))).folder, network)
    fresh, trained = build_heads(recipe, network).state_dict(), found.state_dict()
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert not found.training
    changed = [name for name in fresh if not torch.equal(fresh[name], trained[name])]
    assert len(changed) > len(fresh) / 2
    assert Checkpoints(run / "checkpoints", identity=recipe.distill_signature(), keep=1).steps()[-1] == 20


def test_a_recipe_is_diagnosed_from_its_shards_alone_before_it_is_trained(
    smoke: tuple[Done, Ladd], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for folder in smoke[1].cache.glob("shards-*"):  # and no teacher
        shutil.copytree(folder, cache / folder.name)
    words = [RECIPE, "--scale", "smoke", "--out", tmp_path / "runs", "--cache", cache]
    done = run_command(sys.executable, "-m", "ladd_dist.diagnose", *words, "--json", "--no-search", cwd=tmp_path)
    assert done.code == 0, done
    figures = json.loads(done.stdout)
    (run,) = (tmp_path / "runs").glob("exp4*")
    assert figures == read_json(run / "diagnose.json")
    assert figures["levels"][0]["sigma"] == 80
    assert figures["signature"] == read_json(run / "config.json")["signature"]
    assert (run / "diagnose.png").read_bytes().startswith(b"\x89PNG")
    assert "ladd_dist.launch" in read_json(run / "config.json")["command"]
    assert not half_written(tmp_path / "runs", cache)


def test_fields_and_swaps_are_those_of_launch(
    smoke: tuple[Done, Ladd], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(RECIPE), "--scale", "smoke", "--out", str(tmp_path), "--cache", str(smoke[1].cache), "--no-search"]
    assert main([*words, "--swap", "start=stored", "--distance.sigma-power", "1", "--num-samples", "64", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["start"], figures["deterministic"], figures["num_pairs"]) == ("stored", True, 64)
    assert figures["levels"][0]["weight"] < 1e-4


def test_a_run_is_diagnosed_and_its_page_has_everything(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--no-search"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(run / "report.html")
    assert "trained" in said.out
    assert "left out" not in said.err
    html = (run / "report.html").read_text()
    assert all(heading in html for heading in (*HEADINGS, PREDICTED))
    assert "without a network" in html


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["{recipe}", "--scale", "smoke", "--cache", "{empty}"], "--stages teacher,shards", 1),
        (["{recipe}", "--scale", "smoke", "--num-samples", "0"], "--num-samples: must be at least 1, got 0", 2),
        (["{empty}"], "is no run's folder (it has no config.json)", 1),
        (["{run}", "--seed", "1"], "fields go with a recipe file", 2),
        (["{run}", "--cache", "{empty}"], "--stages teacher,shards", 1),
    ],
)
def test_what_cannot_be_diagnosed_is_said_in_one_message(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [word.format(recipe=RECIPE, run=run, empty=tmp_path / "empty") for word in words]
    assert main(filled) == code
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "Traceback" not in said


def test_a_coupling_without_a_closed_form_is_refused_by_name(
    smoke: tuple[Done, Ladd], tmp_path: Path, launch_here: Callable[..., Done], capfd: pytest.CaptureFixture[str]
) -> None:  # launch_here: with a registry and a path of its own
    (tmp_path / "odd_start.py").write_text(
        "from dataclasses import dataclass\n"
        "from ladd_dist.core.plugin import register\n"
        "from ladd_dist.starts import Start\n\n"
        "@register('odd')\n@dataclass(frozen=True)\nclass Odd(Start):\n    'Noise that is squared.'\n\n"
        "    def __call__(self, batch, sigma, eps):\n"
        "        return batch.x0 + sigma.view(-1, 1, 1, 1) * eps.square()\n"
    )
    places = ["--out", str(tmp_path), "--cache", str(smoke[1].cache)]
    words = [str(RECIPE), "--scale", "smoke", *places, "--plugins", "odd_start", "--swap", "start=odd"]
    assert main(words) == 1
    assert "start 'odd' does not add its noise with one factor" in " ".join(capfd.readouterr().err.split())
