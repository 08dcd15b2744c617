"""Trackers in real runs: the real W&B client against the double of its server, offline data, event files."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import REPO, Done, Ladd, read_json, rows, without_rates
from wandb_server import Server

from benchmarks.compare import OFFLINE
from ladd_dist.core.run_forms import figures_of
from ladd_dist.trackers.wandb_read import offline_runs, server_runs

READ = """
import dataclasses, json, sys
from ladd_dist.trackers.wandb_read import server_runs
print(json.dumps([dataclasses.asdict(run) | {"evaluation": run.evaluation()} for run in server_runs(sys.argv[1])]))
"""
QUICK = ("--swap", "tracker=wandb", "--tracker.timeout-s", 5)


def on_server(path: str = "test/ladd") -> list[dict[str, Any]]:
    """What the server has, read by a process of its own (a client keeps the address it saw first)."""
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def sync(done: Done) -> None:
    """Run the command that a warning or a notice named."""
    command = done.stderr.partition("bring the run over later with `")[2].partition("`")[0]
    program = [sys.executable, "-m", *shlex.split(command.partition("/*run-*")[0])]
    folders = sorted(Path(program.pop()).glob("*run-*"))  # what a shell makes of the *
    synced = subprocess.run([*program, *map(str, folders)], capture_output=True, text=True, timeout=120, cwd=done.run)
    assert synced.returncode == 0, synced.stderr


def lines_about_tracker(done: Done) -> list[str]:
    return [line for line in done.stderr.splitlines() if "wandb" in line.lower()]


def test_a_run_online_has_on_the_server_what_its_folder_has(ladd: Ladd, wandb_server: Server) -> None:
    """Of a sweep, too: what its config.json says of that is told, also when it is launched by itself."""
    config = ladd(*QUICK, "--stages", "teacher").run / "config.json"
    assert (read_json(config)["sweep"], read_json(config)["axes"]) == ("", {})
    membership = {"sweep": "heads-0123456789", "axes": {"head": "max_pool"}}
    config.write_text(json.dumps({**read_json(config), **membership}))
    done = ladd(*QUICK, "--tracker.tags", "first", "smoke")
    assert lines_about_tracker(done) == []
    (found,) = on_server("test/ladd/heads-0123456789")
    assert found["name"] == done.run.name
    assert found["signature"] == done.run.name.rpartition("-")[2]
    assert found["rows"] == rows(done.run / "metrics.jsonl")
    assert found["evaluation"] == figures_of(read_json(done.run / "eval.json"))
    config = read_json(done.run / "config.json")
    assert {key: found["config"][key] for key in config} == config
    assert found["config"]["axes"] == {"head": "max_pool"}
    assert (found["state"], found["group"], found["tags"]) == ("finished", "heads-0123456789", ["first", "smoke"])
    card, state = read_json(done.run / "wandb.json"), wandb_server.state()
    assert card["id"] in state["runs"] and card["url"] == found["source"]
    assert state["runs"][card["id"]]["jobType"] == "distill"
    assert len([name for name in state["files"] if "/media/images/samples" in name]) == 3  # two dumps and the final one
    assert on_server("test/ladd/another") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "number"), [("online", signal.SIGTERM), ("online", signal.SIGKILL), ("offline", signal.SIGKILL)]
)
def test_a_run_that_was_interrupted_goes_on_as_the_same_run_without_a_step_twice(
    ladd: Ladd, wandb_server: Server, mode: str, number: signal.Signals
) -> None:
    words = (*QUICK, "--tracker.mode", mode, "--train.steps", 60, "--train.checkpoint-every", 15)
    running = ladd.start(*words)
    running.wait_until(lambda: any(len(rows(path)) >= 22 for path in ladd.runs.glob("*/metrics.jsonl")))
    assert running.send(number).code == (75 if number == signal.SIGTERM else -9)
    folder = next(ladd.runs.glob("*/metrics.jsonl")).parent
    (folder / "wandb.json").unlink()  # the id follows from the run's signature
    done = ladd(*words)
    metrics = rows(folder / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 61))
    if mode == "online":
        (found,) = on_server()
        assert without_clock(found["rows"]) == without_rates(folder / "metrics.jsonl")
        (state,) = wandb_server.state()["runs"].values()
        assert [row["_step"] for row in state["history"] if "accuracy" in row] == list(range(1, 61))
        return
    assert lines_about_tracker(done) == []
    (run,) = offline_runs(folder)
    assert without_clock(run.rows) == without_rates(folder / "metrics.jsonl")


def without_clock(found: list[dict[str, float]]) -> list[dict[str, float]]:
    """A step that was computed again has another rate in metrics.jsonl than where it was first told."""
    return [{name: value for name, value in row.items() if not name.startswith("rate/")} for row in found]


def test_without_a_key_a_run_is_offline_says_so_once_and_can_be_synced(
    ladd: Ladd, no_wandb_key: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ladd(*QUICK)
    (line,) = lines_about_tracker(done)
    assert "offline, because there is no key" in line and "wandb sync" in line
    (run,) = offline_runs(done.run)
    assert (run.name, run.signature, run.state) == (done.run.name, done.run.name.rpartition("-")[2], "finished")
    assert run.rows == rows(done.run / "metrics.jsonl")
    assert run.evaluation() == figures_of(read_json(done.run / "eval.json"))
    config = read_json(done.run / "config.json")
    assert {key: run.config[key] for key in config} == config
    server = Server(tmp_path / "server.log")
    try:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        sync(done)
        (synced,) = on_server()
        assert synced["rows"] == run.rows and synced["evaluation"] == run.evaluation()
    finally:
        server.kill()


@pytest.mark.alone  # what the server has when it freezes depends on the speed of the run
@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_server_lost_in_the_middle_is_one_warning_and_the_run_can_be_synced_later(
    ladd: Ladd, wandb_server: Server, how: str
) -> None:
    """Killed it forgets what it had; frozen it has the first steps already when the rest comes.

    What waited in its socket while it was frozen it has twice after the sync, which adds to what the server has.
    """
    running = ladd.start(*QUICK, "--train.steps", 60)
    running.wait_until(lambda: any(len(rows(path)) >= 20 for path in ladd.runs.glob("*/metrics.jsonl")))
    if how == "killed":
        wandb_server.kill()
    else:
        wandb_server.process.send_signal(signal.SIGSTOP)
    done = running.wait()
    assert done.code == 0, done.stderr
    (line,) = lines_about_tracker(done)
    assert "training goes on" in line and "wandb sync" in line
    assert len(rows(done.run / "metrics.jsonl")) == 60
    if how == "killed":
        wandb_server.start()
    else:
        wandb_server.process.send_signal(signal.SIGCONT)
    sync(done)
    (found,) = on_server()
    assert found["rows"] == rows(done.run / "metrics.jsonl")
    assert found["evaluation"] == figures_of(read_json(done.run / "eval.json"))


@pytest.mark.parametrize("key", ["short", "9" * 40])
def test_a_wrong_key_is_one_warning(
    ladd: Ladd, wandb_server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    done = ladd(*QUICK)
    (line,) = lines_about_tracker(done)
    assert line.startswith("warning: tracker wandb: ") and "wandb sync" in line
    (run,) = offline_runs(done.run)
    assert run.rows == rows(done.run / "metrics.jsonl")


def test_a_server_that_is_down_is_one_warning(ladd: Ladd, wandb_server: Server) -> None:
    wandb_server.kill()
    done = ladd(*QUICK)
    (line,) = lines_about_tracker(done)
    assert line.startswith("warning: tracker wandb: ") and "wandb sync" in line
    (run,) = offline_runs(done.run)
    assert run.evaluation() == figures_of(read_json(done.run / "eval.json"))


def test_a_place_where_wandb_cannot_write_is_a_warning(
    ladd: Ladd, smoke: tuple[Done, Ladd], no_wandb_key: None
) -> None:
    run = ladd.runs / smoke[0].run.name
    run.mkdir(parents=True)
    (run / "wandb").write_text("a file where the folder should be")
    done = ladd(*QUICK)
    warnings = [line for line in lines_about_tracker(done) if line.startswith("warning")]
    assert len(warnings) == 1 and "training goes on" in warnings[0]
    assert without_rates(run / "metrics.jsonl") == without_rates(smoke[0].run / "metrics.jsonl")


@pytest.fixture
def full(ladd: Ladd, smoke: tuple[Done, Ladd]) -> Iterator[Path]:
    """A file system of 64 KiB as RUN/wandb; skipped where mounting is not permitted."""
    place = ladd.runs / smoke[0].run.name / "wandb"
    place.mkdir(parents=True)
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system of its own cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True, timeout=30)


def test_a_full_disk_under_wandb_does_not_stop_the_run(
    ladd: Ladd, smoke: tuple[Done, Ladd], no_wandb_key: None, full: Path
) -> None:
    done = ladd(*QUICK)
    assert sum(line.startswith("warning") for line in lines_about_tracker(done)) <= 1
    assert without_rates(done.run / "metrics.jsonl") == without_rates(smoke[0].run / "metrics.jsonl")


def test_a_training_that_diverged_is_an_alert(ladd: Ladd, wandb_server: Server) -> None:
    done = ladd(*QUICK, "--train.lr-student", 1e30, "--train.clip", 1e30, code=1)
    assert "lower the learning rate" in done.stderr
    state = wandb_server.state()
    (alert,) = state["alerts"]
    assert "NotFinite" in alert["title"] and "lower the learning rate" in alert["text"]
    (run,) = state["runs"].values()
    assert run["state"] == "failed"


@pytest.mark.slow
def test_tensorboard_has_every_step_once_after_a_kill(ladd: Ladd) -> None:
    words = ("--swap", "tracker=tensorboard", "--tracker.flush-s", 1, "--train.steps", 60)
    running = ladd.start(*words)
    running.wait_until(lambda: any(len(rows(path)) >= 22 for path in ladd.runs.glob("*/metrics.jsonl")))
    running.send(signal.SIGKILL)
    done = ladd(*words)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(done.run / "tensorboard"))
    events.Reload()
    told = [(event.step, event.value) for event in events.Scalars("loss/heads")]
    metrics = [(row["step"], pytest.approx(row["loss/heads"])) for row in rows(done.run / "metrics.jsonl")]
    assert told[-30:] == metrics[-30:] and [step for step, _ in told] == sorted({step for step, _ in told})
    assert [event.step for event in events.Images("samples")][-1] == 60
    evaluated = read_json(done.run / "eval.json")["student@4"]["fd_real"]
    assert events.Scalars("eval/student@4/fd_real")[-1].value == pytest.approx(evaluated)


def test_the_reader_names_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no W&B runs"):
        offline_runs(tmp_path)
    with pytest.raises(ValueError, match="ENTITY/PROJECT"):
        server_runs("only-a-project")


def test_offline_folders_are_read_several_a_process_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path), "5", "3"], check=True, timeout=120)
    found = offline_runs(tmp_path)
    assert [(run.signature, len(run.rows), run.state) for run in found] == [
        (f"{number:010d}", 3, "finished") for number in range(5)
    ]
    assert found[4].rows[2]["figure/0"] == 3.0
    [damaged] = tmp_path.glob("wandb/offline-run-*-run2")
    next(damaged.glob("*.wandb")).write_bytes(b"no transaction log")
    with pytest.raises(ValueError, match=rf"{damaged.name} cannot be read: .*bad header"):
        offline_runs(tmp_path)
