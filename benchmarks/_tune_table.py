"""The table of `benchmarks.tune`: means over seeds, and how they keep the bars."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

METHODS = ("real", "untouched", "diffusion", "de-distilled", "from base", "tune", "ceiling")
IN_LATENTS = ("real", "decoded", "untouched", "diffusion", "tune", "ceiling")
FIGURES = ("new", "old", "new kid", "old kid", "memorised", "saturation", "sharpness", "seconds")
RANGED = ("new", "old")
"""Figures that are shown with their lowest and highest value over seeds."""
LATENTS = "latents/"
"""Beginning of the names of rows in latents."""
_BARRED = ("untouched", "diffusion", "tune", "ceiling")
"""Methods that the bars compare."""


def table(rows: Mapping[str, Mapping[str, Any]], *, in_latents: bool) -> str:
    """Means over seeds, a line for each number of pictures and method, and how they keep the bars.

    Args:
        rows: figures by NUMBER/SEED/METHOD, which `latents/` precedes for rows in latents.
    """
    prefix = LATENTS if in_latents else ""
    chosen = {name.removeprefix(prefix): row for name, row in rows.items() if name.startswith(LATENTS) == in_latents}
    lines = ["| pictures | method | seeds | " + " | ".join(FIGURES) + " |", "|---" * (3 + len(FIGURES)) + "|"]
    bars: list[str] = []
    for count in sorted({int(name.split("/")[0]) for name in chosen}):
        means: dict[str, dict[str, float]] = {}
        for method in IN_LATENTS if in_latents else METHODS:
            found = [row for name, row in chosen.items() if name.split("/")[::2] == [str(count), method]]
            if found:
                means[method] = {figure: mean(row[figure] for row in found) for figure in FIGURES}
                cells = " | ".join(_cell([row[figure] for row in found], figure) for figure in FIGURES)
                lines.append(f"| {count} | {method} | {len(found)} | {cells} |")
        if all(method in means for method in _BARRED):
            bars.append(f"{count} pictures: {_bars(means)}.")
    return "\n".join(lines) + "".join(f"\n\n{line}" for line in bars)


def _cell(values: list[float], figure: str) -> str:
    """The mean over seeds; of a distance with its range."""
    told = f"{mean(values):.3g}"
    return f"{told} ({min(values):.3g} to {max(values):.3g})" if figure in RANGED and len(values) > 1 else told


def _bars(means: dict[str, dict[str, float]]) -> str:
    before, plain, tuned, most = (means[name] for name in _BARRED)
    bars = {
        f"new within 1.25 of the ceiling ({tuned['new'] / most['new']:.2f})": tuned["new"] <= 1.25 * most["new"],
        f"new at most .6 of diffusion ({tuned['new'] / plain['new']:.2f})": tuned["new"] <= 0.6 * plain["new"],
        f"old within 1.15 of untouched ({tuned['old'] / before['old']:.2f})": tuned["old"] <= 1.15 * before["old"],
        "memorised no more than the ceiling": tuned["memorised"] <= most["memorised"],
    }
    return "; ".join(f"{bar}: {'kept' if kept else 'missed'}" for bar, kept in bars.items())
