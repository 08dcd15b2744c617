"""What of a sweep is done, what waits or runs, and what is to be submitted: first what runs share, then the runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ladd_dist.cluster import Cluster
from ladd_dist.cluster.scheduler import active_ids
from ladd_dist.recipe.swap import choose_parallel
from ladd_dist.stages.run import STAGES
from ladd_dist.stages.table import stage_states
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.sweep_record import FOLDER, JobEntry, jobs_of
from ladd_dist.workspace.workspace import Workspace

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe, Scale
    from ladd_dist.recipe.sweep import SweepRun

DONE, ACTIVE, FAILED, NEW = "done", "in the queue", "failed", "new"


@dataclass(frozen=True)
class Work:
    """What was asked for."""

    name: str
    runs: tuple[SweepRun, ...]
    scale: Scale
    recipe_path: Path
    on: Path | None
    out: Path
    cache: Path
    plugins: tuple[str, ...]
    command: str
    stages: tuple[str, ...] = STAGES
    """Of the runs; a shared teacher or set of shards has a job of its own when its stage is among them."""
    only_failed: bool = False
    resubmit: bool = False

    @property
    def workspace(self) -> Workspace:
        """Where the runs are; the device is the nodes' own affair."""
        return Workspace(self.out.absolute(), self.cache.absolute(), torch.device("cpu"))


@dataclass
class Item:
    """A teacher, a set of shards, or a run."""

    kind: str
    of: str
    """As in `JobEntry`."""
    recipe: Recipe
    state: str
    needs: str = ""
    """The `of` of what must be made first."""
    run: SweepRun | None = None
    job: str = ""
    """The id of the job that waits or runs for it."""
    submit: bool = False


@dataclass
class Plan:
    """What is to be done for a sweep."""

    work: Work
    cluster: Cluster | None
    signature: str
    items: list[Item]

    @property
    def folder(self) -> Path:
        """The sweep's own folder."""
        return self.work.out / FOLDER / f"{self.work.name}-{self.signature}"

    def facts(self) -> dict[str, Any]:
        """For machines."""
        rows = [
            {"kind": item.kind, "of": item.of, "label": item.run.label if item.run else "", "state": item.state}
            | {"job": item.job, "submit": item.submit}
            for item in self.items
        ]
        own = {"sweep": str(self.folder), "signature": self.signature, "scale": self.work.scale}
        return own | {"items": rows}


def plan(work: Work, cluster: Cluster | None) -> Plan:
    """Look at what there is and decide what to submit; writes nothing.

    Raises:
        RecipeError: a run that cannot work (a wrong tap, a batch that the processes cannot share).
        ValueError: SLURM does not say what runs.
    """
    from ladd_dist.recipe.sweep import sweep_signature

    workspace, tasks = work.workspace, cluster.tasks if cluster else 1
    past = jobs_of(work.out)
    last = {of: jobs[-1] for of, jobs in past.items()}
    runs = []
    for run in work.runs:
        recipe = choose_parallel(run.recipe, "", (), tasks)
        runs.append(dataclasses.replace(run, recipe=_as_found(Run(recipe, workspace))))
    items: dict[str, Item] = {}
    for item in (item for run in runs for item in _items_of(run, workspace, work.stages)):
        items.setdefault(item.of, item)
    active = active_ids(last[item.of] for item in items.values() if item.state != DONE and item.of in last)
    for item in items.values():
        _decide(item, last.get(item.of), active, work)
    wanted = {item.needs for item in items.values() if item.submit and item.kind == "run"}
    wanted |= {item.needs for item in items.values() if item.of in wanted and item.kind == "shards"}
    for item in items.values():
        item.submit &= item.kind == "run" or (item.of in wanted and item.kind in work.stages)
    ordered = sorted(items.values(), key=lambda item: ("teacher", "shards", "run").index(item.kind))
    return Plan(work, cluster, sweep_signature(runs), ordered)


def _as_found(run: Run) -> Recipe:
    """Under the name with which another sweep or launch has begun the same run: one folder, not two."""
    recipe = run.recipe
    if run.folder.path.exists():
        return recipe
    for folder in sorted(run.workspace.runs.glob(f"*-{recipe.distill_signature()}")):
        if (folder / "config.json").is_file():
            return dataclasses.replace(recipe, name=folder.name.rpartition("-")[0])
    return recipe


def _items_of(run: SweepRun, workspace: Workspace, stages: tuple[str, ...]) -> list[Item]:
    recipe, here = run.recipe, Run(run.recipe, workspace)
    done = {stage["name"]: stage["cached"] for stage in stage_states(here)}
    teacher, shards = here.teacher_folder.name, here.shards_folder.name

    def state(*names: str) -> str:
        return DONE if all(done.get(name, True) for name in names) else NEW  # a recipe may lack a stage

    return [
        Item("teacher", teacher, recipe, state("autoencoder", "teacher")),
        Item("shards", shards, recipe, state("shards"), needs=teacher),
        Item("run", here.folder.path.name, recipe, state(*stages), needs=shards, run=run),
    ]


def _decide(item: Item, last: JobEntry | None, active: set[str], work: Work) -> None:
    if item.state == DONE:
        return
    if last is not None:
        item.state = ACTIVE if last.id in active else FAILED
    if item.state == ACTIVE:
        item.job = last.id if last else ""
        item.submit = work.resubmit and item.kind == "run"
    else:
        item.submit = item.state == FAILED or not work.only_failed or item.kind != "run"


def show(planned: Plan) -> None:
    """Print the plan for people: what runs share, then a row for each run with its place on the axes."""
    from rich.console import Console
    from rich.table import Table

    runs = [item for item in planned.items if item.run is not None]
    shared = Table("shared", "by", "state", "job", title=f"{planned.folder.name} at scale {planned.work.scale}")
    for item in planned.items:
        if item.run is None:
            shared.add_row(item.of, _sharing(planned, item), item.state, _job_cell(item))
    axes = list(dict.fromkeys(axis for item in runs for axis, _ in (item.run.axes if item.run else ())))
    table = Table("run", *axes, "seed", "state", "job")
    for item in runs:
        labels = dict(item.run.axes) if item.run else {}
        cells = [labels.get(axis, "") for axis in axes]
        table.add_row(item.of, *cells, str(item.recipe.seed), item.state, _job_cell(item))
    console = Console()
    console.print(shared)
    console.print(table)
    states = [f"{sum(item.state == state for item in runs)} {state}" for state in (DONE, ACTIVE, FAILED, NEW)]
    jobs = sum(item.submit for item in planned.items)
    console.print(f"{len(runs)} runs: {', '.join(states)}; {jobs} jobs to submit", highlight=False)


def _job_cell(item: Item) -> str:
    return "submit" if item.submit else item.job or "-"


def _sharing(planned: Plan, shared: Item) -> str:
    with_it = {item.of for item in planned.items if item.needs == shared.of and item.kind == "shards"} | {shared.of}
    count = sum(item.kind == "run" and item.needs in with_it for item in planned.items)
    return f"{count} run{'s' if count != 1 else ''}"
