"""A sweep of laptop scale as a GPU runs it fastest: its step recorded, its samples in the device's memory."""

from __future__ import annotations

import dataclasses

from ladd_dist.recipe import Sweep
from ladd_dist.recipe.scales import Scales


def on_gpu(sweep: Sweep) -> Sweep:
    """The same runs, with the same signatures and folders: these fields change no result."""
    base = sweep.base
    assert isinstance(base, Scales)
    train = base.laptop.train
    compute = dataclasses.replace(train.compute, graph=True, data="device")
    return dataclasses.replace(sweep, base=base.at("laptop", train=dataclasses.replace(train, compute=compute)))
