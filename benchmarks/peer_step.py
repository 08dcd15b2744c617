"""Our training step against a peer's: `python -m benchmarks.peer_step --peer PATH`, PATH a checkout of NVlabs/FastGen.

A cycle is one update of the student and one of the heads. The peer makes them in turns, each with a student's sample
and features of its own; our fused step shares both. Networks, heads, batch and noise levels' number are the same: the
peer's own SongUNet (3.5 M parameters, 32 px) and heads, once in its `LADDModel` and once, as a copy of the same
weights, in our `LaddStep`. Both run in one process, in turns, so that whatever else the machine does hits both. Nothing
of the peer is part of this project: a user's checkout is read by path.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks._clock import time_in_turns
from benchmarks._peer import load_peer, peer_cycle, peer_data
from benchmarks._peer_networks import PeerDenoiser, PeerHeads
from benchmarks._runs import RunOptions, require_clean
from ladd_dist.builders.step import Frozen, build_step
from ladd_dist.core.rundir import write_bytes
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.costs.flops import count_flops, count_parameters
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.losses.adversarial import Bce
from ladd_dist.parallel import Adam
from ladd_dist.parallel.devices import pick_device
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.config import environment
from plugins.taps import Named
from recipes import exp2_smallconv_warmup

SIDES = ("peer", "ours")
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
    """Samples in a batch; one table row for each."""
    rounds: int = 12
    """Timed cycles of each side."""
    threads: int = 1
    """CPU threads."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..., or auto."""
    json: bool = False
    """Print one JSON object instead of a table."""
    write: bool = False
    """Keep the result in benchmarks/peer_step.json; the code must be committed."""


def recipe_of(batch_size: int, taps: tuple[str, ...]) -> Recipe:
    """Settings of our step that make it do what the peer's does: its game, fresh noise, no regulariser."""
    recipe = exp2_smallconv_warmup.RECIPE.laptop
    return replace(recipe, adversarial=Bce(), taps=Named(taps), train=replace(recipe.train, batch_size=batch_size))


def our_step(model: Any, batch_size: int, device: torch.device) -> tuple[LaddStep, int]:
    """Our step on copies of the peer's networks and heads, and its first number, past the warm-up of the weights."""
    model = copy.deepcopy({name: getattr(model, name) for name in ("net", "teacher", "discriminator")})
    student = PeerDenoiser(model["net"], model["discriminator"]).train().requires_grad_(True)
    teacher = PeerDenoiser(model["teacher"], model["discriminator"])
    taps = tuple(student.taps)
    recipe = recipe_of(batch_size, taps)
    train = recipe.train
    common: dict[str, Any] = {"compute": train.compute, "ranks": SINGLE, "device": device}
    adam = Adam(train.lr_student, train.betas_student, train.weight_decay, train.clip)
    trainable = recipe.parallel.build(student, role="student", adam=adam, **common)
    module = PeerHeads(model["discriminator"], taps).train().requires_grad_(True)
    adam = replace(adam, lr=train.lr_heads, betas=train.betas_heads)
    heads = recipe.parallel.build(module, role="heads", adam=adam, **common)
    frozen = Frozen(cast(Denoiser, recipe.parallel.freeze(teacher, **common)), None)
    return build_step(recipe, trainable, heads, frozen), train.steps


def measure(model: Any, batch_size: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """All figures of a batch size."""
    image = PeerDenoiser(model.net, model.discriminator).image
    source = torch.Generator().manual_seed(0)
    x0 = torch.randn(batch_size, *image.shape, generator=source).clamp(-1, 1).to(device)
    cond = (torch.arange(batch_size) % image.num_classes).to(device)
    step, first = our_step(model, batch_size, device)
    data, batch = peer_data(model, x0, cond), Batch(x0, cond, None, None, ())
    cycles: dict[str, Callable[[int], Any]] = {
        "peer": lambda number: peer_cycle(model, data, number),
        "ours": lambda number: step(batch, first + number),
    }
    gflop = {side: count_flops(lambda cycle=cycle: cycle(0)) / 1e9 for side, cycle in cycles.items()}  # type: ignore[misc]
    spent = time_in_turns(cycles, rounds, device)
    peaks = {side: peak_memory(cycle, device) for side, cycle in cycles.items()} if device.type == "cuda" else {}
    return {
        "batch": batch_size,
        "params": {"student": count_parameters(step.student.module), "heads": count_parameters(step.heads.module)},
        "gflop": gflop,
        "seconds": spent,
        "peak_bytes": peaks,
        **faster(spent["peer"], spent["ours"]),
    }


def peak_memory(cycle: Callable[[int], Any], device: torch.device) -> int:
    """Most bytes of tensors on a GPU while a cycle runs; both sides' weights and optimizers are there all the time."""
    torch.cuda.reset_peak_memory_stats(device)
    cycle(0)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def faster(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times faster the second of two is: the median of the ratios of a round, and its bootstrap interval."""
    ratios = np.array(slow) / np.array(fast)
    places = np.random.default_rng(0).integers(len(ratios), size=(DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[places], axis=1), [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return {"ratio": float(np.median(ratios)), "interval": [float(low), float(high)], "rounds": len(ratios)}


def show(result: dict[str, Any]) -> None:
    """The table, a column a batch size."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(result["machine"], highlight=False, soft_wrap=True)
    cases = result["cases"]
    table = Table("", *(f"batch {case['batch']}" for case in cases), title=f"a cycle: {' / '.join(SIDES)}")

    def both(title: str, form: str, figure: Callable[[dict[str, Any], str], float]) -> None:
        table.add_row(title, *(" / ".join(format(figure(case, side), form) for side in SIDES) for case in cases))

    def seconds(case: dict[str, Any], side: str) -> float:
        return statistics.median(case["seconds"][side])

    both("seconds", ".3f", seconds)
    both("GFLOP", ".1f", lambda case, side: case["gflop"][side])
    both("GFLOP/s", ".0f", lambda case, side: case["gflop"][side] / seconds(case, side))
    if all(case["peak_bytes"] for case in cases):
        both("peak MB", ".0f", lambda case, side: case["peak_bytes"][side] / 1e6)
    ratios = ("{ratio:.2f}, {interval[0]:.2f} to {interval[1]:.2f}".format(**case) for case in cases)
    table.add_row(f"times faster (aim >= {BAR})", *ratios)
    console.print(table)
    params = ", ".join(f"{name} {num / 1e6:.2f} M" for name, num in cases[0]["params"].items())
    console.print(f"parameters: {params}; medians of {cases[0]['rounds']} rounds, 95 % interval of the ratio over them")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python -m benchmarks.peer_step")
    if args.write:
        require_clean(RunOptions())
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    peer = load_peer(args.peer, device)
    about = environment(device)
    names = ("device", "threads", "torch", "platform", "commit")
    machine = ", ".join(f"{name} {about[name]}" for name in names)
    result: dict[str, Any] = {"machine": f"{machine}, peer {peer.commit[:10]}", "cases": []}
    for batch_size in args.batch:
        print(f"batch {batch_size} ...", file=sys.stderr, flush=True)
        result["cases"].append(measure(peer.model, batch_size, args.rounds, device))
    if args.write:
        write_bytes(STORE, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
