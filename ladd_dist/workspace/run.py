"""`Run`: a recipe and the workspace that it runs in, which is all that a stage needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ladd_dist.core.names import is_name
from ladd_dist.core.rundir import RunDir
from ladd_dist.parallel.ranks import SINGLE, Ranks
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.swap import SWAPPED
from ladd_dist.workspace.workspace import Workspace


@dataclass(frozen=True)
class Run:
    """A recipe in a workspace. Its folders follow from the recipe's signatures; none of them need exist yet."""

    recipe: Recipe
    workspace: Workspace

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        return self.workspace.device

    @property
    def ranks(self) -> Ranks:
        """This process among those that work on the run."""
        return self.workspace.ranks

    @property
    def folder(self) -> RunDir:
        """The run's own folder."""
        return RunDir(self.workspace.runs / f"{self.recipe.name}-{self.recipe.distill_signature()}")

    @property
    def autoencoder_folder(self) -> Path:
        """The folder of the codec that the stage `autoencoder` trains."""
        return self.workspace.cache / f"autoencoder-{self.recipe.autoencoder_signature()}"

    @property
    def features_folder(self) -> Path:
        """The folder of the feature network that the stage `features` trains."""
        return self.workspace.cache / f"class_features-{self.recipe.features_signature()}"

    @property
    def teacher_folder(self) -> Path:
        """The folder of the teacher's weights."""
        return self.workspace.cache / f"teacher-{self.recipe.teacher_signature()}"

    @property
    def shards_folder(self) -> Path:
        """The folder of the teacher's stored samples."""
        return self.workspace.cache / f"shards-{self.recipe.shards_signature()}"

    @property
    def old_folder(self) -> Path:
        """The folder of the samples of old conditions that the student before training made."""
        return self.workspace.cache / f"old-{self.recipe.old_signature()}"

    @property
    def reference_folder(self) -> Path:
        """The folder of the teacher's own evaluation."""
        return self.workspace.cache / f"reference-{self.recipe.reference_signature()}"

    def alone(self) -> Run:
        """The same run for rank 0 by itself, while the other ranks wait or after they have left."""
        return self.among(SINGLE)

    def among(self, ranks: Ranks) -> Run:
        """The same run as seen by one of several processes."""
        return dataclasses.replace(self, workspace=dataclasses.replace(self.workspace, ranks=ranks))


def as_found(run: Run) -> Run:
    """The run under the name with which another sweep or launch has begun the same one: one folder, not two."""
    if run.folder.path.exists():
        return run
    for folder in sorted(run.workspace.runs.glob(f"*-{run.recipe.distill_signature()}")):
        name = folder.name.rpartition("-")[0]
        if RunDir(folder).config.is_file() and is_name(name):
            return named(run, name)
    return run


def as_begun(run: Run, arguments: Sequence[str]) -> Run:
    """The run under its recipe's bare name where it was begun so, by a version or a sweep that left swaps out.

    Args:
        arguments: of the command line; a name given there stays.
    """
    if any(word.partition("=")[0] == "--name" for word in arguments):
        return run
    former = named(run, run.recipe.name.partition(SWAPPED)[0])
    return former if former.folder.config.is_file() and not run.folder.config.is_file() else run


def named(run: Run, name: str) -> Run:
    """The run under another name, which gives it another folder."""
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, name=name))
