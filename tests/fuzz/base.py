"""The sound things that inputs are made from: a tiny finished run and its neighbours, made once by the commands.

own/        the user's folder, in which commands run: tiny.py, sweep_tiny.py, cache/, runs/
received/   what came from somebody else: runs/ with two runs and a sweep of them, files/ with what they exported
foreign/    shards as other people write them: plain.tar, zipped.tar.gz
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foreign_source import members_of, write_tar

from fuzz import forks

TINY = """
from dataclasses import replace
from ladd_dist.metrics.color import Color
from ladd_dist.metrics.matched import Matched
from ladd_dist.networks.cunet import CUNet
from ladd_dist.recipe import ShardStage
from ladd_dist.samplers.karras import Euler
from plugins.heads.max_pool import MaxPool
from plugins.taps.downs_middle import DownsMiddle
from recipes._base import BASE, SMOKE

RECIPE = BASE.replace(name="tiny", note="The smallest run.", head=MaxPool(), taps=DownsMiddle()).at(
    "smoke",
    network=CUNet(widths=(8, 8), blocks=1, patch=2, embed_dim=8, attention_heads=2),
    teacher=replace(SMOKE.teacher, steps=2, batch_size=8),
    shards=ShardStage(num_samples=32, sampler=Euler(steps=4), batch_size=32, samples_per_chunk=8, chunks_per_shard=2),
    train=replace(SMOKE.train, steps=4, batch_size=4, dump_every=4, evaluate_every=4, checkpoint_every=2),
    evaluate=replace(SMOKE.evaluate, num_samples=16, num_references=16, metrics=(Color(), Matched()), batch_size=16),
    guard=replace(SMOKE.guard, every=2, samples=4),
)
"""
SWEEP = """
from ladd_dist.recipe import Axis, Sweep
from tiny import RECIPE

SWEEP = Sweep(name="tiny", base=RECIPE, axes=(Axis("adv_weight", ("constant", "linear_warmup")),), seeds=(0, 1))
"""
NUM_FOREIGN = 12
COPIED = {".json", ".jsonl", ".lock", ".py", ".md", ".tar", ".gz", ".err", ".out"}
"""Files that a command or a damage may write to in place; the others are hard links to the base's."""
NAMED = {"config.json", "recipe.lock", "sweep.json"}
"""Files that hold absolute paths."""


@dataclass(frozen=True)
class Base:
    """Where the sound things are, and what commands make of them."""

    root: Path
    run: str
    """The name of the run's folder, NAME-SIGNATURE."""
    other: str
    """The second run's, of another seed."""
    shards: str
    """The name of the folder of its shards in the cache."""
    teacher: str
    sound: Mapping[str, str]
    """Digests of what commands make of sound inputs, by name (`judge.py`)."""


def environment(root: Path) -> dict[str, str]:
    """The variables of a user who has nothing but this folder."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
    own = {"HOME": root / "home", "TMPDIR": root / "tmp", "XDG_CACHE_HOME": root / "home" / ".cache"}
    quiet = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    return {**kept, **{name: str(path) for name, path in own.items()}, **quiet, "HF_HUB_DISABLE_TELEMETRY": "1"}


def command(root: Path, *words: str) -> None:
    """Run a command that must work.

    Raises:
        RuntimeError: it failed.
    """
    place = root / "output"
    place.mkdir(exist_ok=True)
    ended = forks.run(words, cwd=root / "own", environment=environment(root), output=place, notes=root / "notes")
    if ended.code != 0:
        raise RuntimeError(f"ladd {' '.join(words)} ended with {ended.code}: {ended.err.decode(errors='replace')}")


def make(root: Path) -> Base:
    """Make the base in an empty folder, in some ten seconds."""
    for name in ("own", "received/files", "foreign", "home", "tmp"):
        (root / name).mkdir(parents=True)
    own, received = root / "own", root / "received"
    (own / "tiny.py").write_text(TINY, encoding="utf-8")
    (own / "sweep_tiny.py").write_text(SWEEP, encoding="utf-8")
    common = ("tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache")
    command(root, "launch", *common)
    command(root, "launch", *common, "--seed", "1", "--stages", "distill,evaluate")
    runs = sorted(path.parent for path in own.glob("runs/*/config.json"))
    run, other = sorted(runs, key=lambda path: json.loads((path / "config.json").read_text())["recipe"]["seed"])
    command(root, "export", f"runs/{run.name}", "--out", "../received/files/student.safetensors")
    control = ("control", "train", f"runs/{run.name}", "--steps", "1", "--batch-size", "2", "--rank", "1")
    command(root, *control, "--out", "../received/files/control.safetensors")
    shutil.copytree(own / "runs", received / "runs")
    _write_sweep(received / "runs", run, other)
    write_tar(root / "foreign" / "plain.tar", members_of(range(NUM_FOREIGN)))
    (root / "foreign" / "zipped.tar.gz").write_bytes(gzip.compress((root / "foreign" / "plain.tar").read_bytes(), 6))
    shards, teacher = (next(own.glob(f"cache/{name}-*")).name for name in ("shards", "teacher"))
    return Base(root, run.name, other.name, shards, teacher, {})


def _write_sweep(runs: Path, *of: Path) -> None:
    """A sweep.json as `ladd sweep` writes it, of jobs that have ended."""
    entries, jobs = [], []
    for number, run in enumerate(of):
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        axes = {"head": "max_pool"}
        entries.append(
            {
                "label": f"head=max_pool seed={number}",
                "axes": axes,
                "seed": number,
                "run": run.name,
                "signature": config["signature"],
                "teacher": "teacher-x",
                "shards": "shards-x",
            }
        )
        jobs.append(
            {
                "id": str(number + 1),
                "kind": "run",
                "of": run.name,
                "submitted": "2026-01-01T00:00:00Z",
                "cluster": "local",
            }
        )
    record = {
        "format": 1,
        "name": "tiny",
        "signature": "0123456789",
        "recipe_path": "tiny.py",
        "scale": "smoke",
        "axes": {"head": ["max_pool"]},
        "seeds": [0, 1],
        "runs": entries,
        "on": "",
        "cache": "cache",
        "jobs": jobs,
    }
    folder = runs / "sweeps" / "tiny-0123456789"
    (folder / "logs").mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (folder / "logs" / "1_0_log.err").write_text("RuntimeError: an error of a job that ended\n", encoding="utf-8")
    (folder / "logs" / "1_0_log.out").write_text("Starting with JobEnvironment(job_id=1)\n", encoding="utf-8")


def lay_out(base: Base, root: Path, parts: tuple[str, ...]) -> None:
    """Copy parts of the base (`own`, `received`, `foreign`; `own` without `runs`) into a case's empty folder."""
    for name in ("own/out", "home", "tmp", "outside"):
        (root / name).mkdir(parents=True)
    for name in ("tiny.py", "sweep_tiny.py"):
        shutil.copy(base.root / "own" / name, root / "own" / name)
    for part in parts:
        shutil.copytree(
            base.root / part,
            root / part,
            copy_function=lambda src, dst: _copy(base.root, root, Path(src), Path(dst)),
            dirs_exist_ok=True,
        )


def _copy(base: Path, root: Path, source: Path, target: Path) -> None:
    if source.name in NAMED:
        text = source.read_text(encoding="utf-8").replace(str(base), str(root))
        target.write_text(text, encoding="utf-8")
    elif source.suffix in COPIED:
        shutil.copyfile(source, target)
    else:
        os.link(source, target)
