"""A run that is killed goes on by itself: 8 kills, with signal, moment and victim drawn from a seed; no trace left.

`python -m pytest tests/distributed/test_kills.py` ; LADD_KILLS=40 for a longer look.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
STEPS, KILLS = 60, int(os.environ.get("LADD_KILLS", "8"))
FIELDS = (
    f"--train.steps {STEPS} --train.batch-size 16 --train.log-every 1 --train.checkpoint-every 2 --train.dump-every 30"
)
pytestmark = pytest.mark.slow


def start(folder: Path, parallel: str, out: str) -> subprocess.Popen[bytes]:
    """The command that a user would repeat."""
    command = [sys.executable, "-m", "ladd_dist.launch", "recipes/exp6_stored_noise.py", "--scale", "smoke"]
    command += [
        "--nproc",
        "2",
        "--parallel",
        parallel,
        "--stages",
        "teacher,shards,distill",
        "--out",
        str(folder / out),
    ]
    command += ["--cache", str(folder / "cache"), *FIELDS.split()]
    log = (folder / f"{out}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def workers(parent: int) -> dict[int, int]:
    """The training processes under a launch: rank -> process id."""
    found = {}
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks = [int(variable[5:]) for variable in variables if variable.startswith(b"RANK=")]
        if ranks:
            found[ranks[0]] = int(pid)
    return found


def rows(folder: Path, out: str) -> dict[int, dict[str, float]]:
    """Figures by step, without clocks; a line that is being written is left out."""
    paths = list((folder / out).glob("*/metrics.jsonl"))
    if not paths:
        return {}
    kept = {}
    for line in paths[0].read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            kept[row["step"]] = {name: value for name, value in row.items() if not name.startswith(("rate", "time"))}
    return kept


def strike(process: subprocess.Popen[bytes], draw: random.Random, folder: Path, out: str) -> str:
    """Wait until the run trains, then a random while, then end one rank, all ranks, or the launch, by a signal."""
    before = max(rows(folder, out), default=0)
    deadline = time.monotonic() + 120
    while max(rows(folder, out), default=0) <= before and process.poll() is None:
        assert time.monotonic() < deadline, (folder / f"{out}.log").read_text()[-3_000:]
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 0.5))
    number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
    victim = draw.choice(["rank 0", "rank 1", "all"])
    children = workers(process.pid) if process.poll() is None else {}
    if number != signal.SIGKILL:  # what a scheduler sends, to the launch
        victim, targets = "launch", [process.pid]
    else:
        targets = list(children.values()) if victim == "all" else [children[int(victim[-1])]] if children else []
    for pid in targets:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            victim += " (over already)"
    began = time.monotonic()
    code = process.wait(timeout=60)
    took = time.monotonic() - began
    return f"{number.name} to {victim} after step {max(rows(folder, out), default=0)}: exit code {code} in {took:.1f} s"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    for parallel in ("ddp", "fsdp"):
        assert start(folder, parallel, f"whole-{parallel}").wait(timeout=300) == 0
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_after_every_kill_the_same_command_goes_on_with_the_same_trace(folder: Path, parallel: str) -> None:
    expected = rows(folder, f"whole-{parallel}")
    assert list(expected) == list(range(1, STEPS + 1))
    draw = random.Random(f"{parallel}-2026")
    kills = KILLS // 2
    out, attempt, struck = f"killed-{parallel}-0", 0, []
    while len(struck) < kills:
        process = start(folder, parallel, out)
        what = strike(process, draw, folder, out)
        print(what)
        seen = rows(folder, out)
        for step, row in seen.items():
            assert row == expected[step], (what, step)
        if process.returncode != 0:
            struck.append(what)
        else:  # it had finished before the signal came: the next run starts anew
            attempt += 1
            out = f"killed-{parallel}-{attempt}"
    log = folder / f"{out}.log"
    assert start(folder, parallel, out).wait(timeout=120) == 0, log.read_text()[-3_000:]
    assert rows(folder, out) == expected
    (whole,), (killed,) = (list((folder / name).glob("*/student.safetensors")) for name in (f"whole-{parallel}", out))
    first, second = load_file(whole), load_file(killed)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert not list((folder / out).glob("*/checkpoints/.tmp-*"))
    codes = {line.split("exit code ")[1].split()[0] for line in struck if "SIGTERM" in line or "SIGUSR2" in line}
    assert codes <= {"75"}, struck
