"""This machine's first GPU without SLURM, shared by small runs: one for each core at once, as memory allows.

For networks that keep a GPU busy for a small part of each step. `ladd sweep` waits for the last run.
"""

from ladd_dist.cluster import Cluster
from ladd_dist.core.machine import memory_bytes, usable_cores

RUN_BYTES = 4 * 2**30
"""Memory of the host for a run at laptop scale with PyTorch's CUDA libraries, with room."""

CLUSTER = Cluster(
    executor="local",
    gpus_per_node=1,
    array_parallelism=max(1, min(usable_cores(), memory_bytes() // RUN_BYTES)),
    time_min=24 * 60,
    signal_delay_s=30,
)
