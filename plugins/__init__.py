"""Variants of the report, outside the core: importing this package registers them all.

Add a new file to the list in its folder's `__init__.py`.
"""

from ladd_dist.zoo.plugins import heads, schedules, taps

__all__ = ["heads", "schedules", "taps"]
