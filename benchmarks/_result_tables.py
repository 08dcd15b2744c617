"""The tables of `benchmarks.results` as Markdown, from kept runs alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks._bars_table import bars_table
from benchmarks._result_cells import REAL_FLOOR, STEPS, TEACHER, Row, cell, half_width, line, mean_cell, values_of
from benchmarks.variants import BASE, PAIRS, SHORT, VARIANTS
from ladd_dist.comparison.statistics import Called, difference, holm

HEAD = ("to real @4", "@2", "@1", "to teacher @4", "@1", "accuracy @4", "@1", "colour variance @4", "@1",
        "saturation @4", "@1", "guidance", "GFLOP per step")  # fmt: skip
"""Columns of the tables of rows, after the name."""


class Tables(NamedTuple):
    """All that the page shows."""

    rows: Mapping[str, Row]
    headline: Mapping[str, Row]
    """Rows with a run for each of several teachers."""
    left_out: Mapping[str, str]
    """What a row of the last table changes of `SHORT` -> the row's name among `rows`."""
    base: Row | None
    """All seeds of `BASE`, on the first teacher; None where one lacks."""
    lacks: Mapping[str, str]
    """Runs that are not shown, with the reason."""
    unknown: Sequence[str]
    """Kept runs of no row."""
    num_seeds: int
    num_teachers: int


def report(found: Tables) -> str:
    """The tables, and what they lack."""
    first = {name: row for name, row in found.rows.items() if name in VARIANTS}
    second = {short: found.rows[name] for short, name in found.left_out.items() if name in found.rows}
    parts = [lacking(found), machines(found)]
    if first:
        parts += [main_table(first, found.num_seeds), *(best(first, steps) for steps in STEPS)]
        parts.append(pairs_table(first, PAIRS))
    if found.base is not None:
        parts.append(bars_table(found.base))
    if found.headline:
        parts.append(headline_table(found.headline, found.num_teachers))
    if second and SHORT in found.rows:
        whole = {BASE: first[BASE]} if BASE in first else {}
        parts.append(left_out_table(found.rows[SHORT], whole, second, found.num_seeds))
    return "\n\n".join(part for part in parts if part)


def lacking(found: Tables) -> str:
    """What is not shown, and why; empty where all is there."""
    if not found.lacks and not found.unknown:
        return ""
    rows = dict.fromkeys(key.partition(" / ")[0] for key in found.lacks)
    reasons = ", ".join(f"{count} {why}" for why, count in Counter(found.lacks.values()).items())
    lines = [f"Not shown: {len(found.lacks)} runs ({reasons}) of {'; '.join(rows)}."] if found.lacks else []
    if found.unknown:
        lines.append(f"{len(found.unknown)} kept runs belong to no row.")
    return " ".join(lines)


def machines(found: Tables) -> str:
    """What trained the runs that are shown; empty where no GPU did."""
    rows = [*found.rows.values(), *found.headline.values(), *([found.base] if found.base else [])]
    runs = {id(run): run.get("device", "cpu") for row in rows for run in row.runs}
    counts = Counter(str(device) for device in runs.values())
    if not set(counts) - {"cpu"}:
        return ""
    told = ", ".join(f"{count} on {'a CPU' if device == 'cpu' else device}" for device, count in counts.most_common())
    return f"Of {len(runs)} runs, these are the devices: {told}; all in fp32."


def main_table(rows: Mapping[str, Row], num_seeds: int) -> str:
    """Floors, the teacher and the untrained student, then every row by section."""
    lines = [
        f"Mean and 95 % interval over {num_seeds} seeds of the distillation, all with **one** teacher (seed 0), on the "
        "same held-out noises. `to real`: Frechet distance to real images (`fd_real`); `to teacher`: to the teacher's "
        "stored samples (`fd_teacher`). Colour variance and saturation are shares of teacher@50's. GFLOP are counted. "
        "†: sampled by `sde`, with new noise before every further step.",
        "",
        line("run", *HEAD),
        line(*["---"] * (len(HEAD) + 1)),
        *teacher_lines(rows),
    ]
    section, usual = "", _of_teacher(next(iter(rows.values())))
    for name, row in rows.items():
        if VARIANTS[name].section != section:
            section = VARIANTS[name].section
            lines.append(line(f"**{section}**", *[""] * len(HEAD)))
        if _of_teacher(row) != usual:
            lines.append(line(f"{TEACHER} of {name}", *figures(row, TEACHER)))
        lines.append(row_line(name, row))
    return "\n".join(lines)


def _of_teacher(row: Row) -> float | None:
    found: float | None = row.runs[0].get(TEACHER, {}).get("fd_real")
    return found


def teacher_lines(rows: Mapping[str, Row]) -> list[str]:
    """What students are held against: floors, the teacher, and students that were not trained."""
    row = rows.get("exp7", next(iter(rows.values())))
    run = row.runs[0]
    lines = []
    if REAL_FLOOR in run:
        lines.append(line("floor: real against real", *figures(row, REAL_FLOOR)))
    if TEACHER in run:
        lines.append(line("floor and teacher: teacher@50", *figures(row, TEACHER)))
    lines += [line(entry, *figures(row, entry)) for entry in ("teacher@4:good",) if entry in run]
    for rule, mark in ((False, ""), (True, " †")):
        other = next(
            (item for item in rows.values() if item.adds_noise is rule and "untrained@4" in item.runs[0]), None
        )
        if other is not None:
            lines.append(line(f"untrained@4{mark}", *figures(other, "untrained@4")))
    return lines


def figures(row: Row, entry: str) -> list[str]:
    """The cells of an entry that does not depend on the seed, from the row's first run."""
    run = row.runs[0]
    own, teacher = run[entry], run.get(TEACHER, {})

    def share(name: str) -> str:
        return f"{own[name] / teacher[name]:.2f}" if name in own and teacher.get(name) else ""

    def plain(name: str) -> str:
        return f"{own[name]:.3f}" if name in own else ""

    cells = [plain("fd_real"), "", "", plain("fd_teacher"), "", plain("accuracy"), "", share("colour_variance"), ""]
    return [
        *cells,
        share("saturation"),
        "",
        "" if entry.startswith(("untrained", "floor")) else f"{row.guidance:g}",
        "",
    ]


def row_line(name: str, row: Row) -> str:
    """A row's line; empty cells where a recipe was not measured in so many steps."""
    runs = row.runs
    cells = [cell(runs, f"student@{steps}", "fd_real") for steps in STEPS]
    cells += [cell(runs, f"student@{steps}", "fd_teacher") for steps in (4, 1)]
    cells += [cell(runs, f"student@{steps}", "accuracy") for steps in (4, 1)]
    for figure in ("colour_variance", "saturation"):
        cells += [cell(runs, f"student@{steps}", figure, by_teacher=True) for steps in (4, 1)]
    return line(f"{name}{' †' if row.adds_noise else ''}", *cells, f"{row.guidance:g}", f"{gflop(row):.2f}")


def gflop(row: Row) -> float:
    """GFLOP of a training step."""
    return float(row.runs[0]["flops_a_step"]) / 1e9


def distances(row: Row, steps: int) -> dict[int, float]:
    """Distances to real images in so many steps, by the run's place; empty where one was not measured."""
    return dict(enumerate(values_of(row.runs, f"student@{steps}", "fd_real")))


def best(rows: Mapping[str, Row], steps: int) -> str:
    """Which row is nearest to real images in so many steps, if any is after Holm's correction."""
    values = {name: found for name, row in rows.items() if (found := distances(row, steps))}
    ranked = sorted(values, key=lambda name: sum(values[name].values()))
    if len(ranked) < 2:
        return ""
    first, *others = ranked
    called = holm([difference(values[name], values[first]) for name in others])
    level = [name for name, item in zip(others, called, strict=True) if not item.distinguishable]
    own = mean_cell(list(values[first].values()))
    where = f"In {steps} step{'s' if steps > 1 else ''}"
    if not level:
        return f"{where} **{first}** is nearest to real images, {own}: every other of {len(others)} is farther."
    shown = "; ".join([*level[:5], f"{len(level) - 5} more"] if len(level) > 6 else level)
    return (
        f"{where} there is no winner: the lowest mean has {first}, {own}, and {len(level)} of {len(others)} others "
        f"cannot be told from it: {shown}."
    )


def pairs_table(rows: Mapping[str, Row], pairs: Sequence[tuple[str, str]]) -> str:
    """Differences of pairs, with the better one's name where Holm's correction over all of them leaves one."""
    shown = [pair for pair in pairs if set(pair) <= set(rows)]
    if not shown:
        return ""
    asked = [(first, second, steps) for first, second in shown for steps in STEPS]
    sides = {(a, b, n): (distances(rows[a], n), distances(rows[b], n)) for a, b, n in asked}
    measured = [key for key in asked if all(sides[key])]
    called = dict(zip(measured, holm([difference(*sides[key]) for key in measured]), strict=True))
    lines = [
        "Differences of the distance to real images, paired by seed (first minus second). ± is the 95 % interval of "
        f"this difference alone; a name means that the difference also stands among all {len(called)} of them (Holm's "
        "correction, the code of `ladd compare`: the chance of even one wrong name is below 5 %).",
        "",
        line("first", "second", "@4", "@2", "@1"),
        line(*["---"] * 5),
    ]
    for pair in shown:
        cells = [told(*pair, called[(*pair, steps)]) if (*pair, steps) in called else "" for steps in STEPS]
        lines.append(line(*pair, *cells))
    return "\n".join(lines)


def told(first: str, second: str, item: Called) -> str:
    """A difference with its own interval, and the better one of the two if that is certain enough."""
    mean = item.difference[0]
    winner = f"**{first if mean < 0 else second}**" if item.distinguishable else "not distinguishable"
    return f"{mean:+.3f} ± {half_width(item):.3f}: {winner}"


def headline_table(rows: Mapping[str, Row], num_teachers: int) -> str:
    """The headline rows on several teachers, and their distances in units of their own teacher's."""
    lines = [
        f"Mean and 95 % interval over {num_teachers} **teachers**, each trained and sampled anew and with one "
        "distillation, whose seed differs too: what a reader who trains a teacher has to expect. `to real` as above; "
        f"the last columns divide by the distance of the same teacher's {TEACHER}.",
        "",
        line("run", f"{TEACHER} to real", *HEAD[:3], "accuracy @4", "@1", f"@4 / {TEACHER}", f"@1 / {TEACHER}"),
        line(*["---"] * 9),
    ]
    for name, row in rows.items():
        cells = [cell(row.runs, TEACHER, "fd_real"), *(cell(row.runs, f"student@{n}", "fd_real") for n in STEPS)]
        cells += [cell(row.runs, f"student@{steps}", "accuracy") for steps in (4, 1)]
        cells += [cell(row.runs, f"student@{steps}", "fd_real", by_teacher=True) for steps in (4, 1)]
        lines.append(line(f"{name}{' †' if row.adds_noise else ''}", *cells))
    return "\n".join(lines)


def left_out_table(short: Row, whole: Mapping[str, Row], rows: Mapping[str, Row], num_seeds: int) -> str:
    """What each ingredient gives: the short base, rows that change one thing of it, and their differences from it.

    Args:
        whole: `BASE` with all its updates, for comparison; may be empty.
    """
    own = {SHORT: short, **rows}
    lines = [
        f"`{BASE}` in 1,000 updates with one thing changed, mean and 95 % interval over {num_seeds} seeds of the "
        "distillation with one teacher; shares are of each row's own teacher@50.",
        "",
        line("changed", *HEAD),
        line(*["---"] * (len(HEAD) + 1)),
        *(row_line(name, row) for name, row in {**whole, **own}.items()),
    ]
    table = pairs_table(own, [(name, SHORT) for name in rows])
    return "\n".join([*lines, "", table])
