"""The development cluster of slurm/dev_cluster.sh: four nodes on this machine, two jobs of a sweep at once.

Our commands find it once it is up; `eval "$(slurm/dev_cluster.sh env)"` is for squeue and SLURM's other commands.
"""

import os
from pathlib import Path

from ladd_dist.cluster import Cluster

FOLDER = Path(os.environ.get("SLURM_DEV_DIR", "/tmp/slurm-dev"))
IS_UP = (FOLDER / "slurm.conf").is_file() and "SLURM_CONF" not in os.environ  # otherwise the shell chooses the cluster

CLUSTER = Cluster(
    partition="main",
    time_min=20,
    array_parallelism=2,
    signal_delay_s=30,
    environment=(("GLOO_SOCKET_IFNAME", "lo"), ("OMP_NUM_THREADS", "1")),
    client=(("SLURM_CONF", str(FOLDER / "slurm.conf")), ("PATH", str(FOLDER / "bin"))) if IS_UP else (),
)
