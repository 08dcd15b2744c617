"""The benchmark of the metrics measures every metric of the recipes."""

from __future__ import annotations

import runpy
from pathlib import Path

from recipes._base import METRICS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "metrics.py"


def test_the_metrics_benchmark_times_every_metric_of_the_recipes() -> None:
    benchmark = runpy.run_path(str(BENCHMARK))
    found = benchmark["measured"](benchmark["Args"](num=200, size=16, threads=1))
    assert set(found["seconds"]) == {"reading three sets", "floor, all metrics", *(metric.name for metric in METRICS)}
    assert all(seconds >= 0 for seconds in found["cpu_seconds"].values()) and found["peak_mib"] >= 0
