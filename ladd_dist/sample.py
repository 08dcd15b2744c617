"""`python -m ladd_dist.sample RUN|FILE.safetensors`: pictures from a finished student, without its recipe."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ladd_dist.cli import plugin_modules, run_guarded

if TYPE_CHECKING:
    import torch

    from ladd_dist.core.types import Autoencoder, DenoiseFn, Denoiser
    from ladd_dist.recipe import Recipe

PROG = "python -m ladd_dist.sample"
BATCH = 250
"""Latents that are decoded at once."""
CARD = ("network", "image", "levels", "rule", "recipe", "signature")
"""What a student's card must say: how to build it and how to sample it, and where it came from."""


@dataclass(frozen=True)
class Options:
    """Make pictures with a finished student: one grid with a row for each class, or a folder of PNGs."""

    source: tyro.conf.Positional[Path | None] = None
    """A run's folder, or its student.safetensors or an exported file (all that is needed, also on another machine)."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """The same, as a flag."""
    steps: int = 0
    """Network calls a picture; 0 takes the most that the student was measured at."""
    levels: tuple[float, ...] = ()
    """Noise levels of your own, descending, in place of the student's: as many as network calls."""
    teacher_steps: int = 0
    """How many of the first steps the teacher takes, with its guidance; it is the run's."""
    like: Path | None = None
    """For a file with --teacher-steps: the run whose teacher that is."""
    cache: Path | None = None
    """With --teacher-steps: the folder with the run's teacher; unless given, the one its command named."""
    classes: tuple[int, ...] = ()
    """Classes to show, or numbers of prompts, from 0; all when empty, of prompts the first 16."""
    conditions: Path | None = None
    """Of a student that reads texts: the folder of its shards, which has their table; a run's folder knows its own."""
    columns: int = 16
    """Pictures of each class."""
    seed: int = 0
    """Picture k of a class depends on the seed, the class and k alone."""
    out: Path = Path("samples.png")
    """The PNG file to write."""
    folder: Path | None = None
    """Write every picture as a PNG of its own size into this folder, `class-C-K.png`, in place of the grid."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins (where the student's network is one), besides the package `plugins`."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(tyro.cli(Options, args=arguments, prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.core.noise import is_descending
    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.launch import pick_device
    from ladd_dist.stages.conditions import MOST_TEXTS, attach_texts, shortened
    from ladd_dist.stages.grids import write_grid, write_pictures
    from ladd_dist.stages.space import decode

    given = [source for source in (options.source, options.from_) if source is not None]
    if len(given) != 1:
        raise RecipeError(f"give one student, as `{PROG} RUN` or `{PROG} --from FILE.safetensors`, got {len(given)}")
    load_modules(plugin_modules(options.plugins))
    network, card = load_student(given[0], pick_device(options.device))
    levels = options.levels or levels_of(card, options.steps or max(map(int, card["levels"])))
    if not is_descending(levels):
        raise RecipeError(f"--levels must be descending numbers above 0, got {levels}")
    if options.levels and options.steps not in (0, len(levels)):
        raise RecipeError(f"--steps {options.steps} and {len(levels)} --levels contradict each other; give one of them")
    texts = attach_texts(network, given[0], options.conditions)
    teacher = _teacher(options, given[0], network, card, len(levels))
    classes = options.classes or tuple(range(network.image.num_classes))[: MOST_TEXTS if texts else None]
    wrong = [number for number in classes if not 0 <= number < network.image.num_classes]
    if wrong or options.columns < 1:
        raise RecipeError(f"--classes are 0 to {network.image.num_classes - 1}, --columns at least 1")
    codec = load_codec(given[0], card, pick_device(options.device))
    few = partial(sample_class, teacher=teacher, teacher_steps=options.teacher_steps)
    pictures = {}
    for number in classes:
        samples = few(network, levels, card["rule"], number, options.columns, options.seed)
        pictures[number] = decode(codec, samples, BATCH)
    if options.folder is not None:
        for number, images in pictures.items():
            names = [options.folder / f"class-{number}-{place:05d}.png" for place in range(len(images))]
            write_pictures(names, images)
        print(options.folder)
        return 0
    rows = [(shortened(texts[number]) if texts else f"class {number}", images) for number, images in pictures.items()]
    write_grid(options.out, rows, options.columns)
    print(options.out)
    return 0


def _teacher(options: Options, source: Path, network: Denoiser, card: dict[str, Any], steps: int) -> DenoiseFn | None:
    """The teacher of the run with its guidance; None where it takes no step.

    Raises:
        ValueError: it takes a step and nothing says which it is, or it is not where the run says.
    """
    from ladd_dist.core.rundir import RunDir
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.promote import open_run
    from ladd_dist.stages import Place
    from ladd_dist.stages.teacher import guided_teacher, load_teacher

    if not 0 <= options.teacher_steps <= steps:
        raise RecipeError(f"--teacher-steps can be 0 to {steps}, the number of steps, got {options.teacher_steps}")
    if not options.teacher_steps:
        if options.like or options.cache:
            raise RecipeError("--like and --cache say where the teacher is: give --teacher-steps too, at least 1")
        return None
    run = RunDir(options.like or source)
    if not run.config.is_file():
        raise RecipeError(
            f"{run.path} has no teacher for --teacher-steps: give a run's folder (with its {run.config.name}), or name "
            "one with the same teacher by --like RUN, and the folder with its teacher by --cache where that has moved"
        )
    recipe, cache = open_run(run, options.plugins, options.cache)
    require_same_space(source, network, card, run.path, recipe)
    device = next(network.parameters()).device
    place = Place(run.path.parent, cache, device)
    try:
        return guided_teacher(recipe, load_teacher(recipe, place))
    except ValueError as error:
        raise ValueError(f"no teacher for --teacher-steps: {error}; or name the run's folder with --cache") from error


def require_same_space(source: Path, network: Denoiser, card: dict[str, Any], run: Path, recipe: Recipe) -> None:
    """Refuse a student and a run whose data have other shapes or classes, or are latents of another codec."""
    from ladd_dist.stages.space import codec_card

    if network.image != recipe.latent():
        raise ValueError(
            f"{source} makes {network.image}, the data of {run} are {recipe.latent()}: they do not go together"
        )
    if card.get("space") != codec_card(recipe).get("space"):
        raise ValueError(f"{source} works in the latents of another codec than {run}")


def levels_of(card: dict[str, Any], steps: int) -> tuple[float, ...]:
    """The levels at which a student is sampled in so many steps: those on its card, else by the law on it.

    Raises:
        RecipeError: neither knows.
    """
    from ladd_dist.core.serialize import RecipeError, from_data
    from ladd_dist.levels import Levels

    if str(steps) in card["levels"]:
        return tuple(card["levels"][str(steps)])
    known = f"this student has levels for {', '.join(card['levels'])} steps"
    if "law" not in card:  # written by an older version
        raise RecipeError(f"--steps {steps}: {known}; give your own with --levels")
    try:
        law: Levels = from_data(Levels, card["law"], "law")
        return law(steps)
    except ValueError as error:
        raise RecipeError(f"--steps {steps}: {known}, and its law says: {error}; or give your own --levels") from error


def load_student(source: Path, device: torch.device) -> tuple[Denoiser, dict[str, Any]]:
    """The student in a run's folder or file, frozen, in eval mode, and its card (network, levels, rule, signature).

    Raises:
        ValueError: no such file, no student of ours, a damaged one, or one that needs its teacher, which is not there;
            nothing in the file can run code.
    """
    from safetensors import SafetensorError, safe_open

    from ladd_dist.stages import CODEC_PREFIX
    from ladd_dist.stages.student import from_card

    path = file_of(source)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a finished run's folder, or its student.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            card: dict[str, Any] = json.loads((file.metadata() or {})["ladd_dist"])
            names = [name for name in file.keys() if not name.startswith(CODEC_PREFIX)]  # noqa: SIM118  # no mapping
            weights = {name: file.get_tensor(name) for name in names}
        missing = [name for name in CARD if name not in card]
        if missing or not card["levels"]:
            raise KeyError(missing[0] if missing else "levels")
        network = from_card(card, weights, path)
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no student that ladd_dist wrote ({type(error).__name__}: {reason})") from error
    if "weights_sha256" in card and card["weights_sha256"] != weights_sha256(weights):
        raise ValueError(f"{path} is damaged: its weights do not have the sha256 on its card; copy or export it again")
    return network.to(device).eval().requires_grad_(False), card


def file_of(source: Path) -> Path:
    """The student's file that is meant by a run's folder or a file."""
    return source / "student.safetensors" if source.is_dir() else source


def load_codec(source: Path, card: dict[str, Any], device: torch.device) -> Autoencoder:
    """What makes pictures of the samples of the student in a run's folder or file, by its card: frozen, in eval mode.

    Raises:
        ValueError: its weights are not there, or do not fit.
    """
    from ladd_dist.codecs import Codec
    from ladd_dist.codecs.pixels import Identity
    from ladd_dist.core.serialize import from_data
    from ladd_dist.core.types import ImageSpec
    from ladd_dist.stages.space import fill

    if "codec" not in card:
        return Identity()
    described: Codec = from_data(Codec, card["codec"], "codec")
    codec = described.build(image=from_data(ImageSpec, card["pixels"], "pixels"))
    if described.trained:
        fill(codec, codec_weights(source), str(file_of(source)))
    return codec.to(device).eval().requires_grad_(False)


def codec_weights(source: Path) -> dict[str, torch.Tensor]:
    """The weights of the codec that was trained with the student in a run's folder or file; there may be none."""
    from safetensors import safe_open

    from ladd_dist.stages import CODEC_PREFIX

    with safe_open(file_of(source), framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(CODEC_PREFIX)]  # noqa: SIM118  # no mapping
        return {name.removeprefix(CODEC_PREFIX): file.get_tensor(name) for name in names}


def weights_sha256(weights: dict[str, torch.Tensor]) -> str:
    """Hexadecimal sha256 of tensors: names, types, shapes and bytes, by name; the card around them changes nothing."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sample_class(
    network: Denoiser,
    levels: tuple[float, ...],
    rule: Any,
    number: int,
    count: int,
    seed: int,
    *,
    teacher: DenoiseFn | None = None,
    teacher_steps: int = 0,
) -> torch.Tensor:
    """`count` samples [count,C,H,W] (pictures in [-1, 1], or latents) of class `number`, by the student's own rule.

    Args:
        teacher: takes the first `teacher_steps` of the steps, which are the student's own unless given.
    """
    import torch

    from ladd_dist.core.noise import hybrid_sample
    from ladd_dist.core.rng import derive_seed, generator, sample_noise
    from ladd_dist.stages import denoiser

    device = next(network.parameters()).device
    image = network.image
    own = derive_seed("sample", seed, number)
    noise = sample_noise(own, range(count), (image.channels, image.size, image.size)).to(device)
    cond = torch.full((count,), number, device=device)
    with torch.inference_mode():
        source, student = generator("sample-sde", own, device=device), denoiser(network)
        few = hybrid_sample(teacher or student, student, noise, cond, levels, rule, source, teacher_steps=teacher_steps)
        return few.cpu()


if __name__ == "__main__":
    sys.exit(main())
