"""W&B runs read back: from their folders, with W&B's own `wandb leet inspect`, and from a server."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.figure_names import evaluation_of
from ladd_dist.core.metrics_log import MOST_STEPS
from ladd_dist.core.run_forms import MOST_FIGURE

TIMEOUT_S = 120.0
"""Seconds that reading one folder may take."""
BATCH = 20
"""Folders that one process reads: W&B's client takes longer to start than to read one."""
END = "end of folder"
NOT_FINITE = re.compile(r"(?<=[:,\[])\s*(?:NaN|-?Infinity)\b")
READ = f"""
import json, sys
from wandb.cli.cli import cli
for folder in sys.argv[1:]:
    try:
        code = cli.main(["leet", "inspect", "--json", folder], prog_name="wandb", standalone_mode=False)
    except SystemExit as exit:
        code = exit.code
    print(json.dumps({{"type": "{END}", "code": code or 0}}), flush=True)
"""
"""The command `wandb leet inspect --json FOLDER` for each argument, in one process."""


@dataclass(frozen=True)
class RunData:
    """One run as W&B knows it."""

    name: str
    """The run folder's, NAME-SIGNATURE."""
    signature: str
    """Of the distillation; empty for a run that is not of this package."""
    config: Mapping[str, object]
    """As in config.json (`recipe`, `scale`, ...), and `sweep`, `axes`."""
    summary: dict[str, float]
    """`eval/SAMPLER/NAME` of a run that was evaluated, and the last row."""
    rows: list[dict[str, float]]
    """As in metrics.jsonl: `step` and the figures."""
    source: str
    """The folder, or the run's address."""
    group: str = ""
    tags: tuple[str, ...] = ()
    state: str = ""
    """finished, running, crashed, failed, preempted ...; offline: finished, failed or crashed."""
    id: str = ""

    def evaluation(self) -> dict[str, dict[str, float]]:
        """The figures in the form of eval.json, by their present names."""
        return evaluation_of(self.summary)


class _Change(TypedDict, total=False):
    """A change of the run's configuration or summary."""

    update: dict[str, object]
    remove: list[str]


class _RunBody(TypedDict, total=False):
    """What W&B knows of a run when it starts."""

    run_id: str
    display_name: str
    run_group: str
    tags: list[str] | None
    config: _Change | None
    summary: _Change | None


class _HistoryBody(TypedDict, total=False):
    """One call of `run.log`."""

    item: dict[str, object]


class _Record(TypedDict, total=False):
    """A line of `wandb leet inspect --json`: `type` names the one body that it has."""

    type: str
    code: int
    """Of our own line between two folders."""
    run: _RunBody | None
    config: _Change | None
    summary: _Change | None
    history: _HistoryBody | None
    exit: dict[str, object] | None


@dataclass
class _Parts:
    """What the records of a folder add up to."""

    run: _RunBody = field(default_factory=_RunBody)
    config: dict[str, object] = field(default_factory=dict)
    summary: dict[str, object] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    state: str = "crashed"


def offline_runs(path: Path) -> list[RunData]:
    """The runs whose W&B folders (`[offline-]run-DATE-ID`) lie at or below `path`, each once.

    A run that was interrupted has a folder for each part; they become one run here, as on a server after `wandb sync`.

    Raises:
        UserError: there are none, or W&B cannot read one.
    """
    folders = sorted({file.parent for file in path.rglob("*.wandb") if "run-" in file.parent.name}, key=_age)
    if not folders:
        raise UserError(f"{path} has no W&B runs (folders wandb/offline-run-*/ with a file run-*.wandb)")
    workers = min(4, os.cpu_count() or 1)
    size = max(1, min(BATCH, -(-len(folders) // workers)))
    with ThreadPoolExecutor(workers) as pool:  # the reading is done by other processes
        parts = list(pool.map(_read, [folders[first : first + size] for first in range(0, len(folders), size)]))
    joined: dict[tuple[str, str], RunData] = {}
    for run in itertools.chain.from_iterable(parts):
        key = (run.id, run.signature)
        joined[key] = _join(joined[key], run) if key in joined else run
    return list(joined.values())


def read_folder(folder: Path) -> RunData:
    """The run, or part of a run, in one folder `[offline-]run-DATE-ID`; whole rows only when it was killed.

    Raises:
        UserError: W&B cannot read it.
    """
    return _read([folder])[0]


def _read(folders: Sequence[Path]) -> list[RunData]:
    """Read some folders by one process.

    Raises:
        UserError: W&B cannot read one; names it.
    """
    command = [sys.executable, "-c", READ, *(str(folder.absolute()) for folder in folders)]
    with tempfile.TemporaryDirectory() as elsewhere:  # W&B's commands leave a folder wandb/ where they are called
        told: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
        try:
            done = subprocess.run(command, **told, timeout=TIMEOUT_S * len(folders), cwd=elsewhere)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{folders[0]} cannot be read: W&B takes more than {error.timeout:g} s") from error
    read: list[RunData] = []
    parts = _Parts()
    for line in done.stdout.splitlines():
        what = f"what W&B says of {folders[min(len(read), len(folders) - 1)]}"
        record = decode(NOT_FINITE.sub("null", line), _Record, what, "leave the run out")
        if record.get("type") != END:
            _add(parts, record)
        elif record.get("code"):
            break
        else:
            read.append(_run_of(parts, folders[len(read)]))
            parts = _Parts()
    if len(read) == len(folders):
        return read
    broken = folders[len(read)]
    if len(folders) > 1:
        read_folder(broken)  # once more by itself, for its own message
    raise UserError(f"{broken} cannot be read: {done.stderr.strip() or done.stdout.strip()}")


def _run_of(parts: _Parts, folder: Path) -> RunData:
    run, config = parts.run, {name: value for name, value in parts.config.items() if name != "_wandb"}
    return RunData(
        name=str(config.get("name") or run.get("display_name") or run.get("run_id", "")),
        signature=str(config.get("signature", "")),
        config=config,
        summary=_numbers(parts.summary),
        rows=parts.rows,
        source=str(folder),
        group=str(run.get("run_group", "")),
        tags=tuple(run.get("tags") or ()),
        state=parts.state,
        id=str(run.get("run_id", "")),
    )


def server_runs(path: str, timeout_s: int = 30) -> list[RunData]:
    """The runs of `ENTITY/PROJECT[/GROUP]` on the W&B server, oldest first.

    Raises:
        UserError: no such project, no access, the server does not answer.
    """
    import wandb

    entity, _, rest = path.partition("/")
    project, _, group = rest.partition("/")
    if not entity or not project:
        raise UserError(f"a W&B project is named ENTITY/PROJECT or ENTITY/PROJECT/GROUP, got {path!r}")
    try:
        api = wandb.Api(timeout=timeout_s)
        runs = list(api.runs(f"{entity}/{project}", filters={"group": group} if group else {}, order="+created_at"))
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(_from_api, runs))
    except Exception as error:
        raise UserError(f"the W&B runs of {path} cannot be read: {type(error).__name__}: {error}") from error


def _from_api(run: Any) -> RunData:
    # An Api made anew leaves history and summary until they are asked for, and gives config as a plain dict.
    config = {name: value for name, value in dict(run.config).items() if name != "_wandb"}
    summary = run.summary
    return RunData(
        name=str(config.get("name") or run.name),
        signature=str(config.get("signature", "")),
        config=config,
        summary=_numbers(dict(summary.items())),
        rows=_once(_rows(run.scan_history())),
        source=str(run.url),
        group=str(run.group or ""),
        tags=tuple(run.tags or ()),
        state=str(run.state),
        id=str(run.id),
    )


def _add(parts: _Parts, record: _Record) -> None:
    kind = record.get("type")
    if kind == "run" and (run := record.get("run")):
        parts.run = {**parts.run, **run}
        _update(parts.config, run.get("config") or {})
        _update(parts.summary, run.get("summary") or {})
    elif kind == "config":
        _update(parts.config, record.get("config") or {})
    elif kind == "summary":
        _update(parts.summary, record.get("summary") or {})
    elif kind == "history":
        parts.rows += _rows([(record.get("history") or {}).get("item", {})])
    elif kind == "exit":
        parts.state = "failed" if (record.get("exit") or {}).get("exit_code") else "finished"


def _update(target: dict[str, object], change: _Change) -> None:
    target.update(change.get("update", {}))
    for name in change.get("remove", []):
        target.pop(name, None)


def _rows(history: Iterable[Mapping[str, object]]) -> list[dict[str, float]]:
    """Rows with `step` and the figures, without W&B's own keys, without pictures, and without rows of nothing else."""
    rows = []
    for item in history:
        numbers = _numbers(item)
        figures = {name: value for name, value in numbers.items() if not name.startswith("_")}
        if figures and 0 <= (step := numbers.get("_step", -1)) <= MOST_STEPS:
            rows.append({"step": int(step), **figures})
    return rows


def _once(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """Each step once, in order; `wandb sync` adds a run to what the server has of it, so a step may come twice."""
    last = {row["step"]: row for row in rows}
    return [last[step] for step in sorted(last)]


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """The numbers, without those that describe a picture (in a folder's records NAME._type, NAME.width and so on)."""
    media = tuple(name.removesuffix("_type") for name in values if name.endswith("._type"))
    numbers = {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if media:
        numbers = {name: value for name, value in numbers.items() if not name.startswith(media)}
    return {name: value for name, value in numbers.items() if abs(value) <= MOST_FIGURE}


def _join(first: RunData, second: RunData) -> RunData:
    """Join two parts of a run, the later one second."""
    return replace(
        second,
        config={**first.config, **second.config},
        summary={**first.summary, **second.summary},
        rows=_once([*first.rows, *second.rows]),
        source=f"{first.source} {second.source}",
        group=second.group or first.group,
        tags=second.tags or first.tags,
    )


def _age(folder: Path) -> tuple[str, str]:
    return folder.name.removeprefix("offline-").split("-")[1], folder.name  # run-DATE-ID
