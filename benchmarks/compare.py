"""A thousand finished runs are compared in seconds, and the page stays usable.

    python -m benchmarks.compare                    # 25 variants x 40 seeds in a temporary folder
    python -m benchmarks.compare --out compare.html # keeps the page
    python -m benchmarks.compare --offline 200      # reads so many runs back from W&B's offline folders

Run folders are made up (their recipe, metrics, figures, grids and dumps have the sizes of real ones); the comparison is
an ordinary `python -m ladd_dist.compare` in a process of its own, its start included.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

SECONDS = 10.0
BASE = {
    "fd_real": 14.0,
    "fd_teacher": 6.0,
    "hue_entropy": 0.97,
    "accuracy": 0.98,
    "colour_variance": 0.13,
    "saturation": 0.8,
}
TEACHER = {"teacher@50": 0.6, "teacher@4:good": 3.0, "teacher@4:karras": 30.0}


@dataclasses.dataclass(frozen=True)
class Options:
    """Make up runs and compare them."""

    variants: int = 25
    seeds: int = 40
    rows: int = 300
    """Logged steps of each run."""
    out: Path | None = None
    """Keep the page here."""
    folder: Path | None = None
    """Keep the runs here."""
    offline: int = 0
    """In place of all that: make so many offline W&B runs, and read them back."""


def make_runs(folder: Path, variants: int, seeds: int, rows: int) -> list[Path]:
    """Run folders as `launch` leaves them; every fifth variant loses its colours half-way."""
    from ladd_dist.core.serialize import to_data
    from ladd_dist.recipe import load_recipe

    root = Path(__file__).parent.parent
    recipe = to_data(load_recipe(root / "recipes" / "exp6_stored_noise.py", "laptop"))
    taps = ["down0", "down1", "down2", "middle"]
    made = []
    for variant in range(variants):
        recipe["head"] = {**recipe["head"], "width": 16 + 16 * (variant // 5)}
        recipe["train"] = {**recipe["train"], "lr_heads": 1e-4 * (1 + variant % 5)}
        for seed in range(seeds):
            rng = np.random.default_rng((variant, seed))
            run = folder / f"made_up-{variant:04d}{seed:06d}"
            (run / "samples").mkdir(parents=True)
            config = {"format": 1, "version": "0", "scale": "laptop", "signature": run.name[-10:]}
            (run / "config.json").write_text(json.dumps({**config, "recipe": {**recipe, "seed": seed}}, indent=1))
            (run / "metrics.jsonl").write_text(_metrics(rng, taps, rows, variant))
            (run / "eval.json").write_text(json.dumps(_figures(rng, variant, seed), indent=1))
            _pictures(run, rng, collapsed=variant % 5 == 4)
            made.append(run)
    return made


def _metrics(rng: np.random.Generator, taps: list[str], rows: int, variant: int) -> str:
    keys = [f"{name}/{tap}" for tap in taps for name in ("accuracy/real", "accuracy/fake", "logit_gap")]
    keys += ["accuracy/real", "accuracy/fake", "accuracy", "logit_gap", "loss/heads", "grad_norm/heads", "loss/distill"]
    keys += ["loss/adversarial", "weight/adversarial", "weight/distill", "grad_norm/student"]
    keys += ["rate/steps_per_s", "rate/samples_per_s"]
    values = 0.1 * rng.standard_normal((rows, len(keys))) + 0.7 + variant / 50 + np.exp(-np.arange(rows) / 60)[:, None]
    lines = [{"step": 10 * (i + 1), **dict(zip(keys, row, strict=True))} for i, row in enumerate(values.tolist())]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _figures(rng: np.random.Generator, variant: int, seed: int) -> dict[str, dict[str, float]]:
    figures = {}
    shared = np.random.default_rng(seed).standard_normal()  # what runs of one seed have in common
    for steps in (4, 2, 1):
        factor = (4 / steps) ** 0.5 * (1 + 0.01 * variant + 0.02 * shared + 0.01 * rng.standard_normal())
        figures[f"student@{steps}"] = {key: value * factor for key, value in BASE.items()}
    for name, distance in TEACHER.items():
        figures[name] = {**BASE, "fd_real": distance, "fd_teacher": distance}
    return {name: {"num_samples": 1500.0, "s_per_image": 0.001, **entry} for name, entry in figures.items()}


def _pictures(run: Path, rng: np.random.Generator, *, collapsed: bool) -> None:
    import torch
    from safetensors.torch import save_file

    from ladd_dist.reports.grids import write_grid

    (run / "dumps").mkdir()
    teacher = torch.full((32, 3, 16, 16), -1.0)
    colours = torch.from_numpy(rng.uniform(-1, 1, (32, 3, 1, 1))).float()
    teacher[:, :, 4:12, 4:12] = colours
    for step in (1000, 2000, 3000):
        student = torch.cat([teacher[:1]] * 32) if collapsed and step > 1000 else teacher
        tensors = {"noise": -teacher, "cond": torch.zeros(32), "teacher": teacher, "student": student.clone()}
        save_file(tensors, run / "dumps" / f"step-{step:06d}.safetensors")
    write_grid(run / "samples" / "final.png", [("teacher@50", teacher[:16]), ("student@4", student[:16])])


def timed(folder: Path, out: Path) -> tuple[float, float, dict[str, Any]]:
    """Seconds of the whole command by the clock and of the processor, and what it printed."""
    before = os.times()
    started = time.perf_counter()
    command = [sys.executable, "-m", "ladd_dist.compare", str(folder), "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, busy, json.loads(done.stdout)


OFFLINE = """
import sys, wandb
for number in range(int(sys.argv[2])):
    config = {"signature": f"{number:010d}", "recipe": {"name": "made_up", "seed": number}}
    settings = wandb.Settings(mode="offline", silent=True, console="off", x_disable_stats=True)
    with wandb.init(project="made_up", id=f"run{number}", dir=sys.argv[1], config=config, settings=settings) as run:
        for step in range(1, int(sys.argv[3]) + 1):
            run.log({f"figure/{i}": step / (1 + i) for i in range(25)}, step=step)
"""


def read_offline(folder: Path, num_runs: int, rows: int) -> None:
    """Make offline runs with W&B's own client, read them back, print what that takes."""
    from ladd_dist.trackers.wandb_read import offline_runs

    subprocess.run([sys.executable, "-c", OFFLINE, str(folder), str(num_runs), str(rows)], check=True)
    before, started = os.times(), time.perf_counter()
    runs = offline_runs(folder)
    seconds, after = time.perf_counter() - started, os.times()
    busy = sum(after[:4]) - sum(before[:4])
    print(f"{len(runs)} offline runs of {len(runs[0].rows)} rows with 25 figures")
    print(f"read in {seconds:.1f} s ({busy:.1f} s of one processor, {1000 * busy / len(runs):.0f} ms a run)")


def main() -> int:
    """Make, compare, print; exit 1 when it took too long."""
    options = tyro.cli(Options)
    if options.offline:
        with tempfile.TemporaryDirectory() as temporary:
            read_offline(Path(temporary), options.offline, options.rows)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "runs"
        if not folder.exists():
            make_runs(folder, options.variants, options.seeds, options.rows)
        page = options.out or Path(temporary) / "compare.html"
        seconds, busy, result = timed(folder, page)
        num_runs = sum(len(variant["runs"]) for variant in result["variants"])
        print(f"{num_runs} runs, {len(result['variants'])} variants, {options.rows} logged steps each")
        print(f"compared in {seconds:.1f} s ({busy:.1f} s of one processor); page {page.stat().st_size / 1e6:.1f} MB")
        print(result["verdict"]["sentence"])
    return int(min(seconds, busy) > SECONDS)  # beside other work the clock measures that too


if __name__ == "__main__":
    sys.exit(main())
