"""Runs to compare, read from their folders, from sweeps and from W&B; whatever cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.figure_names import evaluation_of
from ladd_dist.core.metrics_log import read_rows
from ladd_dist.core.run_forms import Evaluation, features_of, figures_of, read_evaluation, read_run_config
from ladd_dist.core.rundir import RunDir
from ladd_dist.reports.collapse import UNKNOWN, Onset, from_number, onset
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.run_files import Metrics
from ladd_dist.reports.tunings import is_tuning
from ladd_dist.workspace.progress import folder_of
from ladd_dist.workspace.sweep_record import FILE, read_record


class Unreadable(ValueError):
    """A run that cannot be compared; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Run:
    """One run's recipe, figures and training curves, wherever they came from."""

    name: str
    signature: str
    recipe: Mapping[str, object]
    """As data, with every field."""
    figures: Mapping[str, Mapping[str, float]]
    """As in eval.json; empty while the run is not finished."""
    source: str
    features: Mapping[str, str] = field(default_factory=dict)
    """Name of the features that each figure was measured in, as far as eval.json or the tracker says."""
    scale: str = ""
    seed: int = 0
    collapse: Onset = UNKNOWN
    """Unknown for a tuning, whose teacher has not seen the new pictures."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """The labels that the sweep gave it, by axis."""
    folder: Path | None = None
    logged: Metrics = ()
    """The logged steps of a run without a folder."""

    def rows(self, at_most: int | None = None) -> Metrics:
        """The logged steps, or about `at_most` of them, evenly spread.

        Read when asked for: a thousand runs have hundreds of megabytes of them, and only curves need any.
        """
        if self.folder is not None:
            return read_rows(RunDir(self.folder).metrics, at_most)[0]
        return self.logged[:: -(-len(self.logged) // at_most)] if at_most and self.logged else self.logged

    @property
    def teacher_seed(self) -> int:
        """The seed that the run's teacher was trained with."""
        return JsonObject(self.recipe).part("teacher").whole("seed") or 0

    @property
    def is_tuning(self) -> bool:
        """Whether a finished student learns new pictures."""
        return is_tuning(JsonObject(self.recipe))

    @property
    def is_finished(self) -> bool:
        return bool(self.figures)


class Tracked(Protocol):
    """A run as a tracker's server or files hold it (`ladd_dist.trackers.wandb_read.RunData`)."""

    @property
    def name(self) -> str: ...
    @property
    def signature(self) -> str: ...
    @property
    def config(self) -> Mapping[str, object]: ...
    @property
    def summary(self) -> Mapping[str, float]: ...
    @property
    def rows(self) -> Metrics: ...
    @property
    def source(self) -> str: ...
    @property
    def features(self) -> Mapping[str, str]: ...


def from_folder(path: Path, axes: Mapping[str, str] | None = None) -> Run:
    """Read a run folder; eval.json, metrics.jsonl and dumps may be missing, config.json may not.

    Raises:
        Unreadable: no run folder, one of another format, or a damaged file.
    """
    paths = RunDir(path)
    if not paths.config.exists():
        raise Unreadable(f"{path} is no run folder: it has no config.json")
    try:
        config = read_run_config(paths.config, "run the same command again", may_lack_format=False)
        evaluation = read_evaluation(paths.eval) if paths.eval.exists() else {}
        if paths.metrics.exists():
            require_regular(paths.metrics)
    except (UserError, OSError) as error:
        raise Unreadable(str(error)) from error
    if not config.recipe:
        raise Unreadable(f"{paths.config} holds no recipe; run the same command again")
    recipe = JsonObject(config.recipe)
    return Run(
        name=recipe.text("name", path.name),
        signature=config.signature,
        recipe=recipe.fields,
        figures=finite_figures(evaluation),
        features=features_of(evaluation),
        source=str(path),
        scale=config.scale,
        seed=recipe.whole("seed") or 0,
        collapse=UNKNOWN if is_tuning(recipe) else onset(path),
        axes=axes or {},
        folder=path,
    )


def from_tracked(data: Tracked) -> Run:
    """Read a run from what a tracker holds: its config is the recipe, or the whole of config.json.

    The summary's keys are those of eval.json as `eval/student@4/fd_teacher`, and `collapse/step` (`as_number`);
    `features` are those that it names as `features/fd_teacher`.

    Raises:
        Unreadable: no recipe in its config.
    """
    config = JsonObject(data.config)
    recipe = config.part("recipe") if "recipe" in data.config else config
    if "seed" not in recipe.fields:
        raise Unreadable(f"{data.source}: run {data.name} has no recipe in its config; ladd_dist did not log it")
    return Run(
        name=recipe.text("name", data.name),
        signature=data.signature,
        recipe={key: value for key, value in recipe.fields.items() if not key.startswith("_")},
        figures=evaluation_of(data.summary),
        features=data.features,
        logged=data.rows,
        source=data.source,
        scale=config.text("scale"),
        seed=recipe.whole("seed") or 0,
        collapse=UNKNOWN if is_tuning(recipe) else from_number(data.summary.get("collapse/step")),
        axes=_axes(config),
    )


def finite_figures(found: Evaluation) -> dict[str, dict[str, float]]:
    """The figures of eval.json that are numbers, without those of each seed."""
    return {
        entry: {name: float(value) for name, value in own.items() if value is not None}
        for entry, own in figures_of(found).items()
    }


def _axes(data: JsonObject) -> dict[str, str]:
    """The labels that a sweep gave a run, by axis."""
    axes = data.part("axes")
    return {name: axes.text(name, "None") for name in axes.fields}


# --- what the command line names ---


@dataclass(frozen=True)
class Found:
    """The runs that could be read, and a sentence for each that could not."""

    runs: list[Run]
    broken: list[str]
    absent: list[str]
    """Runs of a sweep that have no folder yet."""


def collect(sources: Iterable[str]) -> Found:
    """Read everything that the sources name: run folders, folders of them, sweeps, W&B projects.

    Raises:
        UserError: a source that is none of these.
    """
    found = Found([], [], [])
    seen: set[tuple[int, int]] = set()
    for source in sources:
        if source.startswith(("wandb:", "wandb-offline:")):
            _collect_tracked(source, found)
            continue
        for folder, axes in _folders(folder_of(Path(source)), found):
            try:
                place = folder.stat()
                if (place.st_dev, place.st_ino) in seen:  # named twice, on its own and by its sweep
                    continue
                seen.add((place.st_dev, place.st_ino))
                found.runs.append(from_folder(folder, axes))
            except Unreadable as error:
                found.broken.append(str(error))
    return found


def _folders(path: Path, found: Found) -> list[tuple[Path, dict[str, str]]]:
    """Pairs (run folder, the sweep's labels) that a path names."""
    if (path / FILE).is_file():
        return _of_sweep(path, found)
    if (path / "config.json").is_file():
        return [(path, {})]
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise UserError(
            f"{path} {what}; give run folders, a sweep's folder or name, wandb:ENTITY/PROJECT[/GROUP] or "
            "wandb-offline:FOLDER"
        )
    inside = sorted(config.parent for config in path.glob("*/config.json"))
    if not inside and (sweeps := sorted(path.glob(f"*/{FILE}"))):
        return [run for sweep in sweeps for run in _of_sweep(sweep.parent, found)]
    return [(folder, {}) for folder in inside] or [(path, {})]


def _of_sweep(path: Path, found: Found) -> list[tuple[Path, dict[str, str]]]:
    folders = []
    for run in read_record(path).runs:
        folder = path.resolve().parent.parent / run.run  # OUT/sweeps/NAME-SIGNATURE: runs lie in OUT
        if (folder / "config.json").is_file():
            folders.append((folder, run.axes))
        else:
            found.absent.append(run.label)
    return folders


def _collect_tracked(source: str, found: Found) -> None:
    from ladd_dist.trackers.wandb_read import offline_runs, server_runs

    kind, _, place = source.partition(":")
    for data in server_runs(place) if kind == "wandb" else offline_runs(Path(place)):
        try:
            found.runs.append(from_tracked(data))
        except Unreadable as error:
            found.broken.append(str(error))
