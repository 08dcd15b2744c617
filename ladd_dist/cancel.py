"""`python -m ladd_dist.cancel SWEEP`: end the jobs of a sweep, and no others."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ladd_dist.cli.errors import run_guarded
from ladd_dist.cluster.local import end_local
from ladd_dist.cluster.scheduler import Scheduler, Seen, profile_of, scancel
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.progress import Sweep, folder_of, read_sweep

PROG = "python -m ladd_dist.cancel"


@dataclass(frozen=True)
class Options:
    """End the jobs of a sweep that run or wait. What they have finished is kept; submit the sweep again to go on."""

    sweep: tyro.conf.Positional[Path]
    """A sweep's folder, OUT/sweeps/NAME-SIGNATURE, or its name."""
    run: tuple[str, ...] = ()
    """Only the jobs of these runs, by label; those that make shared teachers and shards go on."""
    on: Path | None = None
    """The cluster's profile, where SLURM's commands need its `client` variables and it is not the one sent with."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(tyro.cli(Options, args=arguments, prog=PROG)))


def _main(options: Options) -> int:
    folder = folder_of(options.sweep)
    if not folder.is_dir():
        raise RecipeError(f"{folder} is no folder; give a sweep's, OUT/sweeps/NAME-SIGNATURE, or its name")
    sweep = read_sweep(folder)
    jobs = chosen(sweep, options.run)
    scheduler = Scheduler(sweep.logs, options.on or profile_of(sweep.on, sweep.out))
    seen = scheduler.ask(jobs)
    if scheduler.problem:
        raise UserError(f"nothing was cancelled, {scheduler.problem}; cancel on a machine of the cluster")
    alive = {str(job["id"]): job for job in jobs if _is_alive(seen.get(str(job["id"])))}
    if not alive:
        print(f"nothing to cancel: none of {len(jobs)} jobs is queued or running")
        return 0
    scancel_ids = [name for name, job in alive.items() if job.get("cluster", "slurm") == "slurm"]
    if scancel_ids:
        scancel(scancel_ids, scheduler.environment)
    end_local(alive.keys() - set(scancel_ids), sweep.logs)
    labels = {Path(run["run"]).name: run["label"] for run in sweep.runs}
    for name, job in alive.items():
        where = f" on {seen[name].node}" if seen[name].node else ""
        what = labels.get(Path(job["of"]).name, job["of"])
        print(f"cancelled job {name} ({_word(seen[name])}{where}): {what}")
    states = Counter(_word(seen[name]) for name in alive)
    print(f"{len(alive)} cancelled: {', '.join(f'{count} {word}' for word, count in states.items())}")
    return 0


def _word(seen: Seen) -> str:
    return "ending" if seen.raw == "COMPLETING" else "queued" if seen.raw == "PENDING" else seen.state


def _is_alive(seen: Seen | None) -> bool:
    """Whether a job would go on. Queued for ever counts: a job whose dependency failed may stay in the queue.

    One that is ending counts too: it may be ending in order to be requeued.
    """
    return seen is not None and (seen.state in ("running", "queued") or seen.raw == "PENDING")


def chosen(sweep: Sweep, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The sweep's jobs, or those of some of its runs.

    Raises:
        RecipeError: no run has such a label.
    """
    if not labels:
        return list(sweep.jobs)
    runs = {run["label"]: Path(run["run"]).name for run in sweep.runs}
    unknown = [label for label in labels if label not in runs]
    if unknown:
        few = list(runs)[:20]
        more = f", ... ({len(runs)} in all)" if len(runs) > len(few) else ""
        raise RecipeError(f"--run: the sweep has no run {unknown[0]!r}; runs: {', '.join(few)}{more}")
    wanted = {runs[label] for label in labels}
    return [job for job in sweep.jobs if job["kind"] == "run" and Path(job["of"]).name in wanted]


if __name__ == "__main__":
    sys.exit(main())
