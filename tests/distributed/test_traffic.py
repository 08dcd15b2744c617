"""What goes over the wire: on each network's turn its own gradients, and nothing of the other's."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import scaling
from benchmarks._ranks import run_ranks

pytestmark = pytest.mark.slow
RANKS = 2


@pytest.fixture(scope="module")
def seen() -> Any:
    """Elements by strategy, turn and collective, recorded by the profiler on two real ranks."""
    given = {"strategies": ["ddp", "fsdp", "zero1", "zero2", "zero3"], "recipe": "recipes/exp6_stored_noise.py"}
    return run_ranks("benchmarks.traffic", RANKS, given)


@pytest.mark.parametrize("turn", ["heads", "student"])
def test_under_ddp_a_turn_sends_the_gradients_of_its_network_and_nothing_else(seen: Any, turn: str) -> None:
    assert seen["ddp"][turn] == {"all_reduce": seen["ddp"][f"{turn}_parameters"]}


def test_a_whole_ddp_step_sends_what_the_two_turns_send(seen: Any) -> None:
    found = seen["ddp"]
    assert found["step"] == {"all_reduce": found["heads_parameters"] + found["student_parameters"]}


def test_fsdp_reduces_the_students_gradients_once_and_gathers_its_weights_twice(seen: Any) -> None:
    found = seen["fsdp"]
    assert found["heads"] == {"all_reduce": found["heads_parameters"]}
    student, tensors = found["student_parameters"], found["student_tensors"]
    # Every tensor is padded to a multiple of the ranks; the norms of all tensors are summed over ranks.
    padding = RANKS * tensors
    assert student <= found["student"]["all_reduce"] <= student + padding + 2 * tensors
    assert student <= RANKS * found["student"]["all_gather"] <= student + padding
    assert found["step"]["all_gather"] == 2 * found["student"]["all_gather"]


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
@pytest.mark.parametrize("turn", ["heads", "student"])
def test_zero_reduces_the_gradients_of_its_network_and_gathers_what_each_rank_updated(
    seen: Any, strategy: str, turn: str
) -> None:
    found = seen[strategy]
    size = found[f"{turn}_parameters"]
    few = 64  # whether any gradient is not finite, and the norm
    assert size <= found[turn]["all_reduce"] <= size + few
    assert size <= RANKS * found[turn]["all_gather"] <= size + few
    assert set(found[turn]) == {"all_reduce", "all_gather"}


def test_the_scaling_benchmark_pairs_its_rounds() -> None:
    given = {"strategies": ["ddp"], "recipe": "recipes/exp6_stored_noise.py", "scale": "smoke", "batch": 8}
    times = run_ranks("benchmarks.scaling", RANKS, {**given, "rounds": 2, "steps": 1})["ddp"]
    assert {name: len(values) for name, values in times.items()} == {"alone": 2, "independent": 2, "together": 2}
    row = scaling.summary({"alone": [1.0, 2.0], "independent": [1.0, 2.5], "together": [1.25, 2.0]}, RANKS, 8)
    assert (row["efficiency"], row["efficiency_low"], row["machine"]) == (0.9, 0.8, 0.9)
