"""A plug-in's settings as flags."""

from __future__ import annotations

import dataclasses

from ladd_dist.core.plugin import Plugin


def flags_of(prefix: str, plugin: Plugin) -> list[str]:
    """Flags that set the fields of a plug-in whose values are not its defaults; numbers, texts and lists of them."""
    words = list[str]()
    for each in dataclasses.fields(plugin):  # type: ignore[arg-type]
        value = getattr(plugin, each.name)
        if value == each.default:
            continue
        name = f"{prefix}.{each.name}".replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--{prefix}.no-{each.name}".replace("_", "-"))
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name}", *(repr(item) if isinstance(item, float) else str(item) for item in values)]
    return words
