"""A student's levels and rule as a scheduler of diffusers, and what its pipeline must be told.

Our x at level sigma is a / s of a variance-preserving model's input, a = 1 / sqrt(1 + sigma^2), and 1 / (1 - t) of a
flow's, t = sigma / (1 + sigma). Rule `ode` is Euler's method, rule `sde` adds new noise in each step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import torch

from ladd_dist.networks.diffusers.prediction import Prediction

GRID = 0.02
"""How far, in timesteps, levels may be from those that a scheduler without custom levels visits."""


Arguments = dict[str, list[float] | list[int] | int]
"""Keyword arguments of a pipeline's call."""


class Sampling(NamedTuple):
    """How diffusers samples a student."""

    scheduler: Any
    arguments: Arguments | None
    """Arguments of the pipeline's call; None where none makes it visit the student's levels, which takes a loop."""
    start: float
    """Standard deviation of the initial noise, in units of what the pipeline draws itself."""


def sampling_of(
    prediction: Prediction,
    config: Mapping[str, object],
    levels: tuple[float, ...],
    rule: Literal["ode", "sde"],
    takes: Collection[str],
) -> Sampling:
    """The scheduler for a student.

    Args:
        prediction: of its network.
        config: of the checkpoint's own scheduler: its noise schedule.
        levels: descending.
        takes: names of the arguments of the pipeline's call.
    """
    import diffusers

    library: Any = diffusers
    if prediction.kind == "flow_prediction":
        scheduler = library.FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=prediction.num_timesteps, shift=1.0, stochastic_sampling=rule == "sde"
        )
        times = [level / (1 + level) for level in levels]
        return Sampling(scheduler, {"sigmas": times} if "sigmas" in takes else None, times[0])
    own = {**config, "prediction_type": prediction.kind, "clip_sample": False, "thresholding": False}
    start = levels[0] / (1 + levels[0] ** 2) ** 0.5
    times = prediction.timestep(torch.tensor(levels)).tolist()
    if rule == "sde":
        asked: Arguments = {"timesteps": [round(time) for time in times]}
        return Sampling(library.LCMScheduler.from_config(own), asked if "timesteps" in takes else None, start)
    if "sigmas" in takes and prediction.kind != "sample":
        return Sampling(_euler(own), {"sigmas": [*levels, 0.0]}, 1.0)
    spacing, last = prediction.num_timesteps // len(levels), round(times[-1])
    grid = [last + spacing * number for number in reversed(range(len(levels)))]
    if last < spacing and all(abs(time - place) < GRID for time, place in zip(times, grid, strict=True)):
        ddim = {"timestep_spacing": "leading", "steps_offset": last, "set_alpha_to_one": True}
        scheduler = library.DDIMScheduler.from_config(own | ddim)
        return Sampling(scheduler, {"num_inference_steps": len(levels)}, start)
    other = library.DDIMScheduler.from_config(own) if prediction.kind == "sample" else _euler(own)
    return Sampling(other, None, start)


def _euler(config: Mapping[str, object]) -> Any:
    import diffusers

    library: Any = diffusers
    plain = {f"use_{name}_sigmas": False for name in ("karras", "exponential", "beta")}
    # `trailing`: with others the library starts from sqrt(1 + sigma^2) in place of sigma.
    return library.EulerDiscreteScheduler.from_config({**config, **plain, "timestep_spacing": "trailing"})
