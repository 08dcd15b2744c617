"""Some hundred hostile and damaged inputs, a test for each group: `make fuzz` makes thousands of the same kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import server
from fuzz.__main__ import Server
from fuzz.kinds import GROUPS

KINDS = server.load_kinds()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A process that makes the sound run once, and then each damaged one."""
    started = Server(tmp_path_factory.mktemp("fuzz"))
    started.read()
    yield started
    started.close()


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_hostile_input_is_refused_in_one_message_or_does_nothing_but_what_was_asked(
    group: str, forks: Server
) -> None:
    cases = server.cases_of((kind for kind in KINDS.values() if kind.group == group), quick=True)
    assert cases
    faults = [str(found) for found in (forks.ask(*case) for case in cases) if found.faults]
    assert not faults, "\n".join([f"{len(faults)} of {len(cases)} inputs:", *faults])


def test_an_input_is_the_same_each_time_that_it_is_made(tmp_path: Path) -> None:
    import random

    from fuzz.damage import dumps, json_value

    data = {"a": [1, 2.5, {"b": "text"}], "c": None, "d": {"e": True}}
    made = [[dumps(json_value(data, random.Random(f"kind/{seed}"))[1]) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert len({bytes(one) for one in made[0]}) > 30


def test_the_corpus_has_at_least_six_hundred_inputs_of_every_group() -> None:
    assert {kind.group for kind in KINDS.values()} == set(GROUPS)
    assert len(server.cases_of(KINDS.values(), quick=False)) >= 1_000
    assert len(server.cases_of(KINDS.values(), quick=True)) >= 200
