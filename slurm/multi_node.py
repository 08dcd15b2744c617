"""Four nodes of eight GPUs for each run: thirty-two processes in one group over InfiniBand."""

from ladd_dist.cluster import Cluster

CLUSTER = Cluster(
    partition="gpu",
    nodes=4,
    gpus_per_node=8,
    cpus_per_task=8,
    memory_gb=256,
    time_min=24 * 60,
    array_parallelism=2,
    signal_delay_s=300,
    environment=(("NCCL_SOCKET_IFNAME", "ib0"),),  # `ip addr` on a node names the interfaces
)
