"""Numbers with their units as people read them."""

from __future__ import annotations


def si(value: float, unit: str = "") -> str:
    """A number in three significant digits with its SI prefix and unit: 3.3152e15 and "FLOP" give "3.32 PFLOP".

    Bytes count in powers of ten: 2_100_000 and "B" give "2.1 MB".
    """
    from matplotlib.ticker import EngFormatter

    return EngFormatter(unit)(float(f"{value:.3g}"))
