"""`benchmarks/paper_scale.py`, with tiny numbers on the CPU: it stops in time, goes on, keeps what can be committed."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from benchmarks import paper_scale
from benchmarks._paper_tables import PEAK_FLOPS, SHARE, estimate, work_of
from benchmarks.paper_scale import EXPERIMENTS, Options, bare, is_kept, main, recipe_of, stop
from ladd_dist.launch import main as launch
from ladd_dist.stages.distill import Distillation
from ladd_dist.stages.dry_step import trial
from ladd_dist.stages.teacher import TeacherTraining
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).parents[2]
TINY = (
    *("--teacher.steps", "4", "--train.steps", "4", "--train.dump-every", "1", "--shards.num-samples", "64"),
    *("--evaluate.num-samples", "32", "--evaluate.num-references", "64", "--evaluate.batch-size", "32"),
)


@pytest.fixture(autouse=True)
def at_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["paper_scale", *map(str, words)])
    paper_scale.STOP.clear()
    return main()


@pytest.mark.slow
def test_it_stops_in_time_goes_on_and_keeps_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = ["--scale", "smoke", "--only", "exp6", "ladd", "--no-compiled", "--no-recorded"]
    words += ["--device", "cpu", "--jobs", "2", "--threads", "1", *TINY, "--out", tmp_path / "runs"]
    words += ["--cache", tmp_path / "cache", "--keep", tmp_path / "kept"]
    started = time.monotonic()
    assert call(monkeypatch, *words, "--budget-s", str(paper_scale.GRACE_S + 1)) == 75
    assert time.monotonic() - started < paper_scale.GRACE_S + 5
    assert "left: exp6, ladd; the same command goes on" in capsys.readouterr().out
    assert call(monkeypatch, *words) == 0, (tmp_path / "runs" / "logs" / "exp6.log").read_text()[-2000:]
    printed = capsys.readouterr().out
    assert "all done" in printed and re.search(r"\| exp6 \| 4 \| [\d.]+ \|", printed)

    found = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert list(found) == ["exp6", "ladd"]
    for entry in found.values():
        assert entry["finished"] and entry["updates"] == 4 and entry["environment"]["device"] == "cpu"
        assert {"student@4", "student@1", "untrained@4", "teacher@50"} <= set(entry["figures"])
        assert entry["figures"]["student@4"]["fd_teacher"] > 0 and entry["seconds"]["distill"] > 0
        assert entry["course"]["step"] and len(entry["course"]["colour_variance"]) == len(entry["course"]["step"])
    pictures = {path.name for path in (tmp_path / "kept").glob("*.jpg")}
    assert pictures == {f"{name}-{which}.jpg" for name in found for which in ("quarter", "end", "final")}
    assert sum(path.stat().st_size for path in (tmp_path / "kept").iterdir()) < 1_000_000

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a finished run was started again"))
    assert call(monkeypatch, *words) == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_computed_as_promised_and_no_step_of_it_asks_the_device_for_a_number(name: str) -> None:
    recipe, compiled = (recipe_of(Options(recorded=recorded), name) for recorded in (True, False))
    for compute in (recipe.teacher.compute, recipe.train.compute):
        assert (compute.precision, compute.data) == ("bf16", "device")
        assert compute.graph and not compute.compile
    assert "teacher" in compiled.teacher.compute.compile and not compiled.teacher.compute.graph
    assert {"student", "teacher"} <= set(compiled.train.compute.compile) and not compiled.train.compute.graph
    assert recipe.network == bare(name, "paper").network and recipe.train.steps == bare(name, "paper").train.steps
    with trial(recipe_of(Options(scale="smoke"), name)) as rehearsal:
        batch = rehearsal.batch(2)
        rehearsal.step(batch, recipe.train.steps - 1)  # tensors without data have no number to give
        with pytest.raises(DataDependentOutputException):
            batch.x0.sum().item()


def test_a_recipe_that_was_changed_is_run_again(tmp_path: Path) -> None:
    options = Options(scale="smoke", keep=tmp_path)
    recipe = recipe_of(options, "exp6")
    for finished in (False, True):
        entry = {"exp6": {"finished": finished, "signature": recipe.evaluate_signature()}}
        (tmp_path / "results.json").write_text(json.dumps(entry))
        assert is_kept(options, "exp6", recipe) is finished
    assert not is_kept(options, "exp6", dataclasses.replace(recipe, seed=1))


def test_a_run_that_does_not_stop_is_killed_before_the_budget_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_scale, "GRACE_S", 1.0)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    started = time.monotonic()
    assert stop(process) == 75
    assert time.monotonic() - started < 5 and process.returncode == -9
    process.stdout.close()


def test_the_estimate_counts_what_is_shared_once() -> None:
    done = set[str]()
    first, again = (work_of(bare("exp4", "smoke"), "smoke", done) for _ in range(2))
    recipe = bare("exp4", "smoke")
    assert first["teacher"] % (3 * recipe.teacher.batch_size * recipe.teacher.steps) == 0 and first["teacher"] > 0
    forward = first["teacher"] / (3 * recipe.teacher.batch_size * recipe.teacher.steps)
    assert first["shards"] == 2 * 50 * 128 * forward  # 50 steps with guidance
    assert (again["teacher"], again["shards"], again["distill"]) == (0, 0, first["distill"])
    assert first["evaluate"] - again["evaluate"] == 64 * 2 * (50 + 2 * 4) * forward  # the teacher's own
    table = estimate({"exp4": recipe}, "smoke")
    whole = sum(first.values())
    assert f"| {whole / 1e15:.3g} | {whole / (PEAK_FLOPS * SHARE) / 60:.3g} |" in table


@pytest.mark.slow
def test_the_table_in_the_docstring_is_the_estimate() -> None:
    assert estimate({name: bare(name, "paper") for name in EXPERIMENTS}, "paper") in (paper_scale.__doc__ or "")


@pytest.mark.gpu
def test_on_a_gpu_no_step_between_logged_ones_waits_for_the_device(tmp_path: Path) -> None:
    options = Options(scale="smoke", compiled=False, recorded=False, more=TINY)
    words = [*paper_scale.arguments_of(options, "exp6"), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert launch([*words, "--stages", "teacher,shards", "--device", "cuda"]) == 0
    run = Run(recipe_of(options, "exp6"), Workspace(tmp_path, tmp_path / "cache", torch.device("cuda")))
    trainings = (TeacherTraining(run, tmp_path / "again"), Distillation(run))
    for training in trainings:
        training.step(0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in (1, 2):  # the guard looks at step 5
                training.step(step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
