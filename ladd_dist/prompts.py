"""`python -m ladd_dist.prompts`: prompts to train with, one a line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from ladd_dist.cli.arguments import read
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.ranges import AnyInteger, Within

PROG = "python -m ladd_dist.prompts"


@dataclass(frozen=True)
class Options:
    """Print prompts of many kinds, no two alike, for `--dataset.file`: `ladd prompts --count 20000 > prompts.txt`."""

    count: Annotated[int, Within("[1, 1000000]")] = 20_000
    """Number of prompts."""
    seed: AnyInteger = 0
    """Seed of the choice: the same prompts for the same seed, in every version."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, arguments, prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.datasets.prompt_writer import written_prompts

    for prompt in written_prompts(options.count, seed=options.seed):
        print(prompt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
