"""Conversion of a diffusers model's predictions and timesteps to a denoiser D(x; sigma) of x = x0 + sigma n.

With a = 1/sqrt(1 + sigma^2), a discrete-time (VP) model sees x_t = a x, and its alpha-bar is a^2; a flow model sees
x_t = (1 - t) x at t = sigma / (1 + sigma) (Karras et al. 2022, arXiv 2206.00364; Salimans and Ho 2022, arXiv
2202.00512; Liu et al. 2022, arXiv 2209.03003). The checkpoint's scheduler gives the noise schedule and the prediction
type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ladd_dist.core.errors import UserError

Kind = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
_NO_SIGNAL = 2.0**-24  # replaces an alpha-bar of 0 at the end of a schedule: sigma stays finite, as in diffusers


class Noised(NamedTuple):
    """Input of a model in its own units."""

    x: Tensor  # [B,C,H,W]
    timestep: Tensor  # [B]


class Prediction(nn.Module):
    """Conversion between levels sigma and a model's own inputs, timesteps and outputs."""

    def __init__(self, kind: Kind, log_sigmas: Tensor | None, num_timesteps: int) -> None:
        """Set the prediction type and the noise schedule; `read_scheduler` does so for a checkpoint.

        Args:
            log_sigmas: ln sigma [num_timesteps] of a VP model's timesteps, ascending; None for a flow model.
        """
        super().__init__()
        self.kind, self.num_timesteps = kind, num_timesteps
        self.log_sigmas: Tensor | None
        self.register_buffer("log_sigmas", log_sigmas, persistent=False)

    def sigma_max(self) -> float:
        """Noise level of the last timestep, in units of x0; infinite for a flow model."""
        table: Tensor | None = self.log_sigmas
        return math.inf if table is None else math.exp(float(table[-1]))

    def sigma_min(self) -> float:
        """Noise level of the first timestep, in units of x0; 0 for a flow model."""
        table: Tensor | None = self.log_sigmas
        return 0.0 if table is None else math.exp(float(table[0]))

    def noised(self, x: Tensor, sigma: Tensor) -> Noised:
        """Model's own input and timestep for x [B,C,H,W] at levels sigma [B] > 0."""
        if self.kind == "flow_prediction":
            t = sigma / (1 + sigma)
            return Noised(_bchw(1 - t, x) * x, t * self.num_timesteps)
        return Noised(x / _bchw(torch.sqrt(1 + sigma**2), x), self.timestep(sigma))

    def timestep(self, sigma: Tensor) -> Tensor:
        """Timesteps [B], linear in ln sigma between those of the schedule, and clamped to the first and last.

        Levels of a sampler beyond these are refused before (`builders.networks.require_within`); a law without a bound
        may draw some. diffusers' `EulerDiscreteScheduler` has the same rule for custom levels.
        """
        table = self.get_buffer("log_sigmas")
        log_sigma = torch.log(sigma.to(table.dtype))
        low = (torch.searchsorted(table, log_sigma, right=True) - 1).clamp(0, len(table) - 2)
        share = (log_sigma - table[low]) / (table[low + 1] - table[low])
        return low + share.clamp(0, 1)

    def denoised(self, raw: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; sigma) [B,C,H,W] from the model's output [B,C,H,W], computed in x's dtype."""
        raw, level = raw.to(x.dtype), _bchw(sigma, x)
        if self.kind == "sample":
            return raw
        if self.kind == "epsilon":
            return x - level * raw
        if self.kind == "v_prediction":
            return x / (1 + level**2) - level / torch.sqrt(1 + level**2) * raw
        return (x - level * raw) / (1 + level)

    def raw(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """Output of the model [B,C,H,W] from which `denoised` makes D(x; sigma) [B,C,H,W]."""
        level = _bchw(sigma, x)
        if self.kind == "sample":
            return denoised
        if self.kind == "epsilon":
            return (x - denoised) / level
        if self.kind == "v_prediction":
            return (x / (1 + level**2) - denoised) * torch.sqrt(1 + level**2) / level
        return (x - (1 + level) * denoised) / level


def read_scheduler(config: Mapping[str, object], where: str) -> Prediction:
    """Prediction of a checkpoint from its scheduler's configuration.

    Raises:
        UserError: the scheduler or its prediction type is unknown, or it has no discrete noise schedule.
    """
    import diffusers

    name = str(config.get("_class_name", ""))
    cls = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if not isinstance(cls, type):
        raise UserError(f"{where}: diffusers has no scheduler {name!r}")
    with torch.device("cpu"):  # also where the network is only planned, on the device "meta"
        scheduler: Any = cls.from_config(dict(config))  # type: ignore[attr-defined]
    settings = scheduler.config
    kind = settings.get("prediction_type", "epsilon")
    num_timesteps = int(settings.get("num_train_timesteps", 1000))
    if name.startswith("FlowMatch") or settings.get("use_flow_sigmas") or kind == "flow_prediction":
        return Prediction("flow_prediction", None, num_timesteps)
    if kind not in get_args(Kind):
        known = ", ".join(get_args(Kind))
        raise UserError(f"{where}: unknown prediction_type {kind!r}; known are {known}")
    if settings.get("timestep_type", "discrete") != "discrete" or not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(
            f"{where}: {name} has no discrete noise schedule (alphas_cumprod) to read; put the scheduler with which "
            "the model was trained beside it, like DDPMScheduler or FlowMatchEulerDiscreteScheduler"
        )
    alpha_bar = scheduler.alphas_cumprod.double()
    alpha_bar = alpha_bar.where(alpha_bar > 0, _NO_SIGNAL)
    return Prediction(kind, torch.log(torch.sqrt((1 - alpha_bar) / alpha_bar)).float(), num_timesteps)


def _bchw(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, 1, 1, 1)
