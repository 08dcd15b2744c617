"""A SLURM of four nodes on this machine, from Debian's packages: the tests marked `slurm` submit to it for real."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import REPO, Bench

import ladd_dist.recipe
from ladd_dist.core import plugin as registry

assert ladd_dist.recipe  # registers the core's plug-ins before the tables are copied

SCRIPT = REPO / "slurm" / "dev_cluster.sh"
PACKAGES = ("sbatch", "slurmctld", "slurmd", "munged")


@pytest.fixture(autouse=True)
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep files register plug-ins: those of one test are not there for the next."""
    monkeypatch.setattr(registry, "_tables", copy.deepcopy(registry._tables))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Commands without SLURM."""
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def development_cluster() -> Iterator[dict[str, str]]:
    """The variables that lead to the cluster; taken down at the end if it was not up before."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    missing = [name for name in PACKAGES if shutil.which(name, path=path) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"no SLURM to bring up here ({', '.join(missing) or 'not root'}): see docs/cluster.md")
    status = subprocess.run([SCRIPT, "status"], capture_output=True, text=True, timeout=60)
    was_up = "slurmctld: pid" in status.stdout  # somebody else's, even if one of its nodes is down
    up = subprocess.run([SCRIPT, "up"], capture_output=True, text=True, timeout=120)
    if up.returncode != 0:
        pytest.skip(f"the development cluster did not come up: {up.stderr.strip().splitlines()[-1]}")
    line = subprocess.run([SCRIPT, "env"], capture_output=True, text=True, timeout=60, check=True).stdout
    words = line.removeprefix("export ").replace("$PATH", os.environ["PATH"]).split()
    yield dict(word.partition("=")[::2] for word in words)
    if not was_up:
        subprocess.run([SCRIPT, "down"], timeout=120, check=False)


@pytest.fixture
def slurm(tmp_path: Path, development_cluster: dict[str, str]) -> Iterator[Bench]:
    """Commands that reach the cluster; jobs that a test leaves are cancelled."""
    bench = Bench(tmp_path, development_cluster)
    yield bench
    ids = [job["id"] for path in tmp_path.rglob("sweep.json") for job in json.loads(path.read_text())["jobs"]]
    if ids:
        environment = {**os.environ, **development_cluster}
        subprocess.run(["scancel", "--quiet", *ids], env=environment, timeout=60, check=False)  # most have ended


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with teacher and shards."""
    bench = Bench(tmp_path_factory.mktemp("trained"))
    bench("launch", bench.sweep_file("(), seeds=(0,)"), "--stages", "teacher,shards", "--scale", "smoke")
    return bench.cache


@pytest.fixture
def ready(slurm: Bench, trained: Path) -> Bench:
    """Commands that reach the cluster; teacher and shards are there."""
    return Bench(slurm.folder, slurm.variables, trained)
