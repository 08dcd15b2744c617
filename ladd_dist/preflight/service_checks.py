"""Checks of services that runs use: SLURM, submitit, Weights & Biases."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import socket
import subprocess
from urllib.parse import urlsplit

from ladd_dist.preflight.check import Check, Skip, Warn
from ladd_dist.preflight.machine_checks import Machine
from ladd_dist.trackers.wandb import Wandb

ANSWERS_WITHIN_S = 5.0
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")


def check_slurm(machine: Machine) -> str:
    """Check that SLURM's commands are there and its controller answers; returns its partitions and requeueing."""
    there = [name for name in COMMANDS if shutil.which(name)]
    if not there:
        raise Skip("no SLURM here: runs stay on this machine", cure="call doctor on a login node of the cluster")
    if len(there) < len(COMMANDS):
        missing = ", ".join(sorted(set(COMMANDS) - set(there)))
        raise Warn(
            f"SLURM without {missing}",
            cause="only a part of SLURM's client commands is installed, or PATH has only a part of them",
            cure="install the client package whole, or `module load slurm`",
        )
    partitions = _answer("sinfo", "--noheader", "--format=%R")
    config = _answer("scontrol", "show", "config")
    return f"partitions {', '.join(sorted(set(partitions.split())))}; " + requeueing(config)


def requeueing(config: str) -> str:
    """What becomes of jobs that end early, from `scontrol show config`; sweeps and --on always ask for requeueing."""
    rows = dict(re.findall(r"(?m)^(\w+)\s*=\s*(.*?)\s*$", config))
    by_itself = rows.get("JobRequeue", "1") != "0"
    by_code = "75" in re.split(r"[,\s]+", rows.get("RequeueExit", ""))
    others = "are requeued too" if by_itself else "need --requeue"
    exits = "is requeued" if by_code else "is not (RequeueExit has no 75): call the same command again"
    return f"jobs of sweeps and --on are requeued; scripts of your own {others}, and one that ends with code 75 {exits}"


def _answer(*command: str) -> str:
    """The output of a SLURM command.

    Raises:
        Warn: the command fails or does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S)
        said = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise Warn(
            f"SLURM does not answer: {said}",
            cause="the controller is down, or this machine belongs to no cluster (SLURM_CONF, /etc/slurm/slurm.conf)",
            cure="`scontrol ping`; runs on this machine work without it (launch without --on)",
        )
    return done.stdout


def check_submitit(machine: Machine) -> str:
    """Check that submitit is installed."""
    try:
        return importlib.metadata.version("submitit") + " installed"
    except importlib.metadata.PackageNotFoundError as error:
        raise Warn(
            "submitit is not installed",
            cause="sweeps and --on send their jobs through it",
            cure="pip install submitit",
        ) from error


def check_wandb(machine: Machine) -> str:
    """Check that the recipe's tracker reaches its server."""
    recipe = machine.require_recipe()
    tracker = recipe.tracker
    if not isinstance(tracker, Wandb):
        raise Skip(f"the recipe's tracker is {tracker.name!r}")
    try:
        version = importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError as error:
        raise Warn("wandb is not installed", cause="tracker=wandb needs it", cure="pip install wandb") from error
    mode, reason = tracker.choose_mode()
    if reason:
        raise Warn(
            f"offline: {reason}", cause="no key", cure="`wandb login`, or `wandb sync` of the run's folder later"
        )
    if mode != "online":
        return f"{version}, {mode} as asked for"
    url = urlsplit(tracker.url())
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise Warn(
            f"{tracker.url()} does not answer ({error})",
            cause="no network here, a proxy, or a wrong WANDB_BASE_URL",
            cure="the run goes on offline; `wandb sync` brings it over later. WANDB_MODE=offline saves the waiting",
        ) from error
    return f"{version}, online: {tracker.url()} answers"


CHECKS: list[Check[Machine]] = [
    Check("slurm", "SLURM takes jobs and starts them again", check_slurm),
    Check("submitit", "submitit is there for sweeps and --on", check_submitit),
    Check("wandb", "The recipe's tracker reaches W&B", check_wandb),
]
