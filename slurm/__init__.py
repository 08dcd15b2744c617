"""Cluster profiles for `--on`: each file defines `CLUSTER`."""
