"""Tables for a run's page: every figure with its interval and its floor, and the student class by class. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ladd_dist.metrics.interval import HIGH, LOW, is_bound
from ladd_dist.reports.distances import untrained_of
from ladd_dist.reports.json_object import Values, number
from ladd_dist.reports.run_files import Figures, ShownConfig
from ladd_dist.reports.table import HIDDEN, entry_title, figure, is_floor
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD, is_tuning
from ladd_dist.reports.verdict import best_teacher, by_steps, few_step_teacher, few_student

TEACHER, REAL = "the teacher's stored samples", "real pictures"
MEANINGS = {
    "fd_real": ("Fréchet distance to real", f"To {REAL}; lower is better."),
    "fd_teacher": ("Fréchet distance to teacher", f"To {TEACHER}; lower is better."),
    "kid": ("Kernel distance to real", f"KID's formula, to {REAL}. Without bias: 0 on average for one distribution."),
    "kid_teacher": ("Kernel distance to teacher", f"The same, to {TEACHER}."),
    KID_HELD_OUT: ("Distance to held-out new pictures", "KID's formula, to new pictures that no training saw."),
    KID_OLD: ("Distance to its own old samples", "Of old conditions; the untrained student's is the floor."),
    "fid": ("FID to real", f"clean-fid's, with Inception features, to {REAL}."),
    "fid_teacher": ("FID to teacher", f"The same, to {TEACHER}."),
    "inception_kid": ("KID to real", f"clean-fid's, with Inception features, to {REAL}."),
    "inception_kid_teacher": ("KID to teacher", f"The same, to {TEACHER}."),
    "clip_fd": ("Fréchet distance to real, CLIP", f"clean-fid's CLIP variant, to {REAL}."),
    "clip_fd_teacher": ("Fréchet distance to teacher, CLIP", f"The same, to {TEACHER}."),
    "clip_kid": ("Kernel distance to real, CLIP", f"clean-fid's CLIP variant, to {REAL}."),
    "clip_kid_teacher": ("Kernel distance to teacher, CLIP", f"The same, to {TEACHER}."),
    "accuracy": ("Class accuracy", "Share that a classifier reads as the class asked for; higher is better."),
    "hue_entropy": ("Hue entropy", "How many different hues appear; 0 is one."),
    "colour_variance": ("Colour variance", "How strongly colours differ between pictures."),
    "saturation": ("Saturation", "0 is grey."),
    "precision": ("Precision to teacher", f"Share of pictures that lie among {TEACHER}; higher is better."),
    "recall": ("Recall of teacher", f"Share of {TEACHER} that lie among these pictures; higher is better."),
    "density": ("Density to teacher", "How closely the pictures lie where the teacher's do; about 1 is right."),
    "coverage": ("Coverage of teacher", f"Share of {TEACHER} with one of these pictures near; higher is better."),
    "precision_real": ("Precision to real", f"Share of pictures that lie among {REAL}; higher is better."),
    "recall_real": ("Recall of real", f"Share of {REAL} that lie among these; higher is better."),
    "density_real": ("Density to real", "How closely the pictures lie where real ones do; about 1 is right."),
    "coverage_real": ("Coverage of real", f"Share of {REAL} with one of these near; higher is better."),
    "pairwise_distance": ("Distance within a class", "Between two pictures of one class, on average: variety."),
    "pairwise_share": (
        "Distance within a class, of the teacher's",
        "1: as varied as the teacher; 0: one picture a class.",
    ),
    "nearest_train_distance": ("Distance to nearest real picture", "Of the training set; 0 would be a copy."),
    "nearest_train_share": (
        "Distance to nearest real picture, of the usual",
        "Of the distance that training pictures keep; far below 1: copies; above 1: no copies, and less alike.",
    ),
    "nearest_teacher_distance": ("Distance to nearest teacher's sample", "Of those the student was trained on."),
    "nearest_teacher_share": (
        "Distance to nearest teacher's sample, of the usual",
        "Of the distance that these keep; far below 1: copies.",
    ),
    "vlb": ("Bits per dimension", "Variational bound of the teacher on real pictures; lower is better."),
    "vlb_prior": ("Bits per dimension, prior", "L_T of the bound."),
    "vlb_steps": ("Bits per dimension, steps", "L_1 to L_T-1 of the bound."),
    "vlb_decoder": ("Bits per dimension, decoder", "L_0 of the bound."),
    "matched_error": (
        "Error to teacher at the same noise",
        "Mean squared difference to the teacher's own picture; lower is better.",
    ),
}
DETAILS = frozenset(MEANINGS) - {
    "fd_real",
    "fd_teacher",
    "accuracy",
    "hue_entropy",
    "colour_variance",
    "saturation",
    "fid",
    "fid_teacher",
    KID_HELD_OUT,
    KID_OLD,
}
"""Figures that the table of all figures alone shows; the page's first table has the others too."""
NO_FEATURES: Mapping[str, str] = MappingProxyType({})
BY_CLASS = ("accuracy", "fd_real", "fd_teacher", "colour_variance", "recall", "pairwise_share", "matched_error")


def figure_title(key: str) -> str:
    """A figure's name for people; one that is unknown here is its own, with spaces."""
    return MEANINGS[key][0] if key in MEANINGS else key.replace("_", " ")


class Detail(NamedTuple):
    """A figure and its interval, as text."""

    text: str
    interval: str


class DetailRow(NamedTuple):
    """A row of a table: one figure, or one class, and its cells."""

    key: str
    title: str
    meaning: str
    cells: list[Detail]


class Details(NamedTuple):
    """A table: its headings, and a row for each figure or class."""

    headings: list[str]
    rows: list[DetailRow]


def details(evaluation: Figures, config: ShownConfig, features: Mapping[str, str] = NO_FEATURES) -> Details | None:
    """The table of all figures of students, of the teacher in as few steps and in many, and of the floor, which of a
    tuning's `kid_old` is the student before.

    None where no figure has an interval.

    Args:
        features: name of the features that a figure was measured in, which its title has too.
    """
    students = [key for _, key in by_steps(evaluation, "student")]
    floors = [key for key in evaluation if is_floor(key)]
    if not students or not any(is_bound(key) for entry in evaluation.values() for key in entry):
        return None
    teachers = [few_step_teacher(evaluation, few_student(evaluation, config)), best_teacher(evaluation)]
    teachers += [untrained_of(evaluation, few_student(evaluation, config))] if is_tuning(config.recipe) else []
    entries = [*students, *dict.fromkeys(key for key in teachers if key), *floors]
    keys = dict.fromkeys(key for entry in entries for key in evaluation[entry] if not is_bound(key))
    rows = []
    for key in (key for key in keys if key not in HIDDEN):
        title, meaning = MEANINGS.get(key, (key.replace("_", " "), ""))
        title += f" [{features[key]}]" if key in features else ""
        rows.append(DetailRow(key, title, meaning, [_detail(evaluation[entry], key) for entry in entries]))
    return Details([entry_title(key) for key in entries], rows)


def by_class(classes: Mapping[str, Figures], evaluation: Figures, config: ShownConfig) -> Details | None:
    """The table of the few-step student class by class, from eval_classes.json (entry -> class -> figures).

    None where the file has no such student.
    """
    if not by_steps(evaluation, "student") or not (own := classes.get(few_student(evaluation, config))):
        return None
    keys = [key for key in BY_CLASS if any(key in figures for figures in own.values())]
    rows = [
        DetailRow(label, f"Class {label}", "", [_detail(figures, key) for key in keys])
        for label, figures in own.items()
    ]
    return Details([MEANINGS[key][0] for key in keys], rows)


def _detail(figures: Values, key: str) -> Detail:
    value, low, high = (number(figures, name) for name in (key, key + LOW, key + HIGH))
    if value is None:
        return Detail("–", "")
    return Detail(figure(value), f"{figure(low)} to {figure(high)}" if low is not None and high is not None else "")
