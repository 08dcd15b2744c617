"""Ranks import somebody else's shards; each tells which of them it has read.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/distributed/import_worker.py SOURCE FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ladd_dist.core.errors import ShardError
from ladd_dist.engine import foreign_survey
from ladd_dist.engine.foreign_samples import Wanted
from ladd_dist.engine.shard_writer import Chunk
from ladd_dist.parallel.ranks import join
from ladd_dist.stages.shards import make_shards
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.foreign_source import recipe_of

READ: list[str] = []
_REAL = foreign_survey.read_samples


def counted(path: Path, wanted: Wanted) -> Iterator[tuple[str, Chunk]]:
    """The samples of a shard, which is noted."""
    READ.append(path.name)
    return _REAL(path, wanted)


def main(source: Path, folder: Path) -> None:
    foreign_survey.read_samples = counted
    with join("gloo", 60.0, needs_group=True) as ranks:
        workspace = Workspace(folder / "runs", folder / "cache", torch.device("cpu"), ranks)
        try:
            make_shards(Run(recipe_of(source), workspace))
        except ShardError as error:
            said = str(error)
        else:
            said = ""
        told = ranks.from_all((said, READ))
        if ranks.is_first:
            (folder / "told.json").write_text(json.dumps(told))
        ranks.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
