"""This machine without SLURM (submitit's local executor): one run at a time, and `ladd sweep` waits for the last."""

from ladd_dist.cluster import Cluster

CLUSTER = Cluster(executor="local", array_parallelism=1, time_min=24 * 60, signal_delay_s=30)
