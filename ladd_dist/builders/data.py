"""The pictures that a run learns from: prepared in its cache with progress, and opened after a look at some of them."""

from __future__ import annotations

import contextlib

from ladd_dist.core.failure import rank_here
from ladd_dist.datasets import ImageSet, Split
from ladd_dist.datasets.opening import open_images
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.workspace.run import Run


def prepare_data(run: Run) -> None:
    """Make what the dataset reads in the cache, such as decoded pictures, unless it is there.

    Raises:
        UserError: the data cannot be used. Stopped: a signal came; what was made is gone.
    """
    with contextlib.ExitStack() as held:
        shown: tuple[StopFlag, Bar] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal shown
            if shown is None:  # most launches find it made
                quiet = rank_here() != 0
                shown = held.enter_context(StopFlag().listen()), held.enter_context(Bar("pictures", total, quiet=quiet))
            stop, bar = shown
            bar.update(done)
            stop.check()

        run.recipe.dataset.prepare(run.workspace.cache, progress)


def pictures_left_out(run: Run) -> list[str]:
    """A line that says how many of the prepared pictures cannot be used and are left out, if any are."""
    told = run.recipe.dataset.facts(run.workspace.cache).get("left out", "0")
    return [] if told.split(" ")[0] == "0" else [f"pictures left out: {told}"]


def images_of(run: Run, split: Split = "train") -> ImageSet:
    """A split of the run's dataset.

    Raises:
        UserError: images or labels are not what a training needs. FileNotFoundError: the files are missing.
    """
    prepare_data(run)
    return open_images(run.recipe.dataset, split, run.workspace.cache)
