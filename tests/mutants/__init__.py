"""Slips that somebody might make, and the test that must see each: `make mutants` puts them in one by one.

A name is GROUP/NAME, the group being the file here. `tests/unit/test_mutants.py` holds the list to the code.
"""

from __future__ import annotations

from mutating import Mutation

from mutants import core, engine, losses, metrics, samplers, stages, statistics

GROUPS: dict[str, dict[str, Mutation]] = {
    "core": core.MUTANTS,
    "losses": losses.MUTANTS,
    "samplers": samplers.MUTANTS,
    "engine": engine.MUTANTS,
    "metrics": metrics.MUTANTS,
    "statistics": statistics.MUTANTS,
    "stages": stages.MUTANTS,
}
MUTANTS = {f"{group}/{name}": mutation for group, members in GROUPS.items() for name, mutation in members.items()}
