"""The student to tune and the base that it was distilled from, as flags of a recipe."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladd_dist.builders.asking import asking_for_plugins
from ladd_dist.builders.card import KEY, StudentCard
from ladd_dist.builders.origin import Origin, origin_beside, origin_of
from ladd_dist.builders.student_file import file_of, read_student
from ladd_dist.codecs import Codec, CodecTraining, TrainedCodec
from ladd_dist.codecs.given import Given as GivenCodec
from ladd_dist.core.errors import ConsentError, MachineError, UserError
from ladd_dist.core.pretrained import from_outside
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.core.tensor_file import read_tensors
from ladd_dist.core.types import ImageSpec
from ladd_dist.levels import Levels
from ladd_dist.networks import Network
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.given import Given
from ladd_dist.tuning.base import origin_of_student, require_own_base, require_same_classes
from ladd_dist.tuning.checkpoints import base_flags, checkpoint_student, require_base
from ladd_dist.tuning.flags import flags_of
from ladd_dist.tuning.found import CHECKPOINT, FOLDER, Student

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.run import Run

MOST_STEPS = 64
"""Numbers of steps that are tried; levels that are known for all of these are known for any."""
TEACHER = "teacher.safetensors"
_NAME_IT = f"name it with --base cache/teacher-SIGNATURE/{TEACHER}"


def student_of(source: str, base: str, cache: Path | None) -> Student:
    """The student in a run's folder, a file, or a checkpoint of diffusers.

    Args:
        base: what the user says it was distilled from; empty: as the run or the card says.
        cache: folder with the teacher of a run; None: the one that the run used.

    Raises:
        UserError: it is no student, or its base is not there or no base.
    """
    path = Path(source)
    if not file_of(path).is_file():
        return checkpoint_student(source, base)
    _, card = read_student(file_of(path))
    from_outside(card, source)
    with asking_for_plugins(file_of(path)):
        network: Network = from_data(Network, card["network"], "network")
    if isinstance(network, Given):
        raise UserError(f"{source} was tuned itself, and keeps classes of its own; tune the student that it came from")
    if isinstance(network, Diffusers):
        return _of_checkpoint(source, card, network, base)
    if not isinstance(network, CUNet):
        raise UserError(
            f"{source}: `ladd tune` knows the networks cunet and diffusers, this is {network.name!r}; write a recipe "
            "like recipes/tune_folder.py, with your network in Given(network=...)"
        )
    codec = _codec_flags(source, card)
    known = origin_of_student(card, to_data(network), _recipe_of(path, cache) if base and "base" not in card else None)
    teacher, names = _teacher_of(path, base, cache, known), _class_names(path, base, card, cache)
    flags = [*flags_of("network.network", network), "--network.weights", str(teacher), *codec, *_common(source, card)]
    image = card.get("pixels", card["image"])
    sides = (image["height"], image["width"])
    return Student(FOLDER, flags, False, sides, image["num_classes"], names, *_steps_of(card))


def _common(source: str, card: StudentCard) -> list[str]:
    """Flags for where the student starts, its levels, and a coupling of its rule without pairs."""
    if "law" not in card:
        raise UserError(f"{source} was written by an older version and does not say its levels; export it again")
    law: Levels = from_data(Levels, card["law"], "law")
    start = "ot" if card["rule"] == "ode" else "fresh"
    return ["--student.init", source, "--swap", f"start={start}", f"levels={law.name}", *flags_of("levels", law)]


def _codec_flags(source: str, card: StudentCard) -> list[str]:
    """Flags for the autoencoder of a student in latents, which the student's own file holds if it was trained for it.

    Raises:
        UserError: it is not there, or not for pictures of the card's size.
    """
    if "codec" not in card:
        return []
    file = file_of(Path(source))
    with asking_for_plugins(file):
        codec: Codec = from_data(Codec, card["codec"], "codec")
    codec.latent(from_data(ImageSpec, card["pixels"], "pixels"))
    if not isinstance(codec, TrainedCodec):
        return ["--swap", f"codec={codec.name}", *flags_of("codec", codec)]
    GivenCodec(codec=codec, weights=str(file)).tensors()
    # How it was trained no longer matters. Every plug-in is a dataclass, which the type of its base does not say.
    plain = dataclasses.replace(codec, training=CodecTraining())  # type: ignore[type-var]
    swaps = ["--swap", "codec=given", f"codec.codec={codec.name}"]
    return [*swaps, *flags_of("codec.codec", plain), "--codec.weights", str(file)]


def _steps_of(card: StudentCard) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of steps for which a student's law has levels, and those on its card."""
    law: Levels = from_data(Levels, card["law"], "law")
    known = []
    for steps in range(1, MOST_STEPS + 1):
        with contextlib.suppress(ValueError):
            law(steps)
            known.append(steps)
    measured = tuple(sorted(map(int, card["levels"])))
    return (tuple(known) if len(known) < MOST_STEPS else (), measured)


def _of_checkpoint(source: str, card: StudentCard, network: Diffusers, base: str) -> Student:
    if base and base != network.source:
        raise UserError(f"--base {base}: {source} was distilled from {network.source}; leave --base out")
    require_base(network.source)
    pixels: Any = card.get("pixels", card["image"])
    sides = (pixels["height"], pixels["width"])
    steps, measured = _steps_of(card)
    flags = [*base_flags(network, sides), *_common(source, card)]
    return Student(CHECKPOINT, flags, True, sides, steps=steps, measured=measured)


def _teacher_of(path: Path, base: str, cache: Path | None, student: Origin) -> Path:
    """The file with the base's weights.

    Args:
        student: what is known of the student's own teacher.
    """
    if not base:
        if path.is_file():
            raise UserError(
                f"{path} does not hold its base: name the teacher's weights with --base, or give the run's folder"
            )
        return _there(_run_of(path, cache), path)
    found = Path(base)
    if (found / TEACHER).is_file():  # the folder in the cache
        found = found / TEACHER
    if found.is_dir():
        run = _run_of(found, cache)
        if not isinstance(run.recipe.network, Given):
            require_own_base(student, origin_of(run.recipe), base)
            return _there(run, found)
        found = Path(run.recipe.network.weights)  # of a tuning, whose base had been given too
    if not found.is_file():
        raise UserError(
            f"--base {base} is no file and no run's folder; name the teacher's, "
            "cache/teacher-SIGNATURE/teacher.safetensors, or the run's that trained it"
        )
    content = read_tensors(found, problem="holds no weights that can be read", remedy="give another --base")
    if KEY in content.metadata:
        raise UserError(
            f"--base {base} is itself a few-step student: its features do not tell noise levels apart as those "
            "of a base do; name the teacher that it was distilled from"
        )
    require_own_base(student, origin_beside(found), base)
    require_same_classes(content.tensors.get(CUNet.class_table), student, base)
    return found


def _there(run: Run, folder: Path) -> Path:
    found = run.teacher_folder / TEACHER
    if not found.is_file():
        raise UserError(f"the base of {folder} is not in {found.parent}; {_NAME_IT}")
    return found


def _run_of(folder: Path, cache: Path | None) -> Run:
    try:
        return _opened(folder, cache)
    except ConsentError:
        raise
    except UserError as error:
        raise UserError(f"the base of {folder} cannot be found ({error}); {_NAME_IT}") from error


def _recipe_of(path: Path, cache: Path | None) -> Recipe | None:
    """The recipe of a student's run; None for a file, and where the run cannot be opened any more."""
    try:
        return _opened(path, cache).recipe if path.is_dir() else None
    except MachineError:  # a look at another time may find it
        raise
    except UserError:  # its pictures were changed or moved
        return None


def _class_names(path: Path, base: str, card: StudentCard, cache: Path | None) -> tuple[str, ...]:
    """Names of a student's classes: those on its card, else of the folder that its run, or its base's, learned from."""
    known = [tuple(card.get("class_names", ()))]
    for folder in (path, Path(base or path)):
        if not known[-1] and folder.is_dir():
            try:
                known.append(_opened(folder, cache).recipe.dataset.class_names())
            except MachineError:  # a look at another time may find them
                raise
            except UserError:  # its pictures were changed or moved: their folders no longer say what it learned
                continue
    return known[-1] if len(known[-1]) == card["image"]["num_classes"] else ()


def _opened(folder: Path, cache: Path | None) -> Run:
    import torch

    from ladd_dist.workspace.opening import open_run

    return open_run(folder, cache=cache, device=torch.device("cpu")).run
