"""The console on which commands print, and tables that fit it: whole in a pipe, without cut names in a terminal."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.table import Column, Table

UNBOUNDED = 1_000_000
"""Characters of a line in a pipe or a file: nothing wraps there, so each table is as wide as what it holds."""


def open_console(*, markup: bool = False, highlight: bool = True) -> Console:
    """A Rich console on stdout, as wide as the terminal; lines in a pipe or a file are as long as their text.

    Control characters in text are shown, not sent (`ladd_dist.core.screen`).

    Args:
        markup: read `[bold]` and `:emoji:` in text; text that somebody else named then needs `rich.markup.escape`.
        highlight: colour numbers and paths.
    """
    from ladd_dist.core.screen import Screen

    console = Screen(markup=markup, emoji=markup, highlight=highlight)
    if not console.is_terminal:
        console.width = UNBOUNDED
    return console


class Fitted:
    """A table that adapts to the width it is printed at: it leaves out columns, with a note, before it breaks a name.

    Empty columns go first, then those that the reader can do without, from the right. Long
    texts wrap, and nothing ends in an ellipsis.
    """

    def __init__(self, table: Table, keep: Collection[str] | None = (), rest: str = "a wider terminal") -> None:
        """Hold a finished table.

        Args:
            keep: headings of the columns that are never left out, besides the first one; None: all.
            rest: what shows the columns that were left out, for the note.
        """
        self.table, self.rest = table, rest
        headings = [_heading(column) for column in table.columns]
        self.kept = set(headings if keep is None else [*headings[:1], *keep])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width, columns = options.max_width, self.table.columns
        sizes = [_sizes(console, column, width // (3 if i else 2)) for i, column in enumerate(columns)]
        chosen = list(range(len(sizes)))
        blank = [not any(str(cell).strip() for cell in column.cells) for column in columns]
        for index in sorted(chosen, key=lambda index: (not blank[index], -index)):
            if sum(sizes[i].minimum for i in chosen) <= width - _borders(chosen):
                break
            if _heading(columns[index]) not in self.kept:
                chosen.remove(index)
        left_out = [_heading(column) for i, column in enumerate(columns) if i not in chosen and not blank[i]]
        yield self._part(chosen, _widths([sizes[i] for i in chosen], width - _borders(chosen)))
        if left_out:
            yield Text(f"Not shown in {width} columns: {', '.join(left_out)} (see {self.rest}).", style="dim")

    def _part(self, chosen: list[int], widths: list[int]) -> Table:
        """The table with some of its columns, in these widths."""
        part = copy.copy(self.table)
        part.columns, part.rows = [], []
        for index, width in zip(chosen, widths, strict=True):
            column = self.table.columns[index]
            part.add_column(column.header, justify=column.justify, overflow="fold", width=width)
        cells = [list(self.table.columns[index].cells) for index in chosen]
        for number, row in enumerate(self.table.rows):
            part.add_row(*(column[number] for column in cells), style=row.style, end_section=row.end_section)
        return part


def _heading(column: Column) -> str:
    return " ".join(str(column.header).split())


def _borders(chosen: Sized) -> int:
    """Characters of a table's borders and of the space beside them."""
    return 3 * len(chosen) + 1


def _sizes(console: Console, column: Column, most: int) -> Measurement:
    """Characters that a column needs to show every word whole, at most `most`; and to show every text on one line."""
    from rich.measure import Measurement

    options = console.options.update_width(UNBOUNDED)
    sizes = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    maximum = max(size.maximum for size in sizes)
    whole = maximum if column.no_wrap else max(size.minimum for size in sizes)
    return Measurement(max(1, min(whole, most)), max(1, maximum))


def _widths(sizes: list[Measurement], room: int) -> list[int]:
    """A width for each column: what it needs, and of what is left as much as the others, or all that it can use.

    Where even what they need is too much, each gets its share of the room.
    """
    needed = sum(size.minimum for size in sizes)
    if needed > room:
        return [max(1, size.minimum * room // needed) for size in sizes]
    widths, spare = [size.minimum for size in sizes], room - needed
    hungry = sorted(range(len(sizes)), key=lambda i: sizes[i].maximum - sizes[i].minimum)
    for served, index in enumerate(hungry):
        more = min(sizes[index].maximum - sizes[index].minimum, spare // (len(hungry) - served))
        widths[index] += more
        spare -= more
    return widths
