"""`ladd control`: learn a direction on one network, use it on the other, measure what it does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from processes import Done, Ladd
from safetensors.torch import load_file, save_file

from ladd_dist.control import main
from ladd_dist.core.rundir import RunDir
from ladd_dist.networks.cunet import CUNet
from ladd_dist.reports.grids import grid_rows
from ladd_dist.sliders.attributes import ATTRIBUTES
from ladd_dist.sliders.effect import effect
from ladd_dist.sliders.slider import attach, load_control


@pytest.fixture(scope="module")
def run(smoke: tuple[Done, Ladd]) -> Path:
    return smoke[0].run


@pytest.fixture(scope="module")
def control(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("control") / "hue.safetensors"
    words = ["--attribute", "hue", "--rank", "2", "--steps", "3", "--batch-size", "8", "--out", str(out)]
    assert main(["train", str(run), *words]) == 0
    return out


def test_a_direction_is_a_low_rank_adapter_with_a_card(smoke: tuple[Done, Ladd], control: Path) -> None:
    state, card = load_control(control)
    assert card["attribute"] == "hue" and card["on"] == "teacher" and card["rank"] == 2
    assert (smoke[1].cache / f"teacher-{card['signature']}").is_dir()
    assert all(value.shape[0] == 2 for name, value in state.items() if name.endswith("lora_A.weight"))
    assert any(value.any() for name, value in state.items() if name.endswith("lora_B.weight"))


def test_the_same_command_gives_the_same_direction_and_another_seed_another(
    run: Path, control: Path, tmp_path: Path
) -> None:
    words = ["train", str(run), "--rank", "2", "--steps", "3", "--batch-size", "8"]
    assert main([*words, "--out", str(tmp_path / "again.safetensors")]) == 0
    assert (tmp_path / "again.safetensors").read_bytes() == control.read_bytes()
    assert main([*words, "--seed", "1", "--network", "student", "--out", str(tmp_path / "other.safetensors")]) == 0
    other = load_file(tmp_path / "other.safetensors")
    assert any(not torch.equal(other[name], value) for name, value in load_file(control).items())


def test_apply_draws_a_row_for_each_strength(run: Path, control: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    words = ["--network", "student", "--strength", "-1.5", "0", "1", "--columns", "3", "--out", str(out)]
    assert main(["apply", str(run), str(control), *words]) == 0
    assert grid_rows(out) == ("hue -1.5", "hue 0", "hue +1")


def test_transfer_measures_both_networks(
    run: Path, control: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "transfer.json"
    words = ["--strength", "-1", "2", "--num-samples", "20", "--out", str(out)]
    assert main(["transfer", str(run), str(control), *words]) == 0
    printed = capsys.readouterr().out
    assert "hue, learned on the teacher (rank 2)" in printed and "other/stroke" in printed
    found = json.loads(out.read_text())
    assert grid_rows(out.with_suffix(".png"))[:3] == ("teacher -1", "teacher 0", "teacher +2")
    for measured in found["networks"].values():
        assert list(measured["strengths"]) == ["-1", "0", "2"]
        untouched = measured["strengths"]["0"]
        assert untouched["moved"] == untouched["drift"] == untouched["goal"] == 0.0
        assert measured["span_low"] <= measured["span"] <= measured["span_high"]
        assert measured["span"] == pytest.approx(
            measured["strengths"]["2"]["moved"] - measured["strengths"]["-1"]["moved"], abs=1e-6
        )


def test_the_edit_itself_reaches_its_goal_without_drift() -> None:
    """What the measure says of a perfect slider: all of the goal, at no distance from the edit."""
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cond = torch.arange(40) % 10
    samples = {strength: ATTRIBUTES["hue"].edit(images, strength) for strength in (-1.0, 0.0, 1.0)}
    for strength, row in effect(samples, cond, "hue").strengths.items():
        assert row["moved"] == pytest.approx(row["goal"], abs=1e-6), strength
        assert row["drift"] == pytest.approx(0.0, abs=1e-4)
        assert row["other/stroke"] == pytest.approx(0.0, abs=1e-4)


def test_what_is_no_direction_or_of_another_network_is_refused(
    run: Path, control: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) != 0
        return " ".join(capsys.readouterr().err.split())

    assert "unknown attribute 'slant'; there are hue, stroke, value" in error("train", str(run), "--attribute", "slant")
    assert "must be at least 1" in error("train", str(run), "--rank", "0")
    assert "must end in .safetensors" in error("train", str(run), "--out", "hue.bin")
    assert "is in no layer's name" in error("train", str(run), "--targets", "attention")
    assert "is no run's folder" in error("train", str(tmp_path))
    assert "does not exist" in error("apply", str(run), str(tmp_path / "missing.safetensors"))
    student = str(run / "student.safetensors")
    assert "is no direction that `ladd control train` wrote" in error("apply", str(run), student)
    save_file({"a": torch.ones(1)}, tmp_path / "bare.safetensors")
    assert "is no direction" in error("transfer", str(run), str(tmp_path / "bare.safetensors"))
    assert "--strength[0]: must be finite, got nan" in error("apply", str(run), str(control), "--strength", "nan")
    assert "one besides 0" in error("transfer", str(run), str(control), "--strength", "0")


def test_networks_of_another_shape_cannot_share_a_direction(run: Path, control: Path) -> None:
    from ladd_dist.core.serialize import from_data
    from ladd_dist.recipe import Recipe

    recipe = from_data(Recipe, json.loads(RunDir(run).config.read_text())["recipe"])
    wider = dataclasses.replace(recipe, network=CUNet(widths=(64,)))
    network = wider.network.build(image=wider.latent())
    with pytest.raises(ValueError, match="only networks of one shape can share a direction"):
        attach(network, load_control(control), wider)
