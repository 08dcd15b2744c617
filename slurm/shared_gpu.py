"""One GPU of this machine without SLURM, shared by small runs: one for each core at once, as memory allows, 16 at most.

For networks that keep a GPU busy for a small part of each step: nobody counts its memory. `CUDA_VISIBLE_DEVICES`
chooses among several. `ladd sweep` waits for the last run.
"""

from ladd_dist.cluster import Cluster
from ladd_dist.core.machine import memory_bytes, usable_cores

RUN_BYTES = 4 * 2**30
"""Memory of the host for a run at laptop scale with PyTorch's CUDA libraries, with room."""
MOST = 16
"""Each takes a gigabyte or two of the GPU's memory besides."""

CLUSTER = Cluster(
    executor="local",
    gpus_per_node=1,
    array_parallelism=max(1, min(usable_cores(), memory_bytes() // RUN_BYTES, MOST)),
    time_min=24 * 60,
    signal_delay_s=30,
)
