"""Every finished run's own recipe.lock: what it depended on, for `launch --locked`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ladd_dist import __version__
from ladd_dist.builders.student_file import load_student
from ladd_dist.core.checkout import current_commit
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import RunConfig, read_evaluation
from ladd_dist.core.rundir import weights_sha256
from ladd_dist.recipe.plugin_sources import describe_plugins
from ladd_dist.stages.distill import is_distilled
from ladd_dist.stages.evaluate import is_evaluated
from ladd_dist.workspace.config import read_config
from ladd_dist.workspace.lock import FILE, Lock, data_identity, read_lock, signatures
from ladd_dist.workspace.run import Run


def write_lock(run: Run) -> Path | None:
    """Write RUN/recipe.lock, unless it says what there is already; None where the run is not finished.

    Raises:
        UserError: the student's or the teacher's file is damaged.
    """
    if not (is_distilled(run) and is_evaluated(run)):
        return None
    path, config = run.folder.path / FILE, read_config(run.folder)
    if not _is_current(path, run, config):
        describe(run, config).write(path)
    return path


def _is_current(path: Path, run: Run, config: RunConfig) -> bool:
    """Whether the lock is of these figures and of the student that is there.

    Raises:
        UserError: the lock is of these figures, and the student's file is damaged or holds other weights.
    """
    try:
        lock = read_lock(path)
    except UserError:
        return False
    made = (lock.version, lock.command, lock.environment, lock.signatures, lock.eval)
    own = (config.version, config.command, config.environment, signatures(run.recipe), read_evaluation(run.folder.eval))
    return made == own and _is_locked_student(lock, run)


def _is_locked_student(lock: Lock, run: Run) -> bool:
    file = run.folder.student
    if _file_sha256(file) == lock.student.get("file_sha256"):
        return True
    network, _ = load_student(run.folder.path, torch.device("cpu"))
    if weights_sha256(network.state_dict()) != lock.student.get("weights_sha256"):
        raise UserError(
            f"{file} does not hold the weights whose figures {run.folder.path / FILE} has; delete it, "
            f"evaluate.done.json and {FILE} in that folder, and the same command makes them again"
        )
    return False  # the same weights in another file


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(run: Run, config: RunConfig) -> Lock:
    """The lock of a run that has its student and its figures.

    Raises:
        UserError: the student's or the teacher's file is damaged.
    """
    folder = run.folder
    network, card = load_student(folder.path, torch.device("cpu"))
    if card["signature"] != config.signature:
        raise UserError(f"{folder.student} has signature {card['signature']}, its run has {config.signature}")
    commit = str(config.environment.get("commit", "unknown"))
    return Lock(
        run=folder.path.resolve().name,
        recipe_path=config.recipe_path,
        scale=config.scale,
        command=config.command,
        version=config.version,
        commit=commit.removesuffix("-dirty"),
        dirty=commit.endswith("-dirty"),
        environment=config.environment,
        recipe=config.recipe,
        signatures=signatures(run.recipe),
        plugins=config.plugins,
        plugin_classes=describe_plugins(run.recipe),
        data=data_identity(run),
        student={
            "file_sha256": _file_sha256(folder.student),
            "weights_sha256": weights_sha256(network.state_dict()),
        },
        eval=read_evaluation(folder.eval),
        hashed_version=__version__,
        hashed_commit=current_commit(),
    )
