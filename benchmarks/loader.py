"""What reading the teacher's samples costs: `python benchmarks/loader.py`.

The shard reader against the two plainest ways to hold the same samples, a memory-mapped file of records and one file of
`torch.load`, all in random batches of 64 and in turns, so that whatever else the machine does hits all; rates are
medians over rounds. Files are in the page cache, as they are after the check of their sha256 at the start of a run.
Then the memory that a set takes, at three sizes, each in a process of its own; and the share of a training step that
passes while it waits for its batch. Synthetic samples in a temporary folder, CPU, under two minutes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from ladd_dist.core.types import Batch, ImageSpec
from ladd_dist.engine.shard_reader import ShardReader, to_device
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.workspace.config import environment

REPO = Path(__file__).resolve().parent.parent
BATCH = 64
AIM_WAIT = 0.02
READERS = ("shards", "memmap", "memmap, as stored", "torch.load")


@dataclass(frozen=True)
class Args:
    """Measure the shard reader: its rate, its memory, and how long a training step waits for it."""

    rounds: int = 9
    """Timed rounds; the median counts."""
    steps: int = 20
    """Training steps of which the wait is measured."""
    quick: bool = False
    """Few samples, to see that the benchmark works; the figures mean nothing."""
    json: bool = False
    """Print one JSON object instead of tables."""


class Case(NamedTuple):
    """A set of samples: how many, and the shape and type in which they are stored."""

    name: str
    num: int
    channels: int
    size: int
    dtype: torch.dtype


LAPTOP = Case("laptop, 3x16x16 float32", 5_000, 3, 16, torch.float32)
LATENT = Case("SD latents, 4x64x64 float16", 2_000, 4, 64, torch.float16)
SIZES = (1_000, 100_000, 1_000_000)


def write(folder: Path, case: Case, samples_per_chunk: int = 125) -> Path:
    """Shards of noise in the place of samples, grouped as the recipes group theirs."""
    image = ImageSpec(case.channels, case.size, case.size, 10)

    def make(first: int, last: int) -> Chunk:
        shape = (2, last - first, case.channels, case.size, case.size)
        x0, noise = torch.randn(shape, generator=torch.Generator().manual_seed(first))
        return Chunk(x0, torch.arange(first, last) % 10, noise, None)

    write_shards(
        folder, num_samples=case.num, samples_per_chunk=samples_per_chunk, chunks_per_shard=8, dtype=case.dtype,
        make=make, image=image, card={},
    )  # fmt: skip
    return folder


def readers(folder: Path, case: Case) -> dict[str, Callable[[int], Any]]:
    """Each way to read, as batch number -> batch; all but `as stored` give float32 tensors, and equal ones."""
    shards = ShardReader(write(folder / "shards", case))
    everything = shards.take(np.arange(case.num))
    assert everything.noise is not None
    tensors = {"x0": everything.x0.to(case.dtype), "noise": everything.noise.to(case.dtype), "cond": everything.cond}
    shape, kind = tuple(everything.x0.shape[1:]), np.dtype(str(case.dtype).removeprefix("torch."))
    record = np.dtype([("x0", kind, shape), ("noise", kind, shape), ("cond", np.int64)])
    records = np.memmap(folder / "records.bin", record, "w+", shape=(case.num,))
    for name, tensor in tensors.items():
        records[name] = tensor.numpy()
    records.flush()
    records = np.memmap(folder / "records.bin", record, "r", shape=(case.num,))
    torch.save(tensors, folder / "samples.pt")
    loaded = torch.load(folder / "samples.pt", weights_only=True)
    order = np.random.default_rng(0).permutation(case.num)

    def indices(number: int) -> np.ndarray[Any, Any]:
        return order[np.arange(number * BATCH, (number + 1) * BATCH) % case.num]

    def from_records(number: int) -> tuple[Tensor, ...]:
        rows = records[indices(number)]
        x0, noise = (torch.from_numpy(rows[name]).float() for name in ("x0", "noise"))
        return x0, torch.from_numpy(rows["cond"]), noise

    def from_loaded(number: int) -> tuple[Tensor, ...]:
        chosen = torch.from_numpy(indices(number))
        return loaded["x0"][chosen].float(), loaded["cond"][chosen], loaded["noise"][chosen].float()

    _require_equal(shards.take(indices(3)), from_records(3), from_loaded(3))
    reads: tuple[Callable[[int], Any], ...] = (
        lambda number: shards.batch(number, BATCH, 0),
        from_records,
        lambda number: records[indices(number)],
        from_loaded,
    )
    return dict(zip(READERS, reads, strict=True))


def _require_equal(batch: Batch, *others: tuple[Any, ...]) -> None:
    for other in others:
        pairs = zip(batch, other, strict=False)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs if isinstance(mine, Tensor))


def rates(case: Case, rounds: int) -> dict[str, Any]:
    """Samples a second of each reader."""
    num = max(1, min(case.num, 5_000) // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        ways = readers(Path(folder), case)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(-1, rounds):  # the first round is not timed
            for name in list(ways)[:: 1 if turn % 2 else -1]:
                started = time.perf_counter()
                for number in range(num):
                    ways[name](max(turn, 0) * num + number)
                if turn >= 0:
                    spent[name].append(time.perf_counter() - started)
    rate = {name: num * BATCH / statistics.median(times) for name, times in spent.items()}
    ratio = {
        name: statistics.median(b / a for a, b in zip(spent["shards"], spent[name], strict=True))
        for name in READERS[1:]
    }
    return {"name": case.name, "samples": case.num, "samples_per_s": rate, "rate_over": ratio}


def memory(sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """What opening a set and reading 1000 random batches adds to a process, in MiB; tiny samples (1x4x4 float16)."""
    for num in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), Case("", num, 1, 4, torch.float16))
            code = f"from benchmarks.loader import probe; probe({folder!r})"
            done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            yield {"samples": num, **json.loads(done.stdout)}


def probe(folder: str) -> None:
    """Print the memory that a reader takes (Linux). RSS counts mapped pages of the shards too, anonymous memory not."""

    def status() -> dict[str, float]:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines if line[-1] == "kB"}

    before = status()
    Path("/proc/self/clear_refs").write_text("5")  # the highest RSS so far is forgotten
    started = time.perf_counter()
    reader = ShardReader(Path(folder))
    open_s = time.perf_counter() - started
    opened = status()
    for step in range(1_000):
        reader.batch(step, BATCH, 0)
    after = status()
    figures = {
        "open_s": open_s,
        "peak_while_opening": opened["VmHWM"] - before["VmRSS"],
        "anonymous_open": opened["RssAnon"] - before["RssAnon"],
        "anonymous_read": after["RssAnon"] - before["RssAnon"],
        "peak_rss": after["VmHWM"],
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }
    print(json.dumps(figures))


def wait(args: Args) -> dict[str, Any]:
    """Milliseconds in which a step of exp6 waits for its batch, against the whole step; at laptop scale."""
    from ladd_dist.stages.dry_step import trial
    from recipes import exp6_stored_noise

    recipe = exp6_stored_noise.RECIPE.smoke if args.quick else exp6_stored_noise.RECIPE.laptop
    case = LAPTOP._replace(num=500) if args.quick else LAPTOP
    waited, whole = [], []
    with tempfile.TemporaryDirectory() as folder, trial(recipe, with_data=True) as tried:
        _wake(tried.frozen.critic, tried.student.module)
        reader = ShardReader(write(Path(folder), case))
        for number in range(args.steps + 3):  # the first three are not timed
            started = time.perf_counter()
            batch = to_device(reader.batch(number, recipe.train.batch_size, recipe.seed), torch.device("cpu"))
            ready = time.perf_counter()
            tried.step(batch, recipe.train.steps - 1)  # past the warm-up of the adversarial weight
            if number >= 3:
                waited.append(ready - started)
                whole.append(time.perf_counter() - started)
    ms_wait, ms_step = 1e3 * statistics.median(waited), 1e3 * statistics.median(whole)
    return {"batch_size": recipe.train.batch_size, "ms_wait": ms_wait, "ms_step": ms_step, "share": ms_wait / ms_step}


@torch.no_grad()
def _wake(*networks: nn.Module) -> None:
    """Fill zero-initialised layers: a step on zeros is not the one that training does."""
    for parameter in (parameter for network in networks for parameter in network.parameters()):
        if not parameter.any():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def show(result: dict[str, Any]) -> None:
    """The tables."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(result["machine"])
    table = Table("", *READERS, title="samples/s in random batches of 64 (reader / other)")
    for case in result["rates"]:
        cells = [f"{rate:,.0f}" for rate in case["samples_per_s"].values()]
        cells[1:] = [
            f"{cell} ({case['rate_over'][name]:.2f})" for cell, name in zip(cells[1:], READERS[1:], strict=True)
        ]
        table.add_row(f"{case['name']}, {case['samples']:,} samples", *cells)
    console.print(table)
    titles = ("samples", "open, s", "peak while opening", "held after opening", "after 1000 batches", "descriptors")
    table = Table(*titles, title="memory of the reader's own (anonymous), MiB")
    for row in result["memory"]:
        names = ("peak_while_opening", "anonymous_open", "anonymous_read")
        cells = [f"{row['samples']:,}", f"{row['open_s']:.3f}", *(f"{row[name]:.1f}" for name in names)]
        table.add_row(*cells, str(row["descriptors"]))
    console.print(table)
    waits = result["wait"]
    console.print(
        f"a step of exp6 with batch {waits['batch_size']} takes {waits['ms_step']:.1f} ms and waits "
        f"{waits['ms_wait']:.2f} ms for its batch: {waits['share']:.2%} (aim < {AIM_WAIT:.0%})"
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python benchmarks/loader.py")
    about = environment(torch.device("cpu"))
    cases = (LAPTOP, LATENT)
    if args.quick:
        cases = (LAPTOP._replace(num=300), LATENT._replace(num=130))
    result = {
        "machine": ", ".join(f"{key} {about[key]}" for key in ("threads", "torch", "platform", "commit")),
        "rates": [rates(case, 1 if args.quick else args.rounds) for case in cases],
        "memory": list(memory((300, 3_000) if args.quick else SIZES)),
        "wait": wait(args),
    }
    print(json.dumps(result)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
