"""Levels and rule as a scheduler of diffusers: which one, what it is told, and that its steps are ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import ImageSpec
from ladd_dist.exporting.card import Card, page
from ladd_dist.exporting.pipeline import require_free
from ladd_dist.exporting.schedulers import Sampling, sampling_of
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers.prediction import Prediction, read_scheduler
from ladd_dist.students.full import Full
from ladd_dist.students.lora import Lora


def written(scheduler: Any) -> dict[str, Any]:
    """The configuration as a checkpoint has it."""
    found: dict[str, Any] = json.loads(scheduler.to_json_string())
    return found


SD = written(diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))
FLOW = written(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
ALL = ("sigmas", "timesteps")


def sampling(config: Any, levels: tuple[float, ...], rule: Any, takes: tuple[str, ...] = ALL) -> Sampling:
    return sampling_of(read_scheduler(config, "here"), config, levels, rule, takes)


def sigma_at(config: Any, *times: int) -> tuple[float, ...]:
    table: Prediction = read_scheduler(config, "here")
    return tuple(table.log_sigmas[list(times)].exp().tolist())


def test_a_flow_is_told_times_that_no_shift_moves() -> None:
    found = sampling(FLOW, (9.0, 1.0), "ode")
    assert found.arguments == {"sigmas": [0.9, 0.5]} and found.start == 0.9
    found.scheduler.set_timesteps(**found.arguments)
    assert found.scheduler.sigmas.tolist() == pytest.approx([0.9, 0.5, 0.0])


@pytest.mark.parametrize("config", [SD, FLOW], ids=["vp", "flow"])
def test_new_noise_in_each_step_is_added_by_the_librarys_scheduler(config: Any) -> None:
    """x' = x0 + sigma' n, in the scheduler's own units, with its own n."""
    levels = sigma_at(SD, 749, 249)
    found = sampling(config, levels, "sde")
    scheduler = found.scheduler
    scheduler.set_timesteps(**found.arguments)
    x, raw = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    prediction = read_scheduler(config, "here").double()
    level, lower = torch.tensor(levels, dtype=torch.float64)
    scale = prediction.noised(x, level.expand(2)).x / x  # of the model's input, for our x
    x0 = prediction.denoised(raw, x, level.expand(2))
    dtype = (
        torch.float32 if config is FLOW else torch.float64
    )  # in which each of them draws; one from torch's own source
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        noise = torch.randn(x.shape, dtype=dtype)
        generator = torch.manual_seed(3)
        stepped = scheduler.step(raw, scheduler.timesteps[0], scale * x, generator=generator)
    expected = prediction.noised(x0 + lower * noise, lower.expand(2)).x
    assert torch.allclose(stepped.prev_sample, expected, atol=2e-3)  # its tables are in float32
    last = scheduler.step(raw, scheduler.timesteps[1], stepped.prev_sample).prev_sample
    ours = prediction.denoised(raw, x0 + lower * noise, lower.expand(2))
    assert torch.allclose(last, ours, atol=5e-3)


def test_without_levels_of_ones_own_ddim_is_made_to_visit_them() -> None:
    found = sampling(SD, sigma_at(SD, 979, 729, 479, 229), "ode", ())
    found.scheduler.set_timesteps(**found.arguments)
    assert found.scheduler.timesteps.tolist() == [979, 729, 479, 229]


@pytest.mark.parametrize("times", [(979, 730, 479, 229), (999, 300), (600, 500)])
def test_levels_off_that_grid_are_left_to_a_loop(times: tuple[int, ...]) -> None:
    levels = sigma_at(SD, *times)
    found = sampling(SD, levels, "ode", ())
    assert found.arguments is None
    card = Card.of({
        "network": to_data(CUNet()), "recipe": "r", "signature": "x", "step": 3, "rule": "ode",
        "levels": {str(len(levels)): list(levels)},
    })  # fmt: skip
    text = page(card, "s", {str(len(levels)): found}, "pipe = 1\n", "")
    assert "sample in a loop" in text and "lower * (x - x0) / sigma" in text
    compile(text.split("```python\n")[1].split("```")[0].replace("# x0:", "x0 = x  #"), "card", "exec")


def test_models_that_predict_the_sample_do_not_get_eulers_scheduler() -> None:
    config = written(diffusers.DDIMScheduler(prediction_type="sample"))
    assert type(sampling(config, sigma_at(config, 900, 400), "ode").scheduler).__name__ == "DDIMScheduler"


def test_an_exported_folder_replaces_none_but_its_like(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    require_free(other, run)
    other.mkdir()
    require_free(other, run)
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is no export of a student"):
        require_free(other, run)
    (other / "student.json").write_text("{}")
    require_free(other, run)
    with pytest.raises(ValueError, match="in the run's own folder"):
        require_free(run / "exported", run)


def test_a_merged_card_keeps_every_other_key_in_its_order_and_needs_no_teacher() -> None:
    data = {
        "network": to_data(CUNet()), "recipe": "r", "signature": "x", "of a later version": [1], "levels": {"4": [1.0]},
        "rule": "sde", "student": to_data(Lora(rank=2)), "teacher": {"signature": "t", "file": "f"}, "step": 3,
        "image": to_data(ImageSpec(4, 2, 3, 1)), "pixels": to_data(ImageSpec(3, 16, 24, 1)),
    }  # fmt: skip
    card = Card.of(data)
    assert card.form == Lora(rank=2) and list(card.data) == list(data)
    merged = card.merged()
    kept = ["network", "recipe", "signature", "of a later version", "levels", "rule", "step", "image", "pixels"]
    assert list(merged.data) == [*kept, "merged"] and merged.data["merged"] == data["student"]
    assert merged.form == Full() and merged.merged() == merged
    found = merged.with_samplings({"4": Sampling(None, {"num_inference_steps": 4}, 0.5)})
    assert list(found) == [*merged.data, "height", "width", "scheduler", "pipeline_arguments", "initial_noise"]
    assert (found["height"], found["width"]) == (16, 24)
    assert found["pipeline_arguments"] == {"4": {"num_inference_steps": 4}}
