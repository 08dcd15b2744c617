"""The console on which commands print their tables: as wide as the terminal, and wide in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200
"""Characters of a line where nobody says how wide one is: Rich would break every table at 80."""


def open_console(*, markup: bool = True, highlight: bool = True) -> Console:
    """A Rich console on stdout; where that is a pipe or a file, its lines have `PIPE_WIDTH` characters.

    Args:
        markup: read `[bold]` and `:emoji:` in text; False for text that somebody else named.
        highlight: colour numbers and paths.
    """
    from rich.console import Console

    console = Console(markup=markup, emoji=markup, highlight=highlight)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console
