"""The collapse guard: does it find collapses in time, does it leave healthy runs alone, what does it cost?

    python -m benchmarks.guard record     # trains the runs (five seeds each) and writes guard_traces.json
    python -m benchmarks.guard rates      # replays that file through the guard; --write puts the table into a page
    python -m benchmarks.guard cost       # share of FLOPs, and of processor time in pairs of updates

A run is recorded with more checks than the guard makes (every 5 updates), so that other settings can be tried on the
file without training again. The guard tells and does nothing, so the runs are those of `benchmarks.results`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._runs import put_between
from benchmarks.variants import VARIANTS
from ladd_dist.guards import Guard
from ladd_dist.guards.judge import GuardState, judge
from recipes._base import LAPTOP

TRACES = Path(__file__).parent / "guard_traces.json"
HARSH = ("recipes/exp7_stored_smooth_l1.py", "--head.no-spectral-classifier", "--distance.beta", "0.1",
         "--train.betas-heads", "0.5", "0.99")  # fmt: skip
RECIPES: dict[str, tuple[str, ...]] = {
    **{name: VARIANTS[name].arguments for name in ("exp1", "exp6", "exp7", "exp2")},
    "exp7, w_adv 3, unbounded heads": (*HARSH, "--adv-weight.value", "3"),
    **{name: VARIANTS[name].arguments for name in ("exp3", "exp4", "exp5", "exp5_fading_distance")},
}
COLLAPSES = ("exp1", "exp2")
HEALTHY = ("exp6", "exp7")
"""The rows on which, with the provoked collapse, the thresholds were chosen."""
UNSEEN_COLLAPSES = ("exp3", "exp4", "exp5")
UNSEEN_HEALTHY = ("exp5_fading_distance",)
"""The rows that were recorded after the thresholds were chosen, and changed none."""
OFTEN = ("--guard.every", "5", "--guard.full-every", "3", "--train.log-every", "5")
WITHIN = 0.2
"""Share of the budget in which a collapse is to be found."""


@dataclass(frozen=True)
class Record:
    """Train the runs and write down what the guard saw of them."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    only: tuple[str, ...] = ()
    """Names of recipes; all when empty. What is in the file of others stays."""
    out: Path = Path("runs")
    cache: Path = Path("cache")
    scale: str = "laptop"


@dataclass(frozen=True)
class Rates:
    """Replay the recorded runs through the guard."""

    write: Path | None = None
    """A Markdown page: what stands between its markers `<!-- guard -->` and `<!-- /guard -->` is replaced."""


@dataclass(frozen=True)
class Cost:
    """What the guard costs: FLOPs, counted, and processor time, in pairs of updates with and without it."""

    pairs: int = 4
    """Rounds, from one full check to the next."""
    scale: str = "laptop"
    cache: Path = Path("cache")


class Outcome(NamedTuple):
    """What the guard said of one run."""

    name: str
    seed: int
    steps: int
    found: int | None
    """The step of its first verdict that is worse than a warning."""
    headline: str
    variances: tuple[float, ...]
    """Colour variance in one step at the checks that count, up to the verdict."""


def main() -> int:
    """Do what was asked for."""
    commands = (
        Annotated[Record, tyro.conf.subcommand("record")]
        | Annotated[Rates, tyro.conf.subcommand("rates")]
        | Annotated[Cost, tyro.conf.subcommand("cost")]
    )
    options: Any = tyro.cli(commands)
    if isinstance(options, Record):
        record(options)
    elif isinstance(options, Rates):
        text = table([replay(run) for run in json.loads(TRACES.read_text())["runs"]])
        print(text)
        if options.write:
            put_between(options.write, "guard", text)
    else:
        from benchmarks._guard_cost import measure

        print(json.dumps(measure(options.scale, options.pairs, options.cache), indent=1))
    return 0


# --- recording ---


def record(options: Record) -> None:
    """Train each run and put it into the file as soon as it is done."""
    from ladd_dist.core.checkout import current_commit

    names = [name for name in RECIPES if not options.only or name in options.only]
    for seed in options.seeds:
        for name in names:
            started = time.monotonic()
            run = train(options, name, seed)
            told: dict[str, Any] = json.loads(TRACES.read_text()) if TRACES.exists() else {"format": 1, "runs": []}
            others = [item for item in told["runs"] if (item["name"], item["seed"]) != (name, seed)]
            runs = sorted([*others, run], key=lambda item: (list(RECIPES).index(item["name"]), item["seed"]))
            rows = ",\n  ".join(json.dumps(item, separators=(",", ":")) for item in runs)
            commit = current_commit()
            TRACES.write_text(f'{{"format": 1, "commit": "{commit}", "runs": [\n  {rows}\n]}}\n')
            print(f"{name} seed {seed}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def train(options: Record, name: str, seed: int) -> dict[str, Any]:
    """One run, as anybody would start it, and what the guard saw of it."""
    command = [sys.executable, "-m", "ladd_dist.launch", *RECIPES[name], "--scale", options.scale, "--seed", str(seed)]
    command += ["--out", str(options.out), "--cache", str(options.cache), "--stages", "teacher,shards,distill"]
    done = subprocess.run([*command, *OFTEN, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    rows = [json.loads(line) for line in (Path(json.loads(done.stdout)["run"]) / "metrics.jsonl").open()]
    return {"name": name, "seed": seed, "steps": rows[-1]["step"], "columns": columns([trace(row) for row in rows])}


def columns(checks: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """Rows as columns, which take a fifth of the room; None where a row has no such figure."""
    keys = dict.fromkeys(key for check in checks for key in check if not key.endswith("/finite"))
    return {key: [check.get(key) for check in checks] for key in keys}


def checks_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The inverse of `columns`."""
    names, values = run["columns"].keys(), zip(*run["columns"].values(), strict=True)
    return [{key: value for key, value in zip(names, row, strict=True) if value is not None} for row in values]


def trace(row: dict[str, float]) -> dict[str, float]:
    """The guard's figures of one logged row, by the names the guard has for them."""
    others = {
        "accuracy/real": "heads/accuracy_real", "accuracy/fake": "heads/accuracy_fake", "logit_gap": "heads/gap",
        "weight/adversarial": "weight/adversarial",
    }  # fmt: skip
    kept = {key.removeprefix("guard/"): value for key, value in row.items() if key.startswith("guard/")}
    kept |= {short: row[key] for key, short in others.items() if key in row}
    return {"step": int(row["step"]), **{key: round(value, 3) for key, value in kept.items()}}


# --- replaying ---


def replay(run: dict[str, Any], guard: Guard | None = None) -> Outcome:
    """What a guard would have said of a recorded run; by default the recipes' own at laptop scale."""
    guard, steps, state = guard or LAPTOP.guard, run["steps"], GuardState()
    name, seed, variances = run["name"], run["seed"], []
    for row in checks_of(run):
        if not guard.is_due(row["step"], steps):
            continue
        full = guard.is_full(row["step"], steps)
        seen = {key: value for key, value in row.items() if full or not key.startswith("student@")}
        seen |= {key: value for key, value in row.items() if key.startswith("student@1/")}
        if not guard.is_early(row["step"], steps):
            variances.append(row["student@1/colour_variance"])
        state, verdict = judge(guard, state, seen, row["step"], steps)
        if verdict is not None and verdict.level == "collapsed":
            return Outcome(name, seed, steps, row["step"], verdict.headline, tuple(variances))
    return Outcome(name, seed, steps, None, "", tuple(variances))


def table(outcomes: list[Outcome]) -> str:
    """Both rates as Markdown."""
    lines = [
        "| recipe | thresholds | seeds | flagged | at steps | colour variance in one step | an example |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(item.name for item in outcomes):
        own = [item for item in outcomes if item.name == name]
        found = [item for item in own if item.found is not None]
        steps = ", ".join(str(item.found) for item in found) or "-"
        example = found[0].headline if found else "-"
        seen = [value for item in own for value in item.variances]
        between = f"{min(seen):.2f} to {max(seen):.2f}"
        chosen = "not seen" if name in (*UNSEEN_COLLAPSES, *UNSEEN_HEALTHY) else "chosen on it"
        lines.append(f"| {name} | {chosen} | {len(own)} | {len(found)} | {steps} | {between} | {example} |")
    lines += [
        "",
        f"Where the thresholds were chosen: {rates(outcomes, COLLAPSES, HEALTHY)}",
        "",
        f"Recipes that were recorded afterwards: {rates(outcomes, UNSEEN_COLLAPSES, UNSEEN_HEALTHY)}",
    ]
    return "\n".join(lines)


def rates(outcomes: list[Outcome], collapses: tuple[str, ...], healthy: tuple[str, ...]) -> str:
    """How many collapses were found in time, and how many healthy runs were flagged."""
    lost = [item for item in outcomes if item.name in collapses]
    fine = [item for item in outcomes if item.name in healthy]
    early = sum(item.found is not None and item.found <= WITHIN * item.steps for item in lost)
    flagged = sum(item.found is not None for item in fine)
    return (
        f"collapses found within {WITHIN:.0%} of the budget: {early} of {len(lost)}; "
        f"healthy runs flagged: {flagged} of {len(fine)}."
    )


if __name__ == "__main__":
    sys.exit(main())
