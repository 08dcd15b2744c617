"""Tap layouts of the report. Names come from the network's catalog: input, down0.., middle, up0.."""

from ladd_dist.zoo.plugins.taps.downs import Downs
from ladd_dist.zoo.plugins.taps.downs_middle import DownsMiddle
from ladd_dist.zoo.plugins.taps.downs_middle_ups import DownsMiddleUps
from ladd_dist.zoo.plugins.taps.early import Early
from ladd_dist.zoo.plugins.taps.named import Named

__all__ = ["Downs", "DownsMiddle", "DownsMiddleUps", "Early", "Named"]
