"""A queue of single GPUs: one process per run, up to 32 runs at once."""

from ladd_dist.cluster import Cluster

CLUSTER = Cluster(
    partition="gpu",  # sinfo lists them
    gpus_per_node=1,
    cpus_per_task=8,
    memory_gb=32,
    time_min=4 * 60,
    array_parallelism=32,
)
