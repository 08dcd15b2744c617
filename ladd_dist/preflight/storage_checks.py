"""Checks of the folders that runs write to, and of clocks."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ladd_dist.builders.codec import is_pixels
from ladd_dist.builders.step import build_critic, build_heads
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.rundir import write_bytes
from ladd_dist.core.units import si
from ladd_dist.costs.flops import count_parameters
from ladd_dist.preflight.check import Check, Fail, Skip, Warn
from ladd_dist.preflight.machine_checks import Machine
from ladd_dist.stages.distill import is_distilled
from ladd_dist.stages.old_samples import are_old_samples_done
from ladd_dist.stages.sample_monitor import NUM_SHOWN
from ladd_dist.stages.shards import are_shards_done
from ladd_dist.stages.teacher import is_teacher_done
from ladd_dist.workspace.run import Run

WORD = 4
SPARE = 1.2
"""Factor that leaves room for reports, logs and images."""
SKEW_S = 2.0


def existing(folder: Path) -> Path:
    """The folder, or its nearest ancestor that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A temporary folder where `folder` is or would be.

    Raises:
        Fail: nothing can be written there.
    """
    place = existing(folder)
    try:
        made = tempfile.mkdtemp(prefix=".ladd-doctor-", dir=place)
    except OSError as error:
        raise Fail(
            f"{place} cannot be written to ({error.strerror})",
            cause="it belongs to somebody else, is mounted read-only, or is full",
            cure="choose writable folders with --out and --cache",
        ) from error
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def bytes_needed(run: Run) -> tuple[int, int]:
    """Estimated bytes that a run will still write into --cache and into --out."""
    recipe = run.recipe
    with torch.device("meta"):
        network = fresh_network(recipe)
        heads = build_heads(recipe, build_critic(recipe, network))
    image, shards, train = recipe.latent(), recipe.shards, recipe.train
    pixels = image.num_values
    teacher, judges = WORD * count_parameters(network), WORD * count_parameters(heads)
    cache = 0
    if not is_teacher_done(run):
        cache += 2 * 4 * teacher  # weights, both moments and the average, twice while a checkpoint replaces another
    word = 2 if shards.dtype == "float16" else 4
    if not are_old_samples_done(run):
        cache += train.old.num_samples * pixels * word * 2
    if not are_shards_done(run):
        cache += shards.num_samples * pixels * word * (2 + len(recipe.path_levels()))
    out = 0
    if not is_distilled(run):
        kept = train.keep_checkpoints + 1 + len(train.keep_steps)
        out += kept * (4 * teacher + 3 * judges) + teacher
        shown = recipe.dataset.spec()
        pictures = 0 if is_pixels(recipe) else 2 * shown.num_values
        out += (train.steps // train.dump_every + 1) * NUM_SHOWN * (3 * pixels + pictures) * WORD
    return round(SPARE * cache), round(SPARE * out)


def check_disk(machine: Machine) -> str:
    """Check that both folders can be written to, and have the room that the recipe needs."""
    workspace = machine.workspace
    needed = bytes_needed(Run(machine.recipe, workspace)) if machine.recipe else (0, 0)
    wanted: dict[int, int] = {}
    said = []
    for name, folder, size in (("--cache", workspace.cache, needed[0]), ("--out", workspace.runs, needed[1])):
        with scratch(folder) as own:
            target = own / "file"
            for content in (b"first", b"second"):  # written beside and renamed over the old one
                write_bytes(target, content)
                if target.read_bytes() != content:
                    raise Fail(
                        f"{existing(folder)}: a file that was renamed over another has the old content",
                        cause="a file system without atomic rename (some FUSE and object-store mounts)",
                        cure="put --out and --cache on a POSIX file system (local disk, NFS, Lustre)",
                    )
            device = own.stat().st_dev
        wanted[device] = wanted.get(device, 0) + size  # both may be on one disk
        free = shutil.disk_usage(existing(folder)).free
        if wanted[device] > free:
            raise Fail(
                f"{name} {folder}: about {si(wanted[device], 'B')} are needed, {si(free, 'B')} are free",
                cause="shards, checkpoints and dumps of this recipe",
                cure="free some space, choose another place with --out and --cache, fewer --shards.num-samples or "
                "--train.keep-checkpoints",
            )
        said.append(f"{name} {si(size, 'B')} of {si(free, 'B')} free")
    return "; ".join(said)


def check_locks(machine: Machine) -> str:
    """Check that a lock in the cache excludes a second process, as runs that share a teacher need it."""
    with scratch(machine.workspace.cache) as own:
        first, second = (FileLock(own / "lock") for _ in range(2))
        try:
            first.acquire(timeout=0)
        except (OSError, NotImplementedError, Timeout) as error:
            raise _no_locks(machine, f"cannot be locked ({error})") from error
        try:
            second.acquire(timeout=0)
        except Timeout:
            return f"a second holder is kept out in {existing(machine.workspace.cache)}"
        finally:
            first.release()
        second.release()
    raise _no_locks(machine, "can be locked twice")


def _no_locks(machine: Machine, how: str) -> Fail:
    return Fail(
        f"a file in {existing(machine.workspace.cache)} {how}",
        cause="a network file system without locks (NFS mounted with nolock, Lustre without flock)",
        cure="mount it with locks, put --cache elsewhere, or do not start runs that share a teacher together",
    )


def check_clocks(machine: Machine) -> str:
    """Check that this machine's clock agrees with that of the cache's file system, which other machines share."""
    ticks = [time.monotonic() for _ in range(100)]
    if sorted(ticks) != ticks:
        raise Fail("time.monotonic() goes back", cause="a broken virtual clock", cure="report it to the host's admin")
    with scratch(machine.workspace.cache) as own:
        target = own / "stamp"
        before = time.time()
        target.write_bytes(b"now")
        after, stamp = time.time(), target.stat().st_mtime
    ahead = max(before - stamp, stamp - after, 0.0)
    built = Path(torch.__file__).stat().st_mtime
    if after < built - 86_400:
        raise Warn(
            f"it is {time.strftime('%Y-%m-%d', time.gmtime(after))} here, before PyTorch was installed",
            cause="the clock was never set",
            cure="set it (chrony, ntpd); W&B and TLS refuse clients whose clock is wrong",
        )
    if ahead > SKEW_S:
        raise Warn(
            f"the file system's clock and this machine's are {ahead:.0f} s apart",
            cause="the file server or this machine is not synchronised",
            cure="chrony or ntpd on both; until then times in logs and `ladd jobs` mislead, results do not",
        )
    return f"within {max(ahead, 0.001):.3f} s of the file system's"


def check_data(machine: Machine) -> str:
    """Check that the files of a dataset that tells of them are there; decodes none."""
    dataset = machine.require_recipe().dataset
    found = dataset.facts(machine.workspace.cache)
    if not found:
        raise Skip(f"dataset {dataset.name!r} is looked at when a training opens it")
    return ", ".join(f"{name} {text}" for name, text in found.items())


CHECKS: list[Check[Machine]] = [
    Check("disk", "Both folders can be written to, with room for the run", check_disk),
    Check("locks", "Locks work in the cache", check_locks),
    Check("data", "The data set's files are there", check_data),
    Check("clocks", "Clocks agree", check_clocks),
]
