"""All recipes at laptop scale, several seeds: the figures of docs/results.md, with intervals and paired differences.

    python -m benchmarks.results                          # runs what results.json lacks, then prints the tables
    python -m benchmarks.results --write docs/results.md  # and puts them between the markers of that page
    python -m benchmarks.results --only exp7 --again      # trains these rows, whatever results.json has

Every run is an ordinary `python -m ladd_dist.launch`; run folders that are done are not trained again. What a run
gave is added to results.json as soon as it is there, with its signature and the commit of the code. Figures are means
over five noise seeds, which no recipe was tuned on; rows of the one that recipes were tuned on are measured again.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.variants import PAIRS, VARIANTS
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse
from ladd_dist.comparison.statistics import ALPHA, Called, difference, holm, pool, t_quantile
from ladd_dist.core.figure_names import named_now
from ladd_dist.core.rundir import write_bytes
from recipes._base import SEEDS

BARE = ("--stages", "autoencoder,teacher,shards,distill,evaluate", "--swap", "guard=none",
        "--train.evaluate-every", "0", "--train.dump-every", "1000000")  # fmt: skip
"""No page, and nothing looked at on the way: it changes no number, and no signature."""
STORE = Path(__file__).with_name("results.json")
KEPT = ("fd_real", "fd_teacher", "colour_variance", "hue_entropy", "accuracy", "recall")
"""Figures of each entry of eval.json that are kept."""
STEPS = (4, 2, 1)
Runs = list[dict[str, Any]]
"""What is kept of each seed's run: `signature`, `commit`, `flops_a_step`, `noise_seeds` of the evaluation, and the
entries of its eval.json, with `fd_teacher` on the noise of each seed as `fd_teacher_per_seed`."""
LOCK = threading.Lock()


@dataclass(frozen=True)
class Options:
    """Train every recipe with several seeds and compare them."""

    seeds: tuple[int, ...] = (0, 1, 2)
    scale: str = "laptop"
    out: Path = Path("runs")
    cache: Path = Path("cache")
    jobs: int = 2
    """Runs at a time, each with one thread."""
    only: tuple[str, ...] = ()
    """Names of rows; all when empty."""
    again: bool = False
    """Run also what results.json has."""
    write: Path | None = None
    """A Markdown page: what stands between its markers `<!-- results -->` and `<!-- /results -->` is replaced."""


def main() -> int:
    """Run, compare, print."""
    options = tyro.cli(Options)
    names = [name for name in VARIANTS if not options.only or name in options.only]
    stored = read_store()
    wanted = [
        (name, seed) for seed in options.seeds for name in names
        if options.again or "noise_seeds" not in stored.get(key(name, seed), {})
    ]  # fmt: skip
    with ThreadPoolExecutor(options.jobs) as pool:
        if wanted:
            keep(*wanted[0], run(options, *wanted[0]))  # alone: it may train the teacher that the others share
        for _ in pool.map(lambda pair: keep(*pair, run(options, *pair)), wanted[1:]):
            pass
    stored = read_store()
    figures = {name: [stored[key(name, seed)] for seed in options.seeds] for name in names}
    text = report(figures, len(options.seeds))
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, _, tail = page.partition("<!-- results -->")
        _, _, after = tail.partition("<!-- /results -->")
        options.write.write_text(f"{before}<!-- results -->\n{text}\n<!-- /results -->{after}", encoding="utf-8")
    return 0


def key(name: str, seed: int) -> str:
    """A run's place in results.json."""
    return f"{name} / seed {seed}"


def read_store() -> dict[str, Any]:
    """All that was measured."""
    stored = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    return {
        name: {entry: named_now(own) if isinstance(own, dict) else own for entry, own in found.items()}
        for name, found in stored.items()
    }


def keep(name: str, seed: int, found: dict[str, Any]) -> None:
    """Add a run."""
    with LOCK:
        stored = read_store() | {key(name, seed): found}
        ordered = {name: stored[name] for name in sorted(stored)}
        write_bytes(STORE, (json.dumps(ordered, indent=1) + "\n").encode())


def run(options: Options, name: str, seed: int) -> dict[str, Any]:
    """One run, as anybody would start it; returns what is kept of it."""
    flags = ["--scale", options.scale, "--seed", str(seed), "--out", str(options.out), "--cache", str(options.cache)]
    flags += ["--evaluate.seeds", ",".join(map(str, SEEDS))]
    command = [sys.executable, "-m", "ladd_dist.launch", *VARIANTS[name].arguments, *BARE, *flags, "--json"]
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": threads})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"{name} seed {seed}: {result['run']}", file=sys.stderr, flush=True)
    config = json.loads((Path(result["run"]) / "config.json").read_text(encoding="utf-8"))
    entries = {entry: kept(found) for entry, found in result["eval"].items()}
    settings = config["recipe"]["evaluate"]
    facts = {"signature": config["signature"], "commit": config["environment"]["commit"]}
    facts["noise_seeds"] = settings["seeds"] or [settings["seed"]]
    return {**facts, "flops_a_step": config["flops"]["step"], **entries}


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an entry of eval.json."""
    figures: dict[str, Any] = {figure: round(value, 6) for figure, value in found.items() if figure in KEPT}
    if "fd_teacher" in figures and "per_seed" in found:
        figures["fd_teacher_per_seed"] = [round(own["fd_teacher"], 6) for own in found["per_seed"].values()]
    return figures


def report(figures: dict[str, Runs], num_seeds: int) -> str:
    """The tables as Markdown."""
    teacher = figures.get("exp6", next(iter(figures.values())))[0]  # exp1 has a set of its own, with a higher floor
    floor = teacher["teacher@50"]
    lines = [
        f"Mean and 95 % interval over {num_seeds} seeds of the distillation, all on the same held-out noises. "
        "`fd_teacher`: Frechet distance to the teacher's stored samples; its sampling floor, the teacher's own 50 "
        f"steps on these noises, is {floor['fd_teacher']:.3f}. Colour variance is a share of teacher@50's. GFLOP per "
        "training step, counted. †: sampled by `sde`, with new noise before every further step.",
        "",
        "| run | fd_teacher @4 | fd_teacher @2 | fd_teacher @1 | colour variance @4 | @1 | class accuracy "
        "| GFLOP per step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("teacher@4:good", "teacher@4:karras"):
        row = teacher[name]
        share = row["colour_variance"] / floor["colour_variance"]
        lines.append(f"| {name} | {row['fd_teacher']:.3f} | | | {share:.2f} | | {row['accuracy']:.3f} | |")
    section = ""
    for name, runs in figures.items():
        if VARIANTS[name].section != section:
            section = VARIANTS[name].section
            lines.append(f"| **{section}** | | | | | | | |")
        lines.append(f"| {name}{' †' if adds_noise(name) else ''} | {' | '.join(cells_of(runs))} |")
    for steps in STEPS:
        lines += ["", best(figures, steps)]
    return "\n".join([*lines, "", *pairs_table(figures)])


def adds_noise(name: str) -> bool:
    """Whether a row's students are sampled with new noise before every step but the first."""
    arguments = [*VARIANTS[name].arguments, "--scale", "laptop"]
    return parse(RecipeOptions, arguments, prog="results")[1].start.rule == "sde"


def cells_of(runs: Runs) -> list[str]:
    """A row, without its name; empty where a recipe was not measured in so many steps."""
    own = runs[0]["teacher@50"]["colour_variance"] if "teacher@50" in runs[0] else math.nan
    most = next(entry for entry in runs[0] if entry.startswith("student@"))
    cells = [cell(runs, f"student@{steps}", "fd_teacher") for steps in STEPS]
    cells += [cell(runs, f"student@{steps}", "colour_variance", own) for steps in (4, 1)]
    return [*cells, cell(runs, most, "accuracy"), f"{runs[0]['flops_a_step'] / 1e9:.2f}"]


def cell(runs: Runs, entry: str, key: str, unit: float = 1.0) -> str:
    """Mean +- half-width."""
    if any(key not in run.get(entry, {}) for run in runs):
        return ""
    found = pool([run[entry][key] / unit for run in runs])
    return f"{found.mean:.3f} ± {math.nan if found.high is None else found.high - found.mean:.3f}"


def distances(runs: Runs, steps: int) -> dict[int, float]:
    """The distances of a row in so many steps, by the run's place in the row; empty where one was not measured."""
    found = [run.get(f"student@{steps}", {}).get("fd_teacher") for run in runs]
    return {} if None in found else dict(enumerate(found))


def best(figures: dict[str, Runs], steps: int) -> str:
    """Who wins in so many steps among those with the same teacher and set, if anybody does after Holm's correction."""
    values = {name: distances(runs, steps) for name, runs in figures.items() if VARIANTS[name].shares_set}
    ranked = sorted((name for name in values if values[name]), key=lambda name: sum(values[name].values()))
    if len(ranked) < 2:
        return ""
    first, *others = ranked
    called = holm([difference(values[name], values[first]) for name in others])
    level = [name for name, item in zip(others, called, strict=True) if not item.distinguishable]
    own = f"{first}, {cell(figures[first], f'student@{steps}', 'fd_teacher')}"
    where = f"In {steps} step{'s' if steps > 1 else ''}"
    if not level:
        return f"{where} **{first}** wins, {own.removeprefix(first + ', ')}: every other of {len(others)} is worse."
    shown = "; ".join([*level[:5], f"{len(level) - 5} more"] if len(level) > 6 else level)
    return (
        f"{where} there is no winner: the lowest mean has {own}, and {len(level)} of {len(others)} others cannot be "
        f"told from it: {shown}."
    )


def pairs_table(figures: dict[str, Runs]) -> list[str]:
    """The differences of `PAIRS`, with the better one's name where Holm's correction over all of them leaves one."""
    rows = [pair for pair in PAIRS if set(pair) <= set(figures)]
    asked = [(first, second, steps) for first, second in rows for steps in STEPS]
    sides = {(a, b, n): (distances(figures[a], n), distances(figures[b], n)) for a, b, n in asked}
    measured = [key for key in asked if all(sides[key])]
    called = dict(zip(measured, holm([difference(*sides[key]) for key in measured]), strict=True))
    lines = [
        "Differences of `fd_teacher`, paired by seed (first minus second). ± is the 95 % interval of this difference "
        f"alone; a name means that the difference also stands among all {len(called)} of them (Holm's correction, the "
        "code of `ladd compare`: the chance of even one wrong name is below 5 %).",
        "",
        "| first | second | @4 | @2 | @1 |",
        "|---|---|---|---|---|",
    ]
    for pair in rows:
        cells = [told(*pair, called[(*pair, steps)]) if (*pair, steps) in called else "" for steps in STEPS]
        lines.append(f"| {pair[0]} | {pair[1]} | {' | '.join(cells)} |")
    return lines


def told(first: str, second: str, item: Called) -> str:
    """A difference with its own interval, and the better one of the two if that is certain enough."""
    mean, error, df = item.difference[:3]
    half = math.nan if error is None else t_quantile(1 - ALPHA / 2, df) * error
    winner = f"**{first if mean < 0 else second}**" if item.distinguishable else "not distinguishable"
    return f"{mean:+.3f} ± {half:.3f}: {winner}"


if __name__ == "__main__":
    sys.exit(main())
