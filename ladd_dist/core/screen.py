"""The Rich console of this package: the styles are its own, and text cannot bring any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from ladd_dist.core.printable import bare, printable

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType


class Screen(Console):
    """A Rich console that shows control characters in text as visible escapes (`ladd_dist.core.printable`).

    Only escape sequences that Rich makes of its own styles and cursor movements reach the terminal. A hyperlink, which
    printed text may have brought, does not.
    """

    @property
    def file(self) -> IO[str]:
        """The stream that is written to, without the guard of plain prints, which would show Rich's own styles."""
        return bare(cast("Any", super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **more: Any) -> Text:
        """A `Text` of the text, in which control characters are visible: it is laid out with the width it will have."""
        return super().render_str(printable(text), **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of whatever can be printed."""
        if isinstance(renderable, Text) and (shown := printable(renderable.plain)) != renderable.plain:
            renderable = renderable.copy()
            renderable.plain = shown
        for segment in super().render(renderable, options):
            yield segment if segment.control else _clean(segment)


def _clean(segment: Segment) -> Segment:
    style = segment.style.update_link(None) if segment.style is not None and segment.style.link else segment.style
    text = printable(segment.text)
    return segment if text == segment.text and style is segment.style else Segment(text, style)
