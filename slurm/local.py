"""The development cluster of slurm/dev_cluster.sh: four nodes on this machine. Two jobs of a sweep at once.

The commands find it by themselves once it is up; `eval "$(slurm/dev_cluster.sh env)"` is for squeue and its kin.
"""

import os
from pathlib import Path

from ladd_dist.cluster import Cluster

FOLDER = Path(os.environ.get("SLURM_DEV_DIR", "/tmp/slurm-dev"))

if (FOLDER / "slurm.conf").is_file() and "SLURM_CONF" not in os.environ:
    os.environ["SLURM_CONF"] = str(FOLDER / "slurm.conf")
    os.environ["PATH"] = f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"

CLUSTER = Cluster(
    partition="main",
    time_min=20,
    array_parallelism=2,
    signal_delay_s=30,
    environment=(("GLOO_SOCKET_IFNAME", "lo"), ("OMP_NUM_THREADS", "1")),
)
