"""Stage `features`: train the network of the metric `class_features` on the data set's pictures, once for all runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.builders.data import images_of
from ladd_dist.core.class_net import NAME, NUM_TURNS, ClassNet, TrainedFeatures, cell_colours
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.rng import derive_seed, generator
from ladd_dist.core.rundir import make_folder, save_tensors
from ladd_dist.core.tensor_file import read_tensors, require_finite, weights_sha256
from ladd_dist.datasets import Dataset, ImageSet, Split
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.metrics.class_features import ClassFeatures, trained_by
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, make_together, mark_done

FILE = "class_features.safetensors"
FEWEST = 64
"""Training pictures below which no network is trained."""
_MOST_HELD_OUT = 2_000
_CHUNK = 1_024
_LEARNING_RATE, _WARMUP, _WEIGHT_DECAY, _SMOOTHING = 4e-3, 0.1, 0.02, 0.05
_TURN, _SHIFT, _SCALE, _NOISE, _TINT = 0.1, 0.06, 0.06, 0.1, 0.4
REMEDY = "add some, or write a recipe whose metrics measure pixels, like Kid(features='pixels') (docs/pictures.md)"
AGAIN = "delete its folder and run the same command again"


class Pictures(NamedTuple):
    """Pictures of a split at the network's size, and their classes."""

    bytes: Tensor  # [N,C,S,S] uint8
    labels: Tensor  # [N] int64
    are_all: bool
    """Whether the split has no others."""

    def at(self, rows: Tensor) -> Tensor:
        """Pictures [n,C,S,S] in [-1, 1] of the rows [n]."""
        return self.bytes[rows].float() / 127.5 - 1.0


def is_trained(run: Run) -> bool:
    """Whether the cache holds the network; True for a recipe that asks for none."""
    if trained_by(run.recipe.evaluate.metrics) is None:
        return True
    folder = run.features_folder
    return is_done(folder / "done.json", run.recipe.features_signature()) and (folder / FILE).exists()


def trained_features(run: Run) -> TrainedFeatures | None:
    """The network of the recipe's metric `class_features`, trained now unless the cache holds it; a collective call.

    Rank 0 trains while the others wait: it takes seconds. None where the recipe has no such metric.

    Raises:
        UserError: the data set has too few pictures, or the file in the cache is damaged.
    """
    settings, folder = trained_by(run.recipe.evaluate.metrics), run.features_folder
    if settings is None:
        return None

    def make() -> None:
        if run.ranks.is_first:
            _make(run, settings)
        run.ranks.barrier()

    make_together(run.ranks, folder, lambda: is_trained(run), make)
    return _load(run, settings)


def _load(run: Run, settings: ClassFeatures) -> TrainedFeatures:
    path, spec = run.features_folder / FILE, run.recipe.dataset.spec()
    found = read_tensors(path, remedy=AGAIN)
    require_finite(found.tensors, path)
    network = ClassNet(spec.channels, _num_groups(spec.num_classes), settings.size)
    with reading(path, "does not fit the recipe's data", AGAIN):
        network.load_state_dict(found.tensors)
        told = str(json.loads(found.metadata["ladd_dist"])["told"])
    sha256 = weights_sha256(found.tensors)
    network = network.requires_grad_(False).eval().to(run.device)
    return TrainedFeatures(network, f"{NAME}-{sha256[:6]}", sha256, spec.num_classes >= 2, told)


def _make(run: Run, settings: ClassFeatures) -> None:
    recipe, folder = run.recipe, run.features_folder
    pictures, held_out = pictures_of(run, settings, "train"), pictures_of(run, settings, "test")
    counts = torch.bincount(pictures.labels, minlength=recipe.dataset.spec().num_classes)
    require_enough(recipe.dataset, counts.tolist(), all_counted=pictures.are_all)
    with StopFlag().listen() as stop:
        network = train(pictures, recipe.dataset.spec().num_classes, settings, run.device, stop)
    told = describe(network, pictures, held_out, recipe.dataset)
    weights = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    make_folder(folder)
    save_tensors(folder / FILE, weights, {"ladd_dist": json.dumps({"told": told})})
    mark_done(folder / "done.json", recipe.features_signature(), told=told)
    print(f"{NAME}-{weights_sha256(weights)[:6]}: {told}", flush=True)


def _num_groups(num_classes: int) -> int:
    return num_classes if num_classes >= 2 else NUM_TURNS


def pictures_of(run: Run, settings: ClassFeatures, split: Split) -> Pictures:
    """Pictures of a split without augmentation, drawn by the seed, at the network's size."""
    images: ImageSet = images_of(run, split)
    most = settings.most_pictures if split == "train" else _MOST_HELD_OUT
    drawn = torch.randperm(len(images), generator=generator("class-features", split, settings.seed))[:most]
    found, labels = [], []
    for rows in torch.split(drawn, _CHUNK):
        shown, of_rows = images.batch(rows)
        small = F.interpolate(shown, size=(settings.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
        found.append(((small + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8))
        labels.append(of_rows)
    return Pictures(torch.cat(found), torch.cat(labels), len(drawn) == len(images))


def require_listed(run: Run) -> None:
    """Refuse a data set that is known to have too few pictures before one is decoded, unless the network is there.

    Raises:
        UserError: as `require_enough` raises, or no picture is held out.
    """
    settings, dataset = trained_by(run.recipe.evaluate.metrics), run.recipe.dataset
    if settings is None or is_trained(run) or (counts := dataset.counts(run.workspace.cache)) is None:
        return
    if not counts.held_out:
        raise UserError(
            f"dataset {dataset.name!r}: none of its pictures is held out, and the features of the metric {NAME!r} are "
            f"tried on held-out ones (each class keeps one, and those of one base or content stay together); {REMEDY}"
        )
    train = [*counts.train, *(0 for _ in range(dataset.spec().num_classes - len(counts.train)))]
    require_enough(dataset, train, all_counted=sum(train) <= settings.most_pictures)


def require_enough(dataset: Dataset, train: Sequence[int], *, all_counted: bool) -> None:
    """Refuse a data set that has too few pictures for features.

    Args:
        train: number of its training pictures by class.
        all_counted: whether there are no others.

    Raises:
        UserError: it has fewer than `FEWEST`, or a class has fewer than two; the message says which.
    """
    num = sum(train)
    if num < FEWEST:
        raise UserError(
            f"dataset {dataset.name!r}: {num} training pictures are too few for the features of the metric {NAME!r}, "
            f"which needs {FEWEST}; {REMEDY}"
        )
    if len(train) >= 2 and all_counted and min(train) < 2:
        few = [number for number, count in enumerate(train) if count < 2]
        others = f" (and {len(few) - 1} more classes)" if len(few) > 1 else ""
        raise UserError(
            f"dataset {dataset.name!r}: class {few[0]}{others}, counted from 0, has {train[few[0]]} training "
            f"picture, and the metric {NAME!r} needs two of each class; {REMEDY}"
        )


def train(
    pictures: Pictures, num_classes: int, settings: ClassFeatures, device: torch.device, stop: StopFlag
) -> ClassNet:
    """Train from scratch; the same pictures and settings give the same network on the same kind of machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init-class-features", settings.seed))
        network = ClassNet(pictures.bytes.shape[1], _num_groups(num_classes), settings.size).to(device).train()
    network.knows_colours(cell_colours(pictures.at(torch.arange(min(len(pictures.labels), _CHUNK)))).to(device))
    adam = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    with Bar("features", settings.steps) as bar:
        for step in range(settings.steps):
            stop.check()
            warm = min(1.0, (step + 1) / (_WARMUP * settings.steps))
            rate = _LEARNING_RATE * warm * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
            adam.param_groups[0]["lr"] = rate
            source = generator("class-features-step", settings.seed, step)
            rows = torch.randint(len(pictures.labels), (settings.batch_size,), generator=source)
            shown, groups = pictures.at(rows), pictures.labels[rows]
            if num_classes < 2:
                shown, groups = turned(shown, source)
            clean = distorted(shown, source)
            noise = _NOISE * torch.rand(len(clean), 1, 1, 1, generator=source)
            seen = network((clean + noise * torch.randn(clean.shape, generator=source)).to(device))
            missed = (seen.colours - cell_colours(clean).to(device)) / network.colour_std
            loss = F.cross_entropy(seen.groups, groups.to(device), label_smoothing=_SMOOTHING)
            loss = loss + missed.square().mean()
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
            bar.update(step + 1)
    return network.eval().requires_grad_(False)


def turned(images: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Square pictures [N,C,S,S] turned by a random number of right angles, and that number [N]."""
    turns = torch.randint(NUM_TURNS, (len(images),), generator=source)
    found = torch.stack([torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(images, turns, strict=True)])
    return found, turns


def distorted(images: Tensor, source: torch.Generator) -> Tensor:
    """Pictures [N,C,S,S], each slightly turned, moved and scaled, and every second one on average tinted.

    Without tints, colours that the data do not have, such as those of samples that turned grey, would be unknown.
    """
    num, channels = images.shape[:2]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=source)

    angle, scale, shift = uniform(-_TURN, _TURN, num), uniform(1 - _SCALE, 1 + _SCALE, num), uniform(-1, 1, num, 2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos, -sin, _SHIFT * shift[:, 0]], 1), torch.stack([sin, cos, _SHIFT * shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gains = uniform(_TINT, 1.0, num, channels, 1, 1)
    gains[uniform(0.0, 1.0, num) < 0.5] = 1.0
    return (moved + 1.0) * gains - 1.0


@torch.inference_mode()
def describe(network: ClassNet, pictures: Pictures, held_out: Pictures, dataset: Dataset) -> str:
    """A sentence: what a network was trained on, and how much it reads right on pictures that were held out."""
    device, classes = next(network.parameters()).device, dataset.spec().num_classes
    shown, groups = held_out.at(torch.arange(len(held_out.labels))), held_out.labels
    if classes < 2:
        shown = torch.cat([torch.rot90(shown, turn, (2, 3)) for turn in range(NUM_TURNS)])
        groups = torch.arange(NUM_TURNS).repeat_interleave(len(held_out.labels))
    seen = [network(part.to(device)) for part in torch.split(shown, _CHUNK)]
    right = torch.cat([part.groups.argmax(dim=1).cpu() for part in seen]) == groups
    colours = cell_colours(shown)
    error = (torch.cat([part.colours.cpu() for part in seen]) - colours).square().mean()
    share = 1.0 - float(error / colours.var(dim=0, correction=0).mean().clamp_min(1e-12))
    what = f"the {classes} classes" if classes >= 2 else "the turns"
    return (
        f"trained on {what} and the colours of {len(pictures.labels):,} pictures of dataset {dataset.name!r}; of "
        f"{len(held_out.labels):,} held-out pictures it reads {float(right.double().mean()):.3f} right, and "
        f"{max(share, 0.0):.2f} of the variance of their colours"
    )
