"""A stop that a library answers with an error of its own, or that something swallows, is a stop all the same."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import Done, Ladd, environment
from test_early_signals import CODES, foreground

from ladd_dist.core.rundir import save_tensors

SCRIPT = """
import atexit, os, sys
from pathlib import Path
from ladd_dist.core.signals import arm
arm()
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.failure import tracebacks_kept
from ladd_dist.core.rundir import commit_folder, write_json
from ladd_dist.core.tensor_file import load_tensors
from ladd_dist.engine.loop import StopFlag

looks = []

def interrupt(frame, event, arg):
    if event == "call" and frame.f_code.co_name == "__getitem__" and frame.f_code.co_filename.endswith("storage.py"):
        looks.append(frame)
        if len(looks) == 2:  # the first is safetensors, which lets an exception pass
            sys.setprofile(None)
            os.kill(os.getpid(), NUMBER)

def read():
    '''PyTorch looks into the storage of a tensor that is read, and makes a ValueError of what it meets there.'''
    sys.setprofile(interrupt)
    load_tensors(Path("weights.safetensors"))

def turn():
    '''What any library may do.'''
    try:
        os.kill(os.getpid(), NUMBER)
    except BaseException:
        raise ValueError from None

def group():
    '''As filelock does, which gives its lock back while the interrupt passes.'''
    try:
        os.kill(os.getpid(), NUMBER)
    except BaseException as error:
        raise BaseExceptionGroup("locking failed", [error, TypeError()]) from None

def swallow():
    try:
        turn()
    except ValueError:
        print("swallowed", flush=True)

def close():
    def numbers():
        try:
            yield 1
        finally:
            os.kill(os.getpid(), NUMBER)
    first = next(iter(numbers()))  # nobody keeps the generator, so that it is closed where no exception can pass
    print("swallowed", flush=True)

def backward():
    '''Leaves a node of the graph, whose saved tensor has a hook, in the queue of PyTorch's engine.'''
    import torch
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        x = torch.ones(4, requires_grad=True)
        later, sooner = x * x, x.exp() * x
        total = (later * sooner + sooner * later).sum()
    sooner.register_hook(lambda grad: os.kill(os.getpid(), NUMBER))
    atexit.register(lambda: Path("tidied").touch())
    total.backward()

def command():
    BODY
    return 0

sys.exit(run_guarded(command))
"""
LATER = {"shards": ("shards-*", "reference-*"), "distill": ("reference-*",), "evaluate": ("reference-*",)}
"""What of the cache the stage, or a later one, makes."""
STOPPED = "stopped: stopped by {}; what is finished is saved: run the same command again to go on\n"
COMMITTED = "commit_folder(Path('folder'), lambda folder: (folder / 'file').touch())"
LOOP = "with StopFlag().listen() as stop: write_json(Path('saved'), 1)\n    stop.check()"


def run(body: str, number: signal.Signals, cwd: Path) -> subprocess.CompletedProcess[str]:
    save_tensors(cwd / "weights.safetensors", {"weight": torch.ones(3)})
    script = SCRIPT.replace("BODY", body).replace("NUMBER", str(int(number)))
    return subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, timeout=120, preexec_fn=foreground
    )


@pytest.mark.parametrize(
    ("library", "number"),
    [*[("turn()", number) for number in CODES], ("group()", signal.SIGINT), ("read()", signal.SIGTERM)],
    ids=lambda part: getattr(part, "name", part),
)
def test_a_stop_that_a_library_turns_into_its_own_error_is_a_stop(
    library: str, number: signal.Signals, tmp_path: Path
) -> None:
    done = run(f"with tracebacks_kept(Path('logs')): {library}", number, tmp_path)
    assert (done.returncode, done.stderr) == (CODES[number], STOPPED.format(number.name))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("kept", ["write_json(Path('figures.json'), 1)", COMMITTED], ids=["file", "folder"])
@pytest.mark.parametrize("swallowed", ["swallow()", "close()"])
def test_nothing_is_kept_of_what_came_after_a_swallowed_stop(swallowed: str, kept: str, tmp_path: Path) -> None:
    done = run(f"{swallowed}; {kept}", signal.SIGTERM, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (75, "swallowed\n", STOPPED.format("SIGTERM"))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_check_of_doctor_that_a_stop_meets_has_not_failed(tmp_path: Path) -> None:
    imports = "from ladd_dist.preflight.check import Check, examine"
    done = run(
        f"{imports}\n    print(examine('math', Check('x', 'y', lambda _: turn()), None))", signal.SIGINT, tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", STOPPED.format("SIGINT"))


def test_a_training_that_follows_a_swallowed_stop_saves_and_stops(tmp_path: Path) -> None:
    done = run(f"swallow()\n    {LOOP}", signal.SIGINT, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "swallowed\n", STOPPED.format("SIGINT"))
    assert (tmp_path / "saved").exists()


def test_what_is_written_on_the_way_out_of_a_stop_is_kept(tmp_path: Path) -> None:
    body = "try: os.kill(os.getpid(), 15)\n    finally: write_json(Path('timings.json'), 1)"
    done = run(body, signal.SIGTERM, tmp_path)
    assert (done.returncode, done.stderr) == (75, STOPPED.format("SIGTERM"))
    assert (tmp_path / "timings.json").read_text() == "1\n"


def test_a_stop_in_a_backward_with_hooks_is_no_crash_when_python_ends(tmp_path: Path) -> None:
    done = run("backward()", signal.SIGTERM, tmp_path)
    assert (done.returncode, done.stderr) == (75, STOPPED.format("SIGTERM"))
    assert (tmp_path / "tidied").exists()


def test_an_error_of_the_next_command_in_the_same_process_is_its_own(tmp_path: Path) -> None:
    once = "Process.is_command = False\nassert run_guarded(turn) == 75"  # a command would end there
    body = f"pass\n\nfrom ladd_dist.core.signals import Process\n{once}\n\ndef command():\n    1 / 0"
    done = run(body, signal.SIGTERM, tmp_path)
    assert done.returncode == 1 and "error: ZeroDivisionError" in done.stderr


POINTS = {"teacher": 2_003, "shards": 2_003, "distill": 3_001, "evaluate": 811}
"""Calls between two interrupts, in the calls of a stage's first tenths of a second and some of its loop."""


@pytest.mark.parametrize("stage", POINTS)
def test_an_interrupt_in_any_call_of_a_stage_is_a_clean_stop(
    stage: str, tmp_path: Path, smoke: tuple[Done, Ladd]
) -> None:
    before = list(POINTS)[: list(POINTS).index(stage)]
    if before:
        shutil.copytree(smoke[1].cache, tmp_path / "cache", ignore=shutil.ignore_patterns(*LATER[stage]))
    if stage == "evaluate":
        shutil.copytree(smoke[1].runs, tmp_path / "runs", ignore=shutil.ignore_patterns("eval.json"))
    here = Ladd(tmp_path, tmp_path / "cache")
    command = [sys.executable, str(Path(__file__).with_name("interrupt_points.py")), stage, str(POINTS[stage]), "150"]
    done = subprocess.run(
        [*command, *here.words("--stages", ",".join([*before, stage]))], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, timeout=600, preexec_fn=foreground,
    )  # fmt: skip
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(ends) >= 40, done  # of the shards' calls most are in writing
    wrong = [end for end in ends if end["code"] != 130 or end["text"].count("stopped: stopped by SIGINT") != 1]
    assert not wrong
    assert not [end for end in ends if "Traceback" in end["text"] or "Exception ignored" in end["text"]]
    assert not list(tmp_path.glob("runs/*/logs/fault-*"))
