"""Jobs to SLURM, or to this machine, through submitit."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.cluster import Cluster, client_environment
from ladd_dist.cluster.job import START, StageJob
from ladd_dist.cluster.slurm import Slurm
from ladd_dist.core.errors import UserError
from ladd_dist.core.machine import usable_cores
from ladd_dist.core.packages import require_package
from ladd_dist.core.rundir import make_folder
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.threads import free_cores

MOST_TIMEOUTS = 100_000
"""submitit gives up after so many time limits; a run ends when it is done, however long it takes."""
TRACEBACK = "Traceback (most recent call last):"
RULE = "\n-----"
"""What submitit puts under a traceback, before its advice."""
_PICKLE = re.compile(r"(?P<id>\d+(_\d+)*)_(?P<kind>submitted|result)\.pkl")
Job = Any
"""submitit's, which has no types."""


@dataclass(frozen=True)
class JobSpec:
    """One job to submit."""

    kind: str
    """As in `JobEntry`."""
    of: str
    """As in `JobEntry`."""
    job: StageJob


def check_cluster(cluster: Cluster, profile: Path) -> None:
    """Refuse a profile that cannot be used from here, before anything is written.

    Raises:
        RecipeError: no sbatch, no such partition, or this machine is to do it and has too few GPUs. UserError: SLURM
            does not answer, or submitit is not installed.
    """
    require_package("submitit", f"--on {profile}")
    if cluster.executor != "slurm":
        _check_gpus(cluster, profile)
        return
    slurm = Slurm(client_environment(cluster))
    if not slurm.has("sbatch") or not slurm.has("srun"):
        raise RecipeError(
            f"--on {profile}: no `sbatch` on the path; submit from a machine of the cluster, or use "
            "--on slurm/laptop.py, which needs no SLURM (docs/cluster.md)"
        )
    try:
        partitions = slurm.partitions()
    except UserError as error:
        raise UserError(
            f"--on {profile}: {error}; for the development cluster: slurm/dev_cluster.sh up, and --on slurm/local.py"
        ) from error
    unknown = [name for name in cluster.partition.split(",") if name and name not in partitions]
    if unknown:
        raise RecipeError(f"--on {profile}: no partition {unknown[0]!r}; partitions: {', '.join(partitions)}")


def _check_gpus(cluster: Cluster, profile: Path) -> None:
    if not cluster.gpus_per_node:
        return
    import torch

    if (have := torch.cuda.device_count()) < cluster.gpus_per_node:
        raise RecipeError(
            f"--on {profile}: gpus_per_node={cluster.gpus_per_node} of this machine, where PyTorch finds {have}; "
            "slurm/laptop.py needs none"
        )


def submit(
    cluster: Cluster, specs: Sequence[JobSpec], logs: Path, *, name: str, after: Sequence[str] = ()
) -> list[Job]:
    """Submit jobs, several as one array; returns submitit's jobs in order.

    Args:
        logs: folder for submitit's files and the output of the jobs.
        after: ids of jobs that must have succeeded before these start (SLURM alone knows such a thing).

    Raises:
        UserError: the cluster refuses them.
    """
    import submitit

    make_folder(logs)
    with _environment(cluster, len(specs)):
        executor = _executor(cluster, logs, name, after)
        try:
            if len(specs) == 1:
                return [executor.submit(specs[0].job)]
            with executor.batch():
                jobs = [executor.submit(spec.job) for spec in specs]
            return jobs
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            lines = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines()
            raise UserError(f"the cluster refuses the job: {' '.join(lines)}") from error


def forget_pickles(logs: Path, alive: Collection[str]) -> None:
    """Remove submitit's pickles of jobs that have ended: a job given the same number would run them.

    Reading a pickle runs code, and a sweep's folder may come from somebody else.

    Args:
        alive: the ids of jobs that wait or run, which read theirs again when they are requeued.
    """
    for path in logs.glob("*.pkl"):
        found = _PICKLE.fullmatch(path.name)
        if found and not (found["kind"] == "submitted" and found["id"] in alive):
            path.unlink(missing_ok=True)


def _executor(cluster: Cluster, logs: Path, name: str, after: Sequence[str]) -> Any:
    import submitit

    python = shlex.join([sys.executable, "-S", "-c", START])
    own = {f"{cluster.executor}_max_num_timeout": MOST_TIMEOUTS, f"{cluster.executor}_python": python}
    executor = submitit.AutoExecutor(
        folder=logs, cluster=cluster.executor, **(own if cluster.executor != "debug" else {})
    )
    executor.update_parameters(
        name=name,
        timeout_min=cluster.time_min,
        nodes=cluster.nodes,
        tasks_per_node=cluster.tasks_on_node,
        cpus_per_task=cluster.cpus_per_task,
    )
    if cluster.gpus_per_node:
        executor.update_parameters(gpus_per_node=cluster.gpus_per_node)
    if cluster.memory_gb:
        executor.update_parameters(mem_gb=cluster.memory_gb)
    if cluster.executor == "slurm":
        _tell_slurm(executor, cluster, after)
    if cluster.executor == "local":
        executor.update_parameters(local_setup=[*_own_gpus(cluster), *cluster.setup])
    return executor


def _own_gpus(cluster: Cluster) -> list[str]:
    """A line of shell with the GPUs that this process was given: submitit would take the machine's first ones."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not (given and cluster.gpus_per_node):
        return []
    return [f"export CUDA_VISIBLE_DEVICES={shlex.quote(','.join(given[: cluster.gpus_per_node]))}"]


def _tell_slurm(executor: Any, cluster: Cluster, after: Sequence[str]) -> None:
    exports = [f"export {key}={shlex.quote(value)}" for key, value in cluster.environment]
    executor.update_parameters(
        slurm_setup=[*exports, *cluster.setup],
        slurm_signal_delay_s=cluster.signal_delay_s,
        slurm_array_parallelism=cluster.array_parallelism,
        # A dead rank must not leave the others, and the job, until the time limit.
        slurm_srun_args=["--kill-on-bad-exit=1"],
        slurm_additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes"},
    )
    for field in ("partition", "account", "qos", "constraint"):
        if getattr(cluster, field):
            executor.update_parameters(**{f"slurm_{field}": getattr(cluster, field)})
    if after:
        executor.update_parameters(slurm_dependency=f"afterok:{':'.join(after)}")


@contextlib.contextmanager
def _environment(cluster: Cluster, num_jobs: int) -> Iterator[None]:
    """The variables that lead submitit to SLURM; where jobs are children of this process, those of the profile's jobs.

    SLURM's jobs export theirs themselves. Jobs of this machine share its cores: two runs of one thread each do more
    than one after the other with two threads, and threads that outnumber the cores wait for each other.
    """
    before = dict(os.environ)
    if cluster.executor == "local":
        num = num_jobs * cluster.tasks
        if "OMP_NUM_THREADS" not in os.environ:
            os.environ["OMP_NUM_THREADS"] = str(max(1, free_cores() // num) if usable_cores() > num else 1)
    os.environ.update(client_environment(cluster) if cluster.executor == "slurm" else dict(cluster.environment))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def failure_of(job: Job) -> str | None:
    """The traceback of the task that failed by itself; None when none did.

    The first task is often ended by SLURM because another one failed, and then has no result, or it lost the others.
    """
    import submitit

    found: list[str] = []
    for task in range(job.num_tasks):
        error = job.task(task).exception() if job.num_tasks > 1 else job.exception()
        _, begin, trace = str(error or "").partition(TRACEBACK)
        if isinstance(error, submitit.core.utils.FailedJobError) and begin:
            found.append((begin + trace.partition(RULE)[0]).strip())
        elif error is not None:
            found.append(str(error))
    own = [text for text in found if text.startswith(TRACEBACK) and "LostRank:" not in text]
    return next(iter(own or found), None)
