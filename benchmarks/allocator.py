"""What a step on a CPU costs with and without the memory that `core/allocator.py` keeps: processes in turns.

    python -m benchmarks.allocator

Each process takes one thread, does the fused step of a case of `benchmarks/ladd_step.py` and says its seconds of
processor (user and system), page faults and peak memory; weights after the steps must be the same with both.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import tyro

from benchmarks.ladd_step import Args, awake_network, batch_of, cases, step_of
from ladd_dist.core.allocator import keep_freed_memory
from ladd_dist.core.types import Denoiser
from ladd_dist.parallel.ranks import SINGLE

STEPS = (20, 20, 4, 4)
"""Steps of each case, about three seconds."""
WAYS = ("before", "with it")


@dataclass(frozen=True)
class Options:
    """Measure what keeping freed memory saves; see the file's own text."""

    pairs: int = 5
    """Pairs of processes for each case."""
    quick: bool = False
    """A toy net alone, to see that the benchmark works; the figures mean nothing."""
    child: Literal["", "before", "with it"] = ""
    """Measure in this process, one way."""
    case: int = 0
    """The case that a child measures."""


def main() -> int:
    """The command; returns the exit code."""
    options = tyro.cli(Options)
    if options.child:
        print(json.dumps(measured(options)))
        return 0
    print("| step | pairs | seconds of processor, before and with it | page faults | peak memory in MB |")
    print("|---|---|---|---|---|")
    for number, case in enumerate(cases(Args(quick=options.quick))):
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for pair in range(options.pairs):
            for way in WAYS if pair % 2 else reversed(WAYS):
                found[way].append(_child(options, number, way))
        if len({row["weights"] for rows in found.values() for row in rows}) > 1:
            raise SystemExit(f"{case.name}: weights differ")
        cells = [" and ".join(_range(found[way], name) for way in WAYS) for name in ("seconds", "faults", "mb")]
        print(f"| {case.name}, {_steps(options, number)} steps | {options.pairs} | {' | '.join(cells)} |", flush=True)
    return 0


def measured(options: Options) -> dict[str, Any]:
    """Figures of this process, after a step that warms up."""
    torch.set_num_threads(1)
    if options.child == "with it" and not keep_freed_memory():
        raise SystemExit("the C library cannot be asked, or MALLOC_* or GLIBC_TUNABLES are set")
    recipe, device = cases(Args(quick=options.quick))[options.case].recipe, torch.device("cpu")
    batch, awake = batch_of(recipe, device), awake_network(recipe)
    common: dict[str, Any] = {"compute": recipe.train.compute, "device": device}
    teacher = cast(Denoiser, recipe.parallel.freeze(copy.deepcopy(awake), ranks=SINGLE, **common))
    step = step_of(recipe, "fused", awake, teacher, device)
    first = recipe.train.steps - 1  # past every warm-up of weights
    step(batch, first)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for number in range(_steps(options, options.case)):
        step(batch, first + 1 + number)
    after = resource.getrusage(resource.RUSAGE_SELF)
    weights = hashlib.sha256()
    for value in step.student.module.state_dict().values():
        weights.update(value.contiguous().numpy().tobytes())
    return {
        "seconds": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
        "mb": after.ru_maxrss / 1e3,
        "weights": weights.hexdigest(),
    }


def _steps(options: Options, case: int) -> int:
    return 2 if options.quick else STEPS[case]


def _child(options: Options, case: int, way: str) -> dict[str, Any]:
    line = [sys.executable, "-m", "benchmarks.allocator", "--child", way, "--case", str(case)]
    line += ["--quick"] if options.quick else []
    done = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _range(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows]
    digits = 2 if name == "seconds" else 0
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
