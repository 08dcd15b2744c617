"""Distances to real pictures and to the teacher's: which figures they are, and what they say of a student. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ladd_dist.reports.json_object import Values, number
from ladd_dist.reports.run_files import Figures

Level = Literal["healthy", "warning", "collapsed"]
FLOOR = "floor@real"
"""The entry of eval.json with the figures of real pictures that are not among the references."""
TO_REAL = ("fd_real", "fid", "clip_fd", "inception_kid", "kid")
"""Distances to real pictures; the first that a run has decides."""
GUIDANCE = "Its guidance may be too high for these data: `ladd guidance RECIPE` measures which scale is nearest to them"


class Observation(NamedTuple):
    """One thing seen in the figures, and how bad it is."""

    level: Level
    text: str


def to_real(figures: Values) -> str | None:
    """The name of the distance to real pictures that decides; None where none was measured."""
    return next((key for key in TO_REAL if key in figures), None)


def to_teacher(figures: Values) -> str | None:
    """The name of the distance to the teacher's samples that belongs beside it; None where none was measured."""
    keys = ("fd_teacher" if key == "fd_real" else f"{key}_teacher" for key in TO_REAL)
    return next((key for key in keys if key in figures), None)


def untrained_of(evaluation: Figures, student: str) -> str | None:
    """The entry of the student before its training, in as many steps."""
    entry = f"untrained@{student.partition('@')[2]}"
    return entry if entry in evaluation else None


def nearer_to_real(evaluation: Figures, student: str, entry: str) -> tuple[str, float, float] | None:
    """The distance's name, the student's and the entry's, where the entry is nearer to real pictures; else None."""
    key = to_real(evaluation[student])
    if key is None:
        return None
    mine, theirs = number(evaluation[student], key), number(evaluation[entry], key)
    return (key, mine, theirs) if mine is not None and theirs is not None and theirs < mine else None


def against_real(evaluation: Figures, student: str, rival: str | None) -> list[Observation]:
    """Observe whether the student is nearer to real pictures than untrained, and than the teacher in few steps.

    Args:
        student: the entry that is judged.
        rival: the teacher in as few steps as the student.
    """
    key, before = to_real(evaluation[student]), untrained_of(evaluation, student)
    if key is None or number(evaluation[student], key) is None:
        return []
    observations = []
    for entry, who in ((before, "its untrained self in as many steps"), (rival, "the teacher in as few steps")):
        if entry is None or (theirs := number(evaluation[entry], key)) is None:
            continue
        words = f"{key} {number(evaluation[student], key):.3g} of {student} against {theirs:.3g} of {entry}"
        if nearer_to_real(evaluation, student, entry):
            observations.append(Observation("warning", f"farther from real pictures than {who}: {words}"))
        else:
            observations.append(Observation("healthy", f"no farther from real pictures than {who}: {words}"))
    return observations


def teacher_against_real(evaluation: Figures, student: str, teacher: str) -> list[Observation]:
    """Observe a teacher that is farther from real pictures than the untrained student: a pull towards it is one away.

    Args:
        teacher: the teacher in many steps.
    """
    before = untrained_of(evaluation, student)
    if before is None or (found := nearer_to_real(evaluation, teacher, before)) is None:
        return []
    key, mine, theirs = found
    text = (
        f"the teacher itself is farther from real pictures than the untrained student: {key} {mine:.3g} of {teacher} "
        f"against {theirs:.3g} of {before}. {GUIDANCE}"
    )
    return [Observation("warning", text)]


def against_teacher(evaluation: Figures, few: str, rival: str | None) -> list[Observation]:
    """Observe whether the student is nearer to the teacher's many-step samples than the teacher in as few steps.

    Args:
        rival: the teacher in as few steps as the student.
    """
    key = to_teacher(evaluation[few])
    if rival is None or key is None:
        return []
    mine, theirs = number(evaluation[few], key), number(evaluation[rival], key)
    if mine is None or theirs is None:
        return [Observation("warning", f"no comparison with {rival}: {key} is missing")]
    words = f"{key} {mine:.3g} of {few} against {theirs:.3g} of {rival}"
    if mine >= theirs:
        return [Observation("warning", f"nothing gained over the teacher itself in as few steps: {words}")]
    return [
        Observation("healthy", f"closer to the teacher's many-step samples than the teacher in as few steps: {words}")
    ]
