"""Ranks of a SLURM step (`srun ladd launch ...`), from SLURM's environment variables alone."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping

from ladd_dist.core.environment import env_number
from ladd_dist.core.errors import UserError

PORTS = range(12_000, 32_000)
"""Ports for rank 0, below those that the kernel gives to outgoing connections."""


def show_hostnames(nodes: str) -> str:
    """First host of a list of nodes like `gpu[03-05,9]`.

    Raises:
        UserError: `scontrol` is missing or does not answer.
    """
    if "[" not in nodes:
        return nodes.split(",")[0]
    try:
        found = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=60)
        return found.stdout.split()[0]
    except (OSError, subprocess.TimeoutExpired, IndexError) as error:
        raise UserError(
            f"`scontrol show hostnames {nodes}` does not tell where rank 0 is; export MASTER_ADDR with its host"
        ) from error


def ranks_of_step(env: Mapping[str, str], first_host: Callable[[str], str] = show_hostnames) -> dict[str, str]:
    """Environment variables that torchrun would set for this rank; empty if they are set, or for a step of one task.

    Raises:
        UserError: the host of rank 0 cannot be found, or a variable is no number.
    """
    if "RANK" in env or "SLURM_PROCID" not in env or env_number("SLURM_STEP_NUM_TASKS", 1, env) < 2:
        return {}
    job, step = env_number("SLURM_JOB_ID", 0, env), env_number("SLURM_STEP_ID", 0, env)
    found = {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": env.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": str(_tasks_here(env)),
        # Steps of one job can run at once, and jobs can share a node.
        "MASTER_PORT": env.get("MASTER_PORT") or str(PORTS[(job * 7 + step) % len(PORTS)]),
    }
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
    return found | {"MASTER_ADDR": env.get("MASTER_ADDR") or first_host(nodes)}


def _tasks_here(env: Mapping[str, str]) -> int:
    """Number of tasks on this node, from a list by node like `4(x2),1`."""
    counts: list[int] = []
    for entry in (env.get("SLURM_STEP_TASKS_PER_NODE") or "1").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", entry)
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    node = env_number("SLURM_NODEID", 0, env)
    return counts[node] if node < len(counts) else 1
