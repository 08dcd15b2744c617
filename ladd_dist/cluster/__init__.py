"""Where jobs run: `Cluster` is a profile, a file like `slurm/single_gpu.py` that says `CLUSTER = Cluster(...)`."""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ladd_dist.core.pyfile import run_file
from ladd_dist.core.ranges import Count, CountOrZero, NonNegative, Ranged, Seconds
from ladd_dist.core.serialize import RecipeError, check


@dataclass(frozen=True)
class Cluster(Ranged):
    """What one job asks for, in submitit's and SLURM's terms. Empty text and 0 leave a choice to the cluster."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    """Features that the nodes must have, like `a100|h100`."""
    nodes: Count = 1
    gpus_per_node: CountOrZero = 0
    """With the executor `local`, 0 hides the GPUs of this machine."""
    tasks_per_node: CountOrZero = 0
    """Processes on each node; 0: one a GPU, and one where there is no GPU."""
    cpus_per_task: Count = 1
    memory_gb: NonNegative = 0.0
    """Of each node."""
    time_min: Count = 60
    """Time limit of a job; one that needs longer saves, is requeued and goes on, as often as it takes."""
    array_parallelism: Count = 256
    """How many jobs of a sweep run at once."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the job starts, like `module load cuda`."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of the job."""
    client: tuple[tuple[str, str], ...] = ()
    """Variables for `sbatch`, `squeue` and their kin where they are called, like `SLURM_CONF`; a `PATH` goes in front
    of the one that is there. `ladd jobs` uses them too."""
    signal_delay_s: CountOrZero = 90
    """The job is told this long before its time limit, in which a checkpoint must be written; `local` has 30 s."""
    timeout_s: Seconds = 600.0
    """How long a process of a job may wait for the others in a collective operation."""
    executor: Literal["slurm", "local", "debug"] = "slurm"
    """`local`: processes of this machine, without SLURM; `debug`: in the submitting process itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.executor != "slurm" and self.nodes > 1:
            raise RecipeError(f"Cluster.nodes: the executor {self.executor!r} has one machine, got {self.nodes}")
        if self.executor == "debug" and self.tasks > 1:
            raise RecipeError(f"Cluster.tasks_per_node: the executor 'debug' is one process, got {self.tasks}")

    @property
    def tasks_on_node(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def tasks(self) -> int:
        """Processes of a job, which train together."""
        return self.nodes * self.tasks_on_node


def load_cluster(path: Path) -> Cluster:
    """The `CLUSTER` of a profile.

    Raises:
        RecipeError: no such file, it does not run, has no `CLUSTER`, or a field that does not exist or is wrong.
    """
    try:
        module = run_file(path, f"--on {path}:", others="profiles", shipped="slurm")
    except RecipeError as error:
        own = str(error).startswith("--on")
        raise RecipeError(_explain(error, path) if own else f"--on {path}: {error}") from error
    found = getattr(module, "CLUSTER", None)
    if not isinstance(found, Cluster):
        raise RecipeError(f"--on {path}: must define CLUSTER (a ladd_dist.cluster.Cluster), it has {found!r}")
    check(Cluster, found, f"--on {path}: CLUSTER")
    return found


def _explain(error: RecipeError, path: Path) -> str:
    """A field that does not exist, with those that do; anything else as it is."""
    _, unexpected, rest = str(error.__cause__).partition("unexpected keyword argument ")
    if not (isinstance(error.__cause__, TypeError) and unexpected):
        return str(error)
    wrong = rest.strip("'\"").split("'")[0]
    names = [field.name for field in dataclasses.fields(Cluster)]
    near = difflib.get_close_matches(wrong, names, 1)
    meant = f", did you mean {near[0]!r}?" if near else "."
    return f"--on {path}: Cluster has no field {wrong!r}{meant} Fields: {', '.join(names)}"


def client_environment(cluster: Cluster) -> dict[str, str]:
    """The environment in which SLURM's own commands reach the cluster from here."""
    environment = dict(os.environ)
    for name, value in cluster.client:
        before = environment.get("PATH", os.defpath) if name == "PATH" else ""
        environment[name] = f"{value}{os.pathsep}{before}" if before else value
    return environment
