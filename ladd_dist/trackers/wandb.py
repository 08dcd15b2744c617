"""Tracker for Weights & Biases: a copy of `metrics.jsonl` with pictures, brought up to date when the run is opened."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import netrc
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.figure_names import features_to_summary
from ladd_dist.core.metrics_log import read_rows
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Seconds
from ladd_dist.core.rundir import write_json
from ladd_dist.trackers import RunLog, Tracker
from ladd_dist.trackers.opening import warn

CLOUD = "https://api.wandb.ai"
PROJECT = "ladd"
Mode = Literal["auto", "online", "offline", "disabled"]

LONGEST_TAG = 64
"""Most characters of a tag that W&B takes."""
_offline: set[Path] = set()
"""Runs that this process tracks offline: they are announced once, and no server is waited for a second time."""


@register("wandb")
@dataclass(frozen=True)
class Wandb(Tracker):
    """Weights & Biases: online when a key is set, otherwise offline, for `wandb sync` later."""

    project: str = ""
    """Empty: WANDB_PROJECT, else "ladd"."""
    entity: str = ""
    """Empty: WANDB_ENTITY, else the one the server chooses for the key."""
    group: str = ""
    """Empty: the sweep that the run belongs to, else none."""
    tags: tuple[str, ...] = ()
    """Labels of the run."""
    mode: Mode = "auto"
    """auto: WANDB_MODE, else online when there is a key in WANDB_API_KEY or netrc, else offline."""
    base_url: str = ""
    """Empty: WANDB_BASE_URL, else W&B's own."""
    timeout_s: Seconds = 20.0
    """How long the server may take to answer at the start, and to take what is left at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        address = urlsplit(self.base_url)
        if self.base_url and not (address.scheme in ("http", "https") and address.hostname):
            raise UserError(f"wandb.base_url must be an address like https://wandb.example.org, got {self.base_url!r}")
        if wrong := [tag for tag in self.tags if not 1 <= len(tag) <= LONGEST_TAG]:
            raise UserError(f"wandb.tags have 1 to {LONGEST_TAG} characters each, got {wrong[0]!r}")

    def build(self, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
        folder = folder.absolute()
        mode, reason = self.choose_mode()
        if mode == "disabled":
            return RunLog()
        if folder in _offline:
            mode = "offline"
        elif reason:
            _offline.add(folder)
            later = f"bring the run over later with `{sync_command(folder)}`"
            print(f"tracker wandb: offline, because {reason}; {later}", file=sys.stderr, flush=True)
        return WandbLog(self, folder, config, online=mode == "online")

    def url(self) -> str:
        """The server's address."""
        return (self.base_url or os.environ.get("WANDB_BASE_URL") or CLOUD).rstrip("/")

    def choose_mode(self) -> tuple[str, str]:
        """The mode in force, and the reason for offline where nobody asked for it."""
        wished = os.environ.get("WANDB_MODE", "") if self.mode == "auto" else self.mode
        if wished in ("online", "offline", "disabled"):
            return wished, ""
        if os.environ.get("WANDB_API_KEY") or _in_netrc(urlsplit(self.url()).hostname or ""):
            return "online", ""
        return "offline", "there is no key in WANDB_API_KEY or netrc (`wandb login`)"


@dataclass(frozen=True)
class Card:
    """The contents of RUN/wandb.json: where the run is at W&B, and the last step it has there."""

    id: str = ""
    project: str = ""
    entity: str = ""
    group: str = ""
    url: str | None = None
    mode: str = ""
    last_step: int | None = None
    """None while the run is open, and after it was killed."""

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card of a run; an empty one where the file is missing or damaged."""
        with contextlib.suppress(UserError):
            return read_typed(path, cls)
        return cls()


class WandbLog(RunLog):
    """An open W&B run. Steps that W&B has already are not sent again; those it lacks are taken from metrics.jsonl."""

    def __init__(self, tracker: Wandb, folder: Path, config: Mapping[str, object], *, online: bool) -> None:
        (folder / "wandb").mkdir(exist_ok=True)  # W&B itself would go to the temporary folder without a word
        self.tracker, self.folder, self.card = tracker, folder, folder / "wandb.json"
        before = Card.read(self.card)
        self.run_id = run_id(before, str(config.get("signature", folder.name)))
        self.run, online = self._init(config, online)
        # Where it is: offline nobody but this folder knows.
        self.last = self.run.starting_step - 1 if online else last_step(folder, self.run_id, before)
        self.known = Card(
            id=self.run_id,
            project=self.run.project,
            entity=self.run.entity or tracker.entity,
            group=self.run.group or "",
            url=self.run.url if online else before.url,
            mode="online" if online else "offline",
        )
        write_json(self.card, dataclasses.asdict(self.known))  # the last step is known again when the run is closed
        for row in read_rows(folder / "metrics.jsonl")[0]:
            figures = dict(row)
            self.log(int(figures.pop("step")), figures)

    def _init(self, config: Mapping[str, object], online: bool) -> tuple[Any, bool]:
        """Open the run and say whether it is online; a server that is silent or refuses the key is one warning."""
        if online:
            try:
                return self._open(config, "online"), True
            except Exception as error:
                _offline.add(self.folder)
                warn("wandb", self.folder, error, self.advice())
                _forget()
        return self._open(config, "offline"), False

    def _open(self, config: Mapping[str, object], mode: Literal["online", "offline"]) -> Any:
        import wandb

        tracker, environment = self.tracker, os.environ
        with quiet():
            settings = wandb.Settings(
                base_url=tracker.url(),
                init_timeout=tracker.timeout_s,
                finish_timeout=tracker.timeout_s,
                finish_timeout_raises=True,
                silent=True,
                console="off",  # the run's output has progress bars, and may hold what is not for others
                disable_code=True,
                disable_job_creation=True,
            )
            return wandb.init(
                id=self.run_id,
                name=environment.get("WANDB_NAME") or str(config.get("name") or self.folder.name),
                project=tracker.project or environment.get("WANDB_PROJECT") or PROJECT,
                entity=tracker.entity or environment.get("WANDB_ENTITY") or None,
                group=tracker.group or str(config.get("sweep") or "") or environment.get("WANDB_RUN_GROUP") or None,
                job_type="distill",
                tags=list(tracker.tags) or None,
                config=dict(config),
                dir=str(self.folder),
                mode=mode,
                resume="allow",
                settings=settings,
            )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if step > self.last:
            self.run.log(metrics, step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        import wandb

        if step > self.last:
            self.run.log({name: wandb.Image(str(path))}, step=step)

    def summary(self, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        import wandb

        self.run.summary.update({**figures, **{name: wandb.Image(str(path)) for name, path in pictures.items()}})

    def features(self, names: Mapping[str, str]) -> None:
        self.run.summary.update(features_to_summary(names))

    def alert(self, title: str, text: str) -> None:
        self.run.alert(title, text[:1000])

    def close(self, *, interrupted: bool = False) -> None:
        last = max(self.last, int(self.run.step))
        try:
            with quiet():
                if interrupted:
                    self.run.mark_preempting()
                self.run.finish(exit_code=int(interrupted))
        except Exception:
            _offline.add(self.folder)
            raise
        write_json(self.card, dataclasses.asdict(dataclasses.replace(self.known, last_step=last)))

    def advice(self) -> str:
        return f"bring the run over later with `{sync_command(self.folder)}`"


def sync_command(folder: Path) -> str:
    """The command that brings a run's W&B data to the server."""
    return f"wandb sync --include-online {shlex.quote(str(folder / 'wandb'))}/*run-*"


def run_id(card: Card, signature: str) -> str:
    """The W&B run's id: an agent's for its trial, else the one in wandb.json, else from the signature.

    The same run has the same id after its folder, or wandb.json, was lost.
    """
    if os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"):
        return os.environ["WANDB_RUN_ID"]
    return card.id or hashlib.sha256(f"ladd-{signature}".encode()).hexdigest()[:12]


def last_step(folder: Path, run_id: str, card: Card) -> int:
    """The last step in the run's local W&B data; -1 if there are none."""
    folders = sorted((folder / "wandb").glob(f"*run-*-{run_id}*"))
    if not any(path.glob("*.wandb") for path in folders):
        return -1
    if card.id == run_id and card.last_step is not None:
        return card.last_step
    from ladd_dist.trackers.wandb_read import read_folder  # it was killed: only the data know (about a second)

    rows = [row for path in folders for row in read_folder(path).rows]
    return max((int(row["step"]) for row in rows), default=-1)


def _in_netrc(host: str) -> bool:
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _forget() -> None:
    """End W&B's process: it would hold the id of a run that could not be opened."""
    import wandb

    with quiet(), contextlib.suppress(Exception):
        wandb.teardown()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence W&B, which writes some lines whatever its settings; the tracker says what matters, in one line."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        yield
