"""Everything that wants a CUDA device, in the order that tells most in ten minutes: `python -m benchmarks.gpu`.

    python -m benchmarks.gpu --list                        # what there is, and what each part needs
    python -m benchmarks.gpu --only sync step-bf16         # some of it
    python -m benchmarks.gpu --device cpu --quick          # all of it, small, where there is no GPU: does it work?

Each part is a process of its own, so that one which fails or hangs takes nothing from the others. Its result is added
to `--out`/results.jsonl as soon as it is there, one JSON object a line (`part`, `state`, `seconds`, `command`, `result`
or `said`), with its whole output in a file beside it; the first line says which machine and commit. A part begins while
there is time left, and is ended when the budget is spent. A part whose package is missing is passed over and says so;
PyTorch with torchvision, pytest and the small packages of pyproject.toml are enough for all but `strategies`.

The exit code is 0 when every part that ran went well, 1 when one failed, and 75 when only the time was up.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from ladd_dist.cli.console import open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.errors import UserError
from ladd_dist.parallel.devices import pick_device
from ladd_dist.workspace.config import environment

ROOT = Path(__file__).resolve().parent.parent
OUT_OF_TIME = 75
LEAST_S = 5.0
"""Seconds below which no part begins."""
INTERRUPTED_S = 20.0
"""Seconds that an interrupted part has to say what it found."""
MOST_SHOWN = 200
"""Characters of a part's last line in the table; its whole output is in its file."""
WORKERS = 4
"""Processes of pytest on a GPU: most of these tests wait for the host."""
State = Literal["done", "failed", "passed over", "out of time"]


class Part(NamedTuple):
    """One thing to run."""

    name: str
    tells: str
    module: str
    """Run by `python -m`: a benchmark, which is given the device and prints JSON, or pytest."""
    words: tuple[str, ...] = ()
    """Further words; `OUT` stands for the folder of results."""
    small: tuple[str, ...] = ("--quick",)
    """Words of `--quick` instead; of pytest, the tests."""
    needs: tuple[str, ...] = ()
    """Packages besides PyTorch."""
    cuda: bool = False
    """Whether a CPU cannot even show that it works."""
    marked: str = "gpu"
    """Tests that run on a device, as pytest's `-m` says it."""


STEP, MEMORY, SAMPLING = "benchmarks.ladd_step", "benchmarks.device_memory", "benchmarks.sampling"
HALF = ("--precision", "bf16")
LARGE, SMALL = ("--batch", "256"), ("--scale", "smoke", "--batch", "8", "--rounds", "2")
TESTS = ("tests/unit", "tests/distributed/test_fp16.py")
MATRIX = "tests/distributed/test_strategies.py"
ONE = ("tests/unit/test_device.py",)
PARTS = (
    Part(
        "sync", "no step between logged ones waits for the device", "benchmarks.host_sync",
        ("--trace", "OUT/traces"), ("--only", "exp6"),
    ),
    Part(
        "tests", "a device computes what the CPU does: precision, layout, resuming, early exit", "pytest",
        TESTS, ONE, needs=("pytest", "yaml"), marked="gpu and not slow",
    ),
    Part("step-fp32", "time of a training step, and where it goes", STEP),
    Part("step-bf16", "the same in bf16", STEP, HALF, ("--quick", *HALF)),
    Part("step-graph", "the same as a CUDA graph", STEP, (*HALF, "--graph"), ("--quick", "--graph"), cuda=True),
    Part(
        "tests-slow", "so it does in fp16 and compiled", "pytest",
        TESTS, ONE, needs=("pytest", "yaml"), cuda=True, marked="gpu and slow",
    ),
    Part("memory", "what `ladd plan` says beside the allocator's peak", MEMORY),
    Part("sampling-fp32", "pictures a second of teacher and student", SAMPLING, LARGE, SMALL),
    Part("sampling-bf16", "the same in bf16, compiled", SAMPLING, (*LARGE, *HALF, "--compiled"), (*SMALL, *HALF)),
    Part(
        "strategies", "every strategy on one GPU gives the numbers of one process", "pytest",
        (MATRIX,), ONE, needs=("pytest", "yaml", "deepspeed", "diffusers"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Args:
    """Run everything that wants a CUDA device, within a budget of time."""

    only: tuple[str, ...] = ()
    """Names of parts; all when empty."""
    budget_min: float = 10.0
    """Minutes after which no part begins and the one at work is ended."""
    device: str = "cuda"
    """cuda, cuda:1 ..., or cpu to see that the parts work."""
    quick: bool = False
    """Toy networks, and of the tests those of one file: the figures mean nothing."""
    out: Path = Path("gpu-results")
    """Folder of the results."""
    list: bool = False
    """Print the parts and run nothing."""


class Outcome(NamedTuple):
    """What became of a part."""

    part: str
    state: State
    seconds: float
    command: str
    result: Any
    """The JSON object that it printed last, if it did."""
    said: str
    """Why it did not run, or the end of what it printed."""


def words_of(part: Part, args: Args) -> list[str]:
    """The words after `python -m`, for the device and folder that are asked for.

    On a CPU the tests are those of the same files that need no device and take no long.
    """
    words = [word.replace("OUT", str(args.out.absolute())) for word in (part.small if args.quick else part.words)]
    if part.module == "pytest":
        marked = "not gpu and not slow" if args.device == "cpu" else part.marked
        several = args.device != "cpu" and importlib.util.find_spec("xdist") is not None
        told = ["-vv", "-rfE", "-p", "no:cacheprovider", *(["-n", str(WORKERS)] if several else [])]
        return [part.module, "-m", marked, *told, *words]
    return [part.module, "--json", "--device", args.device, *words]


def missing(part: Part, device: str) -> str:
    """What a part needs and is not here; empty when it can run."""
    if part.cuda and device == "cpu":
        return "needs a CUDA device"
    lacking = [name for name in part.needs if importlib.util.find_spec(name) is None]
    return f"{', '.join(lacking)} is not installed" if lacking else ""


def run(part: Part, args: Args, seconds: float) -> Outcome:
    """Run a part for at most so many seconds; its whole output is in `OUT/PART.txt`."""
    words = words_of(part, args)
    shown = " ".join(["python", "-m", *words])
    if lacking := missing(part, args.device):
        return Outcome(part.name, "passed over", 0.0, shown, None, lacking)
    if seconds < LEAST_S:
        return Outcome(part.name, "out of time", 0.0, shown, None, "the budget was spent before")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    started, log = time.monotonic(), args.out.absolute() / f"{part.name}.txt"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts `make gpu &` so, and parts would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w+", encoding="utf-8", errors="replace") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=stream, text=True, cwd=ROOT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            out, late = process.communicate(timeout=seconds)[0], False
        except subprocess.TimeoutExpired:
            out, late = ended(process), True
        stream.write(out)
        stream.seek(0)
        said = stream.read()
    state: State = "out of time" if late else "failed" if process.returncode else "done"
    result = last_json(out)
    tail = "" if state == "done" and result is not None else said[-2000:]
    return Outcome(part.name, state, round(time.monotonic() - started, 1), shown, result, tail)


def ended(process: subprocess.Popen[str]) -> str:
    """End a part and its processes; returns what it printed. Interrupted, pytest still says which tests failed."""
    process.send_signal(signal.SIGINT)
    out = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        out = process.communicate(timeout=INTERRUPTED_S)[0]
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)  # its own processes too, which hold the pipe or the device
    return process.communicate()[0] if out is None else out


def last_json(text: str) -> Any:
    """The JSON object on the last line that holds one; None without."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return None


def told(outcome: Outcome) -> str:
    """The figures of a part in a line."""
    found = outcome.result or {}
    if "samplers" in found:
        rows = found["samplers"].items()
        return "; ".join(f"{name} {row['pictures_per_s']:.4g} pictures/s" for name, row in rows)
    if "nets" in found:
        return "; ".join(f"{net['name']}: {net['ms_step']['fused']:.1f} ms a step" for net in found["nets"])
    if "waits" in found:
        return f"{found['waits']} waits in {sum(sum(case['steps'].values()) for case in found['cases'].values())} steps"
    if "cases" in found:
        rows = found["cases"].items()
        return "; ".join(
            f"{name}: {'-' if row['ratio'] is None else format(row['ratio'], '.3f')}" for name, row in rows
        )
    lines = [line for line in outcome.said.splitlines() if line.strip()]
    return lines[-1].strip()[:MOST_SHOWN] if lines else ""


def show(outcomes: Sequence[Outcome]) -> None:
    """The table, a row a part."""
    table = Table()
    for heading in ("part", "state", "seconds", "found"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for outcome in outcomes:
        table.add_row(outcome.part, outcome.state, f"{outcome.seconds:.1f}", told(outcome))
    open_console().print(table)


def chosen(args: Args) -> list[Part]:
    """The parts that are asked for.

    Raises:
        UserError: a name that no part has, or there is no such device.
    """
    known = {part.name: part for part in PARTS}
    if unknown := [name for name in args.only if name not in known]:
        raise UserError(f"--only {unknown[0]}: no such part; there are {', '.join(known)}")
    if args.device != "cpu" and not torch.cuda.is_available() and not args.list:
        raise UserError(
            "no CUDA device here; `python -m benchmarks.gpu --device cpu --quick` shows that the parts work"
        )
    return [part for part in PARTS if not args.only or part.name in args.only]


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python -m benchmarks.gpu")
    return run_guarded(lambda: _main(args))


def _main(args: Args) -> int:
    parts = chosen(args)
    if args.list:
        for part in parts:
            lacking = missing(part, args.device)
            print(f"{part.name}: {part.tells}{f' (passed over here: {lacking})' if lacking else ''}")
        return 0
    end = time.monotonic() + 60 * args.budget_min
    args.out.mkdir(parents=True, exist_ok=True)
    log, outcomes = args.out / "results.jsonl", list[Outcome]()
    with log.open("a", encoding="utf-8") as stream:
        print(
            json.dumps({"machine": environment(pick_device(args.device)), "quick": args.quick}), file=stream, flush=True
        )
        for number, part in enumerate(parts, 1):
            print(f"[{number}/{len(parts)}] {part.name}: {part.tells} ...", file=sys.stderr, flush=True)
            outcomes.append(run(part, args, end - time.monotonic()))
            print(json.dumps(outcomes[-1]._asdict()), file=stream, flush=True)
            print(f"    {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    show(outcomes)
    print(f"each result: {log}")
    states = {outcome.state for outcome in outcomes}
    return 1 if "failed" in states else OUT_OF_TIME if "out of time" in states else 0


if __name__ == "__main__":
    sys.exit(main())
