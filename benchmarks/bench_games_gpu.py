"""`recipes/bench_games.py` on one GPU.

ladd sweep benchmarks/bench_games_gpu.py --on slurm/shared_gpu.py --scale laptop
"""

from benchmarks._on_gpu import on_gpu
from recipes.bench_games import SWEEP as ON_CPU

SWEEP = on_gpu(ON_CPU)
