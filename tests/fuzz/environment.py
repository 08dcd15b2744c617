"""Variables of the environment that no launcher sets like this."""

from __future__ import annotations

import random

from fuzz.damage import ESCAPES
from fuzz.judge import Order
from fuzz.kinds import OWN, TABLE, Made, Place

JUNK = ("x", "", "-1", "1.5", "9" * 30, "nan", "\x1b[31m", "0x1", " 1", "1,2", "١")
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
STEP = (
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_NTASKS",
    "SLURM_STEP_NODELIST",
    "SLURM_JOB_ID",
)
OTHERS = (
    "COLUMNS",
    "LINES",
    "OMP_NUM_THREADS",
    "LADD_PARENT",
    "LADD_CORES",
    "LADD_LOGS",
    "CUDA_VISIBLE_DEVICES",
    "MASTER_PORT",
    "MASTER_ADDR",
    "NO_COLOR",
    "FORCE_COLOR",
    "TERM",
    "TORCHELASTIC_ERROR_FILE",
    "LADD_MNIST_ROOT",
    "WANDB_MODE",
    "WANDB_PROJECT",
    "WANDB_DIR",
    "SLURM_CPUS_PER_TASK",
    "SLURM_RESTART_COUNT",
    "HOME",
    "TMPDIR",
    "USER",
    "MPLCONFIGDIR",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "PATH",
)
COMMANDS = (
    "jobs runs",
    "jobs runs --json",
    "compare runs/{run} --metric matched_error",
    "export runs/{run} --out out/e.safetensors",
    "sample runs/{run} --classes 0 --columns 1 --out out/s.png",
    "doctor --only disk",
    "plugins --kind head",
)
LAUNCH = "launch tiny.py --scale smoke --out runs --cache cache"


@TABLE.add("environment/ranks", *OWN, quick=2, full=60)
def ranks(place: Place, seed: int, rng: random.Random) -> Made:
    """Ranks and sizes of a launcher that are no numbers, contradict each other or lack a part."""
    names = RANKS if seed % 2 else STEP
    own: dict[str, str | bytes] = {rng.choice(names): rng.choice(JUNK)}
    if rng.random() < 0.6:
        sound = (
            {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
            if seed % 2
            else {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}
        )
        own = {**sound, **own}
    if rng.random() < 0.3:  # a rank that cannot be, of a group that is not there
        own |= {"RANK": "5", "WORLD_SIZE": "2", "LOCAL_RANK": "5"}
    command = LAUNCH if rng.random() < 0.6 else rng.choice(COMMANDS)
    words = command.format(run=place.base.run).split()
    allow = ("own/runs", "own/cache")
    return Made("ranks", Order(words, allow=allow, environment=own, silent_ok=words[0] == "doctor"))


@TABLE.add("environment/others", *OWN, quick=4, full=100)
def others(place: Place, seed: int, rng: random.Random) -> Made:
    """What else commands and their libraries read."""
    name = OTHERS[seed % len(OTHERS)]
    value = rng.choice((*JUNK, *[text for text in ESCAPES if "\0" not in text], "/nowhere", "x" * 100_000))
    command = rng.choice((*COMMANDS, LAUNCH))
    words = command.format(run=place.base.run).split()
    allow = ("own/runs", "own/cache", f"own/{value}" if value.isalnum() else "own/out")
    codes = (0, 1, 2, 75) if name == "LADD_PARENT" else (0, 1, 2)  # 75: the parent is gone
    order = Order(words, allow=allow, environment={name: value}, silent_ok=words[0] == "doctor", codes=codes)
    return Made(f"{name} is {value[:20]!r}", order)


@TABLE.add("environment/bytes", *OWN, quick=1, full=16)
def not_text(place: Place, seed: int, rng: random.Random) -> Made:
    """Variables that are not UTF-8."""
    name = rng.choice(("USER", "HOME", "TMPDIR", "COLUMNS", "RANK", "LADD_PARENT", "WANDB_PROJECT", "SLURM_JOB_ID"))
    words = rng.choice((*COMMANDS, LAUNCH)).format(run=place.base.run).split()
    own: dict[str, str | bytes] = {name: b"\xff\xe9/x"}
    return Made(
        f"{name} is no UTF-8",
        Order(words, allow=("own/runs", "own/cache"), environment=own, silent_ok=words[0] == "doctor"),
    )
