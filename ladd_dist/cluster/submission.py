"""A plan carried out: configs for the jobs to read, the jobs, and the sweep's record of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ladd_dist.cluster import Cluster, client_environment, load_cluster
from ladd_dist.cluster.executor import Job, JobSpec, check_cluster, failure_of, forget_pickles, submit
from ladd_dist.cluster.job import StageJob
from ladd_dist.cluster.profiles import keep
from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.cluster.sweep_plan import ACTIVE, DONE, Plan, PlannedJob, SweepRequest, plan, show
from ladd_dist.core.plugin import plugin_modules
from ladd_dist.core.rundir import exclusive
from ladd_dist.core.serialize import RecipeError, signature
from ladd_dist.core.signals import NUMBERS
from ladd_dist.core.targets import require_place
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.stages.run import check_stages, prepare_run
from ladd_dist.stages.table import stage_states
from ladd_dist.workspace.config import RunFacts
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.sweep_record import FILE, JobEntry, Record, RunEntry, Submitted, read_record


@dataclass(frozen=True)
class Outcome:
    """What became of a plan."""

    jobs: dict[str, str]
    """The id of each job submitted, by what it is of."""
    failed: dict[str, str]
    """Of those waited for, why."""


def carry_out(planned: Plan, facts: dict[str, RunFacts]) -> Outcome:
    """Submit what was planned; without SLURM also wait, because nobody else keeps the order.

    Another command may have submitted the same runs since, so there is a new look first, under a lock, and its items
    replace those of `planned`.

    Args:
        facts: what `try_runs` gave.

    Raises:
        UserError: the cluster refuses a job.
    """
    cluster = planned.cluster
    assert cluster is not None
    jobs: dict[str, Job] = {}
    # Sweeps may have runs in common; only where submitting means waiting for them, another sweep need not wait too.
    with exclusive(planned.folder.parent if cluster.executor == "slurm" else planned.folder):
        planned.items = plan(planned.request, cluster).items
        chosen = [item for item in planned.items if item.submit]
        _cancel([item.active for item in chosen if item.active is not None], cluster)
        forget_pickles(planned.logs, alive={item.job for item in planned.items if item.active is not None})
        record = _record(planned)
        _write_configs(planned, facts)
        record.write(planned.folder)
        if planned.request.on is not None:
            keep(planned.folder, planned.request.on)
        for group in _groups(chosen):
            _submit(planned, group, record, jobs)
    waited = jobs if cluster.executor != "slurm" else {}
    failed = {of: why for of, job in waited.items() if (why := failure_of(job)) is not None}
    return Outcome({of: str(job.job_id) for of, job in jobs.items()}, failed)


def _submit(planned: Plan, group: list[PlannedJob], record: Record, jobs: dict[str, Job]) -> None:
    """One job or array; without SLURM as many at once as the profile says, one lot after the other."""
    cluster, kind = planned.cluster, group[0].kind
    assert cluster is not None
    name = planned.request.name if kind == "run" else f"{planned.request.name}-{kind}"
    on_slurm = cluster.executor == "slurm"
    specs = [JobSpec(item.kind, item.of, _job_of(item, planned)) for item in group]
    size = len(specs) if on_slurm else cluster.array_parallelism
    after = _ids_of(planned, group[0].needs, jobs) if on_slurm else []
    for first in range(0, len(specs), size):
        lot = specs[first : first + size]
        with _whole() if on_slurm else contextlib.nullcontext():
            made = submit(cluster, lot, planned.logs, name=name, after=after)
            for spec, job in zip(lot, made, strict=True):
                jobs[spec.of] = job
                record.add(str(job.job_id), spec.kind, spec.of, cluster.executor)
            record.write(planned.folder)
        if not on_slurm:
            print(f"{', '.join(spec.of for spec in lot)} ... (logs: {planned.logs})", file=sys.stderr)
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


def _cancel(jobs: list[Submitted], cluster: Cluster) -> None:
    """End jobs, whichever sweeps they are of.

    Raises:
        UserError: SLURM refuses.
    """
    by_sweep: dict[Path, list[JobEntry]] = {}
    for submitted in jobs:
        by_sweep.setdefault(submitted.logs, []).append(submitted.job)
    for logs, entries in by_sweep.items():
        Scheduler(logs, client_environment(cluster)).cancel(entries)


def _groups(items: list[PlannedJob]) -> list[list[PlannedJob]]:
    """One job for each teacher and each set of shards; one array of the runs that need the same shards."""
    groups: dict[tuple[str, str], list[PlannedJob]] = {}
    for item in items:
        groups.setdefault((item.kind, item.needs if item.kind == "run" else item.of), []).append(item)
    return list(groups.values())


def _ids_of(planned: Plan, of: str, jobs: dict[str, Job]) -> list[str]:
    """The job that makes what is needed: of this submission, or of an earlier one that has not ended."""
    if of in jobs:
        return [str(jobs[of].job_id)]
    return [item.job for item in planned.items if item.of == of and item.state == ACTIVE and item.job]


def _run_for(item: PlannedJob, planned: Plan) -> PlannedJob:
    """The run whose config.json a job reads: of what runs share, that of one that needs it and is submitted too."""
    with_it = {shared.of for shared in planned.items if shared.kind == "shards" and shared.needs == item.of} | {item.of}
    runs = (run for run in planned.items if run.run is not None and run.submit and run.needs in with_it)
    return item if item.run is not None else next(runs, item)


def _job_of(item: PlannedJob, planned: Plan) -> StageJob:
    request, cluster = planned.request, planned.cluster
    assert cluster is not None
    workspace = request.workspace
    first = ("autoencoder", "teacher")  # a job leaves out what its recipe does not have
    stages = (*first, "shards") if item.kind == "shards" else request.stages if item.kind == "run" else first
    return StageJob(
        config=str(Run(_run_for(item, planned).recipe, workspace).folder.config),
        stages=stages,
        cache=str(workspace.cache),
        paths=tuple(path or str(Path.cwd()) for path in sys.path if not path or Path(path).is_dir()),
        timeout_s=cluster.timeout_s,
        consent=request.consent_for(item.recipe),
    )


def _record(planned: Plan) -> Record:
    """The sweep's record, with the jobs of earlier submissions."""
    request = planned.request
    runs = [item.run for item in planned.items if item.run is not None]
    axes: dict[str, list[str]] = {}
    for run in runs:
        for axis, label in run.axes:
            known = axes.setdefault(axis, [])
            known += [label] if label not in known else []
    workspace = request.workspace
    before = read_record(planned.folder).jobs if (planned.folder / FILE).exists() else []
    return Record(
        name=request.name,
        signature=planned.signature,
        recipe_path=str(request.recipe_path),
        scale=request.scale,
        axes=axes,
        seeds=list(dict.fromkeys(run.recipe.seed for run in runs)),
        runs=[
            RunEntry(
                label=run.label,
                axes=dict(run.axes),
                seed=run.recipe.seed,
                run=Run(run.recipe, workspace).folder.path.name,
                signature=run.recipe.distill_signature(),
                teacher=Run(run.recipe, workspace).teacher_folder.name,
                shards=Run(run.recipe, workspace).shards_folder.name,
            )
            for run in runs
        ],
        on=str(request.on or ""),
        cache=str(workspace.cache),
        jobs=before,
    )


def try_runs(planned: Plan) -> dict[str, RunFacts]:
    """A trial of each run that is not done, on this machine: what cannot work fails here, before anything is written.

    Returns:
        what `describe_run` says, by the run's folder.

    Raises:
        RecipeError: names the run.
    """
    request, tasks = planned.request, planned.cluster.tasks if planned.cluster else 1
    tried: dict[str, RunFacts] = {}
    facts: dict[str, RunFacts] = {}
    for item in planned.items:
        if item.run is None or item.state == DONE:
            continue
        key = signature("trial", dataclasses.replace(item.recipe, seed=0))
        try:
            tried[key] = tried.get(key) or describe_run(Run(item.recipe, request.workspace), request.scale)
            trial = Run(item.recipe, request.workspace)
            check_stages(trial, stage_states(trial), list(request.stages), tasks)
        except RecipeError as error:
            raise RecipeError(f"{item.run.label}: {error}") from error
        facts[item.of] = tried[key]
    return facts


def _write_configs(planned: Plan, facts: dict[str, RunFacts]) -> None:
    """config.json of every run that is submitted, which its job reads; no folder for one that is not."""
    request = planned.request
    for item in planned.items:
        if item.run is not None and item.submit and item.of in facts:
            prepare_run(
                Run(item.recipe, request.workspace), facts[item.of], path=request.recipe_path,
                plugins=plugin_modules(request.plugins), command=request.command,
                membership=planned.membership(item.run),
            )  # fmt: skip


def submitted_line(ids: Sequence[str]) -> str:
    """The ids of submitted jobs in one line; those of an array together, `17_[0-3]`."""
    arrays: dict[str, list[int]] = {}
    singles = []
    for name in ids:
        array, _, task = name.rpartition("_")
        if array and task.isdigit():
            arrays.setdefault(array, []).append(int(task))
        else:
            singles.append(name)
    for array, tasks in arrays.items():
        whole = sorted(tasks) == list(range(min(tasks), max(tasks) + 1)) and len(tasks) > 1
        listed = f"{min(tasks)}-{max(tasks)}" if whole else ",".join(map(str, sorted(tasks)))
        singles.append(f"{array}_[{listed}]" if len(tasks) > 1 else f"{array}_{listed}")
    if not ids:
        return "no job was submitted: every run is done, waits or runs"
    return f"{_jobs(len(ids))} submitted: {', '.join(singles)}"


def _jobs(num: int) -> str:
    return f"{num} job{'s' if num > 1 else ''}"


def carry_out_or_show(request: SweepRequest, *, dry_run: bool, as_json: bool) -> int:
    """Plan, show and submit; returns the exit code. 1: a job that was waited for failed.

    Raises:
        RecipeError: a profile or run that cannot work. UserError: the cluster refuses a job.
    """
    cluster = load_cluster(request.on) if request.on else None
    if cluster is not None and request.on is not None and not dry_run:
        check_cluster(cluster, request.on)
        require_place(request.out, "--out")
        if cluster.executor != "slurm":  # whose nodes may have a place for the cache that this machine has not
            require_place(request.cache, "--cache", may_be_full=True)
    planned = plan(request, cluster)
    facts = try_runs(planned)
    if not as_json:
        show(planned)
    outcome = None if dry_run else carry_out(planned, facts)
    failed = outcome.failed if outcome is not None else {}
    for of, why in failed.items():
        print(f"{of} failed: {why.strip().splitlines()[-1]}", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(planned.summary()) | (asdict(outcome) if outcome is not None else {})))
    elif outcome is not None:
        ids, where = tuple(outcome.jobs.values()), str(planned.folder)
        if ids and cluster is not None and cluster.executor != "slurm":
            print(f"{_jobs(len(ids))} ran here, {len(ids) - len(failed)} to the end")
            print(f"compare the runs: {shlex.join(['ladd', 'compare', where, '--out', 'compare.html'])}")
        else:
            print(submitted_line(ids))
            print(f"watch them: {shlex.join(['ladd', 'jobs', where, '--watch'])}")
        print(planned.folder)
    return 1 if failed else 0
