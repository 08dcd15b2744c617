"""The shards that a source names, and what the files beside them say; none is opened here."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from ladd_dist.engine.shard_index import ShardError
from ladd_dist.engine.shard_sidecars import Sidecars

_ENDINGS = ("*.tar", "*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz")


def matching(source: str) -> list[Path]:
    """The files that a glob matches, or the shards in a folder, in order of their names; perhaps none."""
    return sorted({Path(path) for pattern in _patterns(source) for path in glob.glob(pattern)})


def _patterns(source: str) -> list[str]:
    if not os.path.isdir(source):  # noqa: PTH112  # not Path's, which raises where no such name can exist
        return [source]
    return [str(Path(glob.escape(source)) / ending) for ending in _ENDINGS]


def find_shards(source: str, path_levels: tuple[float, ...] = ()) -> tuple[list[Path], Sidecars]:
    """The shards of a source, and what is known of them; none is opened.

    Raises:
        ShardError: there is none, one is missing, or they do not have the teacher's states at `path_levels`.
        UserError: a file beside them is damaged.
    """
    paths = matching(source)
    if not paths:
        raise ShardError(f"shards.source: nothing matches {source!r}")
    known = Sidecars(paths)
    known.require_all(paths, _patterns(source))
    for folder in sorted({path.parent for path in paths} if path_levels else ()):
        if (levels := known.path_levels.get(folder, ())) != path_levels:
            raise ShardError(
                f"shards.source: start 'path' needs the teacher's states at levels {path_levels}, the shards in "
                f"{folder} have {f'them at {levels}' if levels else 'none'}; use start=stored or start=fresh"
            )
    return paths, known
