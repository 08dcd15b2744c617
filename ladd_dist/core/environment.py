"""The numbers that this package reads from environment variables; one that is none is refused, with its name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from ladd_dist.core.errors import RecipeError

CORES = "LADD_CORES"
"""Environment variable with this rank's share of the cores; unset where the user chose a number of threads."""
PARENT = "LADD_PARENT"
"""Environment variable with the process id of the launch that started this rank."""
MOST_RANKS = 10**6
MOST_THREADS = 1024
"""OpenMP crashes where the system does not give it the threads that it was told to start."""


class Span(NamedTuple):
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int


RANK, SIZE, ANY = Span(0, MOST_RANKS), Span(1, MOST_RANKS), Span(0, 2**63 - 1)
NUMBERS: Mapping[str, Span] = {
    "RANK": RANK,
    "WORLD_SIZE": SIZE,
    "LOCAL_RANK": RANK,
    "LOCAL_WORLD_SIZE": SIZE,
    "MASTER_PORT": Span(1, 65_535),
    "SLURM_PROCID": RANK,
    "SLURM_LOCALID": RANK,
    "SLURM_NODEID": RANK,
    "SLURM_STEP_NUM_TASKS": SIZE,
    "SLURM_JOB_ID": ANY,
    "SLURM_STEP_ID": ANY,
    "SUBMITIT_LOCAL_NTASKS": SIZE,
    "SUBMITIT_LOCAL_GLOBALID": RANK,
    "SUBMITIT_LOCAL_JOB_ID": ANY,
    CORES: Span(1, MOST_RANKS),
    PARENT: ANY,
}
FORMS = {
    "CUDA_VISIBLE_DEVICES": (
        r"(?i)\s*|(-?\d+|(GPU|MIG)-[^,]+|none|void|NoDevFiles)(\s*,\s*(-?\d+|(GPU|MIG)-[^,]+))*",
        "numbers of GPUs, like 0,1, or their names, like GPU-8932f937",
    ),
    "SLURM_STEP_TASKS_PER_NODE": (r"(\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*)?", "numbers by node, like 4(x2),1"),
}
"""Variable -> the regular expression that it matches whole, and how to say that."""


def env_number(name: str, default: int | None = None, env: Mapping[str, str] | None = None) -> int:
    """The number in a variable of `NUMBERS`; `default` where it is not set or empty.

    Args:
        env: the variables; those of this process unless given.

    Raises:
        RecipeError: it is no whole number in its span, or is not set and has no default.
    """
    text = (os.environ if env is None else env).get(name, "").strip()
    if not text:
        if default is None:
            raise RecipeError(f"the environment variable {name} is not set")
        return default
    span = NUMBERS[name]
    value = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else -1
    if not span.low <= value <= span.high:
        raise RecipeError(
            f"the environment variable {name} must be a whole number from {span.low} to {span.high}, got "
            f"{text[:40]!a}; correct it, or `unset {name}`"
        )
    return value


def require_environment() -> None:
    """Refuse variables with what is no number or no list, before anything is computed with them.

    Raises:
        RecipeError: names the variable, and what it may hold.
    """
    for name in NUMBERS:
        env_number(name, default=0)
    for name, (form, words) in FORMS.items():
        if not re.fullmatch(form, text := os.environ.get(name, "")):
            raise RecipeError(
                f"the environment variable {name} must be {words}, got {text[:40]!a}; correct it, or `unset {name}`"
            )
    for text in os.environ.get("OMP_NUM_THREADS", "").split(","):  # one for each level of nesting
        if text.strip() and not (re.fullmatch(r"\s*[0-9]{1,4}\s*", text) and 1 <= int(text) <= MOST_THREADS):
            raise RecipeError(
                f"the environment variable OMP_NUM_THREADS must be a number of threads from 1 to {MOST_THREADS}, got "
                f"{text[:40]!a}; correct it, or `unset OMP_NUM_THREADS`"
            )
    for rank, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if os.environ.get(size) and env_number(rank, default=0) >= env_number(size):
            raise RecipeError(
                f"the environment variable {rank} counts from 0 and must be below {size}, {env_number(size)}, got "
                f"{env_number(rank)}; start with torchrun or srun, or unset both"
            )


def require_meeting() -> None:
    """Refuse a rank that is not told how many there are, and where rank 0 is.

    Raises:
        RecipeError: names the variable that is missing.
    """
    if "RANK" not in os.environ:
        return
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise RecipeError(
                f"the environment variable {name} is not set, and RANK is: start with torchrun or srun, or `unset RANK`"
            )
