"""Speed: student and teacher are timed in turns on batches of one size, and neither a cold start nor a pause counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.sampling import SampleFn
from ladd_dist.core.rng import NoiseSource
from ladd_dist.engine.loop import StopFlag
from ladd_dist.evaluation import timing
from ladd_dist.evaluation.timing import TURNS, time_in_turns
from ladd_dist.recipe import load_recipe
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

RECIPE = Path(__file__).parents[2] / "recipes" / "exp4_specnorm.py"


class Machine:
    """A machine whose clock only samplers move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls = 0.0, list[tuple[str, int]]()
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def sampler(self, name: str, seconds: float, extra: dict[int, float] | None = None) -> SampleFn:
        """A sampler that takes so many seconds an image, and more in some of its calls, counted from 0.

        More at -1 is for each call that comes after another sampler's.
        """
        own = [0]

        def sample(noise: Tensor, cond: Tensor, source: NoiseSource) -> Tensor:
            if not self.calls or self.calls[-1][0] != name:
                self.now += (extra or {}).get(-1, 0.0)
            self.calls.append((name, len(noise)))
            self.now += seconds * len(noise) + (extra or {}).get(own[0], 0.0)
            own[0] += 1
            return noise + source.normal(*noise.shape[1:])

        return sample


def run_of(num_samples: int, folder: Path) -> Run:
    recipe = load_recipe(RECIPE, "smoke")
    settings = dataclasses.replace(recipe.evaluate, num_samples=num_samples)
    return Run(dataclasses.replace(recipe, evaluate=settings), Workspace(folder, folder, torch.device("cpu")))


def timed(run: Run, samplers: dict[str, SampleFn], slow: str | None = None) -> dict[str, dict[str, float]]:
    with StopFlag().listen() as stop:
        return time_in_turns(run, samplers, load_codec(run), stop, *([slow] if slow else []))


def test_samplers_take_turns_on_batches_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    timed(
        run_of(80, tmp_path), {name: machine.sampler(name, 1.0) for name in ("student@4", "untrained@4", "teacher@50")}
    )
    assert machine.calls == [("student@4", 10), ("untrained@4", 10), ("teacher@50", 10)] * (TURNS + 1)


def test_neither_a_cold_start_nor_a_pause_of_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    cold_first = machine.sampler("student@4", 4.0, {0: 5_000.0})
    found = timed(
        run_of(80, tmp_path), {"student@4": cold_first, "teacher@50": machine.sampler("t", 100.0, {2: 900.0})}
    )
    assert found["student@4"]["s_per_image"] == pytest.approx(4.0)
    assert found["teacher@50"]["s_per_image"] == pytest.approx(100.0)
    assert found["student@4"]["timed_turns"] == TURNS >= 3


def test_what_a_fast_sampler_pays_after_another_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network before and after training takes the same time, whichever comes first in a turn."""
    machine = Machine(monkeypatch)
    first = machine.sampler("student@4", 1e-3, {-1: 0.02})
    samplers = {"student@4": first, "untrained@4": machine.sampler("untrained@4", 1e-3)}
    found = timed(run_of(80, tmp_path), {**samplers, "teacher@50": machine.sampler("teacher@50", 0.026)}, "teacher@50")
    assert found["student@4"]["s_per_image"] == pytest.approx(1e-3)
    assert found["untrained@4"]["s_per_image"] == pytest.approx(1e-3)
    assert found["student@4"]["times_faster"] == pytest.approx(26.0)


def test_the_ratio_is_of_seconds_of_one_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that becomes slower from turn to turn is as slow for both."""
    machine = Machine(monkeypatch)
    growing = {turn: 10.0 * turn for turn in range(TURNS + 1)}
    samplers = {
        "student@4": machine.sampler("student@4", 1.0, growing),
        "teacher@50": machine.sampler("teacher@50", 20.0, {turn: 20 * more for turn, more in growing.items()}),
    }
    found = timed(run_of(80, tmp_path), samplers, "teacher@50")
    ratios = [found["student@4"][f"times_faster{end}"] for end in ("", "_low", "_high")]
    assert ratios == pytest.approx([20.0, 20.0, 20.0]) and found["teacher@50"]["times_faster"] == 1.0
