"""The figures of a run as rows and columns, for the page and for Markdown alike. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from ladd_dist.metrics.interval import is_bound
from ladd_dist.reports.distances import FLOOR, to_real, to_teacher
from ladd_dist.reports.json_object import Values, number
from ladd_dist.reports.run_files import Figures, ShownConfig
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD, is_tuning
from ladd_dist.reports.verdict import best_teacher, by_steps, few_student, steps_in


class Column(NamedTuple):
    """A column of the table: `better` is "lower", "higher" or empty; `share` adds the share of the best teacher's.

    `features` names those that the figure was measured in, where it was measured in any.
    """

    key: str
    title: str
    meaning: str
    better: str = ""
    share: bool = False
    features: str = ""


class Cell(NamedTuple):
    """A figure of the table: its exact value, its text, and a remark."""

    value: float | None
    text: str
    remark: str = ""


class Row(NamedTuple):
    """A line of the table: an entry of eval.json and its cells."""

    key: str
    title: str
    who: str
    cells: list[Cell]


COLUMNS = (
    Column(
        "calls", "Network calls", "Runs of the network for one picture; with guidance each step of the teacher is two."
    ),
    Column(
        "fd_real",
        "Distance to real",
        "Fréchet distance between these pictures and real ones (fd_real). That of other real pictures, as many as each "
        "row has, is the floor.",
        "lower",
    ),
    Column(
        "fd_teacher",
        "Distance to teacher",
        "Fréchet distance to the teacher's stored many-step samples (fd_teacher). The teacher's own figure, on noise "
        "it has not been asked about before, is the floor: chance alone keeps it from being zero.",
        "lower",
    ),
    Column(
        KID_HELD_OUT,
        "Distance to held-out new pictures",
        "KID\u2019s formula, to new pictures that no training saw (kid_held_out). Without bias: 0 on average for one "
        "distribution, however few they are.",
        "lower",
    ),
    Column(
        KID_OLD,
        "Distance to its own old samples",
        "The same for old classes or texts: samples of them against stored ones that the student made before "
        "(kid_old). That of the untrained student, by other noises, is the floor; what is above it was forgotten.",
        "lower",
    ),
    Column("hue_entropy", "Hue entropy", "How many different hues appear; near zero: one colour only.", "higher", True),
    Column(
        "colour_variance",
        "Colour variance",
        "How strongly colours differ between pictures; small: every picture is the same average.",
        "higher",
        True,
    ),
    Column("accuracy", "Class accuracy", "Share of pictures that a classifier reads as the class asked for.", "higher"),
    Column("ms", "ms per picture", "Time for one picture on the machine named below.", "lower"),
    Column("ms_decoding", "ms of it decoding", "Time for the way from a latent to a picture.", "lower"),
    Column("speed_up", "Speed-up", "Times faster than the teacher with the most steps.", "higher"),
    Column("saturation", "Saturation", "How strong the colours are; 0 is grey. Best near the teacher's.", "", True),
)
QUALITY = frozenset(column.key for column in COLUMNS) - {
    "calls", "ms", "ms_decoding", "speed_up", KID_HELD_OUT, KID_OLD,
}  # fmt: skip
"""Figures of the samples themselves that the table shows before all others, in a run that is no tuning."""
ENTRY_MEANINGS = {
    "untrained": "the student before its training, which is the teacher's weights without guidance unless the recipe "
    "names another start (student.init), sampled by the student's rule at its levels. Training has to beat it.",
    "floor": "the teacher's new samples against its stored ones, the best value that this number of samples allows.",
}
REAL_MEANING = (
    "as many real pictures that are not among those compared with: no way to make pictures can be nearer to real ones."
)
TITLES = {"reconstruction": "Real images, encoded and decoded", FLOOR: "Other real images"}
HIDDEN = {
    "s_per_image", "s_decode_per_image", "timed_turns", "times_faster", "num_samples", "num_seeds", "seed",
}  # fmt: skip  # shown in other columns or in the caption


def table(evaluation: Figures, config: ShownConfig, left_out: Collection[str] = ()) -> tuple[list[Column], list[Row]]:
    """The columns that have figures, and one row for each entry of eval.json; figures unknown here have columns too.

    Args:
        left_out: figures that are shown elsewhere; so are intervals and floors.
    """
    teacher = best_teacher(evaluation)
    extended = {key: {**figures, **_costs(evaluation, key, teacher, config)} for key, figures in evaluation.items()}
    known = {column.key for column in COLUMNS} | HIDDEN | set(left_out)
    others = dict.fromkeys(
        key for figures in extended.values() for key in figures if key not in known and not is_bound(key)
    )
    columns = [*COLUMNS, *(Column(key, key.replace("_", " "), "") for key in others)]
    columns = [c for c in columns if any(number(figures, c.key) is not None for figures in extended.values())]
    order = [key for who in ("teacher", "student") for _, key in by_steps(evaluation, who)]
    order += [key for key in evaluation if key not in order and (not is_floor(key) or key == FLOOR)]
    rows = []
    for key in order:
        cells = [_cell(extended, key, teacher, column) for column in columns]
        rows.append(Row(key, entry_title(key), key.partition("@")[0], cells))
    return columns, rows


def _cell(extended: Figures, key: str, teacher: str | None, column: Column) -> Cell:
    value = number(extended[key], column.key)
    if value is None:
        return Cell(None, "–", "not measured")
    text, remark = figure(value), ""
    if column.key == "calls":
        text = f"{value:g}"
    elif column.key == "speed_up":
        text = f"{figure(value)}×"
    elif _is_floor_of(column.key, key, teacher, extended[key]):
        remark = "floor"
    elif column.share and teacher is not None and key not in (teacher, FLOOR):
        reference = number(extended[teacher], column.key)
        remark = f"{value / reference:.2f} of teacher's" if reference else ""
    return Cell(value, text, remark)


def _is_floor_of(key: str, entry: str, teacher: str | None, figures: Values) -> bool:
    """Whether an entry's figure is what chance alone leaves of a distance."""
    if key == KID_OLD:
        return entry.startswith("untrained@")
    return (key, entry) in ((to_teacher(figures), teacher), (to_real(figures), FLOOR))


def _costs(evaluation: Figures, key: str, teacher: str | None, config: ShownConfig) -> dict[str, float]:
    """Network calls, milliseconds and speed-up of one entry."""
    costs: dict[str, float] = {}
    who, _, rest = key.partition("@")
    steps, levels = steps_in(rest), rest.partition(":")[2]
    if steps is not None and "calls" not in evaluation[key]:
        costs["calls"] = steps
        if who == "teacher":
            shards = config.recipe.part("shards")
            second_order = not levels and shards.part("sampler").text("plugin") == "heun"
            # Guidance asks the network twice, with and without the class; a weight of 1 switches it off.
            guided = shards.number("guidance") != 1
            costs["calls"] = (2 * steps - 1 if second_order else steps) * (1 + guided)
    seconds = _seconds(evaluation[key])
    if seconds is not None:
        costs["ms"] = 1000 * seconds
    if (decoding := number(evaluation[key], "s_decode_per_image")) is not None:
        costs["ms_decoding"] = 1000 * decoding
    slow = _seconds(evaluation[teacher]) if teacher is not None else None
    # Earlier versions timed teacher and student at different moments, with a cold start for the first: no ratio.
    is_fair = all(number(evaluation[one], "timed_turns") for one in (key, teacher) if one is not None)
    if seconds and slow and is_fair:
        costs["speed_up"] = number(evaluation[key], "times_faster") or slow / seconds
    return costs


def _seconds(figures: Values) -> float | None:
    """Seconds for one picture: sampling, and decoding where samples are latents."""
    sampling = number(figures, "s_per_image")
    return None if sampling is None else sampling + (number(figures, "s_decode_per_image") or 0.0)


def is_floor(entry: str) -> bool:
    """Whether an entry of eval.json is a floor: the distance that chance alone leaves, and no way to make pictures."""
    return entry.partition("@")[0] == "floor"


def figure(value: float) -> str:
    """A figure with three significant digits, without an exponent where that stays readable."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"


def entry_title(key: str) -> str:
    """An entry of eval.json in words."""
    who, _, rest = key.partition("@")
    steps, _, levels = rest.partition(":")
    if not steps.isdigit():
        return TITLES.get(key, key)
    words = (
        f"{'Untrained student' if who == 'untrained' else who.capitalize()}, {steps} step{'' if steps == '1' else 's'}"
    )
    return f"{words}, {levels} levels" if levels else words


def entry_meaning(key: str) -> str:
    """A sentence about an entry of eval.json whose name does not say what it is; empty for the others."""
    return REAL_MEANING if key == FLOOR else ENTRY_MEANINGS.get(key.partition("@")[0], "")


def title(evaluation: Figures, config: ShownConfig) -> str:
    """The heading of the page: what happened, in plain words."""
    if is_tuning(config.recipe):
        return "A few-step student that learned new pictures"
    teachers = by_steps(evaluation, "teacher")
    if not teachers or not by_steps(evaluation, "student"):
        return "A diffusion teacher turned into a few-step student"
    steps = few_student(evaluation, config).partition("@")[2].partition(":")[0]
    return f"A {teachers[0][0]}-step diffusion teacher turned into a {steps}-step student"


def num_samples(evaluation: Figures) -> str:
    """The number of pictures that each figure was measured on, as text; empty if unknown."""
    counts = sorted({int(n) for figures in evaluation.values() if (n := number(figures, "num_samples")) is not None})
    text = " to ".join(f"{count:,}" for count in (counts if len(counts) < 2 else (counts[0], counts[-1])))
    seeds = max((number(figures, "num_seeds") or 1 for figures in evaluation.values()), default=1)
    return f"{seeds:.0f} × {text}" if text and seeds > 1 else text


def figure_short(value: float) -> str:
    """A factor as one says it: 25, or 3.1 below ten."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


class Compared(NamedTuple):
    """A figure of the published report beside ours, each with its multiple of the many-step teacher's."""

    title: str
    theirs: str
    theirs_multiple: str
    ours: str
    ours_multiple: str


def reported(evaluation: Figures, config: ShownConfig) -> list[Compared]:
    """Rows that hold our figures beside the published ones.

    Only the multiples can be compared: the report has another data set and other features. A row needs both figures.
    """
    published = config.recipe.part("reported")
    pairs = [("teacher_50", "teacher@50"), ("teacher_4", "teacher@4:karras"), ("student_4", "student@4")]
    best_theirs, best = published.number("teacher_50"), number(evaluation.get("teacher@50", {}), "fd_real")
    result = []
    for field, key in pairs:
        theirs, ours = published.number(field), number(evaluation.get(key, {}), "fd_real")
        if theirs is not None and ours is not None:
            multiples = [
                f"{figure_short(a / b)}×" if a and b else "–" for a, b in ((theirs, best_theirs), (ours, best))
            ]
            result.append(Compared(entry_title(key), f"{theirs:g}", multiples[0], figure(ours), multiples[1]))
    return result
