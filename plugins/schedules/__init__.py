"""Schedules: constant, linear warm-up, cosine, piecewise linear."""

from plugins.schedules.constant import Constant
from plugins.schedules.cosine import Cosine
from plugins.schedules.linear_warmup import LinearWarmup
from plugins.schedules.piecewise import Piecewise

__all__ = ["Constant", "Cosine", "LinearWarmup", "Piecewise"]
