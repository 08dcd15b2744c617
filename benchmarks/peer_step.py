"""Our training step against a peer's: `python -m benchmarks.peer_step --peer PATH`, PATH a checkout of NVlabs/FastGen.

A cycle is one update of the student and one of the heads. The peer makes them in turns, each with a student's sample
and features of its own; our fused step shares both. Everything else is the same: the peer's own SongUNet (3.5 M
parameters, 32 px) and heads with the same weights, once in its `LADDModel` and once in our `LaddStep`. Each side is a
process of its own, and they run in turns, so that whatever else the machine does hits all. Nothing of the peer is part
of this project: a user's checkout is read by path.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks._clock import time_in_turns
from benchmarks._peer import require_checkout
from benchmarks._peer_sides import OURS, PEER, SIDES, STEP_ALONE, Order, Side
from benchmarks._runs import RunOptions, require_clean
from ladd_dist.core.rundir import write_bytes
from ladd_dist.parallel.devices import pick_device
from ladd_dist.workspace.config import environment

STORE = Path(__file__).with_name("peer_step.json")
BAR = 1.35
DRAWS, COVERED = 10_000, 0.95
"""Draws of the bootstrap, and the share of them that its interval covers."""


@dataclass(frozen=True)
class Args:
    """Measure our training step against that of a peer, on the same network and heads."""

    peer: Path
    """A checkout of NVlabs/FastGen."""
    batch: tuple[int, ...] = (16, 64)
    """Samples in a batch; each size is measured."""
    rounds: int = 12
    """Timed cycles of each side."""
    threads: int = 1
    """CPU threads of each side."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..., or auto."""
    json: bool = False
    """Print one JSON object instead of a table."""
    write: bool = False
    """Keep the result in benchmarks/peer_step.json too; the code must be committed."""


def measure(order: Order, rounds: int) -> dict[str, Any]:
    """All figures of a batch size; `order` is that of any side.

    Raises:
        SystemExit: a side cannot be made; the message says why.
    """
    sides = {name: Side(order._replace(side=name)) for name in SIDES}
    facts = {name: side.facts() for name, side in sides.items()}
    spent = time_in_turns({name: side.cycle for name, side in sides.items()}, rounds, torch.device("cpu"))
    return {
        "batch": order.batch_size,
        "rounds": rounds,
        "peer_commit": facts[PEER].commit,
        "params": facts[PEER].params,
        "gflop": {name: fact.gflop for name, fact in facts.items()},
        "seconds": spent,
        "peak_bytes": {name: side.end() for name, side in sides.items()},
        "faster": {name: faster(spent[PEER], spent[name]) for name in (OURS, STEP_ALONE)},
    }


def faster(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times faster the second of two is: the median of the rounds' ratios, and its bootstrap interval.

    Args:
        slow: seconds of each round.
        fast: seconds of the same rounds.
    """
    ratios = np.array(slow) / np.array(fast)
    places = np.random.default_rng(0).integers(len(ratios), size=(DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[places], axis=1), [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return {"ratio": float(np.median(ratios)), "interval": [float(low), float(high)]}


def show(result: dict[str, Any]) -> None:
    """A table for each batch size, a column a side."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(result["machine"], highlight=False, soft_wrap=True)
    for case in result["cases"]:
        table = Table("a cycle", *SIDES, title=f"batch {case['batch']}, {case['rounds']} rounds")
        seconds = {name: statistics.median(times) for name, times in case["seconds"].items()}

        def add(title: str, cell: Callable[[str], str], table: Table = table) -> None:
            table.add_row(title, *(cell(name) for name in SIDES))

        def rate(name: str, case: dict[str, Any] = case, seconds: dict[str, float] = seconds) -> str:
            return f"{case['gflop'][name] / seconds[name]:.0f}"

        add("seconds (median)", lambda name, seconds=seconds: f"{seconds[name]:.3f}")
        add("GFLOP", lambda name, case=case: f"{case['gflop'][name]:.1f}")
        add("GFLOP/s", rate)
        if case["peak_bytes"][PEER]:
            add("peak MB of tensors", lambda name, case=case: f"{case['peak_bytes'][name] / 1e6:.0f}")
        ratios = {
            name: "{ratio:.2f} ({interval[0]:.2f} to {interval[1]:.2f})".format(**found)
            for name, found in case["faster"].items()
        }
        add(f"times faster (aim {BAR})", lambda name, ratios=ratios: ratios.get(name, ""))
        console.print(table)
    params = ", ".join(f"{name} {num / 1e6:.2f} M" for name, num in result["cases"][0]["params"].items())
    console.print(f"parameters: {params}; in brackets the {COVERED:.0%} bootstrap interval of the median over rounds")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python -m benchmarks.peer_step")
    if min(args.rounds, args.threads, *args.batch) < 1 or not args.batch:
        raise SystemExit("--rounds, --threads and each size of --batch must be 1 or more")
    require_checkout(args.peer)
    if args.write:
        require_clean(RunOptions())
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    about = environment(device)
    cases = []
    for batch_size in args.batch:
        print(f"batch {batch_size} ...", file=sys.stderr, flush=True)
        cases.append(measure(Order(PEER, args.peer, batch_size, args.threads, device), args.rounds))
    names = ("device", "threads", "torch", "platform", "commit")
    machine = ", ".join(f"{name} {about[name]}" for name in names)
    result = {"machine": f"{machine}, peer {cases[0]['peer_commit'][:10]}", "cases": cases}
    if args.write:
        write_bytes(STORE, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
