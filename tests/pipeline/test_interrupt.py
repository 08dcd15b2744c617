"""Ctrl-C (SIGINT), SIGTERM and SIGUSR2 in the stages: a clean stop, one line, and the same command goes on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import REPO, Done, Ladd, Running, error_of, half_written, read_json, rows

from ladd_dist.core.rundir import RunDir
from ladd_dist.recipe import load_recipe
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.stages.run import prepare_run
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

EVALUATE = ("--evaluate.num-samples", 48)


def check_clean_stop(done: Done, ladd: Ladd, number: signal.Signals = signal.SIGINT) -> None:
    """Exit code 130 (of SIGINT) or 75 (run again), one line, nothing half-written."""
    assert done.code == (130 if number == signal.SIGINT else 75), done
    message = error_of(done)
    assert message.startswith("stopped:")
    assert "run the same command again" in message
    assert "\n" not in message
    assert "Traceback" not in done.stderr
    assert not half_written(ladd.runs, ladd.cache)


def logged(folder: Path, num: int) -> Callable[[], bool]:
    """Whether the only metrics.jsonl there has so many rows."""
    return lambda: any(len(rows(path)) >= num for path in folder.glob("*/metrics.jsonl"))


def says(output: Path, words: str) -> Callable[[], bool]:
    return lambda: words in output.read_text(encoding="utf-8")


def stop_when(running: Running, seen: Callable[[], bool], number: signal.Signals = signal.SIGINT) -> Done:
    running.wait_until(seen)
    return running.send(number)


def test_ctrl_c_in_the_teacher_stage_saves_and_goes_on(cold: Ladd) -> None:
    words = ("--stages", "teacher", "--teacher.steps", 80)
    done = stop_when(cold.start(*words), logged(cold.cache, 15))
    check_clean_stop(done, cold)
    (folder,) = cold.cache.glob("teacher-*")
    (checkpoint,) = folder.glob("checkpoints/step-*")
    assert int(checkpoint.name.removeprefix("step-")) == len(rows(folder / "metrics.jsonl"))
    assert not (folder / "teacher.safetensors").exists()
    (run,) = cold.runs.glob("exp4*")
    first = read_json(run / "timings.json")["teacher"]
    cold(*words)
    assert [row["step"] for row in rows(folder / "metrics.jsonl")] == list(range(1, 81))
    assert read_json(run / "timings.json")["teacher"] > first > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR2])
def test_a_signal_in_the_shard_stage_keeps_the_whole_shards_and_goes_on(ladd: Ladd, number: signal.Signals) -> None:
    cache = ladd.cwd / "cache"
    (teacher,) = ladd.cache.glob("teacher-*")
    shutil.copytree(teacher, cache / teacher.name)
    ladd = Ladd(ladd.cwd, cache)
    words = ("--stages", "teacher,shards", "--shards.samples-per-chunk", 4, "--shards.chunks-per-shard", 2)
    words = (*words, "--shards.batch-size", 4)
    done = stop_when(ladd.start(*words), lambda: len(list(cache.glob("shards-*/0*.tar"))) >= 3, number)
    check_clean_stop(done, ladd, number)
    num = len(list(cache.glob("shards-*/*.tar")))
    assert 3 <= num < 16
    assert num == len(list(cache.glob("shards-*/0*.json")))
    assert not list(cache.glob("shards-*/index.json"))
    ladd(*words)
    assert len(list(cache.glob("shards-*/*.tar"))) == 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_in_the_distillation_saves_the_step_it_stopped_at_and_goes_on(
    ladd: Ladd, number: signal.Signals
) -> None:
    words = ("--stages", "teacher,shards,distill", "--train.steps", 40)
    done = stop_when(ladd.start(*words), logged(ladd.runs, 7), number)
    check_clean_stop(done, ladd, number)
    assert number.name in done.stderr
    (run,) = ladd.runs.glob("exp4*")
    newest = max(run.glob("checkpoints/step-*"))
    assert int(newest.name.removeprefix("step-")) == len(rows(run / "metrics.jsonl")) < 40
    if number == signal.SIGINT:
        ladd(*words)
        assert [row["step"] for row in rows(run / "metrics.jsonl")] == list(range(1, 41))


@pytest.mark.parametrize(("stream", "words"), [("out", "[evaluate]"), ("err", "sampling teacher@50 48/48")])
def test_ctrl_c_in_the_evaluation_leaves_no_figures_and_goes_on(
    ladd: Ladd, smoke: tuple[Done, Ladd], stream: str, words: str
) -> None:
    shutil.copytree(smoke[1].runs, ladd.runs)
    cache = ladd.cwd / "cache"
    shutil.copytree(ladd.cache, cache, ignore=shutil.ignore_patterns("reference-*"))
    ladd = Ladd(ladd.cwd, cache)
    run = ladd.runs / smoke[0].run.name
    (run / "eval.json").unlink()
    running = ladd.start("--stages", "evaluate", *EVALUATE, "--evaluate.batch-size", 2)
    done = stop_when(running, says(running.out if stream == "out" else running.err, words))
    check_clean_stop(done, ladd)
    assert not (run / "eval.json").exists()
    assert not list(cache.glob("reference-*"))
    ladd("--stages", "evaluate", *EVALUATE, "--evaluate.batch-size", 48)
    assert read_json(run / "eval.json")["student@4"]["num_samples"] == 48


def test_config_json_comes_before_the_folder_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in between must leave nothing that other commands take for a run without a recipe."""
    recipe = load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "smoke")
    run = Run(recipe, Workspace(tmp_path / "runs", tmp_path / "cache", torch.device("cpu")))
    facts = describe_run(run, "smoke")
    there: list[bool] = []
    monkeypatch.setattr(RunDir, "create", lambda folder: there.append(folder.config.exists()))
    prepare_run(run, facts, path=Path("recipe.py"), plugins=(), command="ladd launch")
    assert there == [True]
