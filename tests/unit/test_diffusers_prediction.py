"""Every kind of prediction as a denoiser: Gaussian data of standard deviation s have D = s^2 x / (s^2 + sigma^2)."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from ladd_dist.networks.diffusers.prediction import Prediction, read_scheduler

S2 = 0.7**2  # variance of the data
LEVELS = torch.tensor([0.03, 0.2, 1.0, 3.0, 14.0], dtype=torch.float64)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def read(scheduler: Any) -> Prediction:
    return read_scheduler({"_class_name": type(scheduler).__name__, **scheduler.config}, "here")


def alpha_sigma(prediction: Prediction, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """The model's own forward process at fractional timesteps: x_t = alpha x0 + sigma n."""
    if prediction.kind == "flow_prediction":
        t = (timestep / prediction.num_timesteps).view(-1, 1, 1, 1)
        return 1 - t, t
    table = prediction.get_buffer("log_sigmas").double()
    low = timestep.floor().clamp(max=len(table) - 2).long()
    ratio = torch.exp(torch.lerp(table[low], table[low + 1], timestep.double() - low)).view(-1, 1, 1, 1)
    alpha = 1 / torch.sqrt(1 + ratio**2)
    return alpha, alpha * ratio


def gaussian_model(prediction: Prediction, x_t: Tensor, timestep: Tensor) -> Tensor:
    """What a perfect model of N(0, s^2) says: expectations given x_t, which are linear in it."""
    alpha, sigma = alpha_sigma(prediction, timestep)
    total = alpha**2 * S2 + sigma**2
    x0, noise = alpha * S2 / total * x_t, sigma / total * x_t
    return {
        "sample": x0, "epsilon": noise, "v_prediction": alpha * noise - sigma * x0, "flow_prediction": noise - x0
    }[prediction.kind]  # fmt: skip


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDPMScheduler(),
        diffusers.PNDMScheduler(**BETAS),
        diffusers.DDIMScheduler(prediction_type="v_prediction", **BETAS),
        diffusers.DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, **BETAS),
        diffusers.EulerDiscreteScheduler(prediction_type="sample", beta_schedule="scaled_linear"),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=500),
        diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    ],
    ids=lambda scheduler: f"{type(scheduler).__name__}-{scheduler.config.get('prediction_type', 'flow')}",
)
def test_a_perfect_model_of_gaussian_data_denoises_as_it_should(scheduler: Any) -> None:
    prediction = read(scheduler)
    x = torch.randn(len(LEVELS), 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t, timestep = prediction.noised(x, LEVELS)
    raw = gaussian_model(prediction, x_t, timestep)
    found = prediction.denoised(raw, x, LEVELS)
    torch.testing.assert_close(prediction.raw(found, x, LEVELS), raw, atol=1e-9, rtol=1e-9)
    expected = S2 / (S2 + LEVELS.view(-1, 1, 1, 1) ** 2) * x
    # Tables are float32; epsilon and v are multiplied by sigma, and so is their rounding.
    assert ((found - expected).abs() < 2e-5 * (1 + LEVELS.view(-1, 1, 1, 1))).all()


def test_timesteps_are_those_of_the_euler_scheduler_for_the_same_levels() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
    levels = [200.0, 14.6146, 14.0, 3.3, 0.8, 0.05, 0.029168, 0.001]
    scheduler.set_timesteps(sigmas=[*levels, 0.0])
    found = read(scheduler).noised(torch.ones(len(levels), 1, 1, 1), torch.tensor(levels))
    np.testing.assert_allclose(found.timestep.numpy(), scheduler.timesteps.numpy(), atol=2e-3)
    assert found.timestep[0] == 999
    assert found.timestep[-1] == 0
    for level, x in zip(levels, found.x.flatten(), strict=True):
        assert x == pytest.approx((1 + level**2) ** -0.5)


def test_each_level_of_the_schedule_has_its_own_timestep() -> None:
    scheduler = diffusers.DDPMScheduler()
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    assert torch.allclose(read(scheduler).timestep(sigmas), torch.arange(1000.0), atol=2e-3)


def test_flow_timesteps_are_the_share_of_noise() -> None:
    prediction = read(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    x, timestep = prediction.noised(torch.ones(3, 1, 1, 1), torch.tensor([1 / 3, 1.0, 3.0]))
    assert torch.allclose(timestep, torch.tensor([250.0, 500.0, 750.0]))
    assert torch.allclose(x.flatten(), torch.tensor([0.75, 0.5, 0.25]))


def test_a_schedule_that_ends_without_signal_stays_finite() -> None:
    prediction = read(diffusers.DDIMScheduler(rescale_betas_zero_snr=True, **BETAS))
    assert prediction.get_buffer("log_sigmas").isfinite().all()
    assert prediction.timestep(torch.tensor([1e6])) == 999


def test_a_scheduler_is_read_where_tensors_have_no_data() -> None:
    with torch.device("meta"):
        assert read(diffusers.DDPMScheduler()).get_buffer("log_sigmas").device.type == "cpu"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "here: diffusers has no scheduler ''"),
        ({"_class_name": "NewScheduler"}, "diffusers has no scheduler 'NewScheduler'"),
        ({"_class_name": "UNet2DModel"}, "diffusers has no scheduler 'UNet2DModel'"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "score"},
         "unknown prediction_type 'score'; known are epsilon, v_prediction, sample, flow_prediction"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler has no discrete noise schedule"),
        ({"_class_name": "SCMScheduler"}, "here: .*SCMScheduler|unknown prediction_type 'trigflow'"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "no discrete noise schedule"),
    ],
)  # fmt: skip
def test_a_scheduler_outside_the_dictionary_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_scheduler(config, "here")
