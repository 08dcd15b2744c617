"""Noise couplings and the laws of noise levels."""

from __future__ import annotations

import math

import pytest
import torch

from ladd_dist.core.types import Batch
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.sigmas.laws import FixedSet, LogNormal, Phase
from ladd_dist.starts.couplings import Fresh, Ot, Path, Stored

LEVELS = (80.0, 3.92, 1.29, 0.34)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    path = torch.randn(6, 4, 3, 2, 2)
    return Batch(torch.randn(6, 3, 2, 2), torch.arange(6), torch.randn(6, 3, 2, 2), path, LEVELS)


def test_fresh_adds_new_noise_and_ignores_the_stored(batch: Batch) -> None:
    sigma, eps = torch.arange(6.0), torch.randn(6, 3, 2, 2)
    found = Fresh()(batch, sigma, eps)
    for i in range(6):
        assert torch.allclose(found[i], batch.x0[i] + i * eps[i])
    assert torch.equal(Fresh()(batch._replace(noise=None), sigma, eps), found)


def test_stored_adds_the_noise_from_which_the_sample_was_made(batch: Batch) -> None:
    sigma, eps = torch.arange(6.0), torch.randn(6, 3, 2, 2)
    found = Stored()(batch, sigma, eps)
    assert batch.noise is not None
    for i in range(6):
        assert torch.allclose(found[i], batch.x0[i] + i * batch.noise[i])
    assert torch.equal(Stored()(batch, sigma, torch.zeros_like(eps)), found)


def test_path_picks_each_samples_state_at_its_level(batch: Batch) -> None:
    order = [3, 0, 2, 1, 1, 0]
    sigma = torch.tensor([LEVELS[i] for i in order])
    found = Path()(batch, sigma, torch.randn(6, 3, 2, 2))
    assert batch.path is not None
    for row, level in enumerate(order):
        assert torch.equal(found[row], batch.path[row, level])


def test_a_coupling_says_what_the_shards_lack(batch: Batch) -> None:
    eps = torch.randn(6, 3, 2, 2)
    with pytest.raises(ValueError, match="start 'stored' needs the noise"):
        Stored()(batch._replace(noise=None), torch.ones(6), eps)
    with pytest.raises(ValueError, match="start 'path' needs shards"):
        Path()(batch._replace(path=None), torch.ones(6), eps)


def test_each_coupling_names_the_sampling_rule_that_matches_it() -> None:
    assert (Fresh.rule, Stored.rule, Path.rule, Ot.rule) == ("sde", "ode", "ode", "ode")
    assert (Fresh.needs_path, Stored.needs_path, Path.needs_path) == (False, False, True)


def shares(law: SigmaLaw, step: int) -> list[float]:
    drawn = law(40_000, step, source(), levels=LEVELS)
    assert set(drawn.tolist()) <= set(torch.tensor(LEVELS).tolist())
    return [float((drawn == level).float().mean()) for level in LEVELS]


def test_a_fixed_set_without_phases_draws_every_level_equally_often() -> None:
    assert shares(FixedSet(), 0) == pytest.approx([0.25] * 4, abs=0.01)


def test_a_fixed_set_follows_its_phases() -> None:
    law = FixedSet(phases=(Phase(0, (0.0, 0.0, 0.5, 0.5)), Phase(500, (0.7, 0.1, 0.1, 0.1))))
    for step in (0, 499):
        assert shares(law, step) == pytest.approx([0, 0, 0.5, 0.5], abs=0.01)
    for step in (500, 10_000):
        assert shares(law, step) == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.01)


def test_the_levels_of_a_batch_are_not_all_the_same() -> None:
    assert len(FixedSet()(64, 0, source(), levels=LEVELS).unique()) == 4
    assert len(LogNormal()(64, 0, source(), levels=()).unique()) == 64


def test_a_fixed_set_needs_one_probability_a_level_and_levels_at_all() -> None:
    law = FixedSet(phases=(Phase(0, (0.5, 0.5)),))
    with pytest.raises(ValueError, match="2 probabilities for the student's 4 levels"):
        law(8, 0, source(), levels=LEVELS)
    with pytest.raises(ValueError, match="needs the student's levels"):
        FixedSet()(8, 0, source(), levels=())


@pytest.mark.parametrize(
    "phases",
    [
        (Phase(1, (1.0,)),),
        (Phase(0, (1.0,)), Phase(0, (1.0,))),
        (Phase(0, (0.5, 0.4)),),
        (Phase(0, (0.5, 0.6)),),
        (Phase(0, ()),),
        (Phase(0, (0.5, 0.5)), Phase(9, (1.0,))),
    ],
)
def test_impossible_phases_are_refused(phases: tuple[Phase, ...]) -> None:
    with pytest.raises(ValueError, match=r"fixed_set\.phases"):
        FixedSet(phases=phases)


def test_a_log_normal_law_has_its_mean_and_deviation_and_ignores_the_levels() -> None:
    logs = LogNormal(mean=0.307, std=1.0)(100_000, 0, source(), levels=LEVELS).log()
    assert float(logs.mean()) == pytest.approx(0.307, abs=0.02)
    assert float(logs.std()) == pytest.approx(1.0, abs=0.02)


def test_ladds_logit_normal_levels_are_the_default_log_normal_law() -> None:
    # t = sigmoid(u), u ~ N(1, 1): sigma = t / (1 - t) = e^u in unit-std latents, times sigma_data = .5 here.
    u = 1 + torch.randn(100_000, generator=source())
    t = torch.sigmoid(u.double())
    sigma = 0.5 * t / (1 - t)
    assert LogNormal().mean == pytest.approx(1 + math.log(0.5), abs=1e-3)
    assert torch.allclose(sigma.float(), LogNormal(mean=1 + math.log(0.5))(100_000, 0, source(), levels=()), rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"std": -0.1}, {"std": math.nan}, {"mean": math.inf}])
def test_an_impossible_log_normal_law_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"LogNormal\.(mean|std): must be"):
        LogNormal(**wrong)
