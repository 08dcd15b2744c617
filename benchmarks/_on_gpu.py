"""A sweep of laptop scale as a GPU runs it fastest: its steps recorded, its samples in the device's memory."""

from __future__ import annotations

import dataclasses

from ladd_dist.recipe import Sweep
from ladd_dist.recipe.scales import Scales


def on_gpu(sweep: Sweep) -> Sweep:
    """The same runs: these fields change no signature, so the folders are the same too."""
    base = sweep.base
    assert isinstance(base, Scales)
    faster = {
        stage: dataclasses.replace(settings, compute=dataclasses.replace(settings.compute, graph=True, data="device"))
        for stage, settings in (("teacher", base.laptop.teacher), ("train", base.laptop.train))
    }
    return dataclasses.replace(sweep, base=base.at("laptop", **faster))
