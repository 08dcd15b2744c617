"""A sweep registered with W&B and run by W&B's own agent."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from processes import Done, Ladd, read_json, rows, run_command
from test_tracking import on_server
from wandb_server import Server

from ladd_dist.cluster.wandb_agents import find_run, parameters
from ladd_dist.core.run_forms import figures_of
from ladd_dist.recipe.sweep import expand, load_sweep
from ladd_dist.sweep import main

FILE = """
from ladd_dist.recipe import Axis, Points, Sweep
from recipes.exp4_specnorm import RECIPE

SWEEP = Sweep(name="small", base=RECIPE, {})
"""
COMMAND = (sys.executable, "-m", "ladd_dist.sweep")


def write(folder: Path, rest: str) -> Path:
    path = folder / "small.py"
    path.write_text(FILE.format(rest))
    return path


@pytest.mark.slow
def test_an_agent_runs_the_sweep_and_each_trial_is_a_run_of_ours(
    ladd: Ladd, wandb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(ladd.cwd, "axes=(Axis('head', ('max_pool', 'spectral_norm')),), seeds=(0,)")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    before = ladd("--swap", "head=max_pool")  # the trial of a run that is done is on the server all the same
    words = (file, "--scale", "smoke", "--out", ladd.runs, "--cache", ladd.cache, "--on", "wandb", "--project", "p")
    registered = run_command(*COMMAND, *words, cwd=ladd.cwd)
    assert registered.code == 0, registered.stderr
    agent = registered.stdout.split()
    assert agent[:2] == ["wandb", "agent"] and agent[2].startswith("test/p/")
    done = run_command(sys.executable, "-m", *agent, cwd=ladd.cwd)
    assert done.code == 0, done
    found = on_server("test/p")
    assert [run["config"]["axes"]["head"] for run in found] == ["max_pool", "spectral_norm"]
    state = wandb_server.state()
    (sweep,) = state["sweeps"].values()
    assert sweep["state"] == "FINISHED"
    for run in found:
        folder = ladd.runs / run["name"]
        assert run["rows"] == rows(folder / "metrics.jsonl")
        assert run["evaluation"] == figures_of(read_json(folder / "eval.json"))
        assert (run["state"], run["group"]) == ("finished", sweep["config"]["name"])
        assert state["runs"][run["id"]]["sweep"] == sweep["name"]
        assert run["config"]["seed"] == 0
    assert before.run.name == found[0]["name"]


def test_a_sweep_that_is_no_whole_grid_is_one_parameter(tmp_path: Path) -> None:
    grid = write(tmp_path, "axes=(Axis('head', ('max_pool', 'spectral_norm')), Axis('train.lr_heads', (1e-4,)))")
    runs, _ = expand(load_sweep(grid), "smoke")
    assert parameters(tuple(runs)) == {"head": ["max_pool", "spectral_norm"], "train.lr_heads": ["0.0001"], "seed": [0]}
    points = write(tmp_path, "mode=Points(({'head': 'max_pool'}, {'student_steps': 2})), seeds=(0, 1)")
    runs, _ = expand(load_sweep(points), "smoke")
    labels = ["head=max_pool seed=0", "head=max_pool seed=1", "student_steps=2 seed=0", "student_steps=2 seed=1"]
    assert parameters(tuple(runs)) == {"point": labels}
    for run in runs:
        assert find_run(tuple(runs), {"point": run.label}) is run


def test_what_would_be_registered_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "seeds=(3, 4)")
    assert main([str(file), "--scale", "smoke", "--on", "wandb", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parameters"] == {"seed": {"values": [3, 4]}}
    assert shown["command"][-2:] == ["--trial", "${args_json}"]


def error_of(done: Done) -> str:
    assert done.code in (1, 2) and "Traceback" not in done.stderr, done
    return done.stderr


def test_bad_input_is_one_message(tmp_path: Path, no_wandb_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "seeds=(3, 4)")
    words = (*COMMAND, file, "--scale", "smoke")
    assert "needs its server" in error_of(run_command(*words, "--on", "wandb", cwd=tmp_path))
    assert "not for W&B's" in error_of(run_command(*words, "--on", "wandb", "--resubmit", cwd=tmp_path))
    assert "go with --on wandb" in error_of(run_command(*words, "--project", "p", "--dry-run", cwd=tmp_path))
    assert "no run" in error_of(run_command(*words, "--trial", '{"seed": 5}', cwd=tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "W&B did not take the sweep" in error_of(run_command(*words, "--on", "wandb", cwd=tmp_path))
