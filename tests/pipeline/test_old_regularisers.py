"""A regulariser written for an earlier version: refused where it is used, in one message that says what to write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import RECIPE, Done, error_of, half_written

from ladd_dist import plugins

OLD = '''
from dataclasses import dataclass

import torch
from ladd_dist.core.plugin import register
from ladd_dist.regularisers import HeadsFn, NearbyFn, Regulariser


@register("logit_size")
@dataclass(frozen=True)
class LogitSize(Regulariser):
    """The mean square of the logits of real samples."""

    weight: float = 0.1

    def __call__(self, heads, real, fake, cond_vec, source, nearby):
        logits = heads(real, cond_vec)
        return self.weight * torch.stack([value.square().mean() for value in logits.values()]).mean()

    def differentiates(self):
        return False
'''
NEW = OLD.replace("HeadsFn, NearbyFn, Regulariser", "PenaltyInputs, Regulariser").replace(
    "    def __call__(self, heads, real, fake, cond_vec, source, nearby):\n",
    "    def __call__(self, inputs: PenaltyInputs) -> torch.Tensor:\n"
    "        heads, real, fake, cond_vec, source, nearby = inputs\n",
)
RECIPES = {
    "alone.py": "from recipes._base import BASE\nfrom old_penalty import LogitSize\n"
    "RECIPE = BASE.replace(regulariser=LogitSize())\n",
    "in_a_sum.py": "from recipes._base import BASE\nfrom ladd_dist.regularisers.total import Sum\n"
    "from old_penalty import LogitSize\nRECIPE = BASE.replace(regulariser=Sum(terms=(LogitSize(),)))\n",
}
DRY = ("--scale", "smoke", "--dry-run")
SWAP = (str(RECIPE), *DRY, "--plugins", "old_penalty", "--swap", "regulariser=logit_size")


@pytest.fixture
def folder(tmp_path: Path, launch_here: Callable[..., Done]) -> Iterator[Path]:
    """The plug-in, and recipes that use it."""
    for name, text in {"old_penalty.py": OLD, **RECIPES}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("old_penalty", None)


def says_what_to_write(text: str) -> bool:
    flat = " ".join(text.split())
    return (
        "regulariser 'logit_size' (old_penalty.LogitSize): __call__ takes (heads, real, fake, cond_vec, source, nearby)"
        in flat
        and "`def __call__(self, inputs: PenaltyInputs) -> Tensor:` (from ladd_dist.regularisers)" in flat
        and "`heads, real, fake, cond_vec, source, nearby = inputs`" in flat
    )


@pytest.mark.parametrize(
    "words", [("alone.py", *DRY), ("in_a_sum.py", *DRY), SWAP], ids=["alone", "in a sum", "by swap"]
)
def test_a_launch_refuses_it(words: tuple[str, ...], folder: Path, launch_here: Callable[..., Done]) -> None:
    done = launch_here(*words)
    assert done.code == 2
    assert says_what_to_write(error_of(done)), done
    assert half_written(folder) == []


def test_its_check_refuses_it_and_the_list_still_shows_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert plugins.main(["--check", "logit_size", "--plugins", "old_penalty"]) == 1
    found = capfd.readouterr().out
    assert found.startswith("regulariser logit_size: FAILED: regulariser 'logit_size' (old_penalty.LogitSize)")
    assert says_what_to_write(found)
    assert plugins.main(["--kind", "regulariser", "--plugins", "old_penalty"]) == 0
    assert "logit_size" in capfd.readouterr().out


def test_with_the_two_lines_of_the_message_it_works(
    folder: Path, launch_here: Callable[..., Done], capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "old_penalty.py").write_text(NEW, encoding="utf-8")
    assert plugins.main(["--check", "logit_size", "--plugins", "old_penalty"]) == 0, capfd.readouterr()
    assert launch_here(*SWAP).code == 0
