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
from typing import Any

from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.figure_names import evaluation_of, features_in_summary
from ladd_dist.trackers.wandb_records import Parts, Record, add_record, numbers_of, rows_of

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
    features: Mapping[str, str] = field(default_factory=dict)
    """Name of the features that each figure of the summary was measured in; runs of older versions name none."""

    def evaluation(self) -> dict[str, dict[str, float]]:
        """The figures in the form of eval.json, by their present names."""
        return evaluation_of(self.summary)


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
    parts = Parts()
    for line in done.stdout.splitlines():
        what = f"what W&B says of {folders[min(len(read), len(folders) - 1)]}"
        record = decode(NOT_FINITE.sub("null", line), Record, what, "leave the run out")
        if record.get("type") != END:
            add_record(parts, record)
        elif record.get("code"):
            break
        else:
            read.append(_run_of(parts, folders[len(read)]))
            parts = Parts()
    if len(read) == len(folders):
        return read
    broken = folders[len(read)]
    if len(folders) > 1:
        read_folder(broken)  # once more by itself, for its own message
    raise UserError(f"{broken} cannot be read: {done.stderr.strip() or done.stdout.strip()}")


def _run_of(parts: Parts, folder: Path) -> RunData:
    run, config = parts.run, {name: value for name, value in parts.config.items() if name != "_wandb"}
    return RunData(
        name=str(config.get("name") or run.get("display_name") or run.get("run_id", "")),
        signature=str(config.get("signature", "")),
        config=config,
        summary=numbers_of(parts.summary),
        rows=parts.rows,
        source=str(folder),
        group=str(run.get("run_group", "")),
        tags=tuple(run.get("tags") or ()),
        state=parts.state,
        id=str(run.get("run_id", "")),
        features=features_in_summary(parts.summary),
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
    summary = dict(run.summary.items())
    return RunData(
        name=str(config.get("name") or run.name),
        signature=str(config.get("signature", "")),
        config=config,
        summary=numbers_of(summary),
        rows=_once(rows_of(run.scan_history())),
        source=str(run.url),
        group=str(run.group or ""),
        tags=tuple(run.tags or ()),
        state=str(run.state),
        id=str(run.id),
        features=features_in_summary(summary),
    )


def _once(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """Each step once, in order; `wandb sync` adds a run to what the server has of it, so a step may come twice."""
    last = {row["step"]: row for row in rows}
    return [last[step] for step in sorted(last)]


def _join(first: RunData, second: RunData) -> RunData:
    """Join two parts of a run, the later one second."""
    return replace(
        second,
        config={**first.config, **second.config},
        summary={**first.summary, **second.summary},
        rows=_once([*first.rows, *second.rows]),
        features={**first.features, **second.features},
        source=f"{first.source} {second.source}",
        group=second.group or first.group,
        tags=second.tags or first.tags,
    )


def _age(folder: Path) -> tuple[str, str]:
    return folder.name.removeprefix("offline-").split("-")[1], folder.name  # run-DATE-ID
