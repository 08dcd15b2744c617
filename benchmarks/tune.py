"""New pictures for a four-step student: `ladd tune` beside what others do, over seeds and numbers of pictures.

    python -m benchmarks.tune --pictures FOLDER --new CLASS          # again and again, until it says "all done"
    python -m benchmarks.tune --pictures FOLDER --new CLASS --table  # the table of what is there
    python -m benchmarks.tune --counts 100                           # digits, in the latents of an autoencoder

FOLDER has a folder of pictures for each class. A base and a four-step student learn all of them (recipe `folder`). The
new pictures are those of CLASS in a style that neither has seen, blue on white, in random order; half of them are held
out, and pictures of one `base` in FOLDER's metadata.jsonl stay together. Without a folder these are scikit-learn's
digits in all hues but blue, base, student and autoencoder those of recipe `latent_digits`, and the new pictures the
digits of CLASS in blue, and all methods have half the updates. Compared, all with adapters of rank 16:

    diffusion     the student, with the diffusion loss: what a LoRA for a few-step model usually is
    de-distilled  the same on the student after it has learned to denoise its own samples, put back on the student
    from base     the base, with the diffusion loss, put on the student
    tune          `ladd tune`
    ceiling       the base, with the diffusion loss, in 50 steps
    untouched     the student as it was

    real          other real pictures in the place of samples: the floor
    decoded       the same through the autoencoder and back: the floor in latents

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
import sys
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks._runs import put_between
from benchmarks._tune_given import CPU, NUM_SAMPLES, Given, Options, command, given_for
from benchmarks._tune_pictures import read_pictures
from benchmarks._tune_rivals import Denoise, learned, put_on, samples_of
from benchmarks._tune_table import IN_LATENTS, LATENTS, METHODS, table
from ladd_dist.builders.student_file import load_student
from ladd_dist.core.checkout import current_commit
from ladd_dist.core.rundir import write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.metrics.frechet import frechet_estimate, frechet_reference
from ladd_dist.metrics.kernel import kernel_estimate, kernel_reference
from ladd_dist.metrics.neighbours import nearest
from ladd_dist.reports.grids import write_grid

NUM_SHOWN = 12
UPDATES = {"smoke": 10, "laptop": 2_000}
REAL = ("real", "decoded")


def main() -> int:
    """Make the rows that are missing; returns the exit code."""
    options = tyro.cli(Options)
    rows, in_latents = _read(options.out), options.pictures is None
    if not options.table:
        given, prefix = given_for(options), LATENTS if in_latents else ""
        for count in (count for count in options.counts if count <= len(given.styled)):
            for seed in options.seeds:
                for method in _methods(options):
                    if (name := f"{prefix}{count}/{seed}/{method}") not in rows:
                        row = _row(options, given, count, seed, method)
                        rows = {**_read(options.out), name: row}  # others may write there too
                        write_json(options.out, rows)
    print(text := table(rows, in_latents=in_latents))
    if options.write:
        put_between(options.write, "tune in latents" if in_latents else "tune", text)
    if options.grid:
        _draw(options, options.grid)
    print("all done" if not options.table else f"{len(rows)} rows")
    return 0


def _read(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else {}


def _methods(options: Options) -> tuple[str, ...]:
    every = IN_LATENTS if options.pictures is None else METHODS
    return tuple(method for method in every if method in options.methods or not options.methods)


def _row(options: Options, given: Given, count: int, seed: int, method: str) -> dict[str, Any]:
    """Figures of one method on the first `count` pictures, and the commit of the code."""
    pictures = read_pictures(given.styled[:count], given.held_out.shape[-1])
    started = time.monotonic()
    if method in REAL:
        own, kept = (images if method == "real" else _shown(given, given.codec.encode(images))
                     for images in (given.new, given.more_old))  # fmt: skip
    else:
        network, steps = _tuned(options, given, pictures, seed, method)
        asked = (torch.full((NUM_SAMPLES[options.scale],), given.number), given.old_classes)
        own, kept = (_samples(given, network, cond, steps, seed) for cond in asked)
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
        "commit": current_commit(),
    }


def _samples(given: Given, network: Denoise, cond: Tensor, steps: int, seed: int) -> Tensor:
    """Pictures [N,3,H,W] that a network makes for classes cond [N]."""
    return _shown(given, samples_of(network, cond, given.student.image.shape, given.levels, given.rule, steps, seed))


@torch.inference_mode()
def _shown(given: Given, latents: Tensor) -> Tensor:
    return given.codec.decode(latents).clamp(-1, 1)


def _distance(given: Given, images: Tensor, real: Tensor) -> float:
    ours, theirs = (given.features.read(part)["features"] for part in (images, real))
    return frechet_estimate(ours, frechet_reference(theirs)).value


def _shown_file(options: Options, count: int, seed: int, method: str) -> Path:
    place = f"{'latents-' if options.pictures is None else ''}{count}-{seed}-{method}"
    return options.work / "shown" / f"{place}.safetensors"


def _draw(options: Options, path: Path) -> None:
    """Write the grid: held-out pictures, then each method's samples of the new class and of the old ones."""
    methods = _methods(options)
    shown = {name: load_file(_shown_file(options, options.counts[0], options.seeds[0], name)) for name in methods}
    rows = [("held-out pictures", shown[methods[0]]["real"])]
    rows += [(f"{name}: {which}", images[which]) for which in ("new", "old") for name, images in shown.items()]
    write_grid(path, rows)


def _tuned(options: Options, given: Given, pictures: Tensor, seed: int, method: str) -> tuple[Denoise, int]:
    """A method's network as a function of x, sigma and the base's classes, and in how many steps it samples."""
    cond, updates = torch.full((len(pictures),), given.number), _updates(options)

    def learn(network: Denoiser, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            latents = given.codec.encode(images)
        return learned(network, latents, classes, updates, seed)

    base, student = copy.deepcopy(given.base), copy.deepcopy(given.student)
    if method == "tune":
        return _ours(options, given, len(pictures), seed), 4
    if method == "diffusion":
        return put_on(student, learn(copy.deepcopy(student), pictures, cond)), 4
    if method == "de-distilled":
        every = torch.arange(given.student.image.num_classes).repeat(NUM_SAMPLES[options.scale])[: len(given.old)]
        own = _samples(given, put_on(student, {}), every, 4, seed)
        apart = put_on(copy.deepcopy(given.student), learn(copy.deepcopy(given.student), own, every))
        return put_on(student, learn(apart, pictures, cond)), 4
    if method == "from base":
        return put_on(student, learn(base, pictures, cond)), 4
    if method == "ceiling":
        return put_on(copy.deepcopy(given.base), learn(base, pictures, cond)), 50
    return student, 4


def _updates(options: Options) -> int:
    return UPDATES[options.scale] // (2 if options.pictures is None else 1)


def _ours(options: Options, given: Given, count: int, seed: int) -> Denoise:
    digits = "digits-" if options.pictures is None else ""
    folder, chosen = options.work / f"new-{digits}{count}", given.styled[:count]
    folder.mkdir(exist_ok=True)
    for path in chosen:
        if not (folder / path.name).exists():
            (folder / path.name).hardlink_to(path)
    known = [{"file_name": path.name, "base": given.bases[path.name]} for path in chosen if path.name in given.bases]
    if known:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known))
    words = [str(given.run.relative_to(options.work)), "--images", folder.name, "--classes", str(given.number)]
    words += ["--scale", options.scale, "--seed", str(seed), "--name", f"tune-{digits}{count}"]
    words += ["--updates", str(_updates(options) // 2)] if options.pictures is None else []  # half the recipe's too
    network, _ = load_student(command(options, "tune", *words), CPU)
    classes = given.student.image.num_classes
    order = [given.number, *(number for number in range(classes) if number != given.number)]
    place = torch.tensor([*(order.index(number) for number in range(classes)), classes])
    return lambda x, sigma, cond: network(x, sigma, place[cond])


if __name__ == "__main__":
    sys.exit(main())
