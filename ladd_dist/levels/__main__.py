"""`python -m ladd_dist.levels`: the command of `ladd_dist/search_levels.py`, because `levels` is also a kind."""

import runpy

runpy.run_module("ladd_dist.search_levels", run_name="__main__", alter_sys=True)
