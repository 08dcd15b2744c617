"""A prediction in words and cells: what terminal and page share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ladd_dist.reports.verdict import VARIANCE_COLLAPSED, VARIANCE_HEALTHY, number, share

COLUMNS = ("level", "averaged", "colour var", "share", "in class", "weight", "verdict")


MEANINGS = (
    "averaged: how many stored samples the best answer is the mean of; share: its colour variance as a share of the "
    "samples' own; in class: the same within the classes; *: no level of the training; fd: Frechet distance to the "
    "stored samples."
)
REMEMBERS = (
    "Held-out noise belongs to no stored pair, and what the distance asks for there is not defined: these are the "
    "samples of the nearest pairs, which a student that only remembers would give. A student that generalises can do "
    "better."
)


def headline(figures: Mapping[str, Any]) -> str:
    """One sentence."""
    bad = [f"{row['sigma']:g}" for row in figures["levels"] if row["verdict"] == REGRESSES and row["trained"]]
    if figures["deterministic"]:
        return "each input belongs to one sample; the distance averages nothing"
    if not bad:
        return "the distance keeps the samples apart at every trained level"
    return f"the distance regresses to the mean at level{'s' if len(bad) > 1 else ''} {', '.join(bad)}"


def level_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells of the levels, highest noise first."""
    rows: list[tuple[str, ...]] = []
    for row in figures["levels"]:
        classes = row["classes"].values()
        within = f"{min(classes):.2f}-{max(classes):.2f}" if classes else "-"
        name = f"{row['sigma']:.4g}" + ("" if row["trained"] else " *")
        rows.append((
            name, f"{row['averaged']:.1f}", _cell(row, "colour_variance", ".4f"), f"{row['share']:.2f}", within,
            _cell(row, "weight", ".2g"), row["verdict"],
        ))  # fmt: skip
    return rows


def sample_rows(
    figures: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells of the samples, beside the trained student's where `eval.json` is known."""
    header: tuple[str, ...] = ("sampled", "levels", "share", "hues", "fd")
    trained = {key.partition("@")[2]: value for key, value in evaluation.items() if key.startswith("student@")}
    if trained:
        header += ("trained share", "trained fd")
    rows = []
    for key, row in figures["samples"].items():
        levels = ", ".join(f"{level:.3g}" for level in row["levels"])
        name = key.replace("optimum", "nearest pair") if figures["deterministic"] else key
        cells = [name, levels, _cell(row, "share", ".2f"), _cell(row, "hue_entropy", ".2f")]
        cells.append(_cell(row, "fd_teacher", ".2f"))
        if trained:
            own = trained.get(key.partition("@")[2], {})
            cells += [_trained_share(evaluation, key), _cell(own, "fd_teacher", ".2f")]
        rows.append(tuple(cells))
    return header, rows


def _trained_share(evaluation: Mapping[str, Any], key: str) -> str:
    from ladd_dist.reports.verdict import best_teacher

    teacher, student = best_teacher(evaluation), f"student@{key.partition('@')[2]}"
    found = share(evaluation, student, teacher, "colour_variance") if teacher and student in evaluation else None
    return "-" if found is None else f"{found:.2f}"


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    value = number(row, key)
    return "-" if value is None else format(value, form)


REGRESSES, DULLS, KEEPS = "regresses to the mean", "dulls", "keeps"


def verdict_of(share: float) -> str:
    """In words, by the thresholds of a run's verdict."""
    return REGRESSES if share < VARIANCE_COLLAPSED else DULLS if share < VARIANCE_HEALTHY else KEEPS
