"""What is known of shards besides themselves: files beside them that count their samples, or hold their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ladd_dist.core.door import decode, read_bytes, read_typed, require_regular
from ladd_dist.engine.shard_index import INDEX, ShardError, decode_index

SIZES = "sizes.json"
_STATS = "_stats.json"
Digest = tuple[str, str]
"""Algorithm, hexadecimal checksum."""
_REMEDY = "fetch it again with the shards, or remove it to import them without what it says"


@dataclass(frozen=True, slots=True)
class _WidsShard:
    url: str
    nsamples: int
    filesize: int | None = None
    md5sum: str | None = None


@dataclass(frozen=True, slots=True)
class _Wids:
    shardlist: list[_WidsShard]


@dataclass(frozen=True, slots=True)
class _Stats:
    successes: int


@dataclass(frozen=True, slots=True)
class Known:
    """What one file says of a shard."""

    said_by: Path
    samples: int
    bytes: int | None = None
    digest: Digest | None = None


class Sidecars:
    """What the files beside shards say of them.

    They are this package's `index.json`, WebDataset's of that name (`wids`), `sizes.json` (a count for each name), and
    `NAME_stats.json` as img2dataset writes it.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files beside shards.

        Raises:
            UserError: such a file is damaged; the message names it.
        """
        self._known: dict[Path, list[Known]] = {}
        self.path_levels: dict[Path, tuple[float, ...]] = {}
        """Levels of the stored path states, by the folder of shards of this package."""
        for folder in sorted({path.parent for path in paths}):
            self._read_index(folder)
            if (folder / SIZES).exists():
                for name, samples in read_typed(folder / SIZES, dict[str, int], _REMEDY).items():
                    self._add(folder / name, Known(folder / SIZES, samples))
        for path in paths:
            stats = path.with_name(path.name.partition(".")[0] + _STATS)
            if stats.exists():
                self._add(path, Known(stats, read_typed(stats, _Stats, _REMEDY).successes))

    def _read_index(self, folder: Path) -> None:
        path = folder / INDEX
        if not path.exists():
            return
        content = read_bytes(path)
        data = decode(content, Any, str(path), _REMEDY)
        if not isinstance(data, dict):
            return
        if "shardlist" in data:
            for item in decode(content, _Wids, str(path), _REMEDY).shardlist:
                digest = ("md5", item.md5sum) if item.md5sum else None
                name = item.url.rpartition("/")[2]
                self._add(folder / name, Known(path, item.nsamples, item.filesize, digest))
        elif "format" in data and "shards" in data:
            index = decode_index(content, path)
            self.path_levels[folder] = index.path_levels
            for shard in index.shards:
                self._add(folder / shard.name, Known(path, shard.samples, shard.bytes, ("sha256", shard.sha256)))

    def _add(self, path: Path, known: Known) -> None:
        self._known.setdefault(path, []).append(known)

    def require_all(self, paths: Iterable[Path], patterns: Iterable[str]) -> None:
        """Refuse a set in which a shard is missing that a file beside the others names and one of `patterns` matches.

        Raises:
            ShardError: names the shard and the file.
        """
        found = set(paths)
        for path, known in self._known.items():
            if path not in found and any(fnmatch(path.name, Path(pattern).name) for pattern in patterns):
                raise ShardError(
                    f"shard {path} is missing: {known[0].said_by} names it; fetch it, or choose shards without it"
                )

    def require_content(self, path: Path, compared: Sequence[Digest] = ()) -> tuple[Digest, ...]:
        """Compare size and checksums of a shard with what is known, before anything in it is looked at.

        Args:
            compared: checksums that its bytes are known to have, which are not computed again.

        Returns:
            The checksums that its bytes have.

        Raises:
            ShardError: they differ; the message names both files.
        """
        size, digests = require_regular(path), list(compared)
        for known in self._known.get(path, ()):
            if known.bytes is not None and known.bytes != size:
                raise ShardError(
                    f"shard {path} is damaged: {size:,} bytes, {known.said_by} says {known.bytes:,}; fetch it again"
                )
            if known.digest is not None and known.digest not in digests:
                algorithm, said = known.digest
                with path.open("rb") as stream:
                    own = hashlib.file_digest(stream, algorithm).hexdigest()
                if own != said:
                    raise ShardError(
                        f"shard {path} is damaged: its {algorithm} is not that of {known.said_by}; fetch it again"
                    )
                digests.append(known.digest)
        return tuple(digests)

    def require_count(self, path: Path, samples: int) -> None:
        """Compare the samples that were read with what is known.

        Raises:
            ShardError: they differ; the message names both files.
        """
        for known in self._known.get(path, ()):
            if known.samples != samples:
                raise ShardError(
                    f"shard {path} holds {samples:,} samples, {known.said_by} says {known.samples:,}; fetch both again"
                )
