"""An unknown name is answered with what may have been meant: the closest first, and of that kind alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ladd_dist.__main__
import plugins
from ladd_dist import plugins as cli
from ladd_dist.core.closest import close, closest_first, did_you_mean
from ladd_dist.core.plugin import PluginError, lookup, registered
from ladd_dist.core.serialize import RecipeError
from ladd_dist.recipe import load_recipe, swap

assert plugins  # imported for their registration
REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("word", "expected"),
    [("laucnh", ["launch"]), ("Lunch", ["launch"]), ("job", ["jobs"]), ("xyz", []), ("", [])],
)
def test_a_slip_or_a_beginning_resembles_its_name_and_nothing_else(word: str, expected: list[str]) -> None:
    assert close(word, ["plan", "launch", "jobs", "sweep"]) == expected


def test_likely_names_come_first_and_no_name_is_lost() -> None:
    assert closest_first("zeta", ["alpha", "zeta_two", "gamma"]) == ["zeta_two", "alpha", "gamma"]
    assert closest_first("resnet", ["max_pool", "conv"]) == ["max_pool", "conv"]
    assert did_you_mean("zeat", ["beta", "zeta"], "`{}`") == "; did you mean `zeta`?"


def test_an_unknown_plugin_offers_the_closest_first_and_no_other_kind() -> None:
    with pytest.raises(PluginError, match=r"unknown head 'spectal_norm'; valid: spectral_norm, max_pool, small_conv$"):
        lookup("head", "spectal_norm")
    with pytest.raises(PluginError, match=r"unknown kind 'heads'; kinds: head, adversarial"):
        lookup("heads", "max_pool")


def test_a_check_of_an_unknown_plugin_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--check", "max_pol"]) == 2
    said = capsys.readouterr().err
    assert "unknown plug-in 'max_pol'" in said and "did you mean head:max_pool?" in said
    assert len(said) < 200
    assert cli.main(["--check", "head:max_pol"]) == 2
    said = capsys.readouterr().err
    assert "max_pool, small_conv, spectral_norm" in said
    assert not any(f" {name}" in said for name in registered()["metric"])


def test_a_swap_of_an_unknown_field_offers_the_closest_first() -> None:
    recipe = load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke")
    with pytest.raises(RecipeError, match="no field 'haed'; plug-in fields: head, "):
        swap(recipe, "haed=max_pool")


def test_a_recipe_that_does_not_exist_is_answered_with_the_one_that_was_meant() -> None:
    for word, meant in (("exp4.py", "exp4_specnorm.py"), ("exp6_stord_noise.py", "exp6_stored_noise.py")):
        with pytest.raises(RecipeError, match=rf"does not exist; did you mean \S*{meant}") as caught:
            load_recipe(REPO / "recipes" / word, "smoke")
        assert str(caught.value).count(".py") <= 4


def test_a_mistyped_command_of_ladd_gets_a_guess(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ladd", "laucnh", "recipes/exp4_specnorm.py"])
    with pytest.raises(SystemExit) as ended:
        ladd_dist.__main__.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'laucnh'; did you mean `ladd launch`?\n")
