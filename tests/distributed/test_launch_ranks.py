"""Several real processes: they meet, agree, fail with a message that names the culprit, and stop cleanly."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from ladd_dist.core.slurm import ranks_of_step
from ladd_dist.launch import main
from ladd_dist.parallel.spawn import clear, outcome, spawn

REPO = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("ranks_script.py")
RECIPE = REPO / "recipes" / "exp4_specnorm.py"
SMOKE = (str(RECIPE), "--scale", "smoke")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
DEADLINE_S = 200.0


class Outcome(NamedTuple):
    code: int
    message: str
    took_s: float
    """From the end of the first rank to the end of the last."""


def run_ranks(folder: Path, mode: str) -> Outcome:
    """Two ranks of the script, watched from here."""
    logs = folder / "logs"
    ended, said, heartbeats = spawn([sys.executable, str(SCRIPT), str(folder), mode], 2, logs, 1)
    return Outcome(*outcome(ended, said, heartbeats, logs), ended[-1].time - ended[0].time)


@contextlib.contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in the background, its output in files."""
    with (folder / "stdout.txt").open("w") as out, (folder / "stderr.txt").open("w") as err:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            cwd=folder,
            text=True,
            env=ENVIRONMENT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(path: Path, process: subprocess.Popen[str]) -> str:
    """The content of a file, once there is some."""
    deadline = time.monotonic() + DEADLINE_S
    while not (path.is_file() and path.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
    return path.read_text()


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# --- together ---


def test_two_ranks_meet_and_hear_the_same(tmp_path: Path) -> None:
    assert run_ranks(tmp_path, "talk")[:2] == (0, "")
    first, second = (json.loads((tmp_path / f"heard{rank}.json").read_text()) for rank in (0, 1))
    assert first.pop("first") and not second.pop("first")
    assert first.pop("order") == ["taken", "inside, held True", "given back"]
    assert second.pop("order") == ["inside, held True"]
    expected = {"size": 2, "agree": "from 0", "any": [True, False], "highest": 5, "mean": [0.5, 4.0]}
    assert first == second == expected


def test_the_others_may_leave_before_the_first(tmp_path: Path) -> None:
    assert run_ranks(tmp_path, "early")[:2] == (0, "")
    assert (tmp_path / "alone").exists()


# --- one fails ---


def test_a_rank_that_raises_is_named_with_its_traceback_and_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, message, took_s = run_ranks(tmp_path, "raise")
    assert code == 1
    lines = message.splitlines()
    assert lines[0] == f"rank 1 failed; its log: {tmp_path / 'logs' / 'rank1.err'}"
    assert lines[-2] == "ZeroDivisionError: broken on purpose"
    assert lines[-1].startswith("this is a fault of the program")
    assert "misbehave" in message
    assert "ZeroDivisionError: broken on purpose" in (tmp_path / "logs" / "rank1.err").read_text()
    assert "Connection" not in message
    assert capfd.readouterr().err == ""  # the other rank only lost its connection
    assert took_s < 15


@pytest.mark.parametrize(
    ("mode", "code", "message"),
    [
        ("user", 2, r"this is a message for users"),
        ("disk", 1, r"rank 1: no room to write /full/disk .*; its log: .*rank1\.err"),
    ],
)
def test_an_error_for_users_is_one_message_and_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str, code: int, message: str
) -> None:
    found = run_ranks(tmp_path, mode)
    assert found.code == code
    assert re.fullmatch(message, found.message)
    assert capfd.readouterr().err == ""  # said once, by the process that started them


@pytest.mark.parametrize("number", ["SIGKILL", "SIGSEGV"])
def test_a_rank_killed_by_a_signal_is_named_with_the_end_of_its_log(tmp_path: Path, number: str) -> None:
    code, message, took_s = run_ranks(tmp_path, number)
    assert code == 1
    how = rf"rank 1 \(process \d+\) was killed by {number} [\d.]+ s after its last sign of life, 'train step 31'"
    assert re.match(how, message), message
    assert f"its log: {tmp_path / 'logs' / 'rank1.err'}\n" in message
    assert "last words" in message
    assert ("memory may have run out" in message) == (number == "SIGKILL")
    assert took_s < 15


def test_a_rank_that_hangs_is_named_by_the_one_that_waits_for_it(tmp_path: Path) -> None:
    code, message, took_s = run_ranks(tmp_path, "SIGSTOP")
    assert code == 1
    expected = r"rank 1 did not come within 3 s: its last sign of life was 'train step 31', \d+ s ago\. "
    assert re.match(expected, message), message
    assert message.endswith(f"look into its log: {tmp_path / 'logs'}")
    assert took_s < 20


@pytest.mark.slow
def test_under_torchrun_the_message_carries_the_rank(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with started([*torchrun, str(SCRIPT), str(tmp_path), "disk"], tmp_path) as process:
        assert process.wait(DEADLINE_S) == 1
    stderr = (tmp_path / "stderr.txt").read_text()
    assert stderr.count("error: rank 1: no room to write /full/disk") == 1
    assert "error: rank 0: lost the connection: another rank has ended (its own message" in stderr
    assert "stopped" not in stderr  # torchrun's SIGTERM to rank 0 is no reason to say that all is saved


# --- signals ---


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGUSR2, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_lets_the_ranks_save_and_says_so_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with started([sys.executable, str(SCRIPT), str(tmp_path), "loop", "--spawn"], tmp_path) as process:
        wait_for(tmp_path / "pid1", process)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == code
    assert (tmp_path / "saved").exists()  # rank 0 takes a second for it, rank 1 has ended long before
    stderr = (tmp_path / "stderr.txt").read_text()
    assert (
        stderr == f"stopped: stopped by {number.name}; what is finished is saved: run the same command again to go on\n"
    )


SLOW_START = """
import os, pathlib, time
if "RANK" in os.environ:
    try:
        pathlib.Path("starts" + os.environ["RANK"]).write_text("yes")
        time.sleep(1)
    except BaseException:
        pathlib.Path("swallowed").touch()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_while_python_starts_the_ranks_comes_when_they_hear_it(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Python itself would end by it with a traceback, or swallow it: that rank then waits for the others in vain."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    command = ["env", f"PYTHONPATH={tmp_path}:{os.environ.get('PYTHONPATH', '')}", sys.executable, str(SCRIPT)]
    with started([*command, str(tmp_path), "loop", "--spawn"], tmp_path) as process:
        for rank in range(2):
            wait_for(tmp_path / f"starts{rank}", process)
        process.send_signal(number)
        assert process.wait(30) == code
    assert not (tmp_path / "swallowed").exists()
    text = f"stopped: stopped by {number.name}; what is finished is saved: run the same command again to go on\n"
    assert (tmp_path / "stderr.txt").read_text() == text


def test_a_signal_to_one_rank_before_they_have_met_stops_the_other_too(tmp_path: Path) -> None:
    with started([sys.executable, str(SCRIPT), str(tmp_path), "alone", "--spawn"], tmp_path) as process:
        assert process.wait(DEADLINE_S) == 130
    assert (tmp_path / "stderr.txt").read_text().startswith("stopped: stopped by SIGINT;")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "name"), [((), "SIGTERM"), (("nohup",), "SIGUSR2")])
def test_a_terminal_that_closes_stops_the_ranks_unless_nohup_ignores_it(
    tmp_path: Path, before: tuple[str, ...], name: str
) -> None:
    with started([*before, sys.executable, str(SCRIPT), str(tmp_path), "loop", "--spawn"], tmp_path) as process:
        wait_for(tmp_path / "pid1", process)
        process.send_signal(signal.SIGHUP)
        if before:
            time.sleep(0.5)  # it goes on
            process.send_signal(signal.SIGUSR2)
        assert process.wait(DEADLINE_S) == 75
    assert f"stopped by {name};" in (tmp_path / "stderr.txt").read_text()


def test_a_signal_that_finds_the_ranks_shutting_down_is_no_failure(tmp_path: Path) -> None:
    with started([sys.executable, str(SCRIPT), str(tmp_path), "over", "--spawn"], tmp_path) as process:
        for rank in (0, 1):
            wait_for(tmp_path / f"pid{rank}", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 75
    assert (tmp_path / "stderr.txt").read_text().startswith("stopped: stopped by SIGTERM; what is finished is saved")


def test_a_signal_after_the_work_is_done_changes_nothing(tmp_path: Path) -> None:
    lines = "import pathlib, sys, time; from ladd_dist.cli.errors import leave, run_guarded"
    lines += "; from ladd_dist.core.signals import arm; arm()"
    lines += "; code = leave(run_guarded(lambda: 0)); pathlib.Path('pid').write_text('1')"
    with started([sys.executable, "-c", f"{lines}; time.sleep(1); sys.exit(code)"], tmp_path) as process:
        wait_for(tmp_path / "pid", process)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            process.send_signal(number)
        assert process.wait(DEADLINE_S) == 0


def test_ranks_save_and_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    with started([sys.executable, str(SCRIPT), str(tmp_path), "loop", "--spawn"], tmp_path) as process:
        pids = [int(wait_for(tmp_path / f"pid{rank}", process)) for rank in (0, 1)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 60
        while any(map(is_alive, pids)):
            assert time.monotonic() < deadline, "ranks are left"
            time.sleep(0.05)
    assert (tmp_path / "saved").exists()
    assert "stopped by SIGTERM" in (tmp_path / "stderr.txt").read_text()


# --- the command line ---


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ("--nproc 0", {}, "--nproc: must be at least 1 and at most 1024, got 0"),
        ("--nproc 2 --parallel spread", {}, "unknown parallel 'spread'; valid: .*ddp, .*single, .*zero3"),
        ("--nproc 2 --parallel single", {}, "--parallel single is for one process, there are 2; use ddp"),
        ("--nproc 2 --swap parallel=single", {}, "--parallel single is for one process, there are 2"),
        ("--nproc 3", {}, r"recipe\.teacher\.batch_size: 32 samples cannot be shared evenly by 3 ranks"),
        (
            "--nproc 4",
            {"RANK": "1", "WORLD_SIZE": "2"},
            "--nproc 4: this is rank 1 of 2, of which a launcher started 2",
        ),
    ],
)
def test_a_wrong_command_line_starts_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: str,
    environment: Mapping[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "_exit", sys.exit)  # how a rank that failed ends
    with pytest.raises(SystemExit) as ended:
        sys.exit(main([*SMOKE, *words.split()]))
    assert ended.value.code == 2
    assert re.search(message, " ".join(capfd.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


def test_several_processes_take_ddp_and_its_fields_are_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMOKE, "--nproc", "2", "--parallel.shard-teacher", "--dry-run"]) == 0
    assert "on 2 processes (cpu), parallel ddp (choose with" in capfd.readouterr().out
    assert not list(tmp_path.iterdir())


# --- SLURM ---

STEP = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),1",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "gpu[03-05]",
    "SLURM_JOB_NODELIST": "gpu[01-09]",
}


def test_the_ranks_of_a_slurm_step_follow_from_its_environment() -> None:
    assert ranks_of_step(STEP, first_host=lambda nodes: f"first of {nodes}") == {
        "RANK": "5",
        "WORLD_SIZE": "9",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "first of gpu[03-05]",
        "MASTER_PORT": str(12_000 + 1234 * 7 + 2),
    }
    assert ranks_of_step({**STEP, "SLURM_NODEID": "2"}, str)["LOCAL_WORLD_SIZE"] == "1"
    assert ranks_of_step({**STEP, "SLURM_STEP_NODELIST": "one,two"})["MASTER_ADDR"] == "one"
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "99"}
    assert given.items() <= ranks_of_step({**STEP, **given}).items()


def test_a_launcher_or_a_single_task_leaves_the_environment_alone() -> None:
    assert ranks_of_step({**STEP, "RANK": "0"}) == {}
    assert ranks_of_step({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert ranks_of_step({}) == {}


# --- the whole pipeline ---


@pytest.mark.slow
def test_the_pipeline_runs_on_two_ranks_stops_on_a_signal_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ladd_dist.launch", *SMOKE, "--nproc", "2", "--parallel", "ddp", "--json"]
    command += ["--train.steps", "60"]
    with started(command, tmp_path) as process:
        deadline = time.monotonic() + DEADLINE_S
        while sum(len(path.read_text().splitlines()) for path in tmp_path.glob("runs/*/metrics.jsonl")) < 5:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "stderr.txt").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 75
    stderr = (tmp_path / "stderr.txt").read_text()
    assert stderr.count("stopped:") == 1
    assert "Traceback" not in stderr
    (run,) = tmp_path.glob("runs/exp4*")
    rows = len((run / "metrics.jsonl").read_text().splitlines())
    assert max(run.glob("checkpoints/step-*")).name == f"step-{rows:08d}"
    with started(command, tmp_path) as process:
        assert process.wait(DEADLINE_S) == 0, (tmp_path / "stderr.txt").read_text()
    printed = json.loads((tmp_path / "stdout.txt").read_text())
    assert printed["run"] == str(run.relative_to(tmp_path))
    assert printed["eval"]["student@4"]["fd_real"] > 0
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))
    assert len(list(run.glob("logs/*/rank1.err"))) == 2


def test_clearing_a_run_keeps_the_logs_of_this_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("logs/old/rank1.err", "logs/new/rank1.err", "samples/final.png", "config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("LADD_LOGS", str(tmp_path / "logs" / "new"))
    clear(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "logs", "logs/new", "logs/new/rank1.err",
    ]  # fmt: skip
