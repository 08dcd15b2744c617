"""New pictures for a four-step student: `ladd tune` beside what others do, over seeds and numbers of pictures.

    python -m benchmarks.tune --pictures FOLDER --new CLASS          # again and again, until it says "all done"
    python -m benchmarks.tune --pictures FOLDER --new CLASS --table  # the table of what is there

FOLDER has a folder of pictures for each class. A base and a four-step student learn all of them (recipe `folder`). The
new pictures are those of CLASS in a style that neither has seen, blue on white, in random order; half of them are held
out, and pictures of one `base` in FOLDER's metadata.jsonl stay together. Compared, all with adapters of rank 16 and as
many updates:

    diffusion     the student, with the diffusion loss: what a LoRA for a few-step model usually is
    de-distilled  the same on the student after it has learned to denoise its own samples, put back on the student
    from base     the base, with the diffusion loss, put on the student
    tune          `ladd tune`
    ceiling       the base, with the diffusion loss, in 50 steps
    untouched     the student as it was

    real          other real pictures in the place of samples: the floor

Each is a row of figures in `--out`, written when it is there; a call that was stopped goes on with the next row. `new`
and `old` are Frechet distances to held-out pictures in the style and to real pictures of the other classes, in the
features that the base's run trained on its pictures (metric `class_features`); `new kid` and `old kid` are kernel
distances on pixels. Old samples have the classes of the pictures that they are compared with. `memorised` is the share
of new samples nearer to a picture of the training than half the usual distance between these; `real` are pictures
among which those of the training are, so there it counts these.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks._runs import put_between
from benchmarks._tune_pictures import bases_of, read_pictures, styled_pictures
from benchmarks._tune_rivals import Denoise, learned, put_on, samples_of
from ladd_dist.builders.student_file import load_student
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.rng import derive_seed
from ladd_dist.core.rundir import write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.evaluation.class_features import trained_features
from ladd_dist.metrics.frechet import frechet_estimate, frechet_reference
from ladd_dist.metrics.kernel import kernel_estimate, kernel_reference
from ladd_dist.metrics.neighbours import nearest
from ladd_dist.reports.grids import write_grid
from ladd_dist.workspace.opening import open_run

METHODS = ("real", "untouched", "diffusion", "de-distilled", "from base", "tune", "ceiling")
FIGURES = ("new", "old", "new kid", "old kid", "memorised", "saturation", "sharpness", "seconds")
RANGED = ("new", "old")
"""Figures that are shown with their lowest and highest value over seeds."""
NUM_SHOWN = 12
NUM_SAMPLES = {"smoke": 32, "laptop": 512}
UPDATES = {"smoke": 10, "laptop": 2_000}


@dataclass(frozen=True)
class Options:
    """Compare ways to teach a few-step student new pictures; see the file's own text."""

    pictures: Path
    """Folder with a folder of pictures for each class."""
    new: str
    """The class whose pictures get the new style."""
    counts: tuple[int, ...] = (20, 100, 1_000)
    """Numbers of new pictures; more than half of the class has are left out."""
    seeds: tuple[int, ...] = (0, 1, 2)
    size: int = 16
    """Height and width of the pictures in pixels."""
    scale: Literal["smoke", "laptop"] = "laptop"
    work: Path = Path("tune-bench")
    """Folder for runs, cache and pictures."""
    out: Path = Path("benchmarks/tune.json")
    """The figures."""
    table: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the table of the figures that are there, and do nothing else."""
    write: Path | None = None
    """A Markdown page: what stands between its markers is replaced by the table."""
    grid: Path | None = None
    """Draw samples of each method at the same noise as a PNG: of the first number of pictures and seed."""


class Given(NamedTuple):
    """What all rows share."""

    run: Path
    base: Denoiser
    student: Denoiser
    levels: tuple[float, ...]
    rule: Literal["sde", "ode"]
    number: int
    """The class of the new pictures."""
    new: Tensor
    """All pictures for training [N,3,H,W]."""
    held_out: Tensor
    old: Tensor
    """Real pictures of the other classes [N,3,H,W]."""
    old_classes: Tensor  # [N] int64
    more_old: Tensor
    """Others of them, for the floor."""
    features: TrainedFeatures


def main() -> int:
    """Make the rows that are missing; returns the exit code."""
    options = tyro.cli(Options)
    rows: dict[str, dict[str, float]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        bases = bases_of(options.pictures)
        styled, held_out = styled_pictures(options.pictures, options.new, options.work / "styled", bases)
        given = _given(options, styled, held_out)
        for count in (count for count in options.counts if count <= len(styled)):
            for seed in options.seeds:
                for method in METHODS:
                    if (name := f"{count}/{seed}/{method}") not in rows:
                        rows[name] = _row(options, given, bases, styled[:count], seed, method)
                        write_json(options.out, rows)
    print(text := table(rows))
    if options.write:
        put_between(options.write, "tune", text)
    if options.grid:
        _draw(options, options.grid)
    print("all done" if not options.table else f"{len(rows)} rows")
    return 0


def table(rows: dict[str, dict[str, float]]) -> str:
    """Means over seeds, a line for each number of pictures and method, and how they keep the bars."""
    lines = ["| pictures | method | seeds | " + " | ".join(FIGURES) + " |", "|---" * (3 + len(FIGURES)) + "|"]
    bars: list[str] = []
    for count in sorted({int(name.split("/")[0]) for name in rows}):
        means: dict[str, dict[str, float]] = {}
        for method in METHODS:
            found = [row for name, row in rows.items() if name.split("/")[::2] == [str(count), method]]
            if found:
                means[method] = {figure: mean(row[figure] for row in found) for figure in FIGURES}
                cells = " | ".join(_cell([row[figure] for row in found], figure) for figure in FIGURES)
                lines.append(f"| {count} | {method} | {len(found)} | {cells} |")
        if all(method in means for method in METHODS):
            bars.append(f"{count} pictures: {_bars(means)}.")
    return "\n".join(lines) + "".join(f"\n\n{line}" for line in bars)


def _cell(values: list[float], figure: str) -> str:
    """The mean over seeds; of a distance with its range."""
    told = f"{mean(values):.3g}"
    return f"{told} ({min(values):.3g} to {max(values):.3g})" if figure in RANGED and len(values) > 1 else told


def _bars(means: dict[str, dict[str, float]]) -> str:
    tuned, plain, before, most = (means[name] for name in ("tune", "diffusion", "untouched", "ceiling"))
    bars = {
        f"new within 1.25 of the ceiling ({tuned['new'] / most['new']:.2f})": tuned["new"] <= 1.25 * most["new"],
        f"new at most .6 of diffusion ({tuned['new'] / plain['new']:.2f})": tuned["new"] <= 0.6 * plain["new"],
        f"old within 1.15 of untouched ({tuned['old'] / before['old']:.2f})": tuned["old"] <= 1.15 * before["old"],
        "memorised no more than the ceiling": tuned["memorised"] <= most["memorised"],
    }
    return "; ".join(f"{bar}: {'kept' if kept else 'missed'}" for bar, kept in bars.items())


def _given(options: Options, styled: list[Path], held_out: list[Path]) -> Given:
    """Train base and student, or find them."""
    words = ["folder", "--scale", options.scale, "--dataset.root", str(options.pictures.resolve()), "--name", "student"]
    words += ["--dataset.size", str(options.size)]
    run = _command(options, "launch", *words)
    opened = open_run(run, device=torch.device("cpu"))
    student, card = load_student(run, torch.device("cpu"))
    side = student.image.height
    names = sorted(path.name for path in options.pictures.iterdir() if path.is_dir())
    number = names.index(options.new)
    others = [path for name in names if name != options.new for path in sorted((options.pictures / name).glob("*.png"))]
    others.sort(key=lambda path: derive_seed("tune-picture", path.name))
    most = NUM_SAMPLES[options.scale]
    old, more = others[:most], others[most : 2 * most]
    features = trained_features(opened.run)
    assert features is not None  # recipe `folder` measures in them
    levels = tuple(card["levels"]["4"])
    return Given(
        run, load_teacher(opened.run), student, levels, card["rule"], number,
        read_pictures(styled[:most], side), read_pictures(held_out[:most], side), read_pictures(old, side),
        torch.tensor([names.index(path.parent.name) for path in old]), read_pictures(more, side), features,
    )  # fmt: skip


def _command(options: Options, name: str, *words: str) -> Path:
    """Run a command of the package in the work folder; returns the run's folder."""
    line = [sys.executable, "-m", f"ladd_dist.{name}", *words]
    done = subprocess.run(line, cwd=options.work, stdout=subprocess.PIPE, text=True, check=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("runs/")]
    return options.work / found[-1]


def _row(
    options: Options, given: Given, bases: dict[str, str], chosen: list[Path], seed: int, method: str
) -> dict[str, float]:
    """Figures of one method on the chosen pictures."""
    side, count = given.student.image.height, len(chosen)
    pictures = read_pictures(chosen, side)
    started = time.monotonic()
    if method == "real":
        own, kept = given.new, given.more_old
    else:
        network, steps = _tuned(options, given, bases, chosen, pictures, seed, method)
        new = torch.full((NUM_SAMPLES[options.scale],), given.number)
        conditions = (new, given.old_classes)
        own, kept = (samples_of(network, cond, side, given.levels, given.rule, steps, seed) for cond in conditions)
    seconds = time.monotonic() - started
    shown = {"new": own[:NUM_SHOWN], "old": kept[:NUM_SHOWN], "real": given.held_out[:NUM_SHOWN]}
    path = _shown_file(options, count, seed, method)
    path.parent.mkdir(exist_ok=True)
    save_file({name: images.contiguous() for name, images in shown.items()}, path)
    usual = nearest(pictures.flatten(1), pictures.flatten(1), same=True).mean()
    return {
        "new": _distance(given, own, given.held_out),
        "old": _distance(given, kept, given.old),
        "new kid": kernel_estimate(own.flatten(1), kernel_reference(given.held_out.flatten(1))).value,
        "old kid": kernel_estimate(kept.flatten(1), kernel_reference(given.old.flatten(1))).value,
        "memorised": float((nearest(own.flatten(1), pictures.flatten(1)) < usual / 2).float().mean()),
        "saturation": float((own.amax(1) - own.amin(1)).mean()),
        "sharpness": float(own.diff(dim=2).abs().mean() + own.diff(dim=3).abs().mean()),
        "seconds": seconds,
    }


def _distance(given: Given, images: Tensor, real: Tensor) -> float:
    ours, theirs = (given.features.read(part)["features"] for part in (images, real))
    return frechet_estimate(ours, frechet_reference(theirs)).value


def _shown_file(options: Options, count: int, seed: int, method: str) -> Path:
    return options.work / "shown" / f"{count}-{seed}-{method}.safetensors"


def _draw(options: Options, path: Path) -> None:
    """Write the grid: held-out pictures, then each method's samples of the new class and of the old ones."""
    shown = {name: load_file(_shown_file(options, options.counts[0], options.seeds[0], name)) for name in METHODS}
    rows = [("held-out pictures", shown[METHODS[0]]["real"])]
    rows += [(f"{name}: {which}", images[which]) for which in ("new", "old") for name, images in shown.items()]
    write_grid(path, rows)


def _tuned(
    options: Options, given: Given, bases: dict[str, str], chosen: list[Path], pictures: Tensor, seed: int, method: str
) -> tuple[Denoise, int]:
    """A method's network as a function of x, sigma and the base's classes, and in how many steps it samples."""
    cond, updates = torch.full((len(pictures),), given.number), UPDATES[options.scale]

    def learn(network: Denoiser, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        return learned(network, images, classes, updates, seed)

    base, student, side = copy.deepcopy(given.base), copy.deepcopy(given.student), given.student.image.height
    if method == "tune":
        return _ours(options, given, bases, chosen, seed), 4
    if method == "diffusion":
        return put_on(student, learn(copy.deepcopy(student), pictures, cond)), 4
    if method == "de-distilled":
        every = torch.arange(given.student.image.num_classes).repeat(NUM_SAMPLES[options.scale])[: len(given.old)]
        own = samples_of(put_on(student, {}), every, side, given.levels, given.rule, 4, seed)
        apart = put_on(copy.deepcopy(given.student), learn(copy.deepcopy(given.student), own, every))
        return put_on(student, learn(apart, pictures, cond)), 4
    if method == "from base":
        return put_on(student, learn(base, pictures, cond)), 4
    if method == "ceiling":
        return put_on(copy.deepcopy(given.base), learn(base, pictures, cond)), 50
    return student, 4


def _ours(options: Options, given: Given, bases: dict[str, str], chosen: list[Path], seed: int) -> Denoise:
    folder = options.work / f"new-{len(chosen)}"
    folder.mkdir(exist_ok=True)
    for path in chosen:
        if not (folder / path.name).exists():
            (folder / path.name).hardlink_to(path)
    known = [{"file_name": path.name, "base": bases[path.name]} for path in chosen if path.name in bases]
    if known:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known))
    words = [str(given.run.relative_to(options.work)), "--images", folder.name, "--classes", str(given.number)]
    words += ["--scale", options.scale, "--seed", str(seed), "--name", f"tune-{len(chosen)}"]
    network, _ = load_student(_command(options, "tune", *words), torch.device("cpu"))
    classes = given.student.image.num_classes
    order = [given.number, *(number for number in range(classes) if number != given.number)]
    place = torch.tensor([*(order.index(number) for number in range(classes)), classes])
    return lambda x, sigma, cond: network(x, sigma, place[cond])


if __name__ == "__main__":
    sys.exit(main())
