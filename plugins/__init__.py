"""Variants of the report, outside the core: `import plugins` registers them all.

Add a new file to the list in its folder's `__init__.py`.
"""

from plugins import heads, schedules, taps

__all__ = ["heads", "schedules", "taps"]
