"""`python -m ladd_dist.wandb_sweep` answers, for one version, with the line to type now."""

import sys

from ladd_dist.cli.renamed import answer

if __name__ == "__main__":
    sys.exit(answer("wandb-sweep", sys.argv[1:]))
