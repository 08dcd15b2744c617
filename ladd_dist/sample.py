"""`python -m ladd_dist.sample RUN|FILE.safetensors`: pictures from a finished student, without its recipe."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.consent import Consent
from ladd_dist.core.errors import ConsentError, UserError
from ladd_dist.core.ranges import AnyInteger, Count, CountOrZero, Positive, Threads

if TYPE_CHECKING:
    from ladd_dist.builders.card import StudentCard
    from ladd_dist.core.types import DenoiseFn, Denoiser

PROG = "python -m ladd_dist.sample"
BATCH = 250
"""Number of latents that are decoded at once."""


@dataclass(frozen=True)
class Options(Consent):
    """Make pictures with a finished student: one grid with a row for each class, or a folder of PNGs."""

    source: tyro.conf.Positional[Path | None] = None
    """A run's folder, or its student.safetensors or an exported file (all that is needed, also on another machine)."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """The student, as a flag."""
    steps: CountOrZero = 0
    """Network calls a picture; 0 takes the most that the student was measured at."""
    levels: tuple[Positive, ...] = ()
    """Noise levels of your own, descending, instead of the student's: one for each network call."""
    teacher_steps: CountOrZero = 0
    """How many of the first steps the teacher takes, with its guidance; it is the run's."""
    like: Path | None = None
    """For a file with --teacher-steps: the run whose teacher that is."""
    cache: Path | None = None
    """With --teacher-steps: the folder with the run's teacher; unless given, the one that it used."""
    classes: tuple[str, ...] = ()
    """Classes to show: numbers from 0, or names where the student's file has some; or numbers of prompts. All when
    empty, of prompts the first 16."""
    conditions: Path | None = None
    """For a student that reads texts: the folder of its shards, which has their table; a run knows its own."""
    columns: Count = 16
    """Pictures of each class."""
    seed: AnyInteger = 0
    """Picture k of a class depends on the seed, the class and k alone."""
    out: Path = Path("samples.png")
    """The PNG file to write: a name that ends in .png, or a pipe or device."""
    folder: Path | None = None
    """Write every picture as a PNG of its own size into this folder, `class-C-K.png`, instead of the grid."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: Threads = 0
    """CPU threads; 0: as OMP_NUM_THREADS says, else as PyTorch chooses."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, arguments, prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.builders.codec import decode
    from ladd_dist.builders.networks import require_within
    from ladd_dist.builders.sampling import sample_class
    from ladd_dist.builders.student_file import levels_of, load_codec, load_student
    from ladd_dist.builders.texts import MOST_TEXTS, attach_texts, shortened
    from ladd_dist.core.machine import require_memory
    from ladd_dist.core.noise import is_descending
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.core.targets import output_folder, output_picture
    from ladd_dist.parallel.devices import compute_on
    from ladd_dist.reports.grids import write_grid, write_pictures
    from ladd_dist.stages.sizes import maps_bytes

    given = [source for source in (options.source, options.from_) if source is not None]
    if len(given) != 1:
        raise RecipeError(f"give one student, as `{PROG} RUN` or `{PROG} --from FILE.safetensors`, got {len(given)}")
    folder = output_folder(options.folder, "--folder") if options.folder is not None else None
    out = output_picture(options.out) if folder is None else options.out
    options.load()
    device = compute_on(options.device, options.threads)
    network, card = load_student(given[0], device)
    levels = options.levels or levels_of(card, options.steps or max(map(int, card["levels"])))
    if not is_descending(levels):
        raise RecipeError(f"--levels must be descending numbers above 0, got {levels}")
    require_within(network, levels, "--levels" if options.levels else "the student's levels")
    if options.levels and options.steps not in (0, len(levels)):
        raise RecipeError(f"--steps {options.steps} and {len(levels)} --levels contradict each other; give one of them")
    texts = attach_texts(network, given[0], options.conditions)
    teacher = _teacher(options, given[0], network, card, len(levels))
    classes = _classes(options, card, network.image.num_classes, MOST_TEXTS if texts else None)
    require_memory(options.columns * maps_bytes(network), f"--columns {options.columns}")
    codec = load_codec(given[0], card, device)
    few = partial(sample_class, teacher=teacher, teacher_steps=options.teacher_steps)
    pictures = {}
    for number in classes:
        samples = few(network, levels, card["rule"], number, options.columns, options.seed)
        pictures[number] = decode(codec, samples, BATCH)
    if folder is not None:
        for number, images in pictures.items():
            names = [folder / f"class-{number}-{index:05d}.png" for index in range(len(images))]
            write_pictures(names, images)
        print(options.folder)
        return 0
    rows = [(shortened(texts[number]) if texts else f"class {number}", images) for number, images in pictures.items()]
    write_grid(out, rows, options.columns)
    print(options.out)
    return 0


def _classes(options: Options, card: StudentCard, num: int, most: int | None) -> tuple[int, ...]:
    """The classes to show, each once; unless given, the first `most` of all `num`, or all.

    Raises:
        RecipeError: there is no class of such a number or name.
    """
    from ladd_dist.cli.classes import class_numbers

    names = card.get("class_names", [])
    wanted = class_numbers(options.classes, names if len(names) == num else [], num)
    return tuple(dict.fromkeys(wanted)) or tuple(range(num)[:most])


def _teacher(options: Options, source: Path, network: Denoiser, card: StudentCard, steps: int) -> DenoiseFn | None:
    """The run's teacher with its guidance; None if it takes no step.

    Raises:
        UserError: no run is named, or its teacher is missing.
    """
    from ladd_dist.builders.student_file import require_same_space
    from ladd_dist.builders.teacher import guided_teacher, load_teacher
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.workspace.opening import open_run

    if not 0 <= options.teacher_steps <= steps:
        raise RecipeError(f"--teacher-steps can be 0 to {steps}, the number of steps, got {options.teacher_steps}")
    if not options.teacher_steps:
        if options.like or options.cache:
            raise RecipeError("--like and --cache say where the teacher is: give --teacher-steps too, at least 1")
        return None
    if options.like is None and source.is_file():
        raise RecipeError(
            f"{source} has no teacher for --teacher-steps: give a run's folder, or name one with the same teacher by "
            "--like RUN, and the folder with its teacher by --cache where that has moved"
        )
    device = next(network.parameters()).device
    opened = open_run(options.like or source, cache=options.cache, device=device)
    recipe = opened.run.recipe
    require_same_space(source, network, card, opened.folder.path, recipe)
    try:
        return guided_teacher(recipe, load_teacher(opened.run))
    except ConsentError:
        raise
    except ValueError as error:
        raise UserError(f"no teacher for --teacher-steps: {error}; or name the run's folder with --cache") from error


if __name__ == "__main__":
    sys.exit(main())
