"""`python -m ladd_dist.plan RECIPE`: memory and traffic of each strategy on a number of GPUs, without one."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse
from ladd_dist.core.ranges import Within
from ladd_dist.core.units import si

if TYPE_CHECKING:
    from ladd_dist.core.types import Denoiser
    from ladd_dist.costs.memory_model import Memory, StepProfile, Strategy
    from ladd_dist.costs.strategies import Machines, StrategyCost
    from ladd_dist.costs.texts import TextsCost
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
"""The table's columns, and the parts of `Memory` that each adds up."""


@dataclass(frozen=True)
class Options(RecipeOptions):
    """Which strategy fits: memory and traffic of every one, worked out from the recipe's step without a GPU.

    Fields of the recipe can be set as in `launch`.
    """

    gpus: Annotated[int, Within("[1, 1000000]")] = 1
    """Number of GPUs over all nodes."""
    gpu_memory_gb: Annotated[float, Within("(0, 1e6]")] = 80.0
    """Memory of each GPU, in 10^9 bytes."""
    gpus_per_node: Annotated[int, Within("[1, 1000000]")] = 8
    """Number of GPUs that share a node."""
    batch_per_gpu: Annotated[int, Within("[0, 1000000]")] = 0
    """Samples a GPU and step; 0 shares the recipe's train.batch_size evenly."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Plan:
    """The command's answer; `--json` prints it, so its fields are what scripts read."""

    recipe: str
    gpus: int
    gpus_per_node: int
    gpu_memory_bytes: int
    usable_bytes: int
    batch_size: int
    """Samples a step, over all ranks."""
    batch_per_gpu: int
    accumulate: int
    precision: str
    params: dict[str, int]
    """Number of weights of student, teacher and heads."""
    bytes_per_sample: int
    """Bytes that one more sample a rank takes."""
    strategies: list[StrategyCost]
    cheapest: str | None
    """The flags of the strategy that fits and sends least; None where nothing fits."""
    advice: str
    data: dict[str, str]
    """What there is to learn from, of a dataset that tells."""
    texts: TextsCost | None = None
    """What the table of texts takes on the disk; None where the network reads class ids."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    options, recipe = parse(Options, arguments, prog=PROG)
    found = plan(recipe, options)
    print(json.dumps(dataclasses.asdict(found))) if options.json else show(found)
    return 0


def plan(recipe: Recipe, options: Options) -> Plan:
    """Work out every strategy's cost, and the cheapest that fits.

    Raises:
        RecipeError: the batch cannot be shared evenly by so many GPUs, or the recipe's step cannot run.
    """
    from ladd_dist.core.errors import UserError
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.costs.strategies import Machines, choices, cost_of, grows
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
            profile, alone = step.profile(share), step.profile(whole if gpus > 1 else 2 * whole)
            texts = _texts(recipe, step.teacher)
    except UserError as error:
        raise RecipeError(str(error)) from error
    more = len(range(share, whole)) or whole
    per_sample = (grows(alone) - grows(profile)) / more
    machines = Machines(gpus, options.gpus_per_node, round(options.gpu_memory_gb * GB))
    costs = [
        cost_of(
            strategy,
            alone if strategy == "single" and gpus > 1 else profile,
            machines,
            shard_teacher=sharded,
            refused=_refusal(recipe, strategy),
            batch_size=whole,
            bytes_per_sample=per_sample,
        )
        for strategy, sharded in choices(gpus)
    ]
    answer = _answer(recipe, profile, machines, costs, share=share, bytes_per_sample=round(per_sample))
    return dataclasses.replace(answer, texts=texts)


def _answer(
    recipe: Recipe, profile: StepProfile, machines: Machines, costs: list[StrategyCost], *, share: int,
    bytes_per_sample: int,
) -> Plan:  # fmt: skip
    from ladd_dist.costs.strategies import cheapest

    best, train = cheapest(costs, machines.gpus), recipe.train
    nets = {"student": profile.student, "teacher": profile.teacher, "heads": profile.heads}
    return Plan(
        recipe=recipe.name,
        **dataclasses.asdict(machines),
        usable_bytes=machines.usable_bytes,
        batch_size=train.batch_size,
        batch_per_gpu=share,
        accumulate=train.compute.accumulate,
        precision=train.compute.precision,
        params={name: sum(weight.shape.numel() for weight in net.weights) for name, net in nets.items()},
        bytes_per_sample=bytes_per_sample,
        strategies=costs,
        data=dict(recipe.dataset.facts(Path("cache"))),
        cheapest=best.flags if best else None,
        advice=_advice(recipe, costs, best, machines.gpus),
    )


def _texts(recipe: Recipe, network: Denoiser) -> TextsCost | None:
    from ladd_dist.costs.texts import texts_cost

    texts, size = recipe.dataset.texts(), 2 if recipe.shards.dtype == "float16" else 4
    if not texts or not network.condition_shapes:
        return None
    return texts_cost(network.condition_shapes, texts, item_bytes=size, reads_padding=network.reads_padding)


def _refusal(recipe: Recipe, strategy: Strategy) -> str | None:
    """Why a strategy cannot do what `train.compute` asks for; None when it can."""
    compute = recipe.train.compute
    if compute.precision == "fp16" and strategy not in ("single", "ddp"):
        return "does not do fp16"
    if strategy == "zero3" and "student" in compute.compile:
        return "cannot compile the student"
    return None


def _advice(recipe: Recipe, costs: Sequence[StrategyCost], best: StrategyCost | None, gpus: int) -> str:
    """Text that says which flags to train with, or what helps where nothing fits."""
    if best:
        most = max(cost.largest_batch_per_gpu for cost in costs if cost.flags == best.flags)
        least = "sends least of all that fit" if gpus > 1 else "fits"
        return (
            f"{best.strategy}{_teacher(best)} {least}: train with {best.flags}; "
            f"a batch of about {most} a GPU would fill the memory."
        )
    able = [cost for cost in costs if not cost.refused and cost.gpus == gpus]
    nearest = min(able, key=lambda cost: cost.memory.total)
    compute, tips = recipe.train.compute, []
    if nearest.largest_batch_per_gpu >= 1:
        tips.append(f"at most {nearest.largest_batch_per_gpu} samples a GPU (more GPUs, or a smaller batch)")
    tips += ["--train.compute.precision bf16"] if compute.precision == "fp32" else []
    tips += ["--train.compute.checkpoint student teacher"] if not compute.checkpoint else []
    tips += ["micro-batches (--train.mode alternate --train.compute.accumulate 2)"] if compute.accumulate == 1 else []
    return (
        f"Nothing fits; {nearest.strategy}{_teacher(nearest)} comes nearest with "
        f"{si(nearest.memory.total, 'B')}. What helps: {', '.join(tips) or 'GPUs with more memory'}."
    )


def _teacher(cost: StrategyCost) -> str:
    return " with a sharded teacher" if cost.shard_teacher else ""


def show(found: Plan) -> None:
    """Print the plan for people."""
    from rich.table import Table

    console = open_console()
    table = Table(
        title=f"{found.recipe}: {found.gpus} GPUs of {si(found.gpu_memory_bytes, 'B')}, batch {found.batch_size} "
        f"({found.batch_per_gpu} a GPU, {found.accumulate} micro-batch(es)), {found.precision}",
        caption=f"Memory of each GPU, of which {si(found.usable_bytes, 'B')} are usable: 2 GB are left to the "
        "context and its libraries, 5 % to the allocator. Sent: by each GPU in a step.",
    )
    for heading in ("strategy", "teacher is", *COLUMNS, "sum", "sent", "verdict"):
        table.add_column(heading, justify="left" if heading in ("strategy", "verdict") else "right")
    for cost in found.strategies:
        best = cost.flags == found.cheapest
        table.add_row(
            cost.strategy + (" (1 GPU)" if cost.gpus < found.gpus else ""),
            "sharded" if cost.shard_teacher else "replica",
            *(si(value, "B") for value in (*_columns(cost.memory), cost.memory.total, cost.sent.total)),
            _verdict(cost, found, best),
            style="bold" if best else None,
        )
    console.print(Fitted(table, keep=("teacher is", "sum", "sent", "verdict"), rest="--json"))
    if found.gpus > found.gpus_per_node:
        console.print(
            f"A node of {found.gpus_per_node} GPUs sends to other nodes what one GPU sends: a ring leaves it once."
        )
    console.print(found.advice, highlight=False)
    if found.texts:
        held, padded = (si(size, "B") for size in (found.texts.table_bytes, found.texts.padded_bytes))
        console.print(
            f"Texts: {found.texts.distinct:,} of {found.texts.prompts:,} prompts are distinct; encoded they take about "
            f"{held} beside the shards (one padded float32 row a prompt would be {padded}).",
            highlight=False,
        )
    if found.data:
        console.print(f"Data: {', '.join(f'{name} {text}' for name, text in found.data.items())}", highlight=False)


def _columns(held: Memory) -> list[int]:
    return [sum(getattr(held, name) for name in names) for names in COLUMNS.values()]


def _verdict(cost: StrategyCost, found: Plan, best: bool) -> str:
    if cost.refused:
        return cost.refused
    over = cost.memory.total - found.usable_bytes
    if over > 0:
        return f"does not fit: {si(over, 'B')} too much"
    return "fits, sends least" if best else "fits"


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Options", "Plan", "main", "plan"]
