"""A plan carried out: configs for the jobs to read, the jobs, and the sweep's record of them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ladd_dist.workspace.run import Run

if TYPE_CHECKING:
    from ladd_dist.cluster.sweep_plan import Work

import contextlib
import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ladd_dist.cluster import Cluster
from ladd_dist.cluster.executor import Job, Unit, failure_of, submit
from ladd_dist.cluster.job import StageJob
from ladd_dist.cluster.local import end_local
from ladd_dist.cluster.sweep_plan import ACTIVE, DONE, Item, Plan, plan
from ladd_dist.core.rundir import exclusive
from ladd_dist.core.serialize import RecipeError, signature
from ladd_dist.core.signals import NUMBERS
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.stages.run import check_shares, prepare_run
from ladd_dist.stages.table import stage_states
from ladd_dist.workspace.sweep_record import Record, read_record

Facts = dict[str, dict[str, Any]]


def carry_out(planned: Plan, facts: Facts) -> dict[str, Any]:
    """Submit what was planned; without SLURM also wait, because nobody else keeps the order.

    Another command may have submitted the same runs since, so there is a new look first, under a lock, and its items
    replace those of `planned`.

    Args:
        facts: what `try_runs` gave.

    Returns:
        `jobs`: the id of each job submitted, by what it is of; `failed`: of those waited for, why.

    Raises:
        ValueError: the cluster refuses a job.
    """
    cluster = planned.cluster
    assert cluster is not None
    jobs: dict[str, Job] = {}
    # Sweeps may have runs in common; only where submitting means waiting for them, another sweep need not wait too.
    with exclusive(planned.folder.parent if cluster.executor == "slurm" else planned.folder):
        planned.items = plan(planned.work, cluster).items
        chosen = [item for item in planned.items if item.submit]
        _cancel([item.job for item in chosen if item.job], cluster, planned.folder / "logs")
        record = _record(planned)
        _write_configs(planned, facts)
        record.write(planned.folder)
        for group in _groups(chosen):
            _submit(planned, group, record, jobs)
    waited = jobs if cluster.executor != "slurm" else {}
    failed = {of: why for of, job in waited.items() if (why := failure_of(job)) is not None}
    return {"jobs": {of: str(job.job_id) for of, job in jobs.items()}, "failed": failed}


def _submit(planned: Plan, group: list[Item], record: Record, jobs: dict[str, Job]) -> None:
    """One job or array; without SLURM as many at once as the profile says, one lot after the other."""
    cluster, kind = planned.cluster, group[0].kind
    assert cluster is not None
    name = planned.work.name if kind == "run" else f"{planned.work.name}-{kind}"
    on_slurm = cluster.executor == "slurm"
    units = [Unit(item.kind, item.of, _job_of(item, planned)) for item in group]
    size = len(units) if on_slurm else cluster.array_parallelism
    after = _ids_of(planned, group[0].needs, jobs) if on_slurm else []
    for first in range(0, len(units), size):
        lot = units[first : first + size]
        with _whole() if on_slurm else contextlib.nullcontext():
            made = submit(cluster, lot, planned.folder / "logs", name=name, after=after)
            for unit, job in zip(lot, made, strict=True):
                jobs[unit.of] = job
                record.add(str(job.job_id), unit.kind, unit.of, cluster.executor)
            record.write(planned.folder)
        if not on_slurm:
            print(f"{', '.join(unit.of for unit in lot)} ... (logs: {planned.folder / 'logs'})", file=sys.stderr)
            for job in made:
                job.wait()


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Signals wait until a job that was submitted is in the record too.

    Not for jobs that are children of this process: they would inherit the mask and be deaf for good.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cancel(ids: list[str], cluster: Cluster, logs: Path) -> None:
    if cluster.executor != "slurm":
        end_local(ids, logs)
        return
    for id in ids:
        subprocess.run(["scancel", id], check=False, timeout=120)


def _groups(items: list[Item]) -> list[list[Item]]:
    """One job for each teacher and each set of shards; one array of the runs that need the same shards."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.kind, item.needs if item.kind == "run" else item.of), []).append(item)
    return list(groups.values())


def _ids_of(planned: Plan, of: str, jobs: dict[str, Job]) -> list[str]:
    """The job that makes what is needed: of this submission, or of an earlier one that has not ended."""
    if of in jobs:
        return [str(jobs[of].job_id)]
    return [item.job for item in planned.items if item.of == of and item.state == ACTIVE and item.job]


def _run_for(item: Item, planned: Plan) -> Item:
    """The run whose config.json a job reads: of what runs share, that of one that needs it and is submitted too."""
    with_it = {shared.of for shared in planned.items if shared.kind == "shards" and shared.needs == item.of} | {item.of}
    runs = (run for run in planned.items if run.run is not None and run.submit and run.needs in with_it)
    return item if item.run is not None else next(runs, item)


def _job_of(item: Item, planned: Plan) -> StageJob:
    work, cluster = planned.work, planned.cluster
    assert cluster is not None
    workspace = work.workspace
    first = ("autoencoder", "teacher")  # a job leaves out what its recipe does not have
    stages = (*first, "shards") if item.kind == "shards" else work.stages if item.kind == "run" else first
    return StageJob(
        config=str(Run(_run_for(item, planned).recipe, workspace).folder.config),
        stages=stages,
        out=str(workspace.runs),
        cache=str(workspace.cache),
        paths=tuple(path or str(Path.cwd()) for path in sys.path if not path or Path(path).is_dir()),
        sweep=planned.folder.name if item.run is not None else "",
        axes=item.run.axes if item.run is not None else (),
        timeout_s=cluster.timeout_s,
    )


def _record(planned: Plan) -> Record:
    """The sweep's record, with the jobs of earlier submissions."""
    work = planned.work
    runs = [item.run for item in planned.items if item.run is not None]
    axes: dict[str, list[str]] = {}
    for run in runs:
        for axis, label in run.axes:
            known = axes.setdefault(axis, [])
            known += [label] if label not in known else []
    workspace = work.workspace
    before = read_record(planned.folder).jobs if (planned.folder / "sweep.json").exists() else []
    return Record(
        name=work.name,
        signature=planned.signature,
        recipe_path=str(work.recipe_path),
        scale=work.scale,
        axes=axes,
        seeds=list(dict.fromkeys(run.recipe.seed for run in runs)),
        runs=[
            {
                "label": run.label,
                "axes": dict(run.axes),
                "seed": run.recipe.seed,
                "run": Run(run.recipe, workspace).folder.path.name,
                "signature": run.recipe.distill_signature(),
                "teacher": Run(run.recipe, workspace).teacher_folder.name,
                "shards": Run(run.recipe, workspace).shards_folder.name,
            }
            for run in runs
        ],
        on=str(work.on or ""),
        cache=str(workspace.cache),
        jobs=before,
    )


def try_runs(planned: Plan) -> Facts:
    """A trial of each run that is not done, on this machine: what cannot work fails here, before anything is written.

    Returns:
        what `describe_run` says, by the run's folder.

    Raises:
        RecipeError: names the run.
    """
    work, tasks = planned.work, planned.cluster.tasks if planned.cluster else 1
    tried: Facts = {}
    facts: Facts = {}
    for item in planned.items:
        if item.run is None or item.state == DONE:
            continue
        key = signature("trial", dataclasses.replace(item.recipe, seed=0))
        try:
            tried[key] = tried.get(key) or describe_run(Run(item.recipe, work.workspace), work.scale)
            check_shares(item.recipe, stage_states(Run(item.recipe, work.workspace)), list(work.stages), tasks)
        except RecipeError as error:
            raise RecipeError(f"{item.run.label}: {error}") from error
        facts[item.of] = tried[key]
    return facts


def _write_configs(planned: Plan, facts: Facts) -> None:
    """config.json of every run that is submitted, which its job reads; no folder for one that is not."""
    work = planned.work
    for item in planned.items:
        if item.submit and item.of in facts:
            prepare_run(
                Run(item.recipe, work.workspace), facts[item.of], path=work.recipe_path, plugins=work.plugins,
                command=work.command,
            )  # fmt: skip


def carry_out_or_show(work: Work, *, dry_run: bool, as_json: bool) -> int:
    """Plan, show and submit; returns the exit code. 1: a job that was waited for failed.

    Raises:
        RecipeError: a profile or run that cannot work. ValueError: the cluster refuses a job.
    """
    from ladd_dist.cluster import client_environment, load_cluster
    from ladd_dist.cluster.executor import check_cluster
    from ladd_dist.cluster.sweep_plan import plan, show

    cluster = load_cluster(work.on) if work.on else None
    if cluster is not None:
        os.environ.update(client_environment(cluster))
    if cluster is not None and work.on is not None and not dry_run:
        check_cluster(cluster, work.on)
    planned = plan(work, cluster)
    facts = try_runs(planned)
    if not as_json:
        show(planned)
    outcome: dict[str, Any] = {} if dry_run else carry_out(planned, facts)
    failed: dict[str, str] = outcome.get("failed", {})
    for of, why in failed.items():
        print(f"{of} failed: {why.strip().splitlines()[-1]}", file=sys.stderr)
    if as_json:
        print(json.dumps({**planned.facts(), **outcome}))
    elif not dry_run:
        print(planned.folder)
    return 1 if failed else 0
