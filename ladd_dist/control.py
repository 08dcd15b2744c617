"""`python -m ladd_dist.control train|apply|transfer`: concept sliders, learned on one network and used on another."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.consent import Consent
from ladd_dist.core.ranges import AnyInteger, BatchSize, Count, Finite, Positive, Threads, Updates, Within

if TYPE_CHECKING:
    from rich.table import Table

    from ladd_dist.core.rundir import RunDir
    from ladd_dist.sliders.effect import Effect
    from ladd_dist.sliders.slider import ControlCard, On
    from ladd_dist.workspace.run import Run

PROG = "python -m ladd_dist.control"
RENAMED = {"--on": "--network", "--to": "--network"}
"""Old names of flags: elsewhere --on is a cluster and --to a format."""
DESCRIPTION = "Concept sliders: learn a direction on teacher or student, use it on either, measure how it transfers."


@dataclass(frozen=True)
class Where(Consent):
    """The arguments of all three subcommands."""

    run: tyro.conf.Positional[Path]
    """A finished run's folder."""
    cache: Path | None = None
    """The folder with the run's teacher and shards; unless given, the one that it used."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    threads: Threads = 0
    """CPU threads; 0: as OMP_NUM_THREADS says, else as PyTorch chooses."""


@dataclass(frozen=True)
class Train(Where):
    """Learn a low-rank direction of the weights along which an attribute of the samples grows."""

    network: Literal["teacher", "student"] = "teacher"
    """The network whose weights learn the direction."""
    attribute: str = "hue"
    """hue (towards red, away from it), stroke (wider, narrower), value (brighter, darker)."""
    rank: Annotated[int, Within("[1, 4096]")] = 4
    """Rank of the direction in each layer."""
    steps: Updates = 200
    """Updates."""
    batch_size: BatchSize = 64
    """Stored samples an update; each is seen with more of the attribute and with less of it."""
    lr: Positive = 2e-3
    """Learning rate; it falls to 0 along a cosine."""
    targets: tuple[str, ...] = ()
    """Regular expressions: layers in whose names one is found take part; all unless given."""
    seed: AnyInteger = 0
    """Seed of the adapter's random half, the noise and the order of the samples."""
    out: Path = Path("control.safetensors")
    """The file to write."""


@dataclass(frozen=True)
class Apply(Where):
    """Make a picture: a row for each strength, a column for each noise."""

    file: tyro.conf.Positional[Path] = Path("control.safetensors")
    """The file that `train` wrote."""
    network: Literal["teacher", "student"] = "student"
    """The network that samples."""
    strength: tuple[Finite, ...] = (-1.0, 0.0, 1.0)
    """How much of the direction is added: 0 the untouched network, 1 as trained, -1 the opposite."""
    columns: Count = 16
    """Noises, with the classes in turn."""
    out: Path = Path("control.png")
    """The PNG file to write: a name that ends in .png, or a pipe or device."""


@dataclass(frozen=True)
class Transfer(Where):
    """Measure on teacher and student how far the attribute moves and how much of the rest stays."""

    file: tyro.conf.Positional[Path] = Path("control.safetensors")
    """The file that `train` wrote."""
    strength: tuple[Finite, ...] = (-1.0, 0.0, 1.0)
    """As in `apply`; 0 is always measured."""
    num_samples: Annotated[int, Within("[2, inf)")] = 200
    """Held-out noises for each strength."""
    out: Path = Path("transfer.json")
    """The JSON file to write; the picture lies beside it."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what is written instead of a table."""


Options = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Apply, tyro.conf.subcommand("apply")]
    | Annotated[Transfer, tyro.conf.subcommand("transfer")]
)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(_read(arguments)))


def _read(arguments: list[str]) -> Train | Apply | Transfer:
    options: Train | Apply | Transfer = read(Options, arguments, prog=PROG, renamed=RENAMED, description=DESCRIPTION)
    return options


def _main(options: Train | Apply | Transfer) -> int:
    if isinstance(options, Train):
        return _train(options)
    return _apply(options) if isinstance(options, Apply) else _transfer(options)


def _open(options: Where) -> tuple[Run, RunDir]:
    """The run in its workspace, and its folder, which may have another name than the recipe gives it."""
    from ladd_dist.parallel.devices import compute_on
    from ladd_dist.workspace.opening import open_run

    device = compute_on(options.device, options.threads)
    opened = open_run(options.run, consent=options, cache=options.cache, device=device)
    return opened.run, opened.folder


def _suffix(path: Path, wanted: str) -> Path:
    """Where to write the file, if its name ends in `wanted`.

    Raises:
        RecipeError: its name ends otherwise, or it cannot become a file.
    """
    from ladd_dist.core.targets import output_file, require_ending

    require_ending(path, wanted)
    return output_file(path)


def _train(options: Train) -> int:
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.sliders.slider import Training, save_control, train_control

    out = _suffix(options.out, ".safetensors")
    try:
        settings = Training(
            options.attribute, options.network, options.rank, options.steps, options.batch_size, options.lr,
            options.targets, options.seed,
        )  # fmt: skip
    except ValueError as error:
        raise RecipeError(str(error)) from error
    save_control(out, train_control(*_open(options), settings))
    print(out)
    return 0


def _strengths(given: tuple[float, ...]) -> tuple[float, ...]:
    """The strengths without duplicates.

    Raises:
        RecipeError: there is none.
    """
    from ladd_dist.core.serialize import RecipeError

    if not given:
        raise RecipeError("--strength takes at least one number, like -1 0 1")
    return tuple(dict.fromkeys(float(strength) for strength in given))


def _apply(options: Apply) -> int:
    from ladd_dist.core.targets import output_picture
    from ladd_dist.reports.grids import write_grid
    from ladd_dist.sliders.effect import slide
    from ladd_dist.sliders.slider import load_control

    out, strengths = output_picture(options.out), _strengths(options.strength)
    control = load_control(options.file)
    samples, _ = slide(*_open(options), control, options.network, strengths, options.columns)
    rows = [(f"{control.card['attribute']} {_signed(strength)}", images) for strength, images in samples.items()]
    write_grid(out, rows, options.columns)
    print(out)
    return 0


def _signed(strength: float) -> str:
    return f"{strength:+g}" if strength else "0"


def _transfer(options: Transfer) -> int:

    from ladd_dist import __version__
    from ladd_dist.core.rundir import write_json
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.core.targets import output_picture
    from ladd_dist.recipe.fitting import feature_network
    from ladd_dist.reports.grids import write_grid
    from ladd_dist.sliders.effect import NETWORKS, effect, slide
    from ladd_dist.sliders.slider import load_control, require_pixels

    out = _suffix(options.out, ".json")
    output_picture(out.with_suffix(".png"))
    strengths = tuple(sorted({0.0, *_strengths(options.strength)}))
    if len(strengths) < 2:
        raise RecipeError("--strength needs one besides 0")
    control = load_control(options.file)
    run, folder = _open(options)
    require_pixels(run.recipe)
    effects: dict[On, Effect] = {}
    rows = []
    for on in NETWORKS:
        samples, cond = slide(run, folder, control, on, strengths, options.num_samples)
        effects[on] = effect(samples, cond, control.card["attribute"], feature_network(run.recipe))
        rows += [(f"{on} {_signed(strength)}", images[:16]) for strength, images in samples.items()]
    facts = {"run": run.recipe.distill_signature(), "num_samples": options.num_samples, "ladd_dist": __version__}
    networks = {on: found.as_json() for on, found in effects.items()}
    record = {"format": 1, **facts, "control": control.card, "networks": networks}
    write_grid(out.with_suffix(".png"), rows)
    write_json(out, record)
    if options.json:
        print(json.dumps(record))
    else:
        open_console().print(Fitted(table_of(control.card, effects), keep=("strength", "moved"), rest="the JSON file"))
        print(out)
    return 0


def table_of(card: ControlCard, effects: Mapping[On, Effect]) -> Table:
    """A table with a row for each network and strength, with intervals of 95 % over samples."""
    from rich.table import Table

    others = [key for key in next(iter(effects["teacher"].strengths.values())) if _is_other(key)]
    columns = ["network", "strength", "moved", "goal", "accuracy", *others, "drift"]
    table = Table(*columns, title=f"{card['attribute']}, learned on the {card['on']} (rank {card['rank']})")
    for on, found in effects.items():
        for strength, row in found.strengths.items():
            cells = [_cell(row, key) for key in columns[2:]]
            table.add_row(on, strength, *cells)
        table.add_row(on, "span", _cell(found.span, "span"), end_section=True)
    return table


def _is_other(key: str) -> bool:
    from ladd_dist.metrics.interval import is_bound

    return key.startswith("other/") and not is_bound(key)


def _cell(row: dict[str, float], name: str) -> str:
    from ladd_dist.metrics.interval import HIGH, LOW

    if name + LOW not in row:
        return f"{row[name]:+.3f}"
    sign = "" if name in ("accuracy", "drift") else "+"
    return f"{row[name]:{sign}.3f} ±{(row[name + HIGH] - row[name + LOW]) / 2:.2g}"


if __name__ == "__main__":
    sys.exit(main())
