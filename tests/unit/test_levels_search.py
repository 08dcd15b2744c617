"""The search of few-step levels: exact on Gaussian data, deterministic, never worse than where it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ladd_dist.__main__ as ladd
from ladd_dist.core.noise import few_step_sample, is_descending, karras_levels
from ladd_dist.levels.search import Found, Pairs, search_levels
from ladd_dist.search_levels import main

REPO = Path(__file__).parents[2]
RECIPE = REPO / "recipes" / "exp4_specnorm.py"
STD = 0.5
KARRAS = karras_levels(4, sigma_min=0.002, sigma_max=80.0, rho=7.0)
COMMON = (80.0, 17.5278, 2.5152, 0.1698)


class Gaussian:
    """The exact denoiser of data ~ N(0, s^2): D = s^2 x / (s^2 + sigma^2). It counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        self.calls += 1
        return x * (STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2))


def exact(noise: Tensor) -> Tensor:
    """Where the probability-flow ODE takes noise at sigma = 80 for Gaussian data: x falls as sqrt(s^2 + sigma^2)."""
    return noise * 80.0 * STD / (STD**2 + 80.0**2) ** 0.5


def gaussian_pairs(denoise: Gaussian, batch_size: int = 64) -> Pairs:
    noise = torch.randn((64, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    return Pairs(denoise, noise, torch.zeros(64, dtype=torch.int64), exact(noise), batch_size=batch_size)


def test_the_error_is_that_of_the_ode_sampler_whatever_was_asked_before() -> None:
    pairs = gaussian_pairs(Gaussian(), batch_size=10)
    noise = torch.randn((64, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    for levels in (KARRAS, COMMON, (80.0, 3.0, 1.0), (*COMMON[:3], 0.3), (*COMMON[:2], 1.5, 0.3), (80.0,), COMMON):
        sampled = few_step_sample(Gaussian(), noise, torch.zeros(64, dtype=torch.int64), levels, "ode")
        assert pairs(levels) == pytest.approx(float((sampled - exact(noise)).square().mean()), rel=1e-5)


def test_changing_the_last_level_costs_one_call() -> None:
    denoise = Gaussian()
    pairs = gaussian_pairs(denoise)
    pairs(COMMON)
    assert denoise.calls == 4
    pairs((*COMMON[:3], 0.25))
    assert denoise.calls == 5


def test_two_steps_on_gaussian_data_are_best_where_algebra_says() -> None:
    """D(s) s is largest at s = sqrt(s_data^2 + a^2) - a, a = D(80) 80: what a first call at 80 leaves of the noise."""
    found = search_levels(gaussian_pairs(Gaussian()), [(80.0, 5.0)], rounds=12)
    left = 80.0 * STD**2 / (STD**2 + 80.0**2)
    assert found.levels[1] == pytest.approx((STD**2 + left**2) ** 0.5 - left, rel=2e-3)


def test_the_search_is_never_worse_than_its_best_start_and_keeps_sigma_max() -> None:
    starts = [KARRAS, COMMON]
    pairs = gaussian_pairs(Gaussian())
    found = search_levels(pairs, starts)
    assert found.error < min(pairs(levels) for levels in starts)
    assert found.levels[0] == 80.0
    assert is_descending(found.levels)
    assert found.error == pytest.approx(pairs(found.levels))


def test_the_search_keeps_its_start_where_nothing_is_better() -> None:
    best = (80.0, 4.0, 1.0)
    found = search_levels(lambda levels: 0.0 if levels == best else 1.0, [(80.0, 9.0, 1.0), best])
    assert found.levels == best
    assert found.error == 0.0


def test_the_search_is_deterministic() -> None:
    assert search_levels(gaussian_pairs(Gaussian()), [COMMON]) == search_levels(gaussian_pairs(Gaussian()), [COMMON])


def test_levels_that_give_nan_are_never_chosen() -> None:
    found = search_levels(lambda levels: float("nan") if levels[1] > 4.0 else levels[1], [(80.0, 9.0), (80.0, 3.0)])
    assert found.levels[1] < 3.0


def test_the_search_reports_each_round() -> None:
    seen: list[tuple[int, Found]] = []
    found = search_levels(
        gaussian_pairs(Gaussian()), [COMMON], rounds=3, progress=lambda done, best: seen.append((done, best))
    )
    assert [done for done, _ in seen] == [1, 2, 3]
    errors = [best.error for _, best in seen]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == found.error


@pytest.mark.parametrize("starts", [[], [(80.0, 90.0)], [(80.0, 0.0)]])
def test_starts_that_do_not_descend_are_refused(starts: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="descending levels"):
        search_levels(lambda levels: 0.0, starts)


def command(cache: Path, *more: str) -> list[str]:
    return [str(RECIPE), "--scale", "smoke", "--cache", str(cache), "--num-pairs", "12", *more]


def test_the_command_finds_levels_and_prints_the_flags_that_use_them(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, "--json")) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed)
    assert result["steps"] == 4
    assert result["levels"][0] == 80.0
    assert result["error"] <= min(result["karras_error"], result["good_error"])
    assert result["flags"] == "--levels.four " + " ".join(f"{level:g}" for level in result["levels"])
    assert main(command(cache, "--json")) == 0
    assert capsys.readouterr().out == printed

    from ladd_dist.cli.recipe_arguments import RecipeOptions, parse

    _, recipe = parse(RecipeOptions, [str(RECIPE), "--scale", "smoke", *result["flags"].split()], prog="test")
    assert list(recipe.student_levels()) == result["levels"]


def test_the_table_shows_karras_good_and_found(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(cache, "--steps", "2")) == 0
    printed = capsys.readouterr().out
    assert "karras" in printed
    assert "good" in printed
    assert "To use them: --levels.two 80" in printed


def test_a_number_of_steps_that_good_does_not_know_gets_levels_but_no_flags(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, "--steps", "3", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["levels"]) == 3
    assert result["good_levels"] is None
    assert result["flags"] is None


def test_the_flags_name_the_swap_where_the_recipe_has_other_levels(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, "--swap", "levels=karras", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["flags"].startswith("--swap levels=good --levels.four 80 ")


def test_a_missing_teacher_names_the_command_that_trains_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    assert main(command(tmp_path)) == 1
    assert f"python -m ladd_dist.launch {RECIPE} --scale smoke --stages teacher" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--steps", "1"], ["--num-pairs", "0"], ["--swap", "levels=nonsense"]])
def test_a_wrong_command_line_exits_with_2(cache: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(cache, *wrong)) == 2
    assert "error:" in capsys.readouterr().err


def test_an_unknown_flag_exits_with_2(cache: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(command(cache, "--num-pair", "3"))
    assert stopped.value.code == 2


def test_ladd_levels_is_the_same_command(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["ladd", "levels", *command(cache, "--steps", "2", "--json")])
    with pytest.raises(SystemExit) as stopped:
        ladd.main()
    assert stopped.value.code == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
