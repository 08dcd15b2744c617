"""`--help` of a command that reads a recipe: an overview of its groups of fields, and the flags of one group."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ladd_dist.core.plugin import Plugin, load_entry_points, registered
from ladd_dist.core.serialize import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from ladd_dist.recipe import Recipe

ALL = "all"
"""The name by which --help shows every group."""
OWN = "recipe"
"""The group of the recipe's own fields, those of no part."""
MOST_WIDE = 110


class Flag(NamedTuple):
    """A field as a flag of the command line."""

    name: str
    value: str
    """The value in force, as it would be typed."""
    text: str


class Group(NamedTuple):
    """The flags of one part of a recipe."""

    name: str
    """The part's path, as in the names of its flags; `recipe` for fields of no part."""
    plugin: str
    """The plug-in in force; empty for a part that is none."""
    others: tuple[str, ...]
    """Names that --swap can put in its place."""
    swap: str
    """The field that --swap names; empty where the part cannot be swapped."""
    text: str
    flags: tuple[Flag, ...]

    @property
    def title(self) -> str:
        """The name, the plug-in in force, and what it may be swapped for."""
        title = f"{self.name}: {self.plugin}" if self.plugin else self.name
        return f"{title} (--swap {self.swap}=NAME: {', '.join(self.others)})" if self.others else title


def field_texts(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, by name; those of base classes too."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            found = _texts_of_classes("".join(inspect.findsource(sys.modules[base.__module__])[0]))
        except (OSError, TypeError, SyntaxError, KeyError):  # a class of no file
            continue
        texts |= found.get(base.__qualname__, {})
    return texts


@functools.cache
def _texts_of_classes(source: str) -> dict[str, dict[str, str]]:
    """Qualified name of each class of a file -> its fields' texts; a file is parsed once, not once a class."""
    found: dict[str, dict[str, str]] = {}

    def visit(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                found[f"{path}{child.name}"] = dict(_texts_of_class(child))
                visit(child, f"{path}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child, f"{path}{child.name}.<locals>.")

    visit(ast.parse(source), "")
    return found


def _texts_of_class(cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for above, below in itertools.pairwise(cls.body):
        if not (isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield above.target.id, " ".join(str(below.value.value).split())


def groups(recipe: Recipe) -> list[Group]:
    """The groups of a recipe's fields, each part before its own parts."""
    own = _group(recipe, "", swap="")
    return [own._replace(name=OWN, text="The recipe's own numbers and names."), *_parts(recipe, "")]


def _parts(node: Any, path: str) -> Iterator[Group]:
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value, inner = getattr(node, field.name), f"{path}{field.name}"
        items = enumerate(value) if isinstance(value, tuple) else ()
        for place, item in [(inner, value), *((f"{inner}.{index}", item) for index, item in items)]:
            if dataclasses.is_dataclass(item) and not isinstance(item, type):
                hint = hints[field.name]
                can_swap = place == inner and isinstance(hint, type) and issubclass(hint, Plugin)
                yield _group(item, place, swap=place if can_swap else "")
                yield from _parts(item, f"{place}.")


def _group(node: Any, path: str, *, swap: str) -> Group:
    texts, hints, flags = field_texts(type(node)), typing.get_type_hints(type(node)), []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value) or (isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value))):
            continue  # a group of its own
        name = f"{path}.{field.name}" if path else field.name
        text = " ".join([texts.get(field.name, ""), *_choices(hints[field.name])])
        flags.append(Flag(_flag(name, value), _typed(value), text.strip()))
    plugin = node.name if isinstance(node, Plugin) else ""
    doc = inspect.cleandoc(type(node).__doc__ or "").split("\n\n")[0]
    others = tuple(name for name in _swappable(node.kind) if name != plugin) if swap else ()
    return Group(_dashed(path), plugin, others, swap, " ".join(doc.split()), tuple(flags))


def _swappable(kind: str) -> list[str]:
    """Names of this kind's plug-ins that need no setting without default."""
    missing = dataclasses.MISSING
    return [
        name
        for name, cls in registered()[kind].items()
        if not any(field.default is field.default_factory is missing for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    ]


def _dashed(path: str) -> str:
    return path.replace("_", "-")


def _flag(path: str, value: Any) -> str:
    above, _, name = _dashed(path).rpartition(".")
    return f"--{above}{'.' if above else ''}{'[no-]' if isinstance(value, bool) else ''}{name}"


def _choices(hint: Any) -> list[str]:
    """What a field may hold, where that is a list; the field's text need not repeat it."""
    for inner in (hint, *typing.get_args(hint)):
        if typing.get_origin(inner) is typing.Literal:
            return [f"[{', '.join(map(str, typing.get_args(inner)))}]"]
    return []


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(_typed, value)) or "none"
    return repr(value) if isinstance(value, str) and not value else str(value)


def show_overview(recipe: Recipe, command: str) -> None:
    """Print a line for each group: its plug-in, the number of its flags, and what --swap can put in its place."""
    from rich.table import Table
    from rich.text import Text

    load_entry_points()
    table = Table(title="fields of the recipe", title_justify="left", box=None, pad_edge=False)
    for heading in ("group", "in force", "flags", "--swap GROUP=NAME"):
        table.add_column(
            heading, justify="right" if heading == "flags" else "left", no_wrap=heading != "--swap GROUP=NAME"
        )
    for group in groups(recipe):
        cells = (group.name, group.plugin, str(len(group.flags)), ", ".join(group.others))
        table.add_row(*map(Text, cells))
    console = _console()
    console.print(table)
    console.print(
        f"\n{command} --help GROUP shows the flags of a group, like --help head; --help {ALL} shows every one."
    )


def show_groups(recipe: Recipe, wanted: str) -> None:
    """Print the flags of a group and of its parts, or of every group.

    Raises:
        RecipeError: there is no such group.
    """
    load_entry_points()
    every, name = groups(recipe), _dashed(wanted)
    chosen = [group for group in every if name in (ALL, group.name) or group.name.startswith(f"{name}.")]
    if not chosen:
        known = ", ".join(group.name for group in every if "." not in group.name)
        raise RecipeError(f"--help {wanted}: no such group of fields; groups: {known}, or {ALL}")
    console = _console()
    for group in chosen:
        _show(group, console)


def _show(group: Group, console: Console) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(Text(group.title, style="bold"))
    if group.text:
        console.print(Padding(Text(group.text, style="dim"), (0, 0, 0, 2), expand=False))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for flag in group.flags:
        table.add_row(Text(flag.name), Text(flag.value, style="cyan"), Text(flag.text))
    console.print(Padding(table if group.flags else Text("(no settings)"), (0, 0, 1, 2), expand=False))


def _console() -> Console:
    from ladd_dist.cli.console import open_console

    console = open_console(highlight=False)
    console.width = min(console.width, MOST_WIDE)
    return console
