"""The choice of guidance: measured to real images, on noise of its own, with the floor beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladd_dist.core.rng import derive_seed
from ladd_dist.evaluation.guidance import REAL, best_scale, metrics_to_real
from ladd_dist.guidance import main
from ladd_dist.recipe import load_recipe, swap

REPO = Path(__file__).parents[2]
RECIPE = REPO / "recipes" / "exp4_specnorm.py"


def command(cache: Path, *more: str) -> list[str]:
    return [str(RECIPE), "--scale", "smoke", "--cache", str(cache), "--num-samples", "48", *more]


def test_each_scale_is_measured_to_real_images_and_the_nearest_is_offered(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, "--values", "1", "4", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    figures = result["figures"]
    assert list(figures) == [REAL, "1", "4"]
    assert result["decided_by"] == "fd_real"
    assert f"{result['best']:g}" == min(("1", "4"), key=lambda name: figures[name]["fd_real"])
    assert figures[REAL]["fd_real"] < min(figures["1"]["fd_real"], figures["4"]["fd_real"])
    assert figures["1"]["fd_real"] != figures["4"]["fd_real"]
    assert not any("_teacher" in name or name.startswith(("matched", "nearest")) for name in figures["1"])
    assert result["flags"] == f"--shards.guidance {result['best']:g}"


def test_figures_of_a_scale_hang_on_no_other_scale_and_not_on_the_evaluations_noise(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for values in (("1.5",), ("4", "1.5")):
        assert main(command(cache, "--values", *values, "--json")) == 0
        found.append(json.loads(capsys.readouterr().out)["figures"]["1.5"])
    assert found[0] == found[1]
    recipe = load_recipe(RECIPE, "smoke")
    assert derive_seed("guidance-search", recipe.evaluate.seed) not in (
        *recipe.evaluate.noise_seeds(),
        recipe.shards.seed,
    )


def test_the_table_names_the_best_scale_and_the_recipes(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(cache, "--values", "1", "4")) == 0
    printed = capsys.readouterr().out
    assert "other real images" in printed and "best" in printed and "recipe's" in printed and "precision" in printed


def test_the_distance_that_decides_is_the_first_to_real() -> None:
    metrics = metrics_to_real(load_recipe(RECIPE, "smoke"))
    found = {REAL: {"fd_real": 0.0, "kid": 0.0}, "1": {"fd_real": 2.0, "kid": 0.1}, "4": {"fd_real": 1.0, "kid": 0.2}}
    assert best_scale(found, metrics) == ("4", "fd_real")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--values", "1", "1"], "each once"),
        (["--values", "-1"], "at least 0"),
        (["--values", "nan"], "finite"),
        (["--num-samples", "0"], "at least 1"),
        (["--values", "2", "--shards.guidance", "1", "--teacher.label-dropout", "0"], "learned without classes"),
    ],
)
def test_a_wrong_command_line_exits_with_2(
    cache: Path, wrong: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(cache, *wrong)) == 2
    assert says in capsys.readouterr().err


def test_a_dataset_without_images_is_refused() -> None:
    recipe = load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke")
    with pytest.raises(ValueError, match="has none"):
        metrics_to_real(swap(recipe, "dataset=prompts"))


def test_a_missing_teacher_names_the_command_that_trains_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    assert main(command(tmp_path)) == 1
    assert "--stages teacher" in capsys.readouterr().err
