"""`python -m ladd_dist.tune STUDENT --images FOLDER`: new pictures for a student that keeps its few steps."""

from __future__ import annotations

import importlib
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ladd_dist.cli.arguments import read, require_text
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.consent import Consent
from ladd_dist.core.errors import RecipeError
from ladd_dist.core.ranges import CountOrZero, NonNegative, Steps, Threads, Within

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.run import Run

PROG = "python -m ladd_dist.tune"


@dataclass(frozen=True)
class Options(Consent):
    """Teach a finished few-step student new pictures, so that it samples them in the same few steps.

    It is the recipe tune_folder or tune_checkpoint, with what it needs filled in: the line of `ladd launch` is printed.
    Every field of the recipe is a flag here too, as in `ladd launch`. Run the same command again to go on.
    """

    student: tyro.conf.Positional[str]
    """A run's folder, its student.safetensors or an exported file, or a few-step checkpoint of diffusers."""
    images: Path | None = None
    """Folder with the new pictures: some dozens to thousands."""
    base: str = ""
    """What the student was distilled from, where its run or file does not say: teacher.safetensors, a run's folder, or
    a checkpoint."""
    steps: Steps = 4
    """Network calls a picture."""
    classes: tuple[str, ...] = ()
    """The student's class for each folder of pictures, in the order of their names: its number, or its name where the
    student's file has names; unless given, the class of the folder's name."""
    old_texts: Path | None = None
    """Prompts to keep, one a line, for a student that reads texts; unless given, the recipe's."""
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train all weights instead of an adapter of low rank."""
    rank: Annotated[int, Within("[1, 4096]")] | None = None
    """Rank of the adapter; unless given, the recipe's, 16."""
    updates: CountOrZero = 0
    """Most updates; 0: as the recipe says. The training ends earlier when held-out pictures are no longer nearer."""
    old_share: Annotated[float, Within("[0, 1)")] | None = None
    """Share of each batch that asks for old conditions; unless given, the recipe's."""
    old_weight: NonNegative | None = None
    """Weight of the distance to the samples of old conditions; unless given, the recipe's, or 32 for old classes where
    there are fewer than 50 pictures."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """As in `launch`."""
    name: str = "tune"
    """Name of the run; its folder begins with it."""
    out: Path = Path("runs")
    """Folder for runs."""
    cache: Path = Path("cache")
    """Folder for what runs share."""
    device: str = "auto"
    """As in `launch`."""
    threads: Threads = 0
    """As in `launch`."""
    nproc: Annotated[int, Within("[1, 1024]")] = 1
    """As in `launch`."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """As in `launch`: check everything and say what it costs, train nothing."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    require_text(arguments)
    options, more = read(Options, arguments, prog=PROG, return_unknown_args=True)
    if options.images is None:
        raise RecipeError("name the folder with the new pictures: --images FOLDER")
    options.load()

    from ladd_dist.builders.student_start import require_start
    from ladd_dist.core.targets import require_place
    from ladd_dist.tuning.contradictions import require_sense, require_steps
    from ladd_dist.tuning.given import student_of
    from ladd_dist.tuning.pictures import picture_flags, prepare_pictures, require_pictures

    require_sense(_given(options), more)
    require_place(options.out, "--out")
    require_place(options.cache, "--cache", may_be_full=True)
    student = student_of(options.student, options.base, None)
    require_steps(options.steps, student, more)
    pictures = picture_flags(
        options.images, student, options.classes, options.old_texts, weighs_old=_weighs_old(options, more)
    )
    flags = [*student.flags, *pictures]
    words = [student.recipe, "--scale", options.scale, *flags, *_own(options), *more]
    recipe = _recipe(words)
    if recipe.network.name == "given":  # of another architecture than the student, or damaged: said before all else
        recipe.network.load(image=recipe.latent())
    run = _run(options, recipe)
    require_start(run)  # a base that does not fit is said before the pictures are looked at
    require_pictures(options.images, run)
    _tell(options, recipe, [*words, *_of_launch(options)])
    if not options.dry_run:
        prepare_pictures(options.images, run)
    # As `ladd launch` would be, within this process; that it is a command of its own is the point.
    code = importlib.import_module("ladd_dist.launch").main([*words, *_of_launch(options)])
    if code == 0 and not options.dry_run:
        _tell_result(options, recipe, reads_texts=student.reads_texts)
    return int(code)


def _given(options: Options) -> dict[str, Any]:
    """The flags that were given with another value than by default, with it."""
    values = ((field.name, getattr(options, field.name), field.default) for field in fields(options))
    return {f"--{name.replace('_', '-')}": value for name, value, default in values if value != default}


def _weighs_old(options: Options, more: list[str]) -> bool:
    """Whether the user chose the weight of old conditions, or what else the weight would count for."""
    if options.old_weight is not None or options.old_share == 0:
        return True
    names = (word.lstrip("-").removeprefix("swap=").replace("_", "-") for word in more)
    return any(name.startswith(("distill-weight", "target")) for name in names)


def _own(options: Options) -> list[str]:
    """Flags of the recipe for the options of this command."""
    counts = ["--student-steps", str(options.steps), "--evaluate.steps", str(options.steps), "--name", options.name]
    form = ["--swap", "student=full"] if options.full else []
    form += [] if options.rank is None else ["--student.rank", str(options.rank)]
    more = ["--train.steps", str(options.updates)] if options.updates else []
    more += [] if options.old_share is None else ["--train.old.share", str(options.old_share)]
    weight = 0 if options.old_share == 0 and options.old_weight is None else options.old_weight
    more += [] if weight is None else ["--distill-weight.value", str(weight)]
    return [*counts, *form, *more]


def _of_launch(options: Options) -> list[str]:
    """Flags of `ladd launch` that change no result."""
    words = ["--out", str(options.out)] if options.out != Path("runs") else []
    words += ["--cache", str(options.cache)] if options.cache != Path("cache") else []
    words += ["--device", options.device] if options.device != "auto" else []
    words += ["--threads", str(options.threads)] if options.threads else []
    words += ["--nproc", str(options.nproc)] if options.nproc > 1 else []
    words += ["--plugins", *options.plugins] if options.plugins else []
    return [*words, "--dry-run"] if options.dry_run else words


def _recipe(words: list[str]) -> Recipe:
    from ladd_dist.cli.recipe_arguments import RecipeOptions, parse

    return parse(RecipeOptions, words, prog=PROG)[1]


def _run(options: Options, recipe: Recipe) -> Run:
    import torch

    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace

    return Run(recipe, Workspace(options.out, options.cache, torch.device("cpu")))


def _tell(options: Options, recipe: Recipe, words: list[str]) -> None:
    """Say what it costs, and the line that does the same."""
    from ladd_dist.parallel.devices import count_processes, local_device, pick_device
    from ladd_dist.tuning.cost import cost_line

    num = count_processes(options.nproc)
    device = local_device(pick_device(options.device), num, 0)
    print(cost_line(recipe, options.cache, device, num))
    print(f"the same as a recipe: {shlex.join(['ladd', 'launch', *words])}", flush=True)


def _tell_result(options: Options, recipe: Recipe, *, reads_texts: bool) -> None:
    """Say how the result is used."""
    from ladd_dist.builders.student_file import file_of

    run = _run(options, recipe).folder.path
    print(f"before and after: {run / 'report.html'}")
    if not reads_texts:
        words = ["ladd", "sample", str(run), "--steps", str(options.steps)]
        if recipe.latent().num_classes > 1:  # the new classes come first
            words += ["--classes", ",".join(map(str, range(recipe.dataset.num_asked())))]
        print(f"pictures of it: {shlex.join(words)}")
        return
    # No pipeline opens a run's student, to which the adapter would belong.
    form = "diffusers" if options.full or file_of(Path(options.student)).is_file() else "lora"
    print(f"for diffusers: {shlex.join(['ladd', 'export', str(run), '--to', form])}")
    folder = f"{run.name}-{form}"
    if form == "diffusers":
        print(f'then: pipe = DiffusionPipeline.from_pretrained("{folder}")')
    else:
        print(f'then: pipe.load_lora_weights("{folder}"); {folder}/README.md has the whole code')


if __name__ == "__main__":
    sys.exit(main())
