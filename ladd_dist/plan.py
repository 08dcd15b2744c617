"""`python -m ladd_dist.plan RECIPE`: what each strategy needs on how many GPUs, worked out without one."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ladd_dist.cli.console import open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse

if TYPE_CHECKING:
    from ladd_dist.costs.memory_model import Load, Strategy
    from ladd_dist.recipe import Recipe

PROG = "python -m ladd_dist.plan"
GB = 1e9
COLUMNS = {
    "weights": ("parameters",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer", "master"),
    "average": ("average",),
    "teacher": ("teacher",),
    "heads": ("heads",),
    "activations": ("activations", "temporaries", "batch"),
    "gathered": ("gathered",),
}
"""Of the table: which parts of `Memory` each shows."""


@dataclass(frozen=True)
class Options(RecipeOptions):
    """Which strategy fits: memory and traffic of every one, worked out from the recipe's step without a GPU.

    Fields of the recipe can be set as in `launch`.
    """

    gpus: int = 1
    """How many, over all nodes."""
    gpu_memory_gb: float = 80.0
    """Of each, in 10^9 bytes."""
    gpus_per_node: int = 8
    """How many share a node."""
    batch_per_gpu: int = 0
    """Samples a GPU and step; 0 shares the recipe's train.batch_size evenly."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    from ladd_dist.core.serialize import RecipeError

    options, recipe = parse(Options, arguments, prog=PROG)
    if min(options.gpus, options.gpus_per_node) < 1 or options.batch_per_gpu < 0 or not options.gpu_memory_gb > 0:
        raise RecipeError("--gpus and --gpus-per-node must be at least 1, --gpu-memory-gb above 0")
    facts = plan(recipe, options)
    print(json.dumps(facts)) if options.json else show(facts)
    return 0


def plan(recipe: Recipe, options: Options) -> dict[str, Any]:
    """What `--json` prints.

    Raises:
        RecipeError: the batch cannot be shared evenly by so many GPUs, or the recipe's step cannot run.
    """
    from ladd_dist.core.errors import UserError
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.costs.memory_model import room
    from ladd_dist.parallel.ranks import Ranks
    from ladd_dist.stages.dry_step import trial
    from ladd_dist.workspace.workspace import rows_of

    gpus, train = options.gpus, recipe.train
    if options.batch_per_gpu:
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(train, batch_size=options.batch_per_gpu * gpus))
    whole = recipe.train.batch_size
    share = len(rows_of("train.batch_size", whole, train.compute, Ranks(size=gpus)))
    try:
        with trial(recipe) as step:
            load, alone = step.load(share), step.load(whole if gpus > 1 else 2 * whole)
    except UserError as error:
        raise RecipeError(str(error)) from error
    more = len(range(share, whole)) or whole
    per_sample = (_grows(alone) - _grows(load)) / more
    rows = [
        _row(recipe, strategy, sharded, alone if strategy == "single" and gpus > 1 else load, options, per_sample)
        for strategy, sharded in _choices(gpus)
    ]
    runnable = [row for row in rows if row["fits"] and row["gpus"] == gpus]
    best = min(runnable, key=lambda row: row["sent"]["total"], default=None)
    nets = {"student": load.student, "teacher": load.teacher, "heads": load.heads}
    return {
        "recipe": recipe.name,
        "gpus": gpus,
        "gpus_per_node": options.gpus_per_node,
        "gpu_memory_bytes": round(options.gpu_memory_gb * GB),
        "usable_bytes": room(round(options.gpu_memory_gb * GB)),
        "batch_size": whole,
        "batch_per_gpu": share,
        "accumulate": train.compute.accumulate,
        "precision": train.compute.precision,
        "params": {name: sum(weight.shape.numel() for weight in net.weights) for name, net in nets.items()},
        "bytes_per_sample": round(per_sample),
        "strategies": rows,
        "cheapest": best["flags"] if best else None,
        "advice": _advice(recipe, rows, best, gpus),
    }


def _choices(gpus: int) -> list[tuple[Strategy, bool]]:
    """Every strategy, with a replica of the teacher on each rank and with a sharded one."""
    from ladd_dist.costs.memory_model import STRATEGIES

    teachers = (False, True) if gpus > 1 else (False,)
    spread: list[tuple[Strategy, bool]] = [(name, how) for name in STRATEGIES[1:] for how in teachers]
    return [("single", False), *spread]


def _row(
    recipe: Recipe, strategy: Strategy, sharded: bool, load: Load, options: Options, per_sample: float
) -> dict[str, Any]:
    from ladd_dist.costs.memory_model import between_nodes, memory, room, wire

    gpus = 1 if strategy == "single" else options.gpus
    held = memory(strategy, load, gpus, shard_teacher=sharded)
    sent = wire(strategy, load, gpus, shard_teacher=sharded)
    usable = room(round(options.gpu_memory_gb * GB))
    refused = _refusal(recipe, strategy)
    share = recipe.train.batch_size // gpus
    spare = (usable - held.total) / per_sample
    return {
        "strategy": strategy,
        "shard_teacher": sharded,
        "gpus": gpus,
        "flags": f"--parallel {strategy}" + (" --parallel.shard-teacher" if sharded else ""),
        "fits": held.total <= usable and not refused,
        "refused": refused,
        "memory": dataclasses.asdict(held),
        "sent": {
            **sent._asdict(),
            "total": sent.total,
            "between_nodes_a_node": between_nodes(sent.total, gpus, options.gpus_per_node),
        },
        "largest_batch_per_gpu": max(int(share + spare), 0),
    }


def _grows(load: Load) -> int:
    """What grows with the batch."""
    return load.activations + load.temporaries + load.batch


def _refusal(recipe: Recipe, strategy: Strategy) -> str | None:
    """Why a strategy cannot do what `train.compute` asks for; None when it can."""
    compute = recipe.train.compute
    if compute.precision == "fp16" and strategy not in ("single", "ddp"):
        return "does not do fp16"
    if strategy == "zero3" and "student" in compute.compile:
        return "cannot compile the student"
    return None


def _advice(recipe: Recipe, rows: list[dict[str, Any]], best: dict[str, Any] | None, gpus: int) -> str:
    if best:
        most = max(row["largest_batch_per_gpu"] for row in rows if row["flags"] == best["flags"])
        least = "sends least of all that fit" if gpus > 1 else "fits"
        return (
            f"{best['strategy']}{_teacher(best)} {least}: train with {best['flags']}; "
            f"a batch of about {most} a GPU would fill the memory."
        )
    able = [row for row in rows if not row["refused"] and row["gpus"] == gpus]
    nearest = min(able, key=lambda row: row["memory"]["total"])
    compute, tips = recipe.train.compute, []
    if nearest["largest_batch_per_gpu"] >= 1:
        tips.append(f"at most {nearest['largest_batch_per_gpu']} samples a GPU (more GPUs, or a smaller batch)")
    tips += ["--train.compute.precision bf16"] if compute.precision == "fp32" else []
    tips += ["--train.compute.checkpoint student teacher"] if not compute.checkpoint else []
    tips += ["micro-batches (--train.mode alternate --train.compute.accumulate 2)"] if compute.accumulate == 1 else []
    return (
        f"Nothing fits; {nearest['strategy']}{_teacher(nearest)} comes nearest with "
        f"{nearest['memory']['total'] / GB:.2f} GB. What helps: {', '.join(tips) or 'GPUs with more memory'}."
    )


def _teacher(row: dict[str, Any]) -> str:
    return " with a sharded teacher" if row["shard_teacher"] else ""


def show(facts: dict[str, Any]) -> None:
    """Print the plan for people."""
    from rich.table import Table

    console = open_console()
    memory_gb = facts["gpu_memory_bytes"] / GB
    table = Table(
        title=f"{facts['recipe']}: {facts['gpus']} GPUs of {memory_gb:g} GB, batch {facts['batch_size']} "
        f"({facts['batch_per_gpu']} a GPU, {facts['accumulate']} micro-batch(es)), {facts['precision']}",
        caption=f"GB on each GPU; {facts['usable_bytes'] / GB:.1f} GB are usable: 2 GB are left to the context and its "
        f"libraries, 5 % to the allocator. Sent: MB by each GPU in a step.",
    )
    for heading in ("strategy", "teacher", *COLUMNS, "sum", "sent", "verdict"):
        table.add_column(heading, justify="left" if heading in ("strategy", "verdict") else "right")
    for row in facts["strategies"]:
        held = row["memory"]
        sums = [sum(held[name] for name in names) for names in COLUMNS.values()]
        best = row["flags"] == facts["cheapest"]
        table.add_row(
            row["strategy"] + (" (1 GPU)" if row["gpus"] < facts["gpus"] else ""),
            "sharded" if row["shard_teacher"] else "replica",
            *(f"{value / GB:.3f}" for value in (*sums, held["total"])),
            f"{row['sent']['total'] / 1e6:.0f}",
            _verdict(row, facts, best),
            style="bold" if best else None,
        )
    console.print(table)
    if facts["gpus"] > facts["gpus_per_node"]:
        console.print(
            f"A node of {facts['gpus_per_node']} GPUs sends to other nodes what one GPU sends: a ring leaves it once."
        )
    console.print(facts["advice"], highlight=False)


def _verdict(row: dict[str, Any], facts: dict[str, Any], best: bool) -> str:
    if row["refused"]:
        return str(row["refused"])
    over = row["memory"]["total"] - facts["usable_bytes"]
    if over > 0:
        return f"does not fit: {over / GB:.2f} GB too much"
    return "fits, sends least" if best else "fits"


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Options", "main", "plan"]
