"""The report's variants, outside the core: `import plugins` registers them all.

A new file is added to the list of its kind's folder.
"""

from plugins import heads, schedules, taps

__all__ = ["heads", "schedules", "taps"]
