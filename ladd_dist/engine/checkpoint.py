"""Checkpoints: a folder a step, visible only when whole; the newest ones are kept."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from ladd_dist.core.rundir import commit_folder, load_state, save_state


class Checkpoints:
    """The checkpoints of one training under `folder`; `identity` is the signature of what is trained."""

    def __init__(self, folder: Path, *, identity: str, keep: int) -> None:
        self.folder, self.identity, self.keep = folder, identity, keep

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(r"step-(\d+)", path.parent.name) for path in self.folder.glob("*/state.pt"))
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` updates, then drop all but the newest `keep` checkpoints."""
        whole = {"identity": self.identity, "step": step, **state}
        commit_folder(self.path(step), lambda temporary: save_state(temporary / "state.pt", whole))
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))

    def load_latest(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state, or None when there is none.

        Raises:
            ValueError: damaged, or of another recipe.
        """
        steps = self.steps()
        if not steps:
            return None
        path = self.path(steps[-1])
        try:
            state = load_state(path / "state.pt", device)
        except ValueError as error:
            raise ValueError(f"checkpoint {path}: {error}") from error
        if state.get("identity") != self.identity:
            raise ValueError(
                f"checkpoint {path} belongs to another recipe (signature {state.get('identity')}, this one is "
                f"{self.identity}); move it away, or give --from-scratch to start over"
            )
        return state

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)
