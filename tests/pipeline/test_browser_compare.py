"""The comparison's page in a real browser: drawn whole, sorted by a click, usable with a thousand runs."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ladd_dist.compare import Options, compare_sources
from ladd_dist.comparison.page import write_page

pytestmark = pytest.mark.browser

HERE = Path(__file__)
browse = runpy.run_path(str(HERE.with_name("test_browser.py")))["browse"]  # a fixture
make_runs: Callable[..., list[Path]] = runpy.run_path(str(HERE.parents[2] / "benchmarks" / "compare.py"))["make_runs"]
NUM_VARIANTS = 5
SORT = """
<script>
const all = (query) => [...document.querySelectorAll(query)];
const labels = () => all("#variants tbody:not(.references) th span").map(item => item.textContent);
const click = (title) => all("#variants thead button").find(item => item.firstChild.textContent === title).click();
const told = {first: labels()};
const distance = "Fréchet distance to teacher ↓";
click(distance); told.rising = labels(); click(distance); told.falling = labels();
click("Colour variance ↑"); told.best = labels();
document.getElementById("every").open = true;
told.shown = all("#charts h3").map(item => item.textContent);
told.folded = all("#others h3, #heads h3").map(item => item.textContent);
told.open = all("details[open] .charts").length;
told.strips = all(".rows img").map(item => item.getBoundingClientRect()).map(box => [box.right, box.height > 20]);
told.order = all("h1, h2").map(item => item.textContent);
setTimeout(() => {
  told.runs = all("#runs tbody tr").length;
  told.curves = all("#charts path").length;
  const box = document.querySelector("#variants input");
  box.click();
  told.legend = all("#legend li").length;
  document.title = JSON.stringify(told);
}, 500);
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    make_runs(folder / "runs", NUM_VARIANTS, 3, 30)
    return write_page(folder / "compare.html", compare_sources(Options(source=(str(folder / "runs"),))))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_drawn_at_the_width_of_a_desk_and_of_a_phone(
    page: Path, tmp_path: Path, browse: Callable[..., str], width: int
) -> None:
    shot = tmp_path / "page.png"
    browse(f"--window-size={width},3000", "--virtual-time-budget=4000", f"--screenshot={shot}", page.as_uri())
    picture = np.asarray(Image.open(shot).convert("RGB"))
    colours = {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}
    assert picture.shape[1] == width
    assert {(0x24, 0x58, 0xC5), (0xD9, 0x66, 0x0B)} <= colours, "the first two variants' curves are not there"
    assert len(colours) > 300, "next to nothing was drawn"
    edge = picture[:, -6:].reshape(-1, 3)
    assert len(np.unique(edge, axis=0)) == 1, "something sticks out beyond the right edge"


def test_a_click_sorts_and_ticks_draw(page: Path, tmp_path: Path, browse: Callable[..., str]) -> None:
    """The page's own security policy would stop the test's script too, so the copy that is tried has none."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    tried = tmp_path / "tried.html"
    tried.write_text(text.replace("</body>", f"{SORT}</body>"), encoding="utf-8")
    dom = browse("--window-size=1280,3000", "--virtual-time-budget=6000", "--dump-dom", tried.as_uri())
    match = re.search(r"<title>(\{.*?\})</title>", dom)
    assert match is not None, "the script did not reach its end"
    told: dict[str, Any] = json.loads(match[1])
    assert len(told["first"]) == NUM_VARIANTS
    assert told["rising"] == told["first"], "the best come first"
    assert told["falling"] == told["first"][::-1]
    assert sorted(told["best"]) == sorted(told["first"]) and told["best"] != told["rising"]
    assert told["shown"] == [
        "Distance to the target",
        "How often the heads are right",
        "Logit gap",
        "Gradient norm of the student",
        "Adversarial loss of the student",
        "Loss of the heads",
    ]
    assert told["open"] == 0 and "Head at middle: logit gap" in told["folded"]
    assert not [title for title in told["shown"] + told["folded"] if "/" in title or "_" in title]
    assert told["order"][:3] == [told["order"][0], "Samples side by side", "Variants"]
    assert len(told["strips"]) == 1 + NUM_VARIANTS, "the teacher's row, and one for each variant"
    assert len({right for right, _ in told["strips"]}) == 1 and all(tall for _, tall in told["strips"])
    assert told["runs"] == NUM_VARIANTS * 3
    assert told["curves"] >= 2 * NUM_VARIANTS, "curves and bands are drawn"
    assert told["legend"] == NUM_VARIANTS - 1, "a variant that was unticked is not drawn"


def test_the_policy_of_the_page_lets_its_own_script_run(page: Path, browse: Callable[..., str]) -> None:
    dom = browse("--virtual-time-budget=4000", "--dump-dom", page.as_uri())
    assert dom.count('<input type="checkbox"') == NUM_VARIANTS
    assert "teacher@4:good" in dom
