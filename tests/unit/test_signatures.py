"""Signatures name every user's cached teachers, shards and runs: a change of one is a decision, never an accident.

To change one on purpose, raise the version in the hash, name the change in the CHANGELOG, and write the table again:
`python -m tests.unit.test_signatures`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladd_dist.recipe import SCALES, load_recipe

REPO = Path(__file__).resolve().parent.parent.parent
TABLE = REPO / "tests" / "signatures.json"
STAGES = ("autoencoder", "teacher", "shards", "distill", "reference", "evaluate")
RECIPES = sorted(path.stem for path in (REPO / "recipes").glob("[a-z]*.py") if not path.stem.startswith("sweep"))


def signatures(name: str) -> dict[str, dict[str, str]]:
    """Scale -> stage -> signature."""
    found = {}
    for scale in SCALES:
        recipe = load_recipe(REPO / "recipes" / f"{name}.py", scale)
        found[scale] = {stage: getattr(recipe, f"{stage}_signature")() for stage in STAGES}
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_signatures_are_those_of_every_users_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    assert signatures(name) == json.loads(TABLE.read_text(encoding="utf-8"))[name]


def test_the_table_has_no_recipe_that_is_gone() -> None:
    assert sorted(json.loads(TABLE.read_text(encoding="utf-8"))) == RECIPES


if __name__ == "__main__":
    table = {name: signatures(name) for name in RECIPES}
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
