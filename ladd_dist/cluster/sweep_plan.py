"""What of a sweep is done, what waits or runs, and what is to be submitted: first what runs share, then the runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cluster import Cluster, client_environment
from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.core.consent import Consent
from ladd_dist.core.pretrained import texts_in
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe.swap import choose_parallel
from ladd_dist.stages import STAGES
from ladd_dist.stages.table import stage_states
from ladd_dist.workspace.config import SweepMembership
from ladd_dist.workspace.run import Run, as_found
from ladd_dist.workspace.sweep_record import FOLDER, JobEntry, Submitted, jobs_of, logs_of
from ladd_dist.workspace.workspace import Workspace
from ladd_dist.zoo import file_at

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe, Scale
    from ladd_dist.recipe.sweep import SweepRun

DONE, ACTIVE, FAILED, NEW = "done", "in the queue", "failed", "new"


@dataclass(frozen=True)
class SweepRequest:
    """What was asked for: these runs, done as far as these stages, on this cluster."""

    name: str
    runs: tuple[SweepRun, ...]
    scale: Scale
    recipe_path: Path
    on: Path | None
    out: Path
    cache: Path
    plugins: tuple[str, ...]
    """Modules that the line asks for."""
    command: str
    stages: tuple[str, ...] = STAGES
    """Of the runs; a shared teacher or set of shards has a job of its own when its stage is among them."""
    only_failed: bool = False
    resubmit: bool = False
    consent: Consent | None = None
    """What the jobs may import, run and fetch; None: the modules, the recipe file and what the recipes name."""

    def consent_for(self, recipe: Recipe) -> Consent:
        """What a job of this recipe may import, run and fetch, by the line that submits it."""
        if self.consent is not None:
            return self.consent
        return Consent(
            plugins=self.plugins,
            recipe=file_at(self.recipe_path, "recipes").absolute(),
            hub=tuple(sorted(texts_in(to_data(recipe)))),
        )

    @property
    def workspace(self) -> Workspace:
        """Where the runs are; the device is the nodes' own affair."""
        return Workspace(self.out.absolute(), self.cache.absolute(), torch.device("cpu"))


@dataclass
class PlannedJob:
    """A teacher, a set of shards, or a run, and whether a job is to be submitted for it."""

    kind: str
    of: str
    """As in `JobEntry`."""
    recipe: Recipe
    state: str
    needs: str = ""
    """The `of` of what must be made first."""
    run: SweepRun | None = None
    active: Submitted | None = None
    """The job that waits or runs for it."""
    submit: bool = False

    @property
    def job(self) -> str:
        """The id of the job that waits or runs for it; empty where there is none."""
        return self.active.job.id if self.active is not None else ""


@dataclass(frozen=True)
class PlannedRow:
    """A planned job as `--json` prints it."""

    kind: str
    of: str
    label: str
    state: str
    job: str
    submit: bool


@dataclass(frozen=True)
class PlanSummary:
    """A plan as `--json` prints it."""

    sweep: str
    """The sweep's folder."""
    signature: str
    scale: str
    items: tuple[PlannedRow, ...]


@dataclass
class Plan:
    """What is to be done for a sweep."""

    request: SweepRequest
    cluster: Cluster | None
    signature: str
    items: list[PlannedJob]

    @property
    def folder(self) -> Path:
        """The sweep's own folder."""
        return self.request.out / FOLDER / f"{self.request.name}-{self.signature}"

    @property
    def logs(self) -> Path:
        """The folder of the jobs' output."""
        return logs_of(self.folder)

    def summary(self) -> PlanSummary:
        """For machines."""
        rows = tuple(
            PlannedRow(item.kind, item.of, item.run.label if item.run else "", item.state, item.job, item.submit)
            for item in self.items
        )
        return PlanSummary(str(self.folder), self.signature, self.request.scale, rows)

    def membership(self, run: SweepRun) -> SweepMembership:
        """The place of a run in this sweep."""
        return SweepMembership(self.folder.name, dict(run.axes))


def plan(request: SweepRequest, cluster: Cluster | None) -> Plan:
    """Look at what there is and decide what to submit; writes nothing.

    Raises:
        RecipeError: a run that cannot work (a wrong tap, a batch that the processes cannot share).
        ValueError: SLURM does not say what runs.
    """
    from ladd_dist.recipe.sweep import sweep_signature

    workspace, tasks = request.workspace, cluster.tasks if cluster else 1
    past = jobs_of(request.out)
    last = {of: jobs[-1] for of, jobs in past.items()}
    runs = []
    for run in request.runs:
        recipe = choose_parallel(run.recipe, "", (), tasks)
        runs.append(dataclasses.replace(run, recipe=as_found(Run(recipe, workspace)).recipe))
    items: dict[str, PlannedJob] = {}
    for item in (item for run in runs for item in _items_of(run, workspace, request.stages)):
        items.setdefault(item.of, item)
    open_jobs = [last[item.of] for item in items.values() if item.state != DONE and item.of in last]
    alive = _alive(open_jobs, client_environment(cluster) if cluster is not None else dict(os.environ))
    for item in items.values():
        _decide(item, last.get(item.of), alive, request)
    wanted = {item.needs for item in items.values() if item.submit and item.kind == "run"}
    wanted |= {item.needs for item in items.values() if item.of in wanted and item.kind == "shards"}
    for item in items.values():
        item.submit &= item.kind == "run" or (item.of in wanted and item.kind in request.stages)
    ordered = sorted(items.values(), key=lambda item: ("teacher", "shards", "run").index(item.kind))
    return Plan(request, cluster, sweep_signature(runs), ordered)


def _alive(jobs: list[Submitted], environment: Mapping[str, str]) -> set[Submitted]:
    """Those that wait or run. Each sweep is asked for its own: only its logs tell whose a number is."""
    by_sweep: dict[Path, list[JobEntry]] = {}
    for submitted in jobs:
        by_sweep.setdefault(submitted.logs, []).append(submitted.job)
    alive = {logs: Scheduler(logs, environment).alive(entries) for logs, entries in by_sweep.items()}
    return {submitted for submitted in jobs if submitted.job.id in alive[submitted.logs]}


def _items_of(run: SweepRun, workspace: Workspace, stages: tuple[str, ...]) -> list[PlannedJob]:
    recipe, here = run.recipe, Run(run.recipe, workspace)
    done = {stage.name: stage.cached for stage in stage_states(here)}
    teacher, shards = here.teacher_folder.name, here.shards_folder.name

    def state(*names: str) -> str:
        return DONE if all(done.get(name, True) for name in names) else NEW  # a recipe may lack a stage

    return [
        PlannedJob("teacher", teacher, recipe, state("autoencoder", "teacher")),
        PlannedJob("shards", shards, recipe, state("shards"), needs=teacher),
        PlannedJob("run", here.folder.path.name, recipe, state(*stages), needs=shards, run=run),
    ]


def _decide(item: PlannedJob, last: Submitted | None, alive: set[Submitted], request: SweepRequest) -> None:
    if item.state == DONE:
        return
    if last is not None:
        item.state = ACTIVE if last in alive else FAILED
    if item.state == ACTIVE:
        item.active = last
        item.submit = request.resubmit and item.kind == "run"
    else:
        item.submit = item.state == FAILED or not request.only_failed or item.kind != "run"


def show(planned: Plan) -> None:
    """Print the plan for people: what runs share, then a row for each run with its place on the axes."""
    from rich.table import Table

    runs = [item for item in planned.items if item.run is not None]
    shared = Table("shared", "by", "state", "job", title=f"{planned.folder.name} at scale {planned.request.scale}")
    for item in planned.items:
        if item.run is None:
            shared.add_row(item.of, _sharing(planned, item), item.state, _job_cell(item))
    axes = list(dict.fromkeys(axis for item in runs for axis, _ in (item.run.axes if item.run else ())))
    table = Table("run", *axes, "seed", "state", "job")
    for item in runs:
        labels = dict(item.run.axes) if item.run else {}
        cells = [labels.get(axis, "") for axis in axes]
        table.add_row(item.of, *cells, str(item.recipe.seed), item.state, _job_cell(item))
    console = open_console()
    console.print(Fitted(shared, keep=("state",)))
    console.print(Fitted(table, keep=(*axes, "seed", "state")))
    states = [f"{sum(item.state == state for item in runs)} {state}" for state in (DONE, ACTIVE, FAILED, NEW)]
    jobs = sum(item.submit for item in planned.items)
    console.print(f"{len(runs)} runs: {', '.join(states)}; {jobs} jobs to submit", highlight=False)


def _job_cell(item: PlannedJob) -> str:
    return "submit" if item.submit else item.job or "-"


def _sharing(planned: Plan, shared: PlannedJob) -> str:
    with_it = {item.of for item in planned.items if item.needs == shared.of and item.kind == "shards"} | {shared.of}
    count = sum(item.kind == "run" and item.needs in with_it for item in planned.items)
    return f"{count} run{'s' if count != 1 else ''}"
