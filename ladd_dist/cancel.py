"""`python -m ladd_dist.cancel` answers, for one version, with the line to type now."""

import sys

from ladd_dist.cli.renamed import answer

if __name__ == "__main__":
    sys.exit(answer("cancel", sys.argv[1:]))
