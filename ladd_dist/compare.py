"""`python -m ladd_dist.compare RUN... | SWEEP | wandb:...`: which variant wins, how surely, which collapsed."""

from __future__ import annotations

import csv
import gc
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import cell, one_line

if TYPE_CHECKING:
    from ladd_dist.comparison.result import Comparison
    from ladd_dist.comparison.runs import Found
    from ladd_dist.comparison.variants import Variant

PROG = "python -m ladd_dist.compare"


@dataclass(frozen=True)
class Options:
    """Compare finished runs: seeds pooled, differences with intervals, a winner only where the figures name one."""

    source: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, folders of them, a sweep's folder or name, wandb:ENTITY/PROJECT[/GROUP], wandb-offline:FOLDER."""
    metric: str = ""
    """The figure of eval.json that decides; the distance to real when empty, or fd_teacher where there is none."""
    sampler: str = ""
    """The entry of eval.json that decides; the student at the recipe's number of steps when empty."""
    better: Literal["auto", "lower", "higher"] = "auto"
    """Which way the metric points; auto: lower for distances, losses and times, higher for the rest."""
    out: Path | None = None
    """Write the page to this file."""
    csv: Path | None = None
    """Write the table to this file."""
    json: bool = False
    """One JSON object on stdout, everything else on stderr."""
    skip_broken: bool = False
    """Leave out, with a warning, runs that cannot be read and those that are there twice."""
    mixed: bool = False
    """Compare runs although they were measured differently or have different teachers."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides the package `plugins`."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, arguments, prog=PROG)))


def _main(options: Options) -> int:
    gc.disable()  # what is read is kept to the end: looking for what is not takes a tenth of the time and finds nothing
    try:
        return _compare(options)
    finally:
        gc.enable()


def _compare(options: Options) -> int:
    from ladd_dist.comparison.output import to_csv, to_json
    from ladd_dist.core.plugin import load_plugins
    from ladd_dist.core.rundir import write_bytes
    from ladd_dist.core.targets import output_file, require_apart

    require_apart(csv=options.csv, out=options.out)
    table = output_file(options.csv, "--csv") if options.csv else None
    page = output_file(options.out) if options.out else None
    load_plugins(options.plugins)
    result = compare_sources(options)
    if table:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(map(cell, line) for line in to_csv(result))
        write_bytes(table, lines.getvalue().encode())
    if page:
        from ladd_dist.comparison.page import write_page

        write_page(page, result)
    if options.json:
        print(json.dumps(to_json(result), allow_nan=False))
    else:
        _show(result)
    for path in (options.csv, options.out):
        if path:
            print(path, file=sys.stderr if options.json else sys.stdout)
    return 0


def compare_sources(options: Options) -> Comparison:
    """Read, group, check, compare.

    Raises:
        RecipeError: nothing to compare. UserError: runs that cannot be read, or must not be compared.
    """
    from ladd_dist.comparison.real import deciding
    from ladd_dist.comparison.result import compare
    from ladd_dist.comparison.runs import collect
    from ladd_dist.comparison.variants import group, mismatches
    from ladd_dist.core.serialize import RecipeError

    if not options.source:
        raise RecipeError(
            f"name what to compare: `{PROG} RUN RUN ...`, a folder of runs, a sweep's folder or wandb:..."
        )
    found = collect(options.source)
    notes = _readable(found, options.skip_broken)
    variants, twice = group(found.runs)
    if twice and not options.skip_broken:
        raise UserError(
            f"{_some(twice)}. Counted twice a run would pass for two seeds: name one of them, or --skip-broken"
        )
    notes += [f"left out: {text}" for text in twice]
    sampler = options.sampler or f"student@{found.runs[0].recipe.get('student_steps', 4)}"
    metric = deciding(found.runs, sampler, options.metric)
    notes += _measured_in(variants, metric)
    wrong = mismatches(variants, metric)
    fatal = [item.text for item in wrong if item.fatal]
    if fatal and not options.mixed:
        raise UserError(f"{'. '.join(fatal)}. Compare runs that share these, or say --mixed")
    notes += [item.text for item in wrong]
    unfinished = [run.source for run in found.runs if not run.is_finished]
    if unfinished:
        notes.append(
            f"{len(unfinished)} of {len(found.runs)} runs are unfinished, without figures (`ladd jobs` tells why): "
            f"{_some(unfinished)}"
        )
    return compare(
        variants,
        metric,
        sampler,
        better=None if options.better == "auto" else options.better,
        notes=notes,
    )


def _readable(found: Found, skip_broken: bool) -> list[str]:
    if found.broken and not skip_broken:
        raise UserError(f"{_some(found.broken)}. Leave them out with --skip-broken")
    if not found.runs:
        why = f": {_some(found.broken or found.absent)}" if found.broken or found.absent else ""
        raise UserError(f"there are no runs to compare{why}")
    notes = [f"left out: {text}" for text in found.broken]
    if found.absent:
        notes.append(f"{len(found.absent)} runs of the sweep have not started: {_some(found.absent)}")
    return notes


def _measured_in(variants: Sequence[Variant], metric: str) -> list[str]:
    """A note on the features that the deciding figure was measured in, where the runs say.

    Raises:
        UserError: they differ; not even --mixed compares such figures.
    """
    from ladd_dist.comparison.variants import features_named

    names = features_named(variants, metric)
    if len(names) > 1:
        raise UserError(
            f"the runs measured {metric} in different features ({', '.join(names)}), so its values have nothing to do "
            "with each other: compare runs of the same features, or choose another --metric"
        )
    return [f"{metric} is measured in the features {names[0]}"] if names and names[0] != "pixels" else []


def _some(texts: Sequence[str], limit: int = 5) -> str:
    return "; ".join([*texts[:limit], *([f"and {len(texts) - limit} more"] if len(texts) > limit else [])])


def _show(result: Comparison) -> None:
    from ladd_dist.comparison.terminal import caption, kept, table

    console = open_console(highlight=False)
    console.print(Fitted(table(result), keep=kept(result), rest="--out, --csv and --json"))
    console.print(caption(result), style="dim", markup=False)
    for note in result.notes:
        console.print(f"! {one_line(note)}", style="yellow", markup=False, soft_wrap=True)
    console.print(one_line(f"{result.sentence} {result.caveat}".strip()), style="bold", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
