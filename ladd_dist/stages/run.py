"""The stages of a run, one after another, by one process or several: what `launch` and a cluster's jobs share."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ladd_dist.builders.data import pictures_left_out, prepare_data
from ladd_dist.core.allocator import keep_freed_memory
from ladd_dist.core.failure import tracebacks_kept
from ladd_dist.core.rundir import exclusive
from ladd_dist.core.signals import end_of
from ladd_dist.engine.step_graph import require_recorder
from ladd_dist.evaluation.class_features import require_listed
from ladd_dist.parallel.ranks import join
from ladd_dist.parallel.spawn import clear, take_all_threads
from ladd_dist.recipe.fitting import what_is_left_out
from ladd_dist.stages.evaluate import require_metrics
from ladd_dist.stages.table import stage_states, stage_table
from ladd_dist.workspace.config import RunFacts, StageState, SweepMembership, add_timing, write_config
from ladd_dist.workspace.run import Run

TOGETHER = ("features", "autoencoder", "teacher", "shards", "distill", "evaluate")
"""Run by every process; the rest by the first one, when the others have left."""
Say = Callable[[str], None]


def run_stages(
    run: Run,
    names: Sequence[str],
    *,
    say_line: Say,
    timeout_s: float,
    prepare: Callable[[], None] | None,
) -> bool:
    """Run the stages that this recipe has and are not done; returns whether this is the process that talks to the user.

    Args:
        prepare: makes the run's folder, called on the first process when it holds the folder's lock; None for what
            belongs to the cache alone, and leaves the run's folder as it is.
        timeout_s: how long a process may wait for the others in a collective operation.
    """
    if run.device.type == "cpu":
        keep_freed_memory()
    names = [name for name in stage_table(run.recipe) if name in names]
    if "evaluate" in names:
        require_metrics(run)
    for name, field in (("teacher", "teacher"), ("distill", "train")):
        if name in names and getattr(run.recipe, field).compute.graph:
            require_recorder(run.device, field)
    left_out = what_is_left_out(run.recipe) if "evaluate" in names else []
    if any(
        name in TOGETHER and not stage.is_done(run) for name, stage in stage_table(run.recipe).items() if name in names
    ):
        prepare_data(run)  # before the processes wait for each other: it may take longer than they would
        left_out = [*pictures_left_out(run), *left_out]
    backend = "nccl" if run.device.type == "cuda" else "gloo"
    with contextlib.ExitStack() as held:
        if prepare is not None:
            held.enter_context(tracebacks_kept(run.folder.path / "logs"))
        group = join(backend, timeout_s, device=run.device, needs_group=run.recipe.parallel.needs_group)
        with group as ranks:
            if ranks.is_first and prepare is not None:
                held.enter_context(exclusive(run.folder.path))  # outlives the group: the report is rank 0's alone
                prepare()
            ranks.barrier()
            for line in left_out if ranks.is_first else ():
                say_line(line)
            together = run.among(ranks)
            for name in (name for name in names if name in TOGETHER):
                _run_stage(name, together, say_line, timed=prepare is not None)
        if not ranks.is_first:
            return False
        take_all_threads()
        for name in (name for name in names if name not in TOGETHER):
            _run_stage(name, run, say_line, timed=prepare is not None)
    return True


def prepare_run(
    run: Run,
    facts: RunFacts,
    *,
    path: Path,
    plugins: tuple[str, ...],
    command: str,
    membership: SweepMembership | None = None,
    from_scratch: bool = False,
) -> None:
    """Make the run's folder and its config.json.

    Args:
        facts: what `describe_run` gave, perhaps some time ago.
        path: the recipe's file.
        membership: the run's place in a sweep; None: the one that it has by its config.json, if any.
    """
    # Another process may have made some stages while this one waited.
    facts = dataclasses.replace(facts, stages=stage_states(run))
    if from_scratch and run.folder.path.exists():
        clear(run.folder.path)
    # The file first: a folder without it, which an interrupt in between would leave, is no run to other commands.
    write_config(run, facts, path=path, plugins=plugins, command=command, membership=membership)
    run.folder.create()


def _run_stage(name: str, run: Run, say_line: Say, *, timed: bool) -> None:
    stage, first = stage_table(run.recipe)[name], run.ranks.is_first
    if run.ranks.from_rank0(lambda: stage.is_done(run)):
        if first:
            say_line(f"[{name}] done before, skipped")
        return
    if first:
        say_line(f"[{name}] {stage.doc}")
    run.ranks.beat(f"start of stage {name}")
    started = time.monotonic()
    try:
        stage.run(run)
    except BaseException as error:
        if first and timed and isinstance(end_of(error), KeyboardInterrupt):
            with contextlib.suppress(OSError):
                add_timing(run.folder, name, time.monotonic() - started)
        raise
    if first:
        spent = time.monotonic() - started
        if timed:
            add_timing(run.folder, name, spent)
        say_line(f"[{name}] {spent:.1f} s")


def check_stages(run: Run, stages: Iterable[StageState], names: list[str], num: int) -> None:
    """Refuse what would end a stage to come: batches that processes cannot share evenly, too few pictures.

    Raises:
        RecipeError: names the field. UserError: there are too few pictures.
    """
    from ladd_dist.codecs import TrainedCodec
    from ladd_dist.parallel.compute import Compute
    from ladd_dist.parallel.ranks import Ranks
    from ladd_dist.workspace.workspace import rows_of

    recipe, cached = run.recipe, {stage.name: stage.cached for stage in stages}
    if "features" in names:
        require_listed(run)
    for name, field in (("teacher", "teacher"), ("distill", "train")):
        if name in names and not cached[name]:
            settings = getattr(recipe, field)
            rows_of(f"{field}.batch_size", settings.batch_size, settings.compute, Ranks(0, num))
    if isinstance(recipe.codec, TrainedCodec) and "autoencoder" in names and not cached["autoencoder"]:
        rows_of("codec.training.batch_size", recipe.codec.training.batch_size, Compute(), Ranks(0, num))
