"""Contract checks that authors of plug-ins can call: in a test, or by `ladd plugins --check NAME`."""

from ladd_dist.testing.basics import ContractError, check_basics
from ladd_dist.testing.checks import (
    check_adversarial,
    check_distance,
    check_guard,
    check_plugin,
    check_regulariser,
    check_schedule,
    check_taps,
    unet_catalog,
)
from ladd_dist.testing.critics import check_critic
from ladd_dist.testing.datasets import check_dataset
from ladd_dist.testing.heads import check_head
from ladd_dist.testing.rollouts import check_rollout
from ladd_dist.testing.targets import check_target

__all__ = [
    "ContractError",
    "check_adversarial",
    "check_basics",
    "check_critic",
    "check_dataset",
    "check_distance",
    "check_guard",
    "check_head",
    "check_plugin",
    "check_regulariser",
    "check_rollout",
    "check_schedule",
    "check_taps",
    "check_target",
    "unet_catalog",
]
