"""Benchmark: three games x three schedules of the student's levels, three seeds each, in LADD alone on Fashion-MNIST.

`ladd sweep recipes/bench_games.py --on slurm/laptop.py` runs it and, run again, what is missing; `python -m
benchmarks.bench` reads what `ladd compare` says of the runs. All cost the same FLOPs, and share one teacher.
"""

from ladd_dist.losses.adversarial import Bce, Hinge, Relativistic
from ladd_dist.recipe import Axis, Sweep
from ladd_dist.sigmas.laws import FixedSet, Phase
from ladd_dist.zoo.recipes._bench import BENCH

RECIPE = BENCH.replace(name="bench_games", note="LADD alone on Fashion-MNIST: games and schedules of the levels.")

SWEEP = Sweep(
    name="bench_games",
    base=RECIPE,
    axes=(
        Axis("adversarial", (Bce(), Hinge(), Relativistic())),
        Axis(
            "student_sigma",
            (
                FixedSet(),
                FixedSet((Phase(0, (0.4, 0.2, 0.2, 0.2)),)),
                FixedSet((Phase(0, (0.0, 0.0, 0.5, 0.5)), Phase(75, (0.7, 0.1, 0.1, 0.1)))),
            ),
        ),
    ),
    seeds=(0, 1, 2),
)
