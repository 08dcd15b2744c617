"""Somebody else's shards, each verified by one rank, and read again by those that write its samples.

A finished verification leaves a record, so an import that was stopped goes on behind it. In memory are a few numbers
for each shard, and one sample, or one chunk of samples where a shard holds chunks.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.door import read_typed, require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_json
from ladd_dist.core.signals import Stopped
from ladd_dist.engine.foreign_samples import Wanted, read_samples
from ladd_dist.engine.foreign_shards import find_shards
from ladd_dist.engine.plausible import Moments, NoiseMoments
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.engine.shard_sidecars import Sidecars
from ladd_dist.engine.shard_writer import Chunk
from ladd_dist.parallel.ranks import SINGLE, Ranks

_CHECKS = 1
"""Version of the checks that a record stands for. Raise it when a check is added."""


class Stamp(NamedTuple):
    """What tells whether a file is the one that was read before."""

    path: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Verified:
    """What a shard holds, by a reading to its end that every check has passed."""

    stamp: Stamp
    digests: tuple[tuple[str, str], ...]
    """Checksums (algorithm, hexadecimal) that its bytes have."""
    samples: int
    first: str
    """Its first sample, for messages; empty where it has none."""
    noise: Moments | None
    """Moments of its noise; None where its samples have none."""
    checks: int = _CHECKS


class Survey:
    """The verified shards of a source, and the places of their samples."""

    def __init__(self, known: Sidecars, wanted: Wanted, most: int | None = None) -> None:
        """No shard yet.

        Args:
            most: samples that are wanted; None: all.
        """
        self._known, self._wanted, self._most = known, wanted, most
        self.shards: list[Verified] = []
        self._starts = [0]
        self._noise = NoiseMoments()
        self._has_noise: bool | None = None

    def __len__(self) -> int:
        """The number of samples, at most those that are wanted."""
        return self._starts[-1] if self._most is None else min(self._starts[-1], self._most)

    @property
    def is_full(self) -> bool:
        """Whether all samples that are wanted are there."""
        return self._most is not None and self._starts[-1] >= self._most

    @property
    def identity(self) -> str:
        """Hash of the shards' names, sizes and times of change."""
        return hashlib.sha256(json.dumps([shard.stamp for shard in self.shards]).encode()).hexdigest()

    def add(self, shard: Verified) -> None:
        """Add the next shard.

        Raises:
            ShardError: its samples do not go with those before.
        """
        if shard.first:
            self._has_noise = _require_alike(shard.noise is not None, self._has_noise, shard.first)
        if shard.noise is not None:
            self._noise.include(shard.noise, f"shard {shard.stamp.path}")
        self.shards.append(shard)
        self._starts.append(self._starts[-1] + shard.samples)

    def shard_of(self, index: int) -> int:
        """The place of the shard with a sample, or of the one behind the last."""
        return bisect.bisect_right(self._starts, index) - 1

    def read_from(self, index: int) -> tuple[int, Iterator[Chunk]]:
        """The samples from the beginning of the shard with sample `index` on, and the index of the first of them.

        Raises:
            ShardError: a shard has changed since it was verified.
        """
        place = self.shard_of(index)
        return self._starts[place], self._chunks(self.shards[place:])

    def _chunks(self, shards: list[Verified]) -> Iterator[Chunk]:
        for shard in shards:
            path, count = Path(shard.stamp.path), 0
            changed = ShardError(f"shard {path} has changed while it was imported; run the same command again")
            if _stamp(path) != shard.stamp:
                raise changed
            self._known.require_content(path, shard.digests)
            for _, chunk in read_samples(path, self._wanted):
                count += len(chunk.cond)
                if count > shard.samples:
                    raise changed
                yield chunk
            if count < shard.samples:
                raise changed


def survey_shards(
    source: str,
    wanted: Wanted,
    most: int | None = None,
    *,
    ranks: Ranks = SINGLE,
    records: Path | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda shards, samples: None,
) -> Survey:
    """Verify the shards that a glob matches or a folder holds, every rank its share; a collective call.

    A sample is `.npy`/`.x0.npy`, `.noise.npy` and `.cls`, or one `.safetensors` with x0 [C,H,W], cond [] and perhaps
    noise; a `.safetensors` may also hold n samples, x0 [n,C,H,W] and so on, as this package writes them.

    Args:
        most: samples that are wanted; the shard with the last one is verified to its end. None: all.
        records: a folder for what is verified; a shard that is there, and has not changed since, is not read again.
        check: called for each sample; it may raise `Stopped`.
        progress: called with the number of verified shards and that of their samples.

    Raises:
        ShardError: no shard matches, a shard is damaged or lacks samples, or a sample is wrong; the message names
            shard, sample and byte. Every rank raises the error of the first wrong shard. UserError: a shard is no
            regular file, or a file beside it is damaged.
    """
    paths, known = find_shards(source, wanted.path_levels)
    survey = Survey(known, wanted, most)
    look = _Look(known, wanted, records, check)
    for begin in range(0, len(paths), ranks.size):
        place = begin + ranks.rank
        own = look.outcome(place, paths[place]) if place < len(paths) else None
        for found in ranks.from_all(own):
            if found is None or survey.is_full:  # what lies behind the last sample that is wanted counts for nothing
                break
            if isinstance(found, int):
                raise Stopped(found)
            if isinstance(found, Exception):
                raise found
            survey.add(found)
        progress(len(survey.shards), len(survey))
        ranks.beat(f"verified {len(survey.shards)} shards")
        if survey.is_full:
            break
    if not len(survey):
        raise ShardError(f"shards.source: {source!r} holds no sample")
    return survey


@dataclass(frozen=True)
class _Look:
    """The verification of one shard after the other."""

    known: Sidecars
    wanted: Wanted
    records: Path | None
    check: Callable[[], None]

    def outcome(self, place: int, path: Path) -> Verified | Exception | int:
        """What a shard holds, the error about it, or the signal that came meanwhile: all ranks hear of either."""
        try:
            return self.recorded(place, path) or self.verified(place, path)
        except (UserError, OSError) as error:
            return error
        except Stopped as stopped:
            return stopped.number

    def recorded(self, place: int, path: Path) -> Verified | None:
        """What is known of a shard from before; None: nothing, or the shard has changed since."""
        record = self._record(place)
        if record is None or not record.exists():
            return None
        found = read_typed(record, Verified)
        if found.stamp != _stamp(path) or found.checks != _CHECKS:
            return None
        self.known.require_content(path, found.digests)
        self.known.require_count(path, found.samples)
        return found

    def verified(self, place: int, path: Path) -> Verified:
        """Read a shard to its end, and leave a record."""
        stamp = _stamp(path)
        digests = self.known.require_content(path)
        noise, has_noise, samples, first = NoiseMoments(), None, 0, ""
        for where, chunk in read_samples(path, self.wanted):
            self.check()
            has_noise = _require_alike(chunk.noise is not None, has_noise, where)
            if chunk.noise is not None:
                noise.add(chunk.noise, where)
            samples += len(chunk.cond)
            first = first or where
        self.known.require_count(path, samples)
        if _stamp(path) != stamp:
            raise ShardError(f"shard {path} has changed while it was read; run the same command again")
        found = Verified(stamp, digests, samples, first, noise.moments if has_noise else None)
        if (record := self._record(place)) is not None:
            write_json(record, asdict(found))
        return found

    def _record(self, place: int) -> Path | None:
        return None if self.records is None else self.records / f"{place:06d}.json"


def _stamp(path: Path) -> Stamp:
    require_regular(path)
    found = path.stat()
    return Stamp(str(path), found.st_size, found.st_mtime_ns)


def _require_alike(own: bool, before: bool | None, where: str) -> bool:
    """Whether samples have noise; `before`: those read so far, None: none was read."""
    if before is not None and own != before:
        has, had = ("noise", "have none") if own else ("no noise", "have")
        raise ShardError(f"{where} has {has}, those before it {had}; a set has noise throughout or nowhere")
    return own
