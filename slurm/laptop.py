"""This machine without SLURM (submitit's local executor): a run for each core at once, each with its share of threads.

`ladd sweep` waits for the last run.
"""

from ladd_dist.cluster import Cluster
from ladd_dist.core.machine import memory_bytes, usable_cores

RUN_BYTES = 2 * 2**30
"""Memory for a run at laptop scale, with room."""

CLUSTER = Cluster(
    executor="local",
    array_parallelism=max(1, min(usable_cores(), memory_bytes() // RUN_BYTES)),
    time_min=24 * 60,
    signal_delay_s=30,
)
