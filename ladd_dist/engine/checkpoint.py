"""Checkpoints: a folder a step, written by every rank while training goes on, visible only when whole.

How damage on disk is found is in `ladd_dist.engine.checkpoint_files`.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import publish
from ladd_dist.engine.checkpoint_files import META, Facts, Meta, facts_together, verified_meta, write_meta
from ladd_dist.parallel import QUANTITIES, FlatShard, Trainable
from ladd_dist.parallel.ranks import SINGLE, Ranks

if TYPE_CHECKING:
    # Imported where it is used: it needs `torch.distributed.checkpoint`, most of a second at the start of any command.
    from ladd_dist.engine.dcp_planners import FlatChunk


class Saved:
    """A checkpoint on disk."""

    def __init__(self, path: Path, meta: Meta) -> None:
        self.path, self.meta = path, meta
        self.step = int(meta["step"])

    def fill(self, parts: Mapping[str, FlatShard]) -> None:
        """Overwrite this rank's parts of tensors with what the checkpoint holds.

        Raises:
            UserError: damaged, or of other networks.
        """
        from torch.distributed.checkpoint import CheckpointException

        from ladd_dist.engine.dcp_planners import FlatChunk, read_chunks

        chunks = {
            name: FlatChunk(
                torch.empty(part.stop - part.start, dtype=part.tensor.dtype), part.start, part.shape.numel()
            )
            for name, part in parts.items()
            if part.stop > part.start
        }
        try:
            read_chunks(self.path, chunks)
        except (Exception, CheckpointException) as error:
            cause = _cause(error)
            raise UserError(
                f"checkpoint {self.path} cannot be read ({type(cause).__name__}: {cause}); delete it: the run goes on "
                "from the checkpoint before it"
            ) from error
        with torch.no_grad():
            for name, chunk in chunks.items():
                parts[name].fill(chunk.flat)

    def fill_module(self, prefix: str, module: nn.Module) -> None:
        """Overwrite the buffers of a plain module, and the weights that train, before a strategy takes it."""
        weights = {name: replicated(value) for name, value in module.named_parameters() if value.requires_grad}
        self.fill({f"{prefix}/weight/{name}": part for name, part in weights.items()} | buffers_of(prefix, module))

    def fill_optimizer(self, prefix: str, trainable: Trainable) -> None:
        """Overwrite the moments and counters of a network's optimizer.

        Raises:
            UserError: damaged, or of another network.
        """
        parts = state_of(prefix, trainable)
        self.fill({name: part for name, part in parts.items() if name.split("/")[1] in ("exp_avg", "exp_avg_sq")})
        try:
            trainable.set_counters(self.meta["counters"][prefix])
        except KeyError as error:
            raise UserError(f"checkpoint {self.path} has no counter {error} of {prefix}; delete it") from error


def replicated(tensor: Tensor) -> FlatShard:
    """A tensor that every rank holds."""
    return FlatShard(tensor.detach(), 0, tensor.numel(), tensor.shape, copies=True)


def buffers_of(prefix: str, module: nn.Module) -> dict[str, FlatShard]:
    """The persistent buffers of a module; ranks hold equal ones."""
    weights = {name for name, _ in module.named_parameters()}
    state = module.state_dict()
    return {f"{prefix}/buffer/{name}": replicated(value) for name, value in state.items() if name not in weights}


def state_of(prefix: str, trainable: Trainable) -> dict[str, FlatShard]:
    """All tensors of a network and its optimizer: fp32 weights and moments by parameter name, and buffers."""
    parts = {
        f"{prefix}/{quantity}/{name}": part
        for quantity in QUANTITIES
        for name, part in trainable.local(quantity).items()
    }
    return parts | buffers_of(prefix, trainable.module)


class Checkpoints:
    """The checkpoints of one training under `folder`."""

    def __init__(
        self, folder: Path, *, identity: str, keep: int, pinned: tuple[int, ...] = (), ranks: Ranks = SINGLE
    ) -> None:
        """
        Args:
            identity: the signature of the stage that trains; checkpoints of another are refused.
            keep: how many of the newest stay.
            pinned: steps whose checkpoints stay whatever their age.
        """
        self.folder, self.identity, self.keep, self.pinned, self.ranks = folder, identity, keep, pinned, ranks
        self._writing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, ascending, without those that `latest` found damaged."""
        return [step for step in self._found() if step not in self._damaged]

    def _found(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(r"step-(\d+)", path.parent.name) for path in self.folder.glob(f"*/{META}"))
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, parts: Mapping[str, FlatShard], facts: Facts, *, pinned: tuple[int, ...] = ()) -> None:
        """Write the state after `step` updates, in the background: what is written is the state at this call.

        Then all but the newest `keep` checkpoints go, except those pinned. Every rank calls this, at the same step.

        Args:
            pinned: steps whose checkpoints stay this time, besides those that always do.

        Raises:
            OSError: no room or not writable; that of the save before, if it failed.
        """
        from ladd_dist.engine.dcp_planners import write_chunks

        self.wait()
        chunks = {name: _share(part, self.ranks) for name, part in parts.items()}
        chunks = {name: chunk for name, chunk in chunks.items() if len(chunk.flat)}
        temporary = self.folder / f".tmp-{self.path(step).name}"
        if self.ranks.is_first:
            for left in self.folder.glob(".tmp-step-*"):  # by a kill; a folder has one training, which writes one
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.ranks.barrier()
        meta = cast(Meta, {"identity": self.identity, "step": step, "ranks": self.ranks.size, **facts})
        kept = {*self.pinned, *pinned}

        def write() -> None:
            write_chunks(temporary, chunks, self.ranks.groups.background)
            files = facts_together(temporary, self.ranks)
            if self.ranks.is_first:
                meta["files"] = files
                write_meta(temporary / META, meta)
                publish(temporary, self.path(step))
                self._damaged.discard(step)
                self._prune(step, kept)

        self._writing = threading.Thread(target=self._guarded, args=(write, temporary), daemon=True)
        self._writing.start()

    def _guarded(self, write: Callable[[], None], temporary: Path) -> None:
        try:
            write()
        except BaseException as error:
            self._failure = error
            if self.ranks.is_first:
                shutil.rmtree(temporary, ignore_errors=True)

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise _as_os_error(failure)

    @contextlib.contextmanager
    def complete(self) -> Iterator[None]:
        """Inside, checkpoints are saved; at the end, however it comes, the last one is on disk."""
        try:
            yield
        finally:
            self.wait()

    def _prune(self, newest: int, kept: set[int]) -> None:
        kept = kept | set(self.steps()[-self.keep :])
        for old in self._found():
            if old not in kept and (old not in self._damaged or old < newest):
                shutil.rmtree(self.path(old))

    def latest(self) -> Saved | None:
        """The newest whole checkpoint, or None when there is none at all; the same one on every rank.

        Damaged ones are passed over with one warning; they stay until they are pruned or written anew. The sha256 of
        each file is compared, which reads it whole: every rank calls this, and reads a share of the files.

        Raises:
            UserError: of another recipe, or every one is damaged.
        """
        damage: list[str] = []
        for step in reversed(self.ranks.from_rank0(self._found)):
            saved, problem = self._verified(step)
            if saved is not None:
                if damage and self.ranks.is_first:
                    line = f"warning: {'; '.join(damage)}; going on from the checkpoint before, of step {step}"
                    print(line, file=sys.stderr, flush=True)
                return saved
            damage.append(problem)
            self._damaged.add(step)
        if damage:
            raise UserError(
                f"{damage[0]}; no whole checkpoint is left: delete the folder {self.folder}, and the same command "
                "starts from step 0, to the same result"
            )
        return None

    def at(self, step: int) -> Saved:
        """The checkpoint of a step; every rank calls this.

        Raises:
            UserError: missing, damaged, or of another recipe.
        """
        saved, problem = self._verified(step)
        if saved is None:
            raise UserError(f"{problem}; take another step, by --step, or delete its folder")
        return saved

    def _verified(self, step: int) -> tuple[Saved | None, str]:
        path = self.path(step)
        meta, problem = verified_meta(path, step, self.ranks)
        if meta is not None and meta["identity"] != self.identity:
            raise UserError(
                f"checkpoint {path} belongs to another recipe (signature {meta['identity']}, this one is "
                f"{self.identity}); move it away, or give --from-scratch to start over"
            )
        return (None, f"checkpoint {path} is damaged ({problem})") if meta is None else (Saved(path, meta), "")

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps; every rank calls this."""
        self.wait()
        if self.ranks.is_first:
            for later in self._found():
                if later > step:
                    shutil.rmtree(self.path(later))
        self.ranks.barrier()

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _share(part: FlatShard, ranks: Ranks) -> FlatChunk:
    """This rank's chunk of a tensor, as a copy on the CPU; ranks that all hold it write an equal share each."""
    from ladd_dist.engine.dcp_planners import FlatChunk

    total = part.shape.numel()
    start, stop = part.start, part.stop
    if part.copies:
        start, stop = total * ranks.rank // ranks.size, total * (ranks.rank + 1) // ranks.size
    flat = part.tensor.detach().reshape(-1)[start - part.start : stop - part.start]
    return FlatChunk(flat.to("cpu", copy=True), start, total)


def _cause(failure: BaseException) -> BaseException:
    """The reason behind DCP's collective complaint."""
    from torch.distributed.checkpoint import CheckpointException

    return next(iter(failure.failures.values()))[0] if isinstance(failure, CheckpointException) else failure


def _as_os_error(failure: BaseException) -> BaseException:
    """The failure to write as an error with an errno, from which the message for the user is made."""
    failure = _cause(failure)
    if not isinstance(failure, OSError) and "No space left" in str(failure):
        return OSError(errno.ENOSPC, "No space left on device")
    return failure
