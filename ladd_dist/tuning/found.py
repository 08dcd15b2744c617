"""What is known of a student to tune."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER, CHECKPOINT = "tune_folder", "tune_checkpoint"


@dataclass(frozen=True)
class Student:
    """A student with its base, ready for a recipe."""

    recipe: str
    """Name of the recipe that tunes it."""
    flags: list[str]
    """Flags for base, student, levels and coupling, without those of the pictures."""
    reads_texts: bool
    sides: tuple[int, int]
    """Height and width of its pictures."""
    num_classes: int = 0
    """Classes that it knows; 0 where it reads texts."""
    class_names: tuple[str, ...] = ()
    """Names of its classes, where its file has them, or the folder that it learned from is still there."""
    steps: tuple[int, ...] = ()
    """Numbers of steps for which there are levels; empty: any."""
    measured: tuple[int, ...] = ()
    """Numbers of steps whose levels its file has; empty: nothing says."""
