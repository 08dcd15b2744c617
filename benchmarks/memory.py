"""Whether `ladd plan` tells the truth: `python benchmarks/memory.py`.

For each strategy, processes on the CPU (gloo) build a student, heads and teacher through the strategy, train for two
steps, and add up the bytes of the storages that the objects really hold. The largest sum over ranks stands beside the
formula's, category by category. Synthetic data; about a minute and a half.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from ladd_dist.builders.step import Frozen, build_heads, build_step
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.plugin import create
from ladd_dist.core.types import Denoiser
from ladd_dist.costs.memory_model import STRATEGIES, Strategy, memory
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.networks.cunet import CUNet
from ladd_dist.parallel import Adam, Parallel, Trainable
from ladd_dist.parallel.ranks import Ranks, join
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import Trial, trial
from ladd_dist.workspace.workspace import rows_of
from plugins.heads.spectral_norm import SpectralNorm
from recipes import exp4_specnorm

CATEGORIES = ("parameters", "gradients", "optimizer", "master", "average", "teacher", "heads")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Args:
    """Compare measured with planned bytes of each strategy."""

    ranks: int = 2
    """Processes."""
    strategies: tuple[str, ...] = STRATEGIES[1:]
    """Which to measure."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Of the network; in a small one constants dominate."""
    json: bool = False
    """Print one JSON object."""
    worker: str = ""
    """For this script's own processes: the file to write to."""


def recipe_of(strategy: str, widths: tuple[int, ...], *, shard_teacher: bool) -> Recipe:
    """A network of some million weights with the fourth experiment's heads."""
    import ladd_dist.parallel.fsdp
    import ladd_dist.parallel.zero

    assert ladd_dist.parallel.fsdp and ladd_dist.parallel.zero  # imported for their registration
    base = exp4_specnorm.RECIPE.smoke
    parallel = cast(Parallel, create("parallel", strategy))
    if shard_teacher:
        parallel = dataclasses.replace(cast(Any, parallel), shard_teacher=True)
    return dataclasses.replace(
        base,
        network=CUNet(widths=widths, blocks=1, patch=2, embed_dim=128),
        head=SpectralNorm(width=64),
        train=dataclasses.replace(base.train, batch_size=8),
        parallel=parallel,
    )


def held(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of the distinct storages behind tensors; of a sharded tensor, this rank's part."""
    storages = {}
    for tensor in tensors:
        if tensor is not None:
            local = cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor
            storage = local.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def weights_of(trainable: Trainable) -> list[Tensor]:
    """What holds the weights: parameters (whole ones that ZeRO-3 keeps, too), or parts of them."""
    parameters = list(trainable.module.parameters())
    return [*parameters, *(cast(Any, p).ds_tensor for p in parameters if hasattr(p, "ds_tensor"))]


def gradients_of(trainable: Any) -> list[Tensor | None]:
    """Gradients as the optimizer will find them; DeepSpeed keeps its own lists and buffers."""
    found: list[Tensor | None] = [parameter.grad for parameter in trainable.module.parameters()]
    engine = getattr(trainable, "engine", None)
    if engine is not None:
        for owned in getattr(engine.optimizer, "averaged_gradients", {}).values():
            found += owned if isinstance(owned, list) else [owned]
        found.append(getattr(engine.optimizer, "grad_partitions_flat_buffer", None))
    return found


def watch_gradients(trainable: Any, seen: dict[str, int], name: str) -> None:
    """Note the most bytes of gradients just before optimizer steps, and before ZeRO-1 reduces all of them at once."""

    def note_before(owner: Any, method: str) -> None:
        call = getattr(owner, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            seen[name] = max(seen.get(name, 0), held(gradients_of(trainable)))
            return call(*args, **kwargs)

        setattr(owner, method, noted)

    engine = getattr(trainable, "engine", None)
    note_before(engine or trainable.optimizer, "step")
    if engine is not None and engine.zero_optimization_stage() == 1:
        note_before(engine.optimizer, "reduce_gradients")


def optimizer_of(trainable: Any) -> tuple[int, int]:
    """Bytes of the moments, and of weights that the optimizer holds a second time."""
    moments = held(value for state in trainable.optimizer.state.values() for value in state.values() if value.dim())
    flats = trainable.optimized() if hasattr(trainable, "engine") else []
    weights = weights_of(trainable)
    return moments, held([*weights, *flats]) - held(weights)


def measure(recipe: Recipe, ranks: Ranks) -> dict[str, int]:
    """Train two steps and add up what this rank holds."""
    compute, adam = recipe.train.compute, Adam(1e-4, (0.5, 0.99), 0.0, 1.0)
    build = functools.partial(recipe.parallel.build, adam=adam, compute=compute, ranks=ranks, device=CPU)
    network = fresh_network(recipe).train()
    heads = build(build_heads(recipe, network), role="heads")
    student = build(network, role="student")
    average = WeightAverage(student.local("weight"), half_life=100, ramp=0.0, batch_size=8)
    frozen = recipe.parallel.freeze(fresh_network(recipe), compute=compute, ranks=ranks, device=CPU)
    teacher = cast(Denoiser, frozen)
    step = build_step(recipe, student, heads, Frozen(teacher, None))
    seen: dict[str, int] = {}
    watch_gradients(student, seen, "student")
    watch_gradients(heads, seen, "heads")
    rows = rows_of("train.batch_size", recipe.train.batch_size, recipe.train.compute, ranks)
    batch = Trial(recipe, step, teacher, Frozen(teacher, None), student, heads).batch(len(rows))
    for number in range(2):
        step(batch, recipe.train.steps - 2 + number, rows)
        average.update(number + 1)
    moments, master = optimizer_of(student)
    buffers = list(student.module.buffers())
    return {
        "parameters": held([*weights_of(student), *buffers]),
        "gradients": seen["student"],
        "optimizer": moments,
        "master": master,
        "average": held(part.tensor for part in average.weights.values()),
        "teacher": held([*teacher.parameters(), *teacher.buffers()]),
        "heads": held([*weights_of(heads), *heads.module.buffers()]) + seen["heads"] + sum(optimizer_of(heads)),
    }


def work(args: Args) -> None:
    """One process of a measurement."""
    (strategy,) = args.strategies
    shard_teacher = strategy.endswith("+")
    recipe = recipe_of(strategy.removesuffix("+"), args.widths, shard_teacher=shard_teacher)
    with join("gloo", 120, needs_group=True) as ranks:
        every: list[Any] = [None] * ranks.size
        dist.all_gather_object(every, measure(recipe, ranks))
        if ranks.is_first:
            most = {name: max(one[name] for one in every) for name in CATEGORIES}
            Path(args.worker).write_text(json.dumps(most), encoding="utf-8")


def start(strategy: str, args: Args) -> dict[str, int]:
    """Measure one strategy in processes of its own; a `+` after its name shards the teacher."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={args.ranks}"]
        command += [str(Path(__file__).resolve()), "--worker", str(out), "--strategies", strategy]
        command += ["--widths", *map(str, args.widths)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        if done.returncode or not out.exists():
            raise RuntimeError(f"{strategy} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
        measured: dict[str, int] = json.loads(out.read_text(encoding="utf-8"))
        return measured


def planned(strategy: str, args: Args) -> dict[str, int]:
    """The formula's figures."""
    name, shard_teacher = strategy.removesuffix("+"), strategy.endswith("+")
    recipe = recipe_of(name, args.widths, shard_teacher=shard_teacher)
    with trial(recipe) as step:
        profile = step.profile(recipe.train.batch_size // args.ranks)
    return dataclasses.asdict(memory(cast(Strategy, name), profile, args.ranks, shard_teacher=shard_teacher))


@dataclass(frozen=True)
class Compared:
    """Bytes of one category under one strategy."""

    measured: int
    planned: int
    ratio: float


def compare(args: Args) -> dict[str, dict[str, Compared]]:
    """Measured and planned bytes and their ratio, by strategy and category."""
    result: dict[str, dict[str, Compared]] = {}
    for strategy in args.strategies:
        plan, found = planned(strategy, args), start(strategy, args)
        result[strategy] = {
            name: Compared(found[name], plan[name], found[name] / plan[name] if plan[name] else math.inf)
            for name in CATEGORIES
            if found[name] or plan[name]
        }
    return result


def show(result: dict[str, dict[str, Compared]], args: Args) -> None:
    """A row for each strategy and category."""
    table = Table(title=f"Bytes on the rank that holds most, {args.ranks} ranks, widths {args.widths}")
    for heading in ("strategy", "category", "measured MB", "planned MB", "measured / planned"):
        table.add_column(heading, justify="right" if "/" in heading or "MB" in heading else "left")
    for strategy, rows in result.items():
        for name, row in rows.items():
            sizes = (f"{size / 1e6:.3f}" for size in (row.measured, row.planned))
            table.add_row(strategy, name, *sizes, f"{row.ratio:.3f}")
        table.add_section()
    Console(width=100).print(table)


def main() -> None:
    """The command."""
    args = tyro.cli(Args)
    if args.worker:
        work(args)
        return
    result = compare(args)
    if args.json:
        data = {name: {key: dataclasses.asdict(row) for key, row in rows.items()} for name, rows in result.items()}
        print(json.dumps(data))
    else:
        show(result, args)


if __name__ == "__main__":
    main()
