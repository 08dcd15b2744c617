"""What benchmarks with several processes share: starting them, and a recipe's step under a strategy."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ladd_dist.builders.step import Frozen, build_heads, build_step
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.plugin import create
from ladd_dist.core.rng import Rows
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.parallel import Adam
from ladd_dist.parallel.ranks import SINGLE, Ranks
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.workspace import rows_of

ROOT = Path(__file__).resolve().parent.parent


def run_ranks(module: str, ranks: int, args: dict[str, Any], timeout_s: float = 580) -> Any:
    """Run `python -m MODULE --worker FILE` in processes of one thread each; returns the JSON that rank 0 wrote."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "given.json", Path(folder) / "out.json"
        given.write_text(json.dumps({**args, "out": str(out)}), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command += ["-m", module, "--worker", str(given)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode or not out.exists():
            raise RuntimeError(f"{module} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


@dataclasses.dataclass
class Training:
    """A recipe's step and weight average under a strategy, on batches of noise."""

    step: LaddStep
    average: WeightAverage
    batch: Batch
    rows: Rows
    last: int

    def __call__(self) -> None:
        """One update of heads and student, with the weights of a finished warm-up."""
        self.step(self.batch, self.last, self.rows)
        self.average.update(1)


def training(recipe: Recipe, strategy: str, ranks: Ranks) -> Training:
    """Networks of the recipe, untrained, spread by a strategy; `single` is this rank's own, with its own batch."""
    ranks = SINGLE if strategy == "single" else ranks
    parallel: Any = create("parallel", strategy)
    train, device = recipe.train, torch.device("cpu")
    common: dict[str, Any] = {"compute": train.compute, "ranks": ranks, "device": device}
    network = fresh_network(recipe).train()
    heads = build_heads(recipe, network)
    adam_heads = Adam(train.lr_heads, train.betas_heads, train.weight_decay, train.clip)
    adam_student = Adam(train.lr_student, train.betas_student, train.weight_decay, train.clip)
    heads_trained = parallel.build(heads, role="heads", adam=adam_heads, **common)
    student = parallel.build(network, role="student", adam=adam_student, **common)
    teacher = cast(Denoiser, parallel.freeze(fresh_network(recipe), **common))
    average = WeightAverage(student.local("weight"), half_life=1_000, ramp=0.0, batch_size=train.batch_size)
    rows = rows_of("train.batch_size", train.batch_size, train.compute, ranks)
    step = build_step(recipe, student, heads_trained, Frozen(teacher, None))
    return Training(step, average, noise_batch(recipe, len(rows)), rows, train.steps - 1)


def noise_batch(recipe: Recipe, num: int) -> Batch:
    """Noise in the place of samples: neither cost nor traffic depends on what the pictures show."""
    image = recipe.dataset.spec()
    source = torch.Generator().manual_seed(0)
    shape = (num, *image.shape)

    def draw() -> Tensor:
        return torch.randn(shape, generator=source).contiguous(memory_format=torch.channels_last)

    return Batch(draw().clamp(-1, 1), torch.arange(num) % image.num_classes, draw(), None, ())
