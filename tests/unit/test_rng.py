"""Randomness depends on what it is for, and on nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ladd_dist.core.rng import (
    Rows,
    RowSource,
    SampleSource,
    added_noise,
    derive_seed,
    generator,
    sample_classes,
    sample_noise,
    whole_batch,
)


def test_a_samples_noise_depends_on_seed_and_index_alone() -> None:
    whole = sample_noise(3, range(10), (2, 4, 4))
    torch.randn(100)  # whatever was drawn in between
    parts = torch.cat([sample_noise(3, range(0, 3), (2, 4, 4)), sample_noise(3, range(3, 10), (2, 4, 4))])
    assert torch.equal(whole, parts)
    assert torch.equal(sample_noise(3, range(7, 8), (2, 4, 4))[0], whole[7])
    assert not torch.equal(sample_noise(4, range(10), (2, 4, 4)), whole)
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 10


def test_noise_has_unit_variance_and_zero_mean_across_samples() -> None:
    noise = sample_noise(0, range(4_000), (1, 4, 4))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    neighbours = (noise[1:] * noise[:-1]).mean()
    assert abs(float(neighbours)) < 0.02


def test_what_a_sampler_adds_to_a_sample_depends_on_seed_and_index_alone() -> None:
    """In every draw: a generator of the whole batch gives the second draw to other samples in a batch of other size."""
    whole = added_noise(3, range(10))
    parts = [added_noise(3, range(first, stop)) for first, stop in ((0, 3), (3, 10))]
    draws = []
    for _ in range(3):
        draws.append(whole.normal(2, 4, 4))
        assert torch.equal(torch.cat([part.normal(2, 4, 4) for part in parts]), draws[-1])
    rows = torch.cat(draws).flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 30
    assert not torch.equal(added_noise(4, range(10)).normal(2, 4, 4), draws[0])
    assert not torch.equal(draws[0], sample_noise(3, range(10), (2, 4, 4)))
    many = torch.cat([SampleSource(range(4_000), "sde", 0).normal(4, 4)])
    assert (float(many.mean()), float(many.std())) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    assert abs(float((many[1:] * many[:-1]).mean())) < 0.02
    assert SampleSource(range(0), "sde", 0).normal(3, 2, 2).shape == (0, 3, 2, 2)


def test_a_samples_class_depends_on_seed_and_index_alone() -> None:
    whole = sample_classes(3, range(95), 10)
    parts = torch.cat([sample_classes(3, range(0, 13), 10), sample_classes(3, range(13, 95), 10)])
    assert torch.equal(whole, parts)
    assert not torch.equal(sample_classes(4, range(95), 10), whole)
    assert whole.dtype == torch.int64


def test_every_run_of_indices_as_long_as_the_classes_holds_each_class_once_in_changing_order() -> None:
    blocks = sample_classes(0, range(200), 10).view(20, 10)
    assert torch.equal(blocks.sort(dim=1).values, torch.arange(10).expand(20, 10))
    assert len({tuple(block.tolist()) for block in blocks}) > 15


def test_classes_that_are_not_as_frequent_are_asked_for_by_their_shares() -> None:
    shares = torch.tensor([0.6, 0.0, 0.3, 0.0996, 0.0004], dtype=torch.float64)
    whole = sample_classes(3, range(50_000), 5, shares)
    parts = [sample_classes(3, range(first, stop), 5, shares) for first, stop in ((0, 1), (1, 1_700), (1_700, 50_000))]
    assert torch.equal(torch.cat(parts), whole) and whole.dtype == torch.int64
    for block in whole.view(-1, 1_000):
        assert ((torch.bincount(block, minlength=5) - 1_000 * shares).abs() < 1).all()
    counts = torch.bincount(whole, minlength=5)
    assert counts[1] == 0 and 5 <= counts[4] <= 40, (
        "a class of four in ten thousand is asked for, though not in each run"
    )
    assert not torch.equal(sample_classes(4, range(50_000), 5, shares), whole)
    assert abs(int((whole[:500] == 0).sum()) - 300) < 50, "in random order"


def test_no_samples_are_an_empty_batch() -> None:
    assert sample_noise(0, range(0), (3, 2, 2)).shape == (0, 3, 2, 2)
    assert sample_classes(0, range(0), 10).shape == (0,)


def test_seeds_of_other_purposes_steps_and_turns_differ() -> None:
    parts = [("sigma", 0, 1), ("sigma", 1, 0), ("tau", 0, 1), ("sigma", 0, 1, 0), ("sigma", 0, 11), ("sigma", 0)]
    seeds = {derive_seed(*part) for part in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_are_the_same_on_every_machine_and_version() -> None:
    # Shards and runs made by an earlier version must stay reproducible: a change here changes every result.
    assert derive_seed("noise", 0, 0) == 3681679398429886887


def test_a_generator_starts_afresh_each_time() -> None:
    first, second = generator("x", 1, 2), generator("x", 1, 2)
    assert torch.equal(torch.randn(4, generator=first), torch.randn(4, generator=second))


# Rows of a batch


@pytest.mark.parametrize("total", [4, 12, 64, 200])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_rows_are_equal_and_follow_each_other(total: int, parts: int) -> None:
    cut = [whole_batch(total).part(number, parts) for number in range(parts)]
    assert [place for rows in cut for place in range(rows.first, rows.stop)] == list(range(total))
    assert {len(rows) for rows in cut} == {total // parts}
    assert {rows.total for rows in cut} == {total}


def test_a_part_of_a_part_lies_in_it() -> None:
    """A rank's rows, and its micro-batches."""
    assert whole_batch(24).part(1, 2).part(2, 3) == Rows(20, 24, 24)


@pytest.mark.parametrize(("total", "parts"), [(10, 4), (1, 2), (63, 2)])
def test_rows_that_cannot_be_parted_evenly_are_refused(total: int, parts: int) -> None:
    with pytest.raises(ValueError, match=f"a batch of {total} cannot be parted evenly by {parts}"):
        whole_batch(total).part(0, parts)


def drawn(rows: Rows, *seed: int | str) -> list[Tensor]:
    """What a source gives in three calls."""
    source = RowSource(rows, *seed)
    return [source.normal(2, 3), source.uniform(), source.normal(1)]


def partitions(total: int, parts: int) -> list[Rows]:
    """Ranges that cover a batch, of sizes as equal as they can be."""
    bounds = [total * number // parts for number in range(parts + 1)]
    return [Rows(first, stop, total) for first, stop in itertools.pairwise(bounds) if stop > first]


@pytest.mark.parametrize("total", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_rows_get_the_same_numbers_however_the_batch_is_parted(total: int, parts: int) -> None:
    whole = drawn(whole_batch(total), "noise", 3)
    columns = zip(*(drawn(rows, "noise", 3) for rows in partitions(total, parts)), strict=True)
    for expected, pieces in zip(whole, columns, strict=True):
        assert torch.equal(torch.cat(pieces), expected)
    assert [tensor.shape for tensor in whole] == [(total, 2, 3), (total,), (total, 1)]


def test_any_single_row_gets_its_own_numbers() -> None:
    whole = drawn(whole_batch(200), "noise", 3)
    for place in (0, 63, 64, 127, 128, 199):
        alone = drawn(Rows(place, place + 1, 200), "noise", 3)
        assert all(torch.equal(one[0], expected[place]) for one, expected in zip(alone, whole, strict=True))


def test_numbers_go_on_with_every_call_and_begin_anew_with_a_new_source() -> None:
    source, again = RowSource(whole_batch(100), "x", 1), RowSource(whole_batch(100), "x", 1)
    first, second = source.normal(4), source.normal(4)
    assert not torch.equal(first, second)
    assert torch.equal(again.normal(4), first)
    assert torch.equal(again.normal(4), second)


def test_no_two_rows_calls_or_seeds_share_their_numbers() -> None:
    """Blocks of 64 rows have generators of their own: equal ones would repeat the batch every 64 samples."""
    source = RowSource(whole_batch(200), "x", 1)
    rows = torch.cat([source.normal(64), source.normal(64), RowSource(whole_batch(200), "x", 2).normal(64)])
    assert float(torch.corrcoef(rows).fill_diagonal_(0).abs().max()) < 0.75
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


@pytest.mark.parametrize("total", [1, 6, 64])
def test_a_small_batch_gets_the_numbers_that_earlier_versions_drew(total: int) -> None:
    """One call of torch.randn for the whole batch: runs of up to 64 samples a step are reproduced bit for bit."""
    source = generator("start", 5, 7, 0)
    assert torch.equal(
        RowSource(whole_batch(total), "start", 5, 7, 0).normal(3, 4, 4), torch.randn(total, 3, 4, 4, generator=source)
    )
    assert torch.equal(
        RowSource(whole_batch(total), "regulariser", 5).uniform(),
        torch.rand(total, generator=generator("regulariser", 5)),
    )


def test_numbers_have_the_distribution_they_are_named_after() -> None:
    source = RowSource(whole_batch(1_000), "x")
    normal, uniform = source.normal(40), source.uniform(40)
    assert (float(normal.mean()), float(normal.std())) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    assert 0 <= float(uniform.min()) < 0.001 < 0.999 < float(uniform.max()) < 1
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.002)
