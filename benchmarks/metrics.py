"""What measuring costs, without sampling: `python benchmarks/metrics.py`.

10,000 colour digits of 32 px against 10,000 real ones and 10,000 that stand for the teacher's: every metric of the
recipes, whole and class by class with its intervals, on two threads; reading the images is a line of its own. Each
number of samples runs in a process of its own, whose peak memory is taken above what it held before the first metric:
if anything kept a matrix of all pairs, twice the samples would take four times as much. Besides the seconds on the wall
those of the processor are given, summed over threads. Where a machine does other things too, only these say much, and
only with --threads 1: threads that wait for one another count as work.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from ladd_dist.datasets.digits import Digits
from ladd_dist.evaluation.measurement import Measurement, floor
from ladd_dist.metrics import References, Samples
from ladd_dist.metrics.extract import digit_color
from ladd_dist.workspace.config import environment
from recipes._base import METRICS

AIM_S = 60.0


@dataclass(frozen=True)
class Args:
    """Measure the seconds and the memory of each metric."""

    num: int = 10_000
    """Samples, real images, and samples of the teacher, each."""
    size: int = 32
    """Pixels."""
    threads: int = 2
    """CPU threads."""
    quick: bool = False
    """Few samples, to see that the benchmark works; the figures mean nothing."""
    json: bool = False
    """Print one JSON object instead of tables."""
    child: bool = False
    """Measure one number of samples here, and print JSON."""


def digits(num: int, size: int, seed: int) -> Samples:
    """Colour digits in random order."""
    images = Digits(size=size, seed=seed).build(split="train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:num]
    return Samples(*images.batch(order))


def peak_mib() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(args: Args) -> dict[str, Any]:
    """Seconds of each metric, and the memory they took."""
    real, teacher, own = (digits(args.num, args.size, seed) for seed in range(3))
    references = References(real, teacher, matched=Samples(own.images, own.cond))
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def clock(name: str) -> Iterator[None]:
        started, cpu_started = time.perf_counter(), time.process_time()
        yield
        seconds[name], cpu_seconds[name] = time.perf_counter() - started, time.process_time() - cpu_started

    before = peak_mib()
    with clock("reading three sets"):
        for part in (real, teacher, own):
            digit_color(part)
    for metric in METRICS:
        with clock(metric.name):
            Measurement((metric,), references)({"own": own}, num_classes=10)
    with clock("floor, all metrics"):
        floor(METRICS, own, references)
    return {"num": args.num, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib() - before}


def child(args: Args, num: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--child", "--num", num, "--size", args.size, "--threads", args.threads]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(args: Args) -> None:
    if args.child:
        torch.set_num_threads(args.threads)
        print(json.dumps(measured(args)))
        return
    num = 300 if args.quick else args.num
    half, whole = child(args, num // 2), child(args, num)
    total, total_cpu = sum(whole["seconds"].values()), sum(whole["cpu_seconds"].values())
    place = environment(torch.device("cpu"))
    result = {
        "half": half,
        "whole": whole,
        "total_s": total,
        "total_cpu_s": total_cpu,
        "aim_s": AIM_S,
        "environment": place,
    }
    if args.json:
        print(json.dumps(result))
        return
    table = Table("", *(f"{found['num']:,} samples" for found in (half, whole)), "of the processor")
    table.title = f"seconds, {args.size} px"
    for name in whole["seconds"]:
        walls = (f"{found['seconds'][name]:.2f}" for found in (half, whole))
        table.add_row(name, *walls, f"{whole['cpu_seconds'][name]:.2f}")
    table.add_row("all", f"{sum(half['seconds'].values()):.1f}", f"{total:.1f}", f"{total_cpu:.1f}", style="bold")
    table.add_row("peak memory, MiB", *(f"{found['peak_mib']:.0f}" for found in (half, whole)), "")
    Console().print(table)
    answers = ["yes" if spent < AIM_S else "no" for spent in (total, total_cpu)]
    print(f"aim: all within {AIM_S:g} s: on the wall {answers[0]}, of the processor {answers[1]}")
    print(f"torch {place['torch']}, {args.threads} threads, commit {place['commit']}")


if __name__ == "__main__":
    main(tyro.cli(Args))
