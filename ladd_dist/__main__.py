"""`ladd NAME ...` is `python -m ladd_dist.NAME ...`."""

from __future__ import annotations

import importlib
import sys

from ladd_dist.core.printable import printable_output
from ladd_dist.core.signals import arm

COMMANDS = {
    "launch": "run a recipe: teacher, shards, distillation, evaluation, report",
    "tune": "teach a finished few-step student new pictures, in the same few steps",
    "new": "write a recipe, a head and a cluster's profile of your own to start from",
    "prompts": "print prompts of many kinds to train with",
    "sweep": "run many recipes that differ along axes, on a cluster, here, or by W&B's agents",
    "plan": "which strategy fits on how many GPUs, worked out without one",
    "doctor": "look at this machine, and whether a recipe computes what it says",
    "plugins": "list plug-ins and check them",
    "levels": "search few-step levels for a teacher",
    "guidance": "measure which scale of guidance brings a teacher nearest to real images",
    "diagnose": "which levels will regress to the mean, before training; what a run saw, after it",
    "sample": "make pictures with a finished student",
    "evaluate": "measure a finished student, with metrics and samples you choose",
    "control": "learn a concept slider on teacher or student, use it on either, measure how it transfers",
    "export": "write a student as one file, with how to build and sample it",
    "compare": "say which variant wins, with what certainty, and which collapsed when",
    "jobs": "show what the runs of a sweep are doing, or end their jobs",
}
MODULES = {"levels": "ladd_dist.search_levels"}


@printable_output()
def main() -> None:
    """Dispatch to a command's module; exit with its code."""
    arm()
    name = sys.argv[1] if len(sys.argv) >= 2 else ""
    if name in COMMANDS:  # before the imports of what may be too old
        from ladd_dist.core.versions import require_versions

        require_versions()
    from ladd_dist.cli.renamed import RENAMED, answer
    from ladd_dist.core.closest import did_you_mean

    if name in ("-V", "--version"):
        from ladd_dist.cli.version import version_line

        print(version_line())
        sys.exit(0)
    if name in RENAMED:
        sys.exit(answer(name, sys.argv[2:]))
    if name not in COMMANDS:
        asked_help = name in ("-h", "--help")
        lines = ["usage: ladd COMMAND ... | --version", *(f"  {name:11s} {doc}" for name, doc in COMMANDS.items())]
        if name and not asked_help:
            lines.insert(0, f"error: unknown command {name!r}{did_you_mean(name, COMMANDS, '`ladd {}`')}")
        print("\n".join(lines), file=sys.stdout if asked_help else sys.stderr)
        sys.exit(0 if asked_help else 2)
    if sys.path[0] != "":  # a console script, unlike `python -m`, does not see the user's plug-ins and recipes
        sys.path.insert(0, "")
    sys.argv.pop(1)
    module = importlib.import_module(MODULES.get(name, f"ladd_dist.{name}"))
    sys.exit(module.main())


if __name__ == "__main__":
    main()
