"""What all rows of `benchmarks.tune` share: its options, base and student, pictures, and the features that measure."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from torch import Tensor

from benchmarks._tune_digits import write_digits
from benchmarks._tune_pictures import bases_of, parted, read_pictures, write_styled
from ladd_dist.builders.student_file import load_codec, load_student
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.rng import derive_seed
from ladd_dist.core.types import Autoencoder, Denoiser
from ladd_dist.evaluation.class_features import trained_features
from ladd_dist.workspace.opening import open_run

CPU = torch.device("cpu")
NUM_SAMPLES = {"smoke": 32, "laptop": 512}
LATENT_RECIPE = Path(__file__).with_name("_tune_latents.py")


@dataclass(frozen=True)
class Options:
    """Compare ways to teach a few-step student new pictures; see the file's own text."""

    pictures: Path | None = None
    """Folder with a folder of pictures for each class; unless given, digits, in the latents of an autoencoder."""
    new: str = "3"
    """The class whose pictures get the new style."""
    counts: tuple[int, ...] = (20, 100, 1_000)
    """Numbers of new pictures; more than half of the class has are left out."""
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ()
    """Rows to make; unless given, all."""
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
    codec: Autoencoder
    """Between pictures and what base and student work on."""
    levels: tuple[float, ...]
    rule: Literal["sde", "ode"]
    number: int
    """The class of the new pictures."""
    bases: dict[str, str]
    """What near-duplicates share, by the name of a picture's file."""
    styled: list[Path]
    """The new pictures for training, in random order."""
    new: Tensor
    """All of them [N,3,H,W]."""
    held_out: Tensor
    old: Tensor
    """Real pictures of the other classes [N,3,H,W]."""
    old_classes: Tensor  # [N] int64
    more_old: Tensor
    """Others of them, for the floor."""
    features: TrainedFeatures


def given_for(options: Options) -> Given:
    """Write the pictures, and train base and student on them; what is there already is found."""
    if options.pictures is None:
        pictures = write_digits(options.work / "digits", size=options.size)
        new = write_digits(options.work / f"digits-{options.new}", size=options.size, only=options.new)
        words = [str(LATENT_RECIPE), "--stages", "autoencoder", "features", "teacher", "shards", "distill"]
    else:
        pictures = options.pictures
        new = write_styled(pictures, options.new, options.work / "styled")
        words = ["folder"]
    words += ["--scale", options.scale, "--dataset.root", str(pictures.resolve()), "--name", "student"]
    run = command(options, "launch", *words, "--dataset.size", str(options.size))
    bases = bases_of(pictures)
    styled, held_out = parted(new, bases)
    student, card = load_student(run, CPU)
    base, features = load_teacher(open_run(run, device=CPU).run), trained_features(open_run(run, device=CPU).run)
    assert features is not None  # both recipes measure in them
    side, most = card.get("pixels", card["image"])["height"], NUM_SAMPLES[options.scale]
    names = sorted(path.name for path in pictures.iterdir() if path.is_dir())
    others = [path for name in names if name != options.new for path in sorted((pictures / name).glob("*.png"))]
    others.sort(key=lambda path: derive_seed("tune-picture", path.name))
    old = others[:most]
    return Given(
        run, base, student, load_codec(run, card, CPU), tuple(card["levels"]["4"]), card["rule"],
        names.index(options.new), bases, styled, read_pictures(styled[:most], side),
        read_pictures(held_out[:most], side), read_pictures(old, side),
        torch.tensor([names.index(path.parent.name) for path in old]),
        read_pictures(others[most : 2 * most], side), features,
    )  # fmt: skip


def command(options: Options, name: str, *words: str) -> Path:
    """Run a command of the package in the work folder; returns the run's folder."""
    line = [sys.executable, "-m", f"ladd_dist.{name}", *words]
    done = subprocess.run(line, cwd=options.work, stdout=subprocess.PIPE, text=True, check=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("runs/")]
    return options.work / found[-1]
