"""Grids are pixel-exact and refuse what is no picture; curves of long runs stay small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from ladd_dist.reports.charts import curves
from ladd_dist.reports.grids import NOT_A_NUMBER, grid_rows, write_grid


def test_long_runs_are_thinned_to_means() -> None:
    charts = curves([{"step": step, "loss/distill": 1.0 + step % 2} for step in range(1, 20_001)])
    assert [chart.points_averaged for chart in charts] == [84]
    assert len(charts[0].svg) < 30_000


@pytest.mark.parametrize(("large_gap", "band"), [(15.0, (2.0, 6.0)), (0.9, (0.12, 0.36)), (None, None)])
def test_the_healthy_band_of_the_gap_is_that_of_the_game(
    large_gap: float | None, band: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, ...]] = []
    monkeypatch.setattr(Axes, "axhspan", lambda self, *ends, **_: drawn.append(ends))
    curves([{"step": step, "logit_gap": 3.0} for step in (1, 2)], large_gap)
    assert drawn == ([] if band is None else [pytest.approx(band)])


def test_the_loss_scale_of_fp16_is_drawn_where_there_is_one() -> None:
    (chart,) = curves([{"step": step, "loss_scale/student": 2.0**step, "skipped/student": 0.0} for step in (1, 2)])
    assert chart.title == "Loss scale of fp16"


def test_what_an_early_stop_measured_is_drawn_with_the_step_that_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[int] = []
    monkeypatch.setattr(Axes, "axvline", lambda self, at, **_: marked.append(at))
    rows = [{"step": step, "held_out/kid": 1.0 / step, "held_out/nearest_train_share": 2.0} for step in (100, 200, 300)]
    distance, nearness = curves(rows, kept=200)
    assert (distance.title, nearness.title) == ("Distance to held-out pictures", "Nearness to the training pictures")
    assert [label for label, _, _ in distance.legend] == ["kid"] and distance.summary.endswith("Step 200 is kept.")
    assert marked == [200, 200]
    curves(rows)
    curves(rows, kept=10**400)
    curves([{"step": 200, "loss/distill": 1.0}], kept=200)
    assert marked == [200, 200], "without an early stop, outside of the steps, or in other charts there is no mark"


def test_a_tunings_charts_speak_of_no_teachers_samples() -> None:
    rows = [{"step": step, "loss/distill": 1.0, "accuracy": 0.7} for step in (1, 2)]
    assert "the teacher's samples" in " ".join(chart.title + chart.note for chart in curves(rows))
    assert "teacher" not in " ".join(chart.title + chart.note for chart in curves(rows, tunes=True))


def test_a_grid_is_pixel_exact_and_remembers_its_rows(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 4, 4) * 2 - 1
    write_grid(tmp_path / "new" / "grid.png", [("a", images), ("b", images.numpy())], columns=16, scale=5)
    assert grid_rows(tmp_path / "new" / "grid.png") == ("a", "b")
    picture = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    wanted = ((images[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy().repeat(5, axis=0).repeat(5, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (20, 20, 3))[:, :, 0]
    places = np.argwhere((windows == wanted).all(axis=(2, 3, 4)))
    assert len(places) == 2  # once in each row, in the same column
    assert places[0][1] == places[1][1]


def test_grey_pictures_are_drawn_and_not_a_number_stands_out(tmp_path: Path) -> None:
    images = torch.zeros(2, 1, 8, 8)
    images[1] = float("nan")
    write_grid(tmp_path / "grid.png", [("grey", images)])
    colours = {tuple(colour) for colour in np.asarray(Image.open(tmp_path / "grid.png")).reshape(-1, 3)}
    assert {(128, 128, 128), NOT_A_NUMBER} <= colours


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (3, 8, 8), (0, 3, 8, 8)])
def test_what_is_no_picture_is_refused_and_nothing_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pictures"):
        write_grid(tmp_path / "grid.png", [("x", np.zeros(shape, np.float32))])
    assert not list(tmp_path.iterdir())
