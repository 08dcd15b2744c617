"""Schedules: constant, linear warm-up, cosine, piecewise linear."""

from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.schedules.cosine import Cosine
from ladd_dist.zoo.plugins.schedules.linear_warmup import LinearWarmup
from ladd_dist.zoo.plugins.schedules.piecewise import Piecewise

__all__ = ["Constant", "Cosine", "LinearWarmup", "Piecewise"]
