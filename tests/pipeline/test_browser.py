"""The report page in a real browser: headless Chromium draws it, on a desk and on a phone."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladd_dist.reports.page import write_report

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
LIGHT_VERDICT = {"healthy": (0xE3, 0xF5, 0xEA), "collapsed": (0xFD, 0xE6, 0xE6)}

write_run: Callable[..., Path] = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "test_report.py"))["write_run"]


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """Run Chromium with the flags given, in a profile of its own; returns what it prints."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)}): install it to see the page drawn")

    def run(*flags: str) -> str:
        profile = tmp_path / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        command = [browser, *FLAGS, f"--user-data-dir={profile}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    return run


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("level", ["healthy", "collapsed"])
def test_the_page_is_drawn_whole_at_the_width_of_a_desk_and_of_a_phone(
    tmp_path: Path, browse: Callable[..., str], width: int, level: str
) -> None:
    page = write_report(write_run(tmp_path / "run", fresh=level == "collapsed"))
    shot = tmp_path / "page.png"
    browse(f"--window-size={width},2400", f"--screenshot={shot}", page.as_uri())
    picture = np.asarray(Image.open(shot).convert("RGB"))
    assert picture.shape[1] == width
    seen = colours(picture)
    assert len(seen) > 500, "next to nothing was drawn"
    assert LIGHT_VERDICT[level] in seen
    with Image.open(tmp_path / "run" / "samples" / "final.png") as grid:
        bright = {tuple(colour) for colour in np.asarray(grid).reshape(-1, 3).tolist() if np.ptp(colour) > 60}
    assert len(bright & seen) >= 5, "the pictures of the grid are not there"  # a phone shows its first columns
    assert len(colours(picture[:, -6:])) == 1, "something sticks out beyond the right edge"


def test_the_browser_reads_the_text_of_the_page(tmp_path: Path, browse: Callable[..., str]) -> None:
    page = write_report(write_run(tmp_path / "run", note="<script>document.body.remove()</script>"))
    text = browse("--dump-dom", page.as_uri())
    for wanted in (
        "A 50-step diffusion teacher turned into a 4-step student",
        "no collapse: hue entropy 0.99 of the teacher's",
        "How often the heads are right",
        "Same noise and class in each column",
        "5.81",
        "&lt;script&gt;document.body.remove()",
    ):
        assert wanted in text
