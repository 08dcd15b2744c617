"""Plug-ins of a recipe, and the source files that their results depend on."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from ladd_dist import __version__
from ladd_dist.core.packages import NEEDED, require_package
from ladd_dist.core.plugin import Plugin, origin
from ladd_dist.zoo import short_name

if TYPE_CHECKING:
    from ladd_dist.recipe.recipe import Recipe


INSTALLED = {"site-packages", "dist-packages"}
_LONG = b"ladd_dist.zoo."


class Used(NamedTuple):
    """Plug-in of a recipe, the path of its field, and whether it is neutral (changes no result)."""

    field: str
    plugin: Plugin
    neutral: bool


def plugins_in(node: object, where: str = "", neutral: bool = False) -> Iterator[Used]:
    """Plug-ins of a tree of dataclasses and tuples, outermost first."""
    if isinstance(node, Plugin):
        yield Used(where, node, neutral or node.neutral)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        for field in dataclasses.fields(node):
            inner = f"{where}.{field.name}" if where else field.name
            without_effect = neutral or bool(field.metadata.get("neutral"))
            yield from plugins_in(getattr(node, field.name), inner, without_effect)
    elif isinstance(node, tuple):
        for index, item in enumerate(node):
            yield from plugins_in(item, f"{where}[{index}]", neutral)


def require_packages(recipe: Recipe) -> None:
    """Refuse a recipe whose plug-ins need a package that is not installed, before hours end there.

    Raises:
        UserError: names plug-in and package, and the line that installs it.
    """
    for field, plugin, _ in plugins_in(recipe):
        for module in NEEDED.get(f"{plugin.kind}/{plugin.name}", ()):
            require_package(module, f"{field}={plugin.name}")


@dataclass(frozen=True)
class PluginSource:
    """Where a recipe's plug-in comes from: what a lock holds it to."""

    kind: str
    name: str
    module: str
    """Its short name, where it ships with this package."""
    qualname: str
    """In JSON the key `class`."""
    package: str | None
    """None for a folder or file of the user's."""
    version: str | None
    neutral: bool
    """Whether it changes no result."""
    sources: dict[str, str]
    """As `sources` gives them."""


def describe_plugins(recipe: Recipe) -> dict[str, PluginSource]:
    """The origin of each plug-in of a recipe, by its field."""
    found = {}
    for field, plugin, neutral in plugins_in(recipe):
        cls = type(plugin)
        package, version = _package(cls)
        origins = (cls.kind, cls.name, short_name(cls.__module__), cls.__qualname__, package, version)
        found[field] = PluginSource(*origins, neutral, sources(cls))
    return found


def _package(cls: type[Plugin]) -> tuple[str | None, str | None]:
    where = origin(cls)
    if where == "core":
        return "ladd_dist", __version__
    if where.startswith("package "):
        name = where.removeprefix("package ")
        return name, importlib.metadata.version(name)
    return None, None


def sources(cls: type[Plugin]) -> dict[str, str]:
    """sha256 by module of the files of a class, of its bases, and of the user's own modules that they import.

    Hashes cover whole files, because a class computes with the functions beside it too. Shipped plug-ins count like a
    user's, by their short names, which also replace the long ones in the text: so it was hashed before there were long
    ones. Imported modules of this package are left out, because its version stands for them; so are installed packages
    and the standard library.
    """
    waiting = [base.__module__ for base in cls.__mro__ if issubclass(base, Plugin) and base is not Plugin]
    files: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        path = _file(module)
        if module is None or path is None or short_name(name) in files:
            continue
        content, short = path.read_bytes(), short_name(name)
        text = content.replace(_LONG, b"") if short != name else content
        files[short] = hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()
        if short != name or not name.startswith("ladd_dist."):
            waiting += [other for other in _imported(content) if _is_users_own(other)]
    return dict(sorted(files.items()))


def _file(module: ModuleType | None) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path) if path and path.endswith(".py") else None


def _imported(content: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _is_users_own(name: str) -> bool:
    top, path = name.partition(".")[0], _file(sys.modules.get(name))
    if path is not None and short_name(name) != name:
        return True
    if path is None or top == "ladd_dist" or top in sys.stdlib_module_names:
        return False
    return not INSTALLED & set(path.parts)
