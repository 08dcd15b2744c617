"""Every regulariser that comes with the package; imported for its registration."""

from ladd_dist.regularisers import approximate, centring, penalties, total

__all__ = ["approximate", "centring", "penalties", "total"]
