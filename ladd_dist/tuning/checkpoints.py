"""A few-step checkpoint of diffusers and the base that it was distilled from."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from ladd_dist.codecs.vae import Vae
from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import locate, read_config
from ladd_dist.core.types import ImageSpec
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.diffusers.checkpoint import open_checkpoint
from ladd_dist.networks.diffusers.prediction import Prediction, read_scheduler
from ladd_dist.tuning.flags import flags_of
from ladd_dist.tuning.found import CHECKPOINT, Student
from ladd_dist.tuning.parts import require_same_parts

FEW_STEP = re.compile(r"turbo|lightning|lcm|schnell|hyper-?sd|dmd|distill|few-?step", re.IGNORECASE)
"""Words in the names of published few-step models."""
_HIGHEST_TIME = 0.995
"""Stands for time 1 of a flow, which has no finite level."""


COUNTS = {"four": 4, "two": 2, "one": 1}
"""Fields of the levels `good`, and their numbers of steps."""
_PROBE = 512
"""Side of pictures for which a codec is asked for the side of its latents."""


def checkpoint_student(source: str, base: str) -> Student:
    """A few-step checkpoint of diffusers as a student, at times that part the base's schedule evenly.

    Raises:
        UserError: it is no checkpoint, no base is named, or the base is no base.
    """
    path = Path(source)
    if path.exists() and not path.is_dir():
        raise UserError(
            f"{source} is no student: give a run's folder, its student.safetensors, or a checkpoint's folder"
        )
    if path.is_dir() and not any(path.rglob("config.json")):
        raise UserError(f"{source} holds no student.safetensors and no checkpoint of diffusers; is its run finished?")
    # OWNER/NAME may be of the hub, but not where a folder of that name lies here: that is a run's name, mistyped.
    here = source.startswith(("/", ".", "~")) or source.count("/") != 1 or path.parent.is_dir()
    if here and not path.exists():
        raise UserError(
            f"{source} does not exist: give a finished run's folder, its student.safetensors, or a checkpoint"
        )
    if not base:
        raise UserError(
            f"{source} is a checkpoint: name the base that it was distilled from with --base; the heads look through "
            "the base's features, and a few-step model's own do not serve"
        )
    if base == source:
        raise UserError(f"--base {base}: is the student itself, a few-step model; name the model it was distilled from")
    require_base(base)
    network = Diffusers(source=base)
    opened = open_checkpoint(base, subfolder="", revision="", weights=False)
    roots = locate(source, field="STUDENT", patterns=["*.json"]), locate(base, field="--base", patterns=["*.json"])
    own = open_checkpoint(str(roots[0]), subfolder="", revision="", weights=False)
    require_same_parts(own, opened, roots, (source, base))
    prediction = read_scheduler(opened.scheduler, f"{base}: scheduler")
    size = opened.config.get("sample_size")
    factor = _PROBE // Vae(source=base).latent(ImageSpec(3, _PROBE, _PROBE, 1)).height
    sides = (factor * size, factor * size) if isinstance(size, int) else (_PROBE, _PROBE)
    start = ["--student.init", source, "--swap", "start=ot", "levels=good"]
    flags = [*base_flags(network, sides), *_schedule(prediction), *start]
    return Student(CHECKPOINT, flags, True, sides, steps=tuple(COUNTS.values()))


def require_base(source: str) -> None:
    """Refuse a base that says that it takes few steps itself.

    Raises:
        UserError: its name, its scheduler or its index says so.
    """
    root = locate(source, field="--base", patterns=["*.json"])
    scheduler = open_checkpoint(str(root), subfolder="", revision="", weights=False).scheduler
    index = root / "model_index.json"
    origin = read_config(index).get("_name_or_path", "") if index.is_file() else ""
    places = {
        "name": Path(source).name,
        "scheduler": scheduler.get("_class_name", ""),
        "model_index.json": Path(str(origin)).name,
        "real name": root.resolve().name if root.is_symlink() else "",
    }
    for where, name in places.items():
        if words := FEW_STEP.search(str(name)):
            raise UserError(
                f"--base {source}: is itself a few-step model, by {words[0]!r} in its {where}; name the many-step "
                "model that it was distilled from"
            )


def base_flags(network: Diffusers, sides: tuple[int, int]) -> list[str]:
    """Flags for a base of diffusers as network and codec, with heads on four blocks where it is no U-Net.

    Args:
        sides: height and width of its pictures.

    Raises:
        UserError: it reads no texts.
    """
    flags = [*flags_of("network", network), "--network.config", "", "--codec.source", network.source]
    known = open_checkpoint(network.source, subfolder="", revision="", weights=False).config.get("num_class_embeds")
    latent = Vae(source=network.source).latent(ImageSpec(3, *sides, known if isinstance(known, int) else 1))
    with torch.device("meta"):
        planned = network.build(image=latent)
    if not planned.condition_shapes:
        raise UserError(
            f"{network.source} takes class numbers and reads no texts; `ladd tune` knows checkpoints that read texts, "
            "and students of this package's own network; write a recipe like recipes/tune_checkpoint.py"
        )
    taps = list(planned.taps)
    if not any(tap.startswith("down") for tap in taps):
        last = 2 * (len(taps) - 1) // 3  # as PixArt's recipe: nothing behind two thirds is computed
        names = dict.fromkeys(taps[last * part // 4] for part in range(1, 5))
        flags += ["--swap", "taps=named", "--taps.names", *names]
    return [*flags, "--codec.config", ""]


def _schedule(prediction: Prediction) -> list[str]:
    """Flags for levels of four, two and one steps, and for the sampler of the base, on its own schedule."""
    high, low = prediction.sigma_max(), prediction.sigma_min()
    if math.isinf(high):
        high, low = _HIGHEST_TIME / (1 - _HIGHEST_TIME), 0.01
    words = [
        "--shards.sampler.sigma-max",
        repr(high),
        "--shards.sampler.sigma-min",
        repr(max(low, 0.03 if low else low)),
    ]
    for name, count in COUNTS.items():
        levels = [high, *(_level(prediction, 1 - part / count) for part in range(1, count))]
        words += [f"--levels.{name}", *map(repr, levels)]
    return words


def _level(prediction: Prediction, time: float) -> float:
    table = prediction.log_sigmas
    if table is None:
        return time / (1 - time)
    return math.exp(float(table[round(time * (len(table) - 1))]))
