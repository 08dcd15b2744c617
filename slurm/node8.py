"""A whole node of eight GPUs for each run: eight processes, one per GPU, with the recipe's strategy or `ddp`."""

from ladd_dist.cluster import Cluster

CLUSTER = Cluster(
    partition="gpu",
    gpus_per_node=8,
    cpus_per_task=8,
    memory_gb=256,
    time_min=24 * 60,
    array_parallelism=4,
    signal_delay_s=180,  # a larger network takes longer to save
)
