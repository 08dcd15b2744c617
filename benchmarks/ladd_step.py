"""What sharing saves, and what limits a training step: `python benchmarks/ladd_step.py`.

The `fused` step computes the student and the features of its samples once for both updates, `alternate` once for each
(3 S + 3 e against 4 S + 4 e, plus the heads). Both run on the same batch with the same random numbers, in turns, so
that whatever else the machine does hits both; the ratio is the median over pairs. The machine's best rate of a plain
3x3 convolution is measured in the same run, as the yardstick. Synthetic data; about two minutes on a CPU. `--device
cuda` measures on a GPU, each time after waiting for it; the shares of the breakdown are then times of the device, and
`python` is the time in which it had nothing to do.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own remarks, read when torch is imported

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from benchmarks._breakdown import CLASSES, breakdown
from benchmarks._clock import DTYPES, best_convolution, time_in_turns
from ladd_dist.builders.step import Frozen, build_heads, build_step
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.costs.flops import count_flops, count_parameters
from ladd_dist.datasets.digits import Digits
from ladd_dist.engine.discriminator import join
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.recorded_step import RecordedStep
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.engine.step_graph import WARM_UP, require_recorder
from ladd_dist.networks.cunet import CUNet
from ladd_dist.parallel import Adam
from ladd_dist.parallel.compute import Precision
from ladd_dist.parallel.devices import compute_on
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.config import environment
from recipes import exp2_smallconv_warmup, exp6_stored_noise

Mode = Literal["fused", "alternate"]
MODES: tuple[Mode, ...] = ("fused", "alternate")
AIM_FLOPS, AIM_WALL, AIM_SHARE = 0.77, 0.85, 0.60
NET_32 = CUNet(widths=(32, 64, 128, 160), blocks=1, patch=1, embed_dim=128)


@dataclass(frozen=True)
class Args:
    """Measure the LADD step: fused against alternate, and against the machine's best convolution rate."""

    pairs: int = 12
    """Timed pairs of steps on the 16 px net (half as many at 32 px)."""
    device: str = "cpu"
    """cpu, cuda, cuda:1 ..., or auto."""
    precision: Precision = "fp32"
    """In which the networks compute; the yardstick's convolution too."""
    graph: bool = False
    """Time steps that are recorded as a CUDA graph."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to PyTorch."""
    quick: bool = False
    """A toy net and two pairs, to see that the benchmark works; the figures mean nothing."""
    json: bool = False
    """Print one JSON object instead of tables."""


class Case(NamedTuple):
    """A network with its heads; `recipe` is at the batch size that is timed."""

    name: str
    recipe: Recipe
    pairs: int


def cases(args: Args) -> list[Case]:
    """The laptop net at 16 px and a net of 3.5 M parameters at 32 px, each with the report's two sorts of heads."""
    heads = {"spectral_norm": exp6_stored_noise.RECIPE.laptop, "small_conv": exp2_smallconv_warmup.RECIPE.laptop}
    heads = {name: computed_in(recipe, args) for name, recipe in heads.items()}
    if args.quick:
        toy = computed_in(exp6_stored_noise.RECIPE.smoke, args)
        return [Case("toy net, 16 px", replace(toy, train=replace(toy.train, batch_size=4)), 2)]
    chosen = [Case(f"laptop net, 16 px, {name}", recipe, args.pairs) for name, recipe in heads.items()]
    for name, recipe in heads.items():
        larger = replace(recipe, network=NET_32, dataset=Digits(size=32), train=replace(recipe.train, batch_size=32))
        chosen.append(Case(f"3.5 M net, 32 px, {name}", larger, max(args.pairs // 2, 2)))
    return chosen


def computed_in(recipe: Recipe, args: Args) -> Recipe:
    """The recipe with its distillation in the precision that is asked for, recorded or not."""
    compute = replace(recipe.train.compute, precision=args.precision, graph=args.graph)
    return replace(recipe, train=replace(recipe.train, compute=compute))


def batch_of(recipe: Recipe, device: torch.device) -> Batch:
    """A batch of noise in the place of samples: the cost does not depend on what the pictures show."""
    image, num = recipe.dataset.spec(), recipe.train.batch_size
    source = torch.Generator().manual_seed(0)
    shape = (num, *image.shape)
    x0, noise = (torch.randn(shape, generator=source).contiguous(memory_format=torch.channels_last) for _ in range(2))
    return to_device(Batch(x0.clamp(-1, 1), torch.arange(num) % image.num_classes, noise, None, ()), device)


def awake_network(recipe: Recipe) -> Denoiser:
    """The untrained network with its zero-initialised layers filled: zeros are no fair work for a processor."""
    network = fresh_network(recipe)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=source))
    return network


def step_of(recipe: Recipe, mode: Mode, awake: Denoiser, teacher: Denoiser, device: torch.device) -> LaddStep:
    """A step with its own student (a copy of `awake`), heads and optimizers around a shared frozen teacher."""
    train = recipe.train
    common: dict[str, Any] = {"compute": train.compute, "ranks": SINGLE, "device": device}
    student = copy.deepcopy(awake).train().requires_grad_(True)
    adam = Adam(train.lr_student, train.betas_student, train.weight_decay, train.clip)
    trainable = recipe.parallel.build(student, role="student", adam=adam, **common)
    adam = replace(adam, lr=train.lr_heads, betas=train.betas_heads)
    heads = recipe.parallel.build(build_heads(recipe, awake), role="heads", adam=adam, **common)
    return build_step(replace(recipe, train=replace(train, mode=mode)), trainable, heads, Frozen(teacher, None))


def count_heads(step: LaddStep, batch: Batch) -> int:
    """FLOPs of the heads in a step: their update on both halves, and the student's view through them."""
    with torch.no_grad():
        level = torch.ones(len(batch.x0), device=batch.x0.device)
        seen = step.critic.features(batch.x0, batch.cond, level, batch.x0, level)
    both = join(seen, seen)

    def use() -> None:
        step.heads.update(lambda micro: sum(out.sum() for out in step.heads(both.features, both.cond_vec).values()))
        with step.heads.frozen():
            features = {tap: value.requires_grad_() for tap, value in seen.features.items()}
            sum(logits.sum() for logits in step.heads(features, seen.cond_vec).values()).backward()

    return count_flops(use)


def measure(case: Case, best_gflops: float, device: torch.device) -> dict[str, Any]:
    """All figures of one case."""
    recipe, batch = case.recipe, batch_of(case.recipe, device)
    common: dict[str, Any] = {"compute": recipe.train.compute, "ranks": SINGLE, "device": device}
    awake = awake_network(recipe)
    teacher = cast(Denoiser, recipe.parallel.freeze(copy.deepcopy(awake), **common))
    steps = {mode: step_of(recipe, mode, awake, teacher, device) for mode in MODES}
    past_warmup = recipe.train.steps - 1
    flops = {mode: count_flops(lambda step=step: step(batch, past_warmup)) for mode, step in steps.items()}
    flops_heads = count_heads(steps["fused"], batch)
    recorded = recipe.train.compute.graph
    able = {mode: RecordedStep(step, device) if recorded else step for mode, step in steps.items()}
    for step in able.values() if recorded else ():
        for _ in range(WARM_UP + 1):
            step(batch, past_warmup)
    timed: dict[str, Callable[[int], Any]] = {
        mode: functools.partial(lambda step, number: step(batch, past_warmup + number), able[mode]) for mode in MODES
    }
    spent = time_in_turns(timed, case.pairs, device)
    ratios = sorted(a / b for a, b in zip(*spent.values(), strict=True))
    seconds = {mode: statistics.median(times) for mode, times in spent.items()}
    shares = breakdown(steps["fused"], batch, past_warmup, min(case.pairs, 4), device)
    gflops = {mode: flops[mode] / seconds[mode] / 1e9 for mode in MODES}
    in_convolution = (
        (flops["fused"] - flops_heads) / 1e9 / (seconds["fused"] * (shares["convolution"] + shares["matrix product"]))
    )
    image, num = recipe.dataset.spec(), recipe.train.batch_size
    with torch.no_grad():
        forward = count_flops(lambda: teacher(batch.x0, torch.ones(num, device=device), batch.cond)) / num
    return {
        "name": case.name,
        "image_size": image.height,
        "batch_size": num,
        "head": recipe.head.name,
        "taps": list(recipe.taps(teacher.taps)),
        "params": {"student": count_parameters(teacher), "heads": count_parameters(steps["fused"].heads.module)},
        "mflop_forward": forward / 1e6,
        "gflop_step": {mode: flops[mode] / 1e9 for mode in MODES},
        "share_of_heads_in_flops": flops_heads / flops["fused"],
        "ms_step": {mode: 1e3 * seconds[mode] for mode in MODES},
        "images_per_s": {mode: num / seconds[mode] for mode in MODES},
        "flops_ratio": flops["fused"] / flops["alternate"],
        "flops_ratio_without_heads": (flops["fused"] - flops_heads) / (flops["alternate"] - flops_heads),
        "wall_ratio": statistics.median(ratios),
        "wall_ratio_range": [ratios[0], ratios[-1]],
        "pairs": case.pairs,
        "gflops": gflops,
        "share_of_best_convolution": gflops["fused"] / best_gflops,
        "gflops_inside_convolutions": in_convolution,
        "breakdown": shares,
        "limit": limit(shares, in_convolution / best_gflops),
    }


def limit(shares: dict[str, float], convolution_share: float) -> str:
    """What limits the step, in words."""
    first, second, *_ = sorted(shares, key=lambda name: -shares[name])
    return (
        f"most time goes to {first} ({shares[first]:.0%}), then {second} ({shares[second]:.0%}); the networks' "
        f"convolutions take {shares['convolution']:.0%} of the step and run at {convolution_share:.0%} of the best "
        f"rate; what moves memory and computes little (norm, elementwise) takes "
        f"{shares['norm'] + shares['elementwise']:.0%}"
    )


def show(result: dict[str, Any]) -> None:
    """The table, a column a net."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    best, nets = result["best_convolution"], result["nets"]
    shape = f"{best['channels']} channels, {best['size']} px, batch {best['batch']}"
    console.print(f"{result['machine']}; best 3x3 convolution {best['gflops']:.0f} GFLOP/s ({shape})")
    table = Table("", *(net["name"] for net in nets), title="LADD step: fused / alternate")

    def add(title: str, cell: Callable[[dict[str, Any]], str]) -> None:
        table.add_row(title, *(cell(net) for net in nets))

    def both(figures: dict[str, float], form: str) -> str:
        return " / ".join(format(figures[mode], form) for mode in MODES)

    add("parameters: student, heads", lambda net: ", ".join(f"{num / 1e6:.2f} M" for num in net["params"].values()))
    add("batch; taps", lambda net: f"{net['batch_size']}; {len(net['taps'])}")
    add("GFLOP a step", lambda net: both(net["gflop_step"], ".2f"))
    add("heads' share of it", lambda net: f"{net['share_of_heads_in_flops']:.0%}")
    add(f"FLOPs ratio (aim <= {AIM_FLOPS})", lambda net: f"{net['flops_ratio']:.3f}")
    add("the same without the heads", lambda net: f"{net['flops_ratio_without_heads']:.3f}")
    add(f"wall ratio (aim <= {AIM_WALL})", lambda net: f"{net['wall_ratio']:.3f}")
    add("its range over pairs", lambda net: "{:.3f} .. {:.3f}".format(*net["wall_ratio_range"]))
    add("ms a step", lambda net: both(net["ms_step"], ".0f"))
    add("images/s", lambda net: both(net["images_per_s"], ".0f"))
    add("GFLOP/s", lambda net: both(net["gflops"], ".1f"))
    add(f"of the best rate (aim {AIM_SHARE:.0%})", lambda net: f"{net['share_of_best_convolution']:.0%}")
    for name in CLASSES:
        add(f"time in {name}", lambda net, name=name: f"{net['breakdown'][name]:.0%}")
    console.print(table)
    for net in nets:
        console.print(f"[bold]{net['name']}[/]: {net['limit']}", soft_wrap=True, highlight=False)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python benchmarks/ladd_step.py")
    device = compute_on(args.device, args.threads)
    if args.graph:
        require_recorder(device)
    about = environment(device)
    best = best_convolution(args.quick, device, DTYPES[args.precision])
    result: dict[str, Any] = {
        "machine": ", ".join(f"{key} {about[key]}" for key in ("device", "threads", "torch", "platform", "commit")),
        "best_convolution": best,
        "nets": [],
    }
    for case in cases(args):
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        result["nets"].append(measure(case, best["gflops"], device))
    print(json.dumps(result)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
