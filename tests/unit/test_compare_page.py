"""The comparison's page: a title that says what is compared, samples of the same noise, curves with names and units."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ladd_dist.compare import Options, compare_sources
from ladd_dist.comparison.curve_names import NUM_FIRST, first, named
from ladd_dist.comparison.page import data, heading, write_page
from ladd_dist.comparison.pictures import pictures
from ladd_dist.comparison.result import Comparison
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe import load_recipe
from ladd_dist.reports.collapse import Onset
from ladd_dist.reports.grids import grid_row, write_grid

REPO = Path(__file__).parents[2]
RECIPE = to_data(load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "smoke"))
PARTS = {
    "loss": ("distill", "adversarial", "heads", "regulariser"),
    "grad_norm": ("student", "heads", "heads/down0"),
    "weight": ("distill", "adversarial"),
    "rate": ("steps_per_s", "samples_per_s"),
    "guard": ("student@4/colour_variance", "student@4/finite", "student@1/colour_variance", "student@1/distance"),
    "watch": ("accuracy", "hue_entropy", "colour_variance", "saturation", "pairwise_share", "matched_error"),
    "accuracy": ("real", "fake", "down0", "real/down0", "fake/down0"),
}
ALONE = ("step", "accuracy", "logit_gap", "logit_gap/down0", "gap/down0", "grad_share/heads/down0")
LOGGED = [*ALONE, *(f"{group}/{name}" for group, names in PARTS.items() for name in names)]


WIDTHS = {"one": {"width": 8}, "two": {"width": 16}, "three": {"width": 24}}
"""What else differs between recipes of these names: a name alone makes no variant."""


def teacher(offset: float = 0.0) -> np.ndarray:
    return np.linspace(-1, 1 - offset, 16 * 3 * 8 * 8, dtype=np.float32).reshape(16, 3, 8, 8)


def run(folder: Path, *, seed: int = 0, labels: tuple[str, ...] = (), value: float = 5.0, **changes: Any) -> Path:
    """A run's folder with a grid whose student at four steps is `value`'s own grey."""
    recipe = copy.deepcopy(RECIPE) | {"seed": seed} | changes
    recipe["head"] = {**recipe["head"], **WIDTHS.get(str(changes.get("name")), {})}
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"format": 1, "scale": "smoke", "recipe": recipe}))
    row = dict.fromkeys(LOGGED, 1.0)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({**row, "step": step}) + "\n" for step in (1, 2)))
    figures = {f"student@{n}": {"fd_teacher": value, "accuracy": 0.9} for n in (4, 2, 1)}
    figures["untrained@4"] = figures["teacher@50"] = {"fd_teacher": 4.0}
    (folder / "eval.json").write_text(json.dumps(figures))
    own = np.full((16, 3, 8, 8), value / 10, np.float32)
    rows = [("teacher@50", teacher()), ("student@4", own), ("student@1", -own), *((label, own) for label in labels)]
    write_grid(folder / "samples" / "final.png", rows)
    return folder


def compared(folder: Path) -> Comparison:
    return compare_sources(Options(source=(str(folder),)))


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_rows_of_the_same_noise_stand_below_each_other_the_teacher_first(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", name="one", value=2.0)
    run(tmp_path / "runs" / "b", name="two", value=6.0, labels=("teacher@4:karras_with_a_long_name",))
    found = pictures(compared(tmp_path / "runs"))
    assert [row.label for row in found.rows] == ["Teacher, 50 steps", "one", "two"]
    assert found.same_noise and len(found.grids) == 2
    strips = [decoded(row.uri) for row in found.rows]
    assert len({strip.shape for strip in strips}) == 1
    with Image.open(tmp_path / "runs" / "b" / "samples" / "final.png") as grid:
        ours, tiles = (
            np.asarray(grid.convert("RGB")),
            slice(-16 * 50 - 8, -8),
        )  # the pictures end 8 pixels from the edge
        pitch = (ours.shape[0] - 16) // 4
        np.testing.assert_array_equal(strips[0][:, tiles], ours[8 : 8 + pitch, tiles])
    greys = [np.bincount(strip[:40, tiles].reshape(-1)).argmax() for strip in strips[1:]]
    assert greys == [round(127.5 * (1 + value / 10)) for value in (2.0, 6.0)], "the figure that decides is of 4 steps"


def test_a_run_that_is_not_finished_has_its_last_grid_and_no_row_for_its_noise_is_another(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", name="one")
    late = run(tmp_path / "runs" / "b", name="two")
    (late / "samples" / "final.png").unlink()
    for step in (10, 20):
        write_grid(late / "samples" / f"step-{step:06d}.png", [("teacher", teacher(0.1)), ("student", teacher())])
    found = pictures(compared(tmp_path / "runs"))
    assert [row.label for row in found.rows] == ["Teacher, 50 steps", "one"]
    assert {grid.label: grid.note for grid in found.grids} == {
        "one": "seed 0, finished",
        "two": "seed 0, after 20 steps",
    }


def test_each_teacher_has_a_row_of_its_own(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", name="one")
    run(tmp_path / "runs" / "b", name="two", teacher={**RECIPE["teacher"], "steps": 41})
    result = compare_sources(Options(source=(str(tmp_path / "runs"),), mixed=True))
    shown = [(row.label, row.note) for row in pictures(result).rows]
    assert shown[:2] == [("Teacher, 50 steps", "of one"), ("Teacher, 50 steps", "of two")]


def test_other_noise_is_not_called_the_same(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a", name="one")
    run(tmp_path / "runs" / "b", name="two", evaluate={**RECIPE["evaluate"], "seed": 99})
    result = compare_sources(Options(source=(str(tmp_path / "runs"),), mixed=True))
    assert not pictures(result).same_noise
    assert "columns are not the same picture" in write_page(tmp_path / "page.html", result).read_text()


def test_a_row_of_a_grid_is_found_by_its_label(tmp_path: Path) -> None:
    write_grid(tmp_path / "grid.png", [("a", teacher()), ("b", -teacher())])
    write_grid(tmp_path / "long.png", [("a", np.concatenate([teacher()] * 2)), ("b", -teacher())])
    row = grid_row(tmp_path / "grid.png", "b")
    assert row is not None
    with Image.open(tmp_path / "grid.png") as grid:
        assert row.height == (grid.height - 16) // 2
        assert row.tobytes() == grid.crop((0, 8 + row.height, grid.width, 8 + 2 * row.height)).tobytes()
    assert grid_row(tmp_path / "grid.png", "c") is None
    assert grid_row(tmp_path / "long.png", "b") is None


def test_the_title_says_what_is_compared(tmp_path: Path) -> None:
    run(tmp_path / "few" / "a", name="one")
    assert heading(compared(tmp_path / "few")) == "one"
    run(tmp_path / "few" / "b", name="two")
    run(tmp_path / "few" / "c", name="three", seed=1)
    assert heading(compared(tmp_path / "few")) == "one, three and two compared"
    for width in range(7):
        run(tmp_path / "many" / str(width), head={"plugin": "spectral_norm", "width": width})
    result = compared(tmp_path / "many")
    assert heading(result) == "7 variants of exp6_stored_noise compared, by head.width"
    text = write_page(tmp_path / "page.html", result).read_text()
    assert re.search(r"<title>7 variants of exp6_stored_noise compared, by head.width: One seed each", text)
    assert "<h1>7 variants of exp6_stored_noise compared, by head.width</h1>" in text
    assert "Fréchet distance to teacher (fd_teacher) of the student, 4 steps; lower is better" in text


def test_every_curve_has_a_name_and_a_unit_and_no_two_have_the_same() -> None:
    names = {key: named(key) for key in LOGGED[1:]}
    assert all(name.title != key and name.note for key, name in names.items())
    assert not [name.title for name in names.values() if "/" in name.title or "_" in name.title or "{" in name.title]
    titles = [name.title for name in names.values()]
    assert len(set(titles)) == len(titles)
    assert named("my/own") == ("my/own", "")


def test_six_curves_come_first_and_the_guards_is_of_the_steps_that_decide(tmp_path: Path) -> None:
    assert first(LOGGED, "4")[:2] == ["loss/distill", "guard/student@4/colour_variance"]
    assert "guard/student@1/colour_variance" in first(LOGGED, "1")
    assert len(first(LOGGED, "4")) == NUM_FIRST
    assert first(["rate/steps_per_s", "loss/heads"], "4") == ["loss/heads"]
    run(tmp_path / "runs" / "a", name="one")
    curves = data(compared(tmp_path / "runs"))["curves"]
    assert list(curves["metrics"])[:NUM_FIRST] == curves["first"]
    assert set(curves["names"]) == set(curves["metrics"]) == set(LOGGED[1:])


@pytest.mark.parametrize("known", [False, True])
def test_a_column_that_was_not_measured_is_left_out(tmp_path: Path, known: bool) -> None:
    run(tmp_path / "runs" / "a", name="one")
    run(tmp_path / "runs" / "b", name="two")
    result = compared(tmp_path / "runs")
    if known:
        object.__setattr__(result.rows[0].variant.runs[0], "collapse", Onset(True, 10))
    shown = data(result)
    assert ("Collapsed from" in [item["title"] for item in shown["head"]]) == known
    assert {len(row) for row in (*shown["rows"], *shown["references"])} == {len(shown["head"])}
