"""The report's experiments, exp7 and LADD without pairs at paper scale, on one accelerator, in one sitting.

    python -m benchmarks.paper_scale --mnist data/mnist --budget-s 540   # again and again, until it says "all done"
    python -m benchmarks.paper_scale --estimate                          # the table below; needs no accelerator

Runs are ordinary `python -m ladd_dist.launch` commands, in bf16, with every training's step recorded as a CUDA graph
and all samples in the device's memory; between logged steps nothing asks for a number. They go side by side (`--jobs`):
each fills the gaps of the others, and those that share a teacher wait for the one that trains it. A run that is told to
stop saves, and the next call goes on. `--keep` has what can be committed, rewritten after each run: results.json
(figures, seconds of each stage, rates, the course of the training, machine and commit; of a run that is not finished
too) and small JPEGs of the samples at a quarter of the training, at its end and beside the teacher's.

A lent machine without a package registry needs PyTorch 2.11 or newer with torchvision, and MNIST's four files, or
their .gz (11 MB in all), in `--mnist`/MNIST/raw. Where its image has einops, filelock, jinja2, matplotlib, numpy,
pillow, psutil, rich, safetensors, scikit-learn and scipy, carry the wheels of tyro, docstring_parser, typeguard,
msgspec, webdataset and braceexpand. Give `--budget-s` what is left of the lease, less what it takes to copy the
results; `--out`, `--cache` and `--keep` must still be there at the next call (eight runs take some 10 GB). Bring back
`--keep` as one archive. Nobody has recorded a teacher's step on a GPU yet; `--no-recorded` compiles instead, which
needs a C++ compiler.

What an H100 needs, on paper: the FLOPs that `launch --dry-run` counts, over 10 % of its 989 TFLOP/s in dense bf16. This
share is an assumption that nobody measured. Known is that one run alone, in bf16, neither compiled nor recorded, took
13.1 steps/s on an H200, 1.1 % (docs/cluster.md): at that rate everything would take eight hours one after the other;
and that recording makes a step of smaller networks 9 to 14 times faster. The metrics of the evaluation run on the CPU
and are not in the table.

| run | teacher | shards | distill | evaluate | PFLOP | minutes |
|---|---|---|---|---|---|---|
| exp1 | 47.2 | 2.46 | 15 | 15.6 | 80.3 | 13.5 |
| exp2 | 0 | 12.3 | 14.3 | 1.35 | 27.9 | 4.71 |
| exp3 | 0 | 0 | 43.4 | 1.35 | 44.8 | 7.54 |
| exp4 | 0 | 0 | 27.7 | 1.35 | 29.1 | 4.9 |
| exp5 | 0 | 0 | 20.8 | 1.35 | 22.2 | 3.74 |
| exp6 | 0 | 4.92 | 17.3 | 1.35 | 23.6 | 3.98 |
| exp7 | 47.2 | 4.92 | 17.1 | 15.6 | 84.8 | 14.3 |
| ladd | 0 | 0 | 26.8 | 1.35 | 28.2 | 4.75 |
| all | 94.4 | 24.6 | 183 | 39.3 | 341 | 57.4 |

All within an hour needs 9.6% of the peak, without a pause.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import tyro

from benchmarks._paper_tables import estimate, summary
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse
from ladd_dist.core.rundir import write_bytes
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

EXPERIMENTS = {
    "exp1": "recipes/exp1_smallconv.py",
    "exp2": "recipes/exp2_smallconv_warmup.py",
    "exp3": "recipes/exp3_maxpool.py",
    "exp4": "recipes/exp4_specnorm.py",
    "exp5": "recipes/exp5_specnorm_5taps.py",
    "exp6": "recipes/exp6_stored_noise.py",
    "exp7": "recipes/exp7_stored_smooth_l1.py",
    "ladd": "recipes/ladd.py",
}
GRACE_S = 40.0
"""Seconds before the end of the budget at which runs are told to stop: they finish a step and write a checkpoint."""
STOPPED = 75
KEPT = (
    "fd_real", "fd", "fd_teacher", "colour_variance", "saturation", "hue_entropy", "accuracy", "precision", "recall",
    "s_per_image",
)  # fmt: skip
COURSE = ("colour_variance", "saturation", "accuracy", "matched_error")
LOCK, STOP = threading.Lock(), threading.Event()


@dataclass(frozen=True)
class Options:
    """Run the experiments at paper scale, or estimate what that takes. Every launch is given any other flags."""

    only: tuple[str, ...] = ()
    """Names of experiments; all when empty."""
    estimate: bool = False
    """Print what each needs on paper, and run nothing."""
    scale: Literal["paper", "laptop", "smoke"] = "paper"
    mnist: Path = Path("data/mnist")
    """Folder above MNIST/raw; for paper scale."""
    out: Path = Path("runs")
    cache: Path = Path("cache")
    keep: Path = Path(__file__).with_name("paper_scale")
    """Folder of what can be committed."""
    jobs: int = 8
    """Runs at a time."""
    threads: int = 2
    """CPU threads of each run."""
    budget_s: float = 0.0
    """Seconds after which this command ends, runs saved; 0: no end."""
    device: str = "auto"
    precision: Literal["bf16", "fp32"] = "bf16"
    recorded: bool = True
    """Record the steps of both trainings as CUDA graphs."""
    compiled: bool = True
    """Where they are not recorded, compile the networks, block by block."""
    more: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """Further flags, which every launch is given."""


def main() -> int:
    """Run what is left; 0 when all is done, 75 when the time was up before, 1 when a run failed."""
    started = time.monotonic()
    options, more = tyro.cli(Options, return_unknown_args=True)
    options = replace(options, more=tuple(more))
    names = [name for name in EXPERIMENTS if not options.only or name in options.only]
    if options.estimate:
        print(estimate({name: bare(name, options.scale) for name in names}, options.scale))
        return 0
    end = started + options.budget_s - GRACE_S if options.budget_s else float("inf")
    recipes = {name: recipe_of(options, name) for name in names}
    left = [name for name in names if not is_kept(options, name, recipes[name])]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        codes = dict(zip(left, pool.map(lambda name: run(options, name, recipes[name], end), left), strict=True))
    print(summary(read(options)))
    for name, code in codes.items():
        if code not in (0, STOPPED):
            print(f"{name} failed with exit code {code}: see {log_of(options, name)}", file=sys.stderr)
    unfinished = [name for name, code in codes.items() if code]
    print(f"left: {', '.join(unfinished)}; the same command goes on" if unfinished else "all done")
    return 0 if not unfinished else STOPPED if all(codes[name] == STOPPED for name in unfinished) else 1


def arguments_of(options: Options, name: str) -> list[str]:
    """What `launch` is given: recipe, scale and settings."""
    words = [EXPERIMENTS[name], "--scale", options.scale]
    if options.scale == "paper":
        words += ["--dataset.root", str(options.mnist)]
    for stage, every in (("teacher", 100), ("train", 50)):
        words += [f"--{stage}.compute.precision", options.precision, f"--{stage}.compute.data", "device"]
        words += [f"--{stage}.log-every", str(every), f"--{stage}.checkpoint-every", "2500"]
    if options.recorded:
        words += ["--teacher.compute.graph", "--train.compute.graph"]
    elif options.compiled:
        words += ["--teacher.compute.compile", "teacher"]
        penalty = bare(name, options.scale).regulariser.differentiates()  # torch.compile cannot do second derivatives
        words += ["--train.compute.compile", "student", "teacher", *([] if penalty else ["heads"])]
    return [*words, *options.more]


def bare(name: str, scale: str) -> Recipe:
    """The recipe as its file has it."""
    return parse(RecipeOptions, [EXPERIMENTS[name], "--scale", scale], prog="paper_scale")[1]


def recipe_of(options: Options, name: str) -> Recipe:
    """The recipe that is run."""
    return parse(RecipeOptions, arguments_of(options, name), prog="paper_scale")[1]


def run(options: Options, name: str, recipe: Recipe, end: float) -> int:
    """Run one, or go on with it, until it is done or `end` has come; keep what there is then. Returns an exit code."""
    if time.monotonic() >= end or STOP.is_set():
        return STOPPED
    places = ["--out", options.out, "--cache", options.cache, "--device", options.device, "--threads", options.threads]
    command = [sys.executable, "-m", "ladd_dist.launch", *arguments_of(options, name), *map(str, places)]
    log = log_of(options, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        while process.poll() is None and time.monotonic() < end and not STOP.wait(0.2):
            pass
        code = process.returncode if process.poll() is not None else stop(process)
    code = STOPPED if STOP.is_set() and code else code
    keep(options, name, recipe, finished=code == 0)
    print(f"{name}: {'done' if code == 0 else f'ended with exit code {code}'}", file=sys.stderr, flush=True)
    return code


def stop(process: subprocess.Popen[bytes]) -> int:
    """Have a run save and end; one that does not within the grace is killed, and goes on from an older checkpoint."""
    process.terminate()
    try:
        return STOPPED if process.wait(GRACE_S * 0.75) else 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return STOPPED


def log_of(options: Options, name: str) -> Path:
    """Where the output of a run goes."""
    return options.out / "logs" / f"{name}.log"


# What is kept


def read(options: Options) -> dict[str, Any]:
    """All that is kept so far, by experiment."""
    path = options.keep / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_kept(options: Options, name: str, recipe: Recipe) -> bool:
    """Whether the finished figures of this very recipe are there."""
    found = read(options).get(name, {})
    return bool(found.get("finished")) and found.get("signature") == recipe.evaluate_signature()


def keep(options: Options, name: str, recipe: Recipe, *, finished: bool) -> None:
    """Write what a run has given so far: an entry of results.json, and pictures."""
    folder = folder_of(options, recipe)
    if not (folder / "config.json").exists():
        return
    last = recipe.train.steps
    for step, label in ((last // 4, "quarter"), (last, "end")):
        small_picture(folder / "samples" / f"step-{step:06d}.png", options.keep / f"{name}-{label}.jpg")
    small_picture(folder / "samples" / "final.png", options.keep / f"{name}-final.jpg")
    entry = {"signature": recipe.evaluate_signature(), "finished": finished, **told(folder, finished)}
    with LOCK:
        entries = {**read(options), name: entry}
        ordered = {key: entries[key] for key in EXPERIMENTS if key in entries}
        write_bytes(options.keep / "results.json", (json.dumps(ordered, indent=1) + "\n").encode())


def folder_of(options: Options, recipe: Recipe) -> Path:
    """The run's folder."""
    import torch

    from ladd_dist.workspace.workspace import Workspace

    return Run(recipe, Workspace(options.out, options.cache, torch.device("cpu"))).folder.path


def told(folder: Path, finished: bool) -> dict[str, Any]:
    """What the files of a run say."""
    config = load(folder / "config.json")
    rows = [json.loads(line) for line in lines_of(folder / "metrics.jsonl")]
    rates = [row["rate/steps_per_s"] for row in (rows[1:] or rows)]  # the first window compiles
    rate = median(rates) if rates else None
    watched = [row for row in rows if "watch/colour_variance" in row]
    course = {"step": [row["step"] for row in watched]}
    course |= {key: [round(row.get(f"watch/{key}", 0.0), 4) for row in watched] for key in COURSE}
    verdicts = load(folder / "guard.json").get("verdicts") or []
    return {
        "updates": rows[-1]["step"] if rows else 0,
        "steps_per_s": rate and round(rate, 3),
        "tflop_per_s": rate and round(rate * config["flops"]["step"] / 1e12, 2),
        "seconds": load(folder / "timings.json"),
        "environment": config["environment"],
        "params": config["params"],
        "flops": config["flops"],
        "course": course,
        "alarms": [{"step": found.get("step"), "headline": found.get("headline")} for found in verdicts[:3]],
        "figures": {
            entry: {key: round(value, 6) for key, value in found.items() if key in KEPT}
            for entry, found in (load(folder / "eval.json") if finished else {}).items()
        },
    }


def load(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def lines_of(path: Path) -> list[str]:
    """The whole lines of a file that may still be written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def small_picture(source: Path, target: Path) -> None:
    """A JPEG of a grid, if it is there."""
    if not source.exists():
        return
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        picture.convert("RGB").save(target, quality=75, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
