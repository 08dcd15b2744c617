"""The set-up of every HTML page: the template engine, pictures inside the file, and drawings as markup."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ladd_dist.core.door import read_bytes
from ladd_dist.core.printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

HERE = Path(__file__).parent
MOST_PICTURE = 64 * 2**20
"""Bytes of a picture inside a page."""
NUM_COLOURS = 8
"""Colours of curves that base.css has."""
# Matplotlib knows colours, not CSS variables: these stand-ins are replaced in the finished SVG, so that the page's
# light and dark themes reach into the charts.
MUTED, LINE, BAND, CARD = "#010101", "#020202", "#030303", "#050505"
CURVES = tuple(f"#0400{index:02d}" for index in range(NUM_COLOURS))
STAND_INS = {
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    BAND: "var(--band)",
    CARD: "var(--card)",
    **{colour: f"var(--s{index})" for index, colour in enumerate(CURVES)},
}


def render(template: Path, values: Mapping[str, object]) -> str:
    """Fill a Jinja template; text is escaped, only `Markup` is not. It may include the templates beside this module.

    Control characters are visible escapes.

    Raises:
        jinja2.UndefinedError: the template asks for something that `values` do not hold.
    """
    return printable(_environment(template.parent).get_template(template.name).render(values))


@functools.cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(png: Path | bytes) -> str:
    """A PNG, as a file or its bytes, as an address that holds the picture itself: the page needs no second file."""
    content = png if isinstance(png, bytes) else read_bytes(png, most=MOST_PICTURE)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def inline_svg(svg: str, prefix: str) -> Markup:
    """Make matplotlib's file a part of a page: no headers and addresses, own ids, the page's colours and font."""
    from markupsafe import Markup

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::\w+)?="[^"]*"|version="[^"]*"|(?:width|height)="[\d.]+pt")', "", svg)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for stand_in, variable in STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return Markup(svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1))
