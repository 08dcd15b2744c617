"""Names of figures: what older versions called them is translated here, where a file or a command line is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
FORMER = {"fd": "fd_real"}
"""Former name -> name. `fd` stood beside `fd_teacher`, and readers took it for the same distance."""
ENDS = ("", "_low", "_high")
"""Ends of a figure's name and of those of its interval's bounds (`ladd_dist.metrics.interval`)."""
FEATURES_OF = "features/"
"""Beginning of a key in a tracker's summary whose value names the features that a figure was measured in."""
_NOW = {f"{former}{end}": f"{name}{end}" for former, name in FORMER.items() for end in ENDS}


def name_now(name: str) -> str:
    """The present name of a figure, or of a bound of its interval."""
    return _NOW.get(name, name)


def named_now(figures: Mapping[str, T]) -> dict[str, T]:
    """Figures by their present names; one that is there under both keeps the value of its present name."""
    return {name_now(name): value for name, value in figures.items() if name not in _NOW or _NOW[name] not in figures}


def without_former(figures: Mapping[str, T]) -> dict[str, T]:
    """Figures without those that have a former name, and the bounds of their intervals."""
    return {name: value for name, value in figures.items() if name not in _NOW}


def evaluation_of(summary: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Figures by entry, by their present names, from a tracker's summary with keys `eval/ENTRY/FIGURE`."""
    found: dict[str, dict[str, float]] = {}
    for key, value in summary.items():
        entry, _, name = key.removeprefix("eval/").rpartition("/")
        if key.startswith("eval/") and entry:
            found.setdefault(entry, {})[name] = float(value)
    return {entry: named_now(own) for entry, own in found.items()}


def features_to_summary(names: Mapping[str, str]) -> dict[str, str]:
    """Names of features by figure, as a tracker's summary has them: keys `features/FIGURE`."""
    return {f"{FEATURES_OF}{figure}": name for figure, name in names.items()}


def features_in_summary(summary: Mapping[str, object]) -> dict[str, str]:
    """Names of features by figure, from a tracker's summary with keys `features/FIGURE`."""
    return {
        key.removeprefix(FEATURES_OF): name
        for key, name in summary.items()
        if key.startswith(FEATURES_OF) and isinstance(name, str)
    }
