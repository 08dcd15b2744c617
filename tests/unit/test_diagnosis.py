"""A run's diagnosis: the prediction from shards, deciding steps, heat maps, what heads attend to, the page."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ladd_dist.core.types import Batch, Denoiser, ImageSpec, NetOutput, TapSpec
from ladd_dist.diagnosis.advice import advise, weight_at
from ladd_dist.diagnosis.attention import attention_figures, input_gradients
from ladd_dist.diagnosis.l2_optimum import predict
from ladd_dist.diagnosis.optimum_by_level import optimum_at, trained_levels
from ladd_dist.diagnosis.posterior import PosteriorMean
from ladd_dist.diagnosis.trajectories import Trajectory, decided, draw_trajectories, find_decisions, same_hue
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.heads import Head
from ladd_dist.losses.distance import Mse
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.reports.diagnosis_text import Optimum, level_rows
from ladd_dist.reports.heatmap import averaged, heat_maps
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.page import write_report
from ladd_dist.sigmas.laws import FixedSet, LogNormal, Phase
from ladd_dist.starts import Start
from ladd_dist.starts.couplings import Fresh, Stored
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
RED, GREEN = (torch.tensor(rgb).view(3, 1, 1) for rgb in ((0.6, -1.0, -1.0), (-1.0, 0.6, -1.0)))
write_run: Callable[..., Path] = runpy.run_path(str(REPO / "tests" / "unit" / "test_report.py"))["write_run"]


def square(rgb: Tensor) -> Tensor:
    picture = torch.full((3, 16, 16), -1.0)
    picture[:, 4:12, 4:12] = rgb
    return picture


def two_colours(first: int, last: int) -> Chunk:
    """Every class has red and green squares in equal numbers, and noise of its own."""
    indices = range(first, last)
    x0 = torch.stack([square(RED if index // 10 % 2 else GREEN) for index in indices])
    noise = torch.stack([torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index)) for index in indices])
    return Chunk(x0, torch.arange(first, last) % 10, noise, None)


def stored(run: Run, *, noise: bool = True, make: Callable[[int, int], Chunk] = two_colours) -> None:
    write_shards(
        run.shards_folder, num_samples=120, samples_per_chunk=40, chunks_per_shard=2, dtype=torch.float32,
        make=lambda first, last: make(first, last)._replace(**({} if noise else {"noise": None})),
        image=ImageSpec(3, 16, 16, 10), card={"path_levels": []},
    )  # fmt: skip


def recipe_with(start: Start, **changes: Any) -> Recipe:
    recipe = load_recipe(REPO / "recipes" / "exp5_specnorm_5taps.py", "smoke")
    return dataclasses.replace(recipe, start=start, **changes)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs", tmp_path / "cache", CPU)


# --- before training ---


def test_fresh_noise_regresses_at_high_levels_alone_and_its_samples_lose_their_colours(workspace: Workspace) -> None:
    recipe = recipe_with(Fresh())
    stored(Run(recipe, workspace))
    figures = predict(Run(recipe, workspace), num_pairs=1_000, search=False).figures
    assert [row["sigma"] for row in figures["levels"]] == [80.0, 3.92, 1.29, 0.34]
    first, *_, last = figures["levels"]
    assert (first["verdict"], last["verdict"]) == ("regresses to the mean", "keeps")
    assert first["share"] < 0.05
    assert first["averaged"] == pytest.approx(12, rel=0.05)  # all of a class
    assert last["averaged"] == pytest.approx(6, rel=0.01)  # those of its colour are the same picture
    assert last["share"] == pytest.approx(1, abs=0.01)
    assert set(first["classes"]) == {str(number) for number in range(10)}
    assert figures["samples"]["optimum@1"]["share"] < 0.05 < 0.5 < figures["samples"]["optimum@4"]["share"]
    assert figures["samples"]["optimum@1"]["fd_teacher"] > figures["samples"]["optimum@4"]["fd_teacher"]
    assert not figures["deterministic"]
    assert [item["flags"].split()[0] for item in figures["advice"]] == ["--swap", "--distance.sigma-power"]
    json.dumps(figures, allow_nan=False)


def coloured_classes(first: int, last: int, *, shades: bool) -> Chunk:
    """Classes differ in colour, much more than the two shades (or the two places) of one class."""
    pictures = []
    for index in range(first, last):
        strength, odd = (index % 10) / 10, index // 10 % 2
        shade = 0.2 * odd if shades else 0.0
        picture = square(torch.tensor([0.8 - shade, 1.6 * strength - 0.9 + shade, -0.9]).view(3, 1, 1))
        pictures.append(picture if shades else picture.roll(3 * odd, dims=2))
    noise = [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index)) for index in range(first, last)]
    return Chunk(torch.stack(pictures), torch.arange(first, last) % 10, torch.stack(noise), None)


@pytest.mark.parametrize(("shades", "measure"), [(True, "colour_variance"), (False, "kept")])
def test_class_means_are_a_collapse_also_where_the_class_decides_the_colour(
    workspace: Workspace, shades: bool, measure: str
) -> None:
    recipe = recipe_with(Fresh())
    stored(Run(recipe, workspace), make=lambda first, last: coloured_classes(first, last, shades=shades))
    figures = predict(Run(recipe, workspace), num_pairs=1_000, search=False).figures
    first, *_, last = figures["levels"]
    assert figures["measure"] == measure
    assert (first["verdict"], last["verdict"]) == ("regresses to the mean", "keeps")
    assert first["in_class"] < 0.05 and last["in_class"] > 0.95
    assert figures["advice"][0]["what"] == "stored noise"
    assert last["sigma"] < figures["threshold"] < first["sigma"]
    one = figures["samples"]["optimum@1"]
    assert one["share"] > 0.85  # means of classes that differ in colour are as colourful as the samples
    if shades:
        assert first["share"] > 0.85
        assert one["in_class"] < 0.05 < 0.5 < figures["samples"]["optimum@4"]["in_class"]
        (cell,) = [row[4] for row in level_rows(Optimum.of(JsonObject(figures))) if row[0] == "80"]
        assert cell.startswith("0.0")


@pytest.mark.parametrize("shades", [True, False])
def test_a_recipe_that_keeps_samples_apart_is_healthy_where_the_class_decides_the_colour(
    workspace: Workspace, shades: bool
) -> None:
    recipe = recipe_with(Stored())
    stored(Run(recipe, workspace), make=lambda first, last: coloured_classes(first, last, shades=shades))
    figures = predict(Run(recipe, workspace), num_pairs=1_000, search=False).figures
    assert {row["verdict"] for row in figures["levels"]} == {"keeps"}
    assert [item["what"] for item in figures["advice"]] == ["nothing to change"]


def test_what_an_optimum_keeps_is_the_mean_tanh_of_the_closed_form() -> None:
    """Two points m +- a: 1 - E|x0 - D|^2 / |a|^2 = E tanh(z), z ~ N(s, s) with s = |a|^2 / sigma^2."""
    x0 = torch.stack([square(RED), square(GREEN)]).repeat(400, 1, 1, 1)
    pairs = Batch(x0, torch.zeros(800, dtype=torch.int64), None, None, ())
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (4.0, 16.0):
        s = float((square(RED) - square(GREEN)).square().sum()) / 4 / sigma**2
        expected = float(torch.tanh(s + math.sqrt(s) * z).mean())
        assert 0.1 < expected < 0.99
        found = optimum_at(recipe_with(Fresh()), PosteriorMean(pairs, Fresh()), sigma)["kept"]
        assert found == pytest.approx(expected, abs=0.04)


def test_the_threshold_parts_levels_that_keep_half_of_the_colours_from_those_that_do_not(workspace: Workspace) -> None:
    recipe = recipe_with(Fresh())
    stored(Run(recipe, workspace))
    threshold = predict(Run(recipe, workspace), num_pairs=1_000, search=False).figures["threshold"]
    chunk = two_colours(0, 120)
    posterior = PosteriorMean(Batch(chunk.x0, chunk.cond, chunk.noise, None, ()), Fresh())
    assert (
        optimum_at(recipe, posterior, threshold * 1.5)["share"]
        < 0.5
        < optimum_at(recipe, posterior, threshold / 1.5)["share"]
    )


def test_stored_noise_averages_nothing_and_gives_back_the_stored_samples(workspace: Workspace) -> None:
    recipe = recipe_with(Stored())
    stored(Run(recipe, workspace))
    figures = predict(Run(recipe, workspace), num_pairs=1_000, search=True).figures
    assert all(row["averaged"] == 1 and row["verdict"] == "keeps" and row["spread"] == 0 for row in figures["levels"])
    assert figures["deterministic"]
    assert figures["reproduced"] == 0
    assert figures["threshold"] is None
    assert figures["found_levels"] is None
    assert [item["what"] for item in figures["advice"]] == ["nothing to change"]


def test_a_coupling_whose_rule_does_not_fit_it_is_found_out(workspace: Workspace) -> None:
    class Mixed(Stored):
        name = "stored"
        rule = "sde"

    recipe = recipe_with(Stored())
    stored(Run(recipe, workspace))
    figures = predict(Run(dataclasses.replace(recipe, start=Mixed()), workspace), num_pairs=1_000, search=False).figures
    assert figures["reproduced"] > 1e-3
    assert "the rule does not fit the coupling" in figures["advice"][0]["why"]


def test_fewer_stored_samples_than_asked_for_are_spread_over_the_set(workspace: Workspace) -> None:
    recipe = recipe_with(Fresh())
    stored(Run(recipe, workspace))
    figures = predict(Run(recipe, workspace), num_pairs=60, search=False).figures
    assert (figures["num_pairs"], figures["num_stored"]) == (60, 120)


def test_levels_that_are_never_drawn_are_no_levels_of_the_training() -> None:
    top = Phase(start_step=0, probabilities=(1.0, 0.0, 0.0, 0.0))
    later = Phase(start_step=5, probabilities=(0.0, 0.5, 0.5, 0.0))
    levels = (80.0, 3.92, 1.29, 0.34)
    drawn = {
        (): set(levels),
        (top,): {80.0},
        (top, later): {80.0, 3.92, 1.29},
    }
    for phases, expected in drawn.items():
        assert trained_levels(recipe_with(Fresh(), student_sigma=FixedSet(phases=phases)), levels) == expected
    assert trained_levels(recipe_with(Fresh(), student_sigma=LogNormal(mean=0.0, std=1.0)), levels) == set(levels[1:])


def test_levels_that_are_searched_for_do_better_than_the_recipes(workspace: Workspace) -> None:
    recipe = recipe_with(Fresh())
    stored(Run(recipe, workspace))
    figures = predict(Run(recipe, workspace), num_pairs=1_000, search=True).figures
    found, own = figures["found_levels"], figures["samples"]["optimum@4"]
    assert len(found["levels"]) == 4
    assert found["fd_teacher"] <= own["fd_teacher"]


def figures_of(share: float, **more: Any) -> dict[str, Any]:
    verdict = "regresses to the mean" if share < 0.5 else "keeps"
    rows = [{"sigma": 80.0, "verdict": verdict, "trained": True}]
    common = {"levels": rows, "deterministic": False, "threshold": 2.0, "found_levels": None, "samples": {}}
    return {**common, "reproduced": None, "rule": "sde", **more}


def test_advice_names_what_can_be_done_with_what_there_is() -> None:
    recipe = recipe_with(Fresh())
    assert "these shards hold none" in advise(recipe, figures_of(0.1), has_noise=False)[0]["why"]
    fade = advise(recipe, figures_of(0.1), has_noise=True)[1]
    assert fade["flags"] == "--distance.sigma-power 1 --distance.sigma-scale 2"
    assert "is 0.00062 in place of 1," in fade["why"]
    assert advise(recipe, figures_of(0.9), has_noise=True)[0]["what"] == "nothing to change"
    own = {"optimum@4": {"levels": [80.0, 3.0, 2.0, 1.0], "fd_teacher": 2.0}}
    for found, number in ((1.0, 3), (1.9, 2)):  # a gain of a twentieth is none
        better = {"levels": [80.0, 4.0, 2.0, 0.5], "fd_teacher": found}
        advice = advise(recipe, figures_of(0.1, samples=own, found_levels=better), has_noise=True)
        assert len(advice) == number
    assert (
        advise(recipe, figures_of(0.1, samples=own, found_levels={**better, "fd_teacher": 1.0}), has_noise=True)[2][
            "flags"
        ]
        == "--levels.four 80 4 2 0.5"
    )


def test_a_distance_that_fades_already_and_a_weight_of_zero_need_no_fading() -> None:
    faded = recipe_with(Fresh(), distance=Mse(sigma_power=1.0))
    assert [item["what"] for item in advise(faded, figures_of(0.1), has_noise=True)] == ["stored noise"]
    without = load_recipe(REPO / "recipes" / "control_fresh_adv_only.py", "smoke")
    assert [item["what"] for item in advise(without, figures_of(0.1), has_noise=True)] == ["the distance has weight 0"]


def test_the_weight_of_a_level_is_the_distances_own() -> None:
    x, y = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    distance = Mse(sigma_power=1.0, sigma_scale=2.0)
    assert weight_at(distance, 80.0) == pytest.approx(float(distance(x, y, torch.tensor([80.0]))), rel=1e-6)


# --- strips ---


def test_a_sample_is_decided_when_its_estimates_stop_changing_their_mind() -> None:
    same = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], dtype=torch.bool)
    assert decided(same).tolist() == [4, 3, 1]


def test_hues_are_compared_on_the_circle_and_no_colour_agrees_with_nothing() -> None:
    one, other = torch.tensor([0.99, 0.5, 0.2, math.nan]), torch.tensor([0.01, 0.53, 0.3, 0.1])
    assert same_hue(one, other).tolist() == [True, True, False, False]


def test_the_deciding_step_of_a_colour_is_found_in_estimates_that_turn_from_grey_to_it() -> None:
    recipe = recipe_with(Fresh())
    grey, red, green = square(torch.full((3, 1, 1), 0.2)), square(RED), square(GREEN)
    teacher = Trajectory(
        (80.0, 8.0, 1.0), torch.stack([torch.stack([grey, grey]), torch.stack([red, grey]), torch.stack([red, green])])
    )
    student = Trajectory((80.0, 1.0), torch.stack([torch.stack([grey, grey]), torch.stack([green, green])]))
    figures = find_decisions(recipe, {"teacher@3": teacher, "student@2": student})
    assert figures["teacher@3"]["hue"]["steps"] == [2, 3]
    assert figures["student@2"]["hue"]["steps"] == [2, 2]
    assert figures["student@2"]["hue"]["sigma"] == 1.0
    assert figures["student@2"]["agrees"]["hue"] == 0.5
    assert figures["teacher@3"]["distance"][-1] == 0 < figures["teacher@3"]["distance"][0]


def test_a_strip_shows_the_students_estimates_below_the_teachers_at_their_levels(tmp_path: Path) -> None:
    recipe = recipe_with(Fresh())
    levels = tuple(80 * 0.5**i for i in range(12))
    teacher = Trajectory(levels, square(RED).expand(12, 2, -1, -1, -1))
    student = Trajectory((80.0, 5.0), square(GREEN).expand(2, 2, -1, -1, -1))
    found = {"teacher@12": teacher, "student@2": student}
    draw_trajectories(tmp_path / "strips.png", found, find_decisions(recipe, found))
    with Image.open(tmp_path / "strips.png") as image:
        pixels = np.asarray(image).astype(int)
    green = (pixels[..., 1] - pixels[..., 0] > 100) & (pixels[..., 2] < 60)
    red = (pixels[..., 0] - pixels[..., 1] > 100) & (pixels[..., 2] < 60)
    row = green.any(axis=1).nonzero()[0][0] + 4
    starts = [int(x) for x in (np.diff(green[row].astype(int)) == 1).nonzero()[0]]
    first = red[:, : starts[0] + 30].any(axis=1).nonzero()[0][0] + 4
    columns = [int(x) for x in (np.diff(red[first].astype(int)) == 1).nonzero()[0]]
    assert [columns.index(start) for start in starts] == [0, 4]


# --- heads ---


def rows_of(*taps: str, steps: int = 90) -> list[dict[str, Any]]:
    """Logged rows as a training leaves them: the first head wins at low noise, the others guess."""
    rows = []
    for step in range(10, steps * 10 + 1, 10):
        row: dict[str, Any] = {"step": step, "accuracy": 0.6}
        for index, tap in enumerate(taps):
            row |= {f"accuracy/real/{tap}": 0.5, f"accuracy/fake/{tap}": 0.7, f"logit_gap/{tap}": 1.0}
            row |= {f"accuracy/{tap}": 0.6, f"accuracy/{tap}@0-0.1": 0.5 if index else step / (steps * 10)}
            row |= {f"accuracy/{tap}@10-inf": 0.5}
        rows.append(row)
    return rows


def pixels_of(svg: str) -> np.ndarray:
    """The cells of a heat map as RGBA, as the picture in its SVG has them."""
    match = re.search(r'<image [^>]*href="data:image/png;base64,([^"]+)"', svg)
    assert match is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGBA"))


def test_a_heat_map_has_a_line_for_each_level_and_gets_brighter_the_more_often_a_head_is_right() -> None:
    overall, first, second = heat_maps(rows_of("down0", "up1"))
    assert overall.title == "Head by head"
    assert first.title == "Head on down0, by noise level"
    assert "0-0.1 from 0.50 to 0.50" in second.summary
    cells = pixels_of(first.svg)
    assert cells.shape[:2] == (6, 40)  # 90 logged steps, two or three a cell
    known = cells[:, :, 3].min(axis=1) == 255
    assert known.tolist() == [True, False, False, False, False, True], "the highest level is the first line"
    assert (cells[~known][:, :, 3] == 0).all(), "nothing is drawn where nothing was compared"
    brightness = cells[-1, :, :3].astype(int).sum(axis=1)
    assert (np.diff(brightness) >= 0).all() and brightness[-1] > 2 * brightness[0]
    assert len(np.unique(cells[0], axis=0)) == 1


def test_a_cell_is_the_mean_of_the_steps_it_covers() -> None:
    row = [row["accuracy/down0@0-0.1"] for row in rows_of("down0")]
    cells = averaged([row, [None] * 45 + row[45:]])
    assert cells.shape == (2, 40)
    assert cells[0, :2] == pytest.approx([np.mean(row[:2]), np.mean(row[2:4])])
    assert np.isnan(cells[1, :20]).all() and cells[1, 20:] == pytest.approx(cells[0, 20:])
    assert averaged([[0.5, None, 0.7]])[0] == pytest.approx([0.5, np.nan, 0.7], nan_ok=True)


def test_a_tap_that_looks_like_a_formula_or_like_markup_is_text() -> None:
    for panel in heat_maps(rows_of("$\\frac{$", "<script>")):
        assert "<script>" not in panel.svg
    assert "$\\frac{$" in heat_maps(rows_of("$\\frac{$"))[0].svg


def test_without_figures_by_level_the_heads_alone_are_shown_and_without_heads_nothing() -> None:
    bare = [{key: value for key, value in row.items() if "@" not in key} for row in rows_of("down0")]
    assert [panel.title for panel in heat_maps(bare)] == ["Head by head"]
    only_sides = [
        {"step": 1, "accuracy": 0.5, "accuracy/real": 0.5, "accuracy/real/mid": 0.4, "accuracy/fake/mid": 0.8}
    ]
    assert "mid from 0.60" in heat_maps(only_sides)[0].summary
    assert heat_maps([{"step": 1, "accuracy": 0.5, "accuracy/real": 0.5, "accuracy/fake": 0.5}]) == []
    assert heat_maps([]) == []


class Glass(Denoiser):
    """A network whose one tap is its input."""

    image, cond_dim = ImageSpec(3, 16, 16, 10), 1
    taps = {"in": TapSpec(3, 1)}  # noqa: RUF012

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        return NetOutput(None, {"in": x}, sigma[:, None])


class Corner(nn.Module):
    """Logits that look at one corner, twice as much in red."""

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return torch.stack([2 * features[:, 0, 0, 0] + features[:, 1, 0, 0], features[:, 2, 0, 0]], dim=1)


class CornerHead(Head):
    name = "corner"

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return Corner()


def test_the_map_of_a_linear_head_is_the_length_of_its_weights() -> None:
    network = Glass()
    heads = Heads(CornerHead(), network, ("in",))
    images = torch.stack([square(RED), square(GREEN)])
    critic, cond = FrozenCritic(network, ("in",)), torch.zeros(2, dtype=torch.int64)
    (found,) = input_gradients(critic, heads, images, cond, 0.5, 80.0)
    assert found.heat[:, 0, 0].tolist() == pytest.approx([math.sqrt(6) / 2] * 2)  # the mean of two logits
    assert found.heat.sum() == found.heat[:, 0, 0].sum()
    (row,) = attention_figures([found], images)
    assert row.on_ink == 0
    assert row.ink_area == pytest.approx(64 / 256)


# --- the page ---


def test_the_page_has_the_prediction_and_the_heads_and_nothing_from_outside(
    tmp_path: Path, workspace: Workspace
) -> None:
    from ladd_dist.diagnosis.l2_optimum import write_picture

    recipe = recipe_with(Fresh())
    stored(Run(recipe, workspace))
    run = write_run(tmp_path / "run", fresh=True)
    prediction = predict(Run(recipe, workspace), num_pairs=1_000, search=False)
    write_picture(run / "diagnose.png", prediction)
    (run / "diagnose.json").write_text(json.dumps(prediction.figures))
    lines = "".join(json.dumps(row) + "\n" for row in rows_of("down0", "<script>"))
    (run / "metrics.jsonl").write_text(lines)
    html = write_report(run).read_text()
    assert "the distance regresses to the mean at level 80" in html
    assert "--swap start=stored" in html
    assert "trained share" in html  # beside what eval.json says
    assert "Head on down0, by noise level" in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_a_page_without_a_diagnosis_has_no_empty_sections(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for damaged in ("diagnose.json", "samples/strips.json", "samples/attention.json"):
        (run / damaged).write_text("{")
    html = write_report(run).read_text()
    for heading in ("What the distance alone would do", "When a sample is decided", "What the heads look at"):
        assert heading not in html
