"""The registry: a plug-in is a frozen dataclass, its kind is its base class, its name is text that can stand for it.

Ordinary imports are the main registry (a recipe imports the head it wants). The name table below serves only where
text must become a type: `config.json`, `--swap head=max_pool`, sweep axes, `ladd plugins`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from ladd_dist.core.closest import closest_first
from ladd_dist.core.errors import UserError
from ladd_dist.core.moved import moved
from ladd_dist.core.ranges import Ranged
from ladd_dist.zoo import short_name, users_own

ENTRY_POINT_GROUP = "ladd_dist.plugins"
RESERVED_FIELDS = frozenset({"name", "kind", "plugin", "neutral", "identity"})


class PluginError(UserError):
    """Error about a plug-in that cannot be registered, found or loaded; the message says what would have worked."""


class Plugin(Ranged):
    """Base of every kind. A kind sets `kind`; `register` sets `name`.

    Instances are frozen dataclasses: they hold settings only, compare by value and cost nothing to make. Values that
    only a run knows (channels, devices, folders) arrive later as arguments of `build` or of the call.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""

    @property
    def neutral(self) -> bool:
        """Whether these settings change no result; signatures leave such a plug-in out."""
        return False

    def identity(self) -> Mapping[str, object]:
        """Values by field name that signatures hash instead of the fields: a file's contents, not its path."""
        return {}


P = TypeVar("P", bound=type[Plugin])

_tables: dict[str, dict[str, type[Plugin]]] = {}
_broken_entry_points: dict[str, str] = {}
_entry_points_loaded = False
SHIPPED = "plugins"
"""The short name of the package of plug-ins that ships with this one."""


def register(name: str) -> Callable[[P], P]:
    """Class decorator: enter a frozen dataclass into the table of its kind under `name` (snake_case).

    Raises:
        PluginError: the class is no frozen dataclass or has no kind, or a name is malformed, taken or reserved.
    """

    def enter(cls: P) -> P:
        where = f"plug-in {name!r} ({cls.__module__}.{cls.__qualname__})"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise PluginError(f"{where}: the name must be snake_case, like 'spectral_norm'")
        if not issubclass(cls, Plugin) or not cls.kind:
            raise PluginError(f"{where}: derive it from the base class of a kind, like ladd_dist.heads.Head")
        if not (dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):
            raise PluginError(f"{where}: put @dataclass(frozen=True) under @register({name!r})")
        reserved = RESERVED_FIELDS & {field.name for field in dataclasses.fields(cls)}
        if reserved:
            raise PluginError(f"{where}: field name {sorted(reserved)[0]!r} is reserved, call it something else")
        table = _tables.setdefault(cls.kind, {})
        known = table.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise PluginError(
                f"{where}: the {cls.kind} name {name!r} is taken by {known.__module__}.{known.__qualname__}; "
                "choose another name"
            )
        cls.name = name
        table[name] = cls
        return cls

    return enter


def load_modules(modules: Iterable[str]) -> None:
    """Import modules by name for the plug-ins that they register.

    Raises:
        PluginError: a module is missing or fails while it is imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise PluginError(
                f"plug-in module {module!r} cannot be imported ({moved(error) or f'{type(error).__name__}: {error}'}); "
                "check --plugins, or install the package that holds it"
            ) from error


def load_plugins(given: Iterable[str]) -> None:
    """Import the shipped plug-ins, and the modules that were asked for.

    Another package `plugins`, which may have come with somebody's runs, is imported only if it is among `given`.

    Raises:
        PluginError: a module is missing or fails while it is imported.
    """
    load_modules((f"ladd_dist.zoo.{SHIPPED}", *given))


def load_entry_points() -> None:
    """Load third-party plug-ins (entry points of group `ladd_dist.plugins`); a broken one never stops the others.

    Packages are installed: the metadata of one that lies in the current folder, beside somebody's runs, do not count.
    """
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    for entry_point in _installed_entry_points():
        try:
            entry_point.load()
        except Exception as error:  # reported by `lookup` when somebody asks for that name
            _broken_entry_points[entry_point.name] = f"{entry_point.value}: {type(error).__name__}: {error}"


def _installed_entry_points() -> list[importlib.metadata.EntryPoint]:
    here = Path.cwd().resolve()
    elsewhere = [folder for folder in sys.path if Path(folder).resolve() != here]
    packages = importlib.metadata.distributions(path=elsewhere)
    return [point for package in packages for point in package.entry_points if point.group == ENTRY_POINT_GROUP]


def broken_entry_points() -> dict[str, str]:
    """Reasons by name of the entry points that failed to load."""
    return dict(_broken_entry_points)


def lookup(kind: str, name: str) -> type[Plugin]:
    """Plug-in class of this kind and name; entry points are loaded only when the name is not known yet.

    Raises:
        PluginError: there is no such kind or name (the message lists those that there are, the closest first), or its
            package is broken.
    """
    if name not in _tables.get(kind, {}):
        load_entry_points()
    if name in _tables.get(kind, {}):
        return _tables[kind][name]
    if name in _broken_entry_points:
        raise PluginError(f"the package that offers {kind} {name!r} is broken: {_broken_entry_points[name]}")
    if kind not in _tables:
        raise PluginError(f"unknown kind {kind!r}; kinds: {', '.join(closest_first(kind, sorted(_tables)))}")
    broken = f"; entry points that failed to load: {', '.join(_broken_entry_points)}" if _broken_entry_points else ""
    if (other := users_own(SHIPPED)) is not None and SHIPPED not in sys.modules:
        place = next(iter(other.submodule_search_locations or ()), other.origin)
        broken += f"; {place} is a package `{SHIPPED}` too: if it is yours, say --plugins {SHIPPED}"
    raise PluginError(
        f"unknown {kind} {name!r}; valid: {', '.join(closest_first(name, sorted(_tables[kind])))}{broken}"
    )


def create(kind: str, name: str) -> Plugin:
    """Plug-in of this kind and name with its default fields.

    Raises:
        PluginError: the name is unknown, or the plug-in has a field without default.
    """
    cls = lookup(kind, name)
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise PluginError(f"{kind} {name!r} has no default for {', '.join(missing)}: set it in a recipe")
    return cls()


def registered() -> dict[str, dict[str, type[Plugin]]]:
    """Copy of the registry, kind -> name -> class, sorted by kind and name."""
    return {kind: dict(sorted(table.items())) for kind, table in sorted(_tables.items())}


@functools.cache  # it reads the file list of every installed package
def _installed_packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def origin(cls: type[Plugin]) -> str:
    """Origin of a plug-in: `core`, a folder like `plugins/`, a file like `my_heads.py`, or an installed `package X`."""
    name = short_name(cls.__module__)
    top = name.split(".")[0]
    own = __name__.split(".")[0]
    if top == own:
        return "core"
    distributions = _installed_packages().get(top, [])
    if not distributions or own in distributions or name != cls.__module__:
        return f"{top}/" if "." in name else f"{top}.py"
    return f"package {distributions[0]}"


def summary(cls: type[Plugin]) -> str:
    """First line of a class's docstring; empty without one (the one that dataclasses invent does not count)."""
    doc = cls.__dict__.get("__doc__") or ""
    return "" if doc.startswith(f"{cls.__name__}(") else inspect.cleandoc(doc).split("\n")[0]


def plugin_modules(given: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the modules to import for their plug-ins: the package `plugins` and those given by --plugins."""
    return tuple(dict.fromkeys((SHIPPED, *given)))
