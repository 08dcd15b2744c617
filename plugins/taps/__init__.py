"""Tap layouts of the report. Names come from the network's catalog: input, down0.., middle, up0.."""

from plugins.taps.downs import Downs
from plugins.taps.downs_middle import DownsMiddle
from plugins.taps.downs_middle_ups import DownsMiddleUps
from plugins.taps.early import Early
from plugins.taps.named import Named

__all__ = ["Downs", "DownsMiddle", "DownsMiddleUps", "Early", "Named"]
