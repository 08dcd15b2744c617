"""`python -m ladd_dist.new NAME`: a recipe, a head and a cluster's profile of the user's own to start from."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.errors import RecipeError

PROG = "python -m ladd_dist.new"
RECIPE = '''"""NAME: say here what this experiment is to find out."""

from NAME_head import CLASS

from ladd_dist.recipe import Axis, Sweep
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(name="NAME", note="exp7 with a head of my own.", head=CLASS())

SWEEP = Sweep(name="NAME", base=RECIPE, axes=(Axis("head", (CLASS(), SpectralNorm())),), seeds=(0, 1))
'''
HEAD = '''"""The head of NAME.py: what tells the teacher's features from the student's."""

from dataclasses import dataclass

from torch import Tensor, nn

from ladd_dist.core.plugin import register
from ladd_dist.heads import Head


class CLASSModule(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 1, 1))

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return self.body(features).flatten(1)  # [B,c,h,w] -> logits [B,K], here one for each place


@register("NAME_head")
@dataclass(frozen=True)
class CLASS(Head):
    """Patch logits from two convolutions."""

    width: int = 32

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return CLASSModule(channels, self.width)
'''
CLUSTER = '''"""Where the runs of NAME.py are computed. On SLURM, take out `executor` and set what it asks for."""

from ladd_dist.cluster import Cluster

CLUSTER = Cluster(
    executor="local",  # this machine, without SLURM
    # partition="gpu",
    # gpus_per_node=1,
    # cpus_per_task=8,
    # memory_gb=32,
    array_parallelism=1,  # runs at the same time
    time_min=4 * 60,
    signal_delay_s=30,
)
'''
TEXTS = {"NAME.py": RECIPE, "NAME_head.py": HEAD, "NAME_cluster.py": CLUSTER}
"""The files, with NAME for the name and CLASS for the name of the head's class."""


@dataclass(frozen=True)
class Options:
    """Write NAME.py (a recipe and a sweep), NAME_head.py and NAME_cluster.py to start from; they run as they are."""

    name: tyro.conf.Positional[str]
    """Name of the experiment, like my_heads: small letters, digits and _, as the files are Python modules."""
    folder: Path = Path()
    """Where to write them. A file that is there already is never replaced."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(read(Options, arguments, prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.core.rundir import write_bytes
    from ladd_dist.core.targets import output_folder

    name, folder = options.name, output_folder(options.folder, "--folder")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
        raise RecipeError(f"{name!r}: a name is small letters, digits and _, and begins with a letter, like my_heads")
    head = "".join(part.capitalize() for part in f"{name}_head".split("_"))
    texts = {
        folder / file.replace("NAME", name): text.replace("NAME", name).replace("CLASS", head)
        for file, text in TEXTS.items()
    }
    if there := [str(path) for path in texts if path.exists() or path.is_symlink()]:
        raise RecipeError(f"{', '.join(there)}: there already, and never replaced; choose another name or --folder")
    if taken := [path.stem for path in texts if importlib.util.find_spec(path.stem) is not None]:
        raise RecipeError(f"{name!r}: Python has a module {taken[0]} already, which these files would hide")
    for path, text in texts.items():
        write_bytes(path, text.encode())
        print(path)
    recipe, own, cluster = (shlex.quote(str(path)) for path in texts)
    print(f"\nladd launch {recipe} --scale smoke          # the whole of it, in a minute; then without --scale")
    print(f"ladd sweep {recipe} --on {cluster}          # your head beside a shipped one, two seeds each")
    print(f"ladd plugins --check {name}_head --plugins {name}_head          # after a change of {own}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
