"""`ladd jobs [SWEEP|OUT]`: what every run of a sweep is doing, from its folder and the scheduler; and their end."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.cluster.cancellation import cancel, chosen
from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.cluster.status import RunStatus, SharedStatus, Status, SweepStatus, look, scheduler_of
from ladd_dist.core.method import in_words
from ladd_dist.core.printable import one_line
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.progress import GuardSummary, folder_of, read_sweep

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

PROG = "python -m ladd_dist.jobs"
STATES = ("running", "queued", "failed", "stopped", "not submitted", "done")
"""In the order in which a live table shows them, for it may be longer than the screen."""
STYLES = {"running": "cyan", "failed": "bold red", "done": "green", "stopped": "yellow"}
EVERY_S = 2.0
MOST_ERRORS = 20


@dataclass(frozen=True)
class Options:
    """Show the runs of a sweep: state, node, step, speed, losses, requeues and the last error with its log.

    With --cancel: end its jobs that run or wait. What they have finished is kept; submit the sweep again to go on.
    """

    folder: tyro.conf.Positional[Path] = Path("runs")
    """A sweep's folder (OUT/sweeps/NAME-SIGNATURE) or its name, or OUT for all its sweeps and the runs of none."""
    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show it anew every two seconds, until nothing runs or waits."""
    cancel: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End the jobs of the sweep, and no others, in place of showing them."""
    run: tuple[str, ...] = ()
    """With --cancel: only the jobs of these runs, by label; those that make shared teachers and shards go on."""
    on: Path | None = None
    """The cluster's profile, where SLURM's commands need its `client` variables and you did not send the sweep with it
    from this machine, or changed it since."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, arguments, prog=PROG)))


def _main(options: Options) -> int:
    if options.watch and options.json:
        raise RecipeError("--watch is for people and --json for programs: ask again in place of watching")
    if options.run and not options.cancel:
        raise RecipeError("--run says whose jobs --cancel ends; without --cancel every run is shown")
    if options.cancel and (options.watch or options.json):
        raise RecipeError("--cancel ends jobs and lists them; it goes with neither --watch nor --json")
    options = dataclasses.replace(options, folder=folder_of(options.folder))
    if not options.folder.is_dir():
        raise RecipeError(f"{options.folder} is no folder; give a sweep (OUT/sweeps/NAME-SIGNATURE), its name, or OUT")
    if options.cancel:
        return _cancel(options)
    schedulers: dict[Path, Scheduler] = {}
    if options.watch:
        return _watch(options, schedulers)
    found = look(options.folder, schedulers, options.on)
    print(json.dumps(asdict(found))) if options.json else _show(found)
    return 0


def _cancel(options: Options) -> int:
    sweep = read_sweep(options.folder)
    jobs = chosen(sweep, options.run)
    ended = cancel(jobs, sweep, scheduler_of(sweep, options.on))
    if not ended:
        print(f"nothing to cancel: none of {len(jobs)} jobs is queued or running")
        return 0
    for job in ended:
        where = f" on {job.node}" if job.node else ""
        print(one_line(f"cancelled job {job.id} ({job.state}{where}): {job.what}"))
    states = Counter(job.state for job in ended)
    print(f"{len(ended)} cancelled: {', '.join(f'{count} {state}' for state, count in states.items())}")
    return 0


# --- for people ---


def _watch(options: Options, schedulers: dict[Path, Scheduler]) -> int:
    from rich.live import Live

    found, console = look(options.folder, schedulers, options.on), open_console(highlight=False)
    view = _view(found, lines=console.height)
    with Live(view, console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        try:
            while any(count for sweep in found.sweeps for state, count in sweep.counts.items() if state in STATES[:2]):
                time.sleep(EVERY_S)
                found = look(options.folder, schedulers, options.on)
                live.update(_view(found, lines=console.height), refresh=True)
        except KeyboardInterrupt:
            return 0  # the way out of looking; the jobs go on
        live.update(_view(found), refresh=True)
    return 0


def _show(found: Status) -> None:
    open_console(highlight=False).print(_view(found))


def _view(found: Status, lines: int | None = None) -> Group:
    """The tables; with `lines`, those of a live one, only rows that fit on such a screen, what runs or waits first."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Fitted | Text] = []
    for sweep in found.sweeps:
        rows = list(sweep.runs) if lines is None else sorted(sweep.runs, key=lambda row: STATES.index(row.state))
        parts.append(Fitted(_table(sweep, rows[:lines]), keep=("state", "step"), rest="--json"))
        if lines is None:  # a live table has no room for them
            parts += [Text(one_line(line), overflow="fold") for line in _methods(rows)]
        every: list[RunStatus | SharedStatus] = [*sweep.jobs, *rows]
        troubled = [row for row in every if row.error]
        for row in troubled[:MOST_ERRORS]:
            who = row.label if isinstance(row, RunStatus) else row.of
            parts.append(Text(one_line(f"{who}: {row.error}"), style="red", overflow="fold"))
            parts.append(Text(one_line(f"    {row.log}"), overflow="fold"))
        if len(troubled) > MOST_ERRORS:
            parts.append(Text(f"... and {len(troubled) - MOST_ERRORS} more with an error; --json has all"))
        if sweep.problem:
            parts.append(Text(f"warning: {sweep.problem}", style="yellow"))
    return Group(*parts)


def _table(sweep: SweepStatus, rows: list[RunStatus]) -> Table:
    from rich.table import Table
    from rich.text import Text

    counts = ", ".join(f"{sweep.counts[state]} {state}" for state in STATES if sweep.counts.get(state))
    name = f"{sweep.name}-{sweep.signature}" if sweep.name else f"runs of no sweep in {sweep.folder}"
    table = Table(title=f"{one_line(name)}: {len(sweep.runs)} runs ({counts})", title_justify="left")
    left = ("run", "state", "job", "node")
    for heading in (*left, "step", "rate", "ETA", "heads", "adv", "distill", "accuracy", "guard", "requeues"):
        table.add_column(
            heading, justify="left" if heading in left else "right", no_wrap=heading not in ("run", "state", "guard")
        )
    for job in sweep.jobs:
        blank = [""] * 8
        state = Text(_state(job), style=STYLES.get(job.state, ""))
        table.add_row(Path(job.of).name, state, job.job, job.node or "", *blank, _count(job))
    for row in rows:
        steps = "?" if row.steps is None else row.steps
        table.add_row(
            Text(one_line(row.label)),
            Text(_state(row), style=STYLES.get(row.state, "")),
            row.job or "",
            row.node or "",
            "" if row.step is None else f"{row.step}/{steps}",
            _number(row.steps_per_s, ".1f", "/s"),
            _duration(row.eta_s),
            *(_number(loss, ".4f") for loss in (row.losses.heads, row.losses.adversarial, row.losses.distill)),
            _number(row.accuracy, ".2f"),
            one_line(_guard(row.guard)),
            _count(row),
        )
    return table


def _methods(rows: list[RunStatus]) -> list[str]:
    """Head, taps, start and losses of the runs: a line for each method and the runs that have it."""
    by_method: dict[str, list[str]] = {}
    for row in rows:
        if row.method:
            by_method.setdefault(in_words(row.method), []).append(row.label)
    if len(by_method) == 1:
        return list(by_method)
    return [f"{words}: {', '.join(labels)}" for words, labels in by_method.items()]


def _guard(said: GuardSummary | None) -> str:
    if said is None:
        return "-"
    since = f" since {said.since}" if said.since is not None else ""
    return f"{said.level}{since}" + (f", {said.rollbacks} back" if said.rollbacks else "")


def _state(row: RunStatus | SharedStatus) -> str:
    why = row.reason if row.state == "queued" else None
    return f"{row.state} ({why})" if why else row.state


def _count(row: RunStatus | SharedStatus) -> str:
    return str(row.requeues or "")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


if __name__ == "__main__":
    sys.exit(main())
