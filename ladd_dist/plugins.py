"""List every plug-in by kind, or check one: `python -m ladd_dist.plugins [--check NAME] [--kind KIND] [--json]`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.closest import close, closest_first
from ladd_dist.core.plugin import (
    Plugin,
    PluginError,
    broken_entry_points,
    load_entry_points,
    load_plugins,
    registered,
)
from ladd_dist.core.printable import one_line
from ladd_dist.core.serialize import FieldDescription, describe

Tables = dict[str, dict[str, type[Plugin]]]
MOST_GUESSES = 3
"""Most names that are offered for an unknown one whose kind is not given."""


@dataclass(frozen=True)
class Options:
    """List the plug-ins that recipes and --swap can use, or check one against the contract of its kind."""

    check: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """Run the contract checks on this plug-in: NAME, or KIND:NAME where two kinds share a name."""
    kind: Annotated[str, tyro.conf.arg(metavar="KIND")] = ""
    """Only this kind, like `head`."""
    json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Print JSON for machines."""
    plugins: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE ...")] = ()
    """Modules to import for what they register, besides the package `plugins`."""


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 all is well, 1 a check failed, 2 an unknown name or a wrong command line."""
    try:
        return run_guarded(lambda: _main(read(Options, argv, prog="python -m ladd_dist.plugins")))
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 2


def _main(args: Options) -> int:
    tables = _load(args)
    wanted = _find(tables, args.check) if args.check else None
    if wanted is not None:
        return _check(wanted, as_json=args.json)
    if args.json:
        listed = [describe(cls) for table in tables.values() for cls in table.values()]
        print(json.dumps({"plugins": listed, "broken_entry_points": broken_entry_points()}, indent=2))
    else:
        _print_tables(tables)
    return 0


def _load(args: Options) -> Tables:
    import ladd_dist.recipe  # noqa: F401  registers the core's plug-ins; late, so that --help does not pay for torch

    load_plugins(args.plugins)
    load_entry_points()
    for name, reason in broken_entry_points().items():
        print(f"warning: entry point {name!r} is broken and was left out: {reason}", file=sys.stderr)
    tables = registered()
    if not args.kind:
        return tables
    if args.kind not in tables:
        raise PluginError(f"unknown kind {args.kind!r}; kinds: {', '.join(closest_first(args.kind, tables))}")
    return {args.kind: tables[args.kind]}


def _find(tables: Tables, wanted: str) -> type[Plugin]:
    kind, separator, name = wanted.replace("=", ":").partition(":")
    if not separator:
        kind, name = "", wanted
    elif kind not in tables:
        raise PluginError(f"unknown kind {kind!r} in {wanted!r}; kinds: {', '.join(closest_first(kind, tables))}")
    searched = {kind: tables[kind]} if kind else tables
    found = [table[name] for table in searched.values() if name in table]
    if len(found) > 1:
        choices = ", ".join(f"{cls.kind}:{cls.name}" for cls in found)
        raise PluginError(f"{name!r} is the name of several plug-ins, say which: {choices}")
    if not found:
        broken = broken_entry_points().get(name)
        if broken is not None:
            raise PluginError(f"the package that offers {name!r} is broken: {broken}")
        raise PluginError(
            f"unknown plug-in {wanted!r} (give its module by --plugins MODULE); {_instead(searched, name)}"
        )
    return found[0]


def _instead(tables: Tables, name: str) -> str:
    """The names that may have been meant: all of one kind, the closest first; of several kinds, the likely ones."""
    if len(tables) == 1:
        ((kind, table),) = tables.items()
        return f"of kind {kind} there are {', '.join(closest_first(name, table))}"
    likely = close(name, {other for table in tables.values() for other in table})[:MOST_GUESSES]
    guesses = [f"{kind}:{other}" for other in likely for kind, table in tables.items() if other in table]
    return (f"did you mean {', '.join(guesses)}? " if guesses else "") + "`ladd plugins` lists all"


def _check(cls: type[Plugin], *, as_json: bool) -> int:
    from ladd_dist.testing import ContractError, check_plugin

    error = ""
    try:
        check_plugin(cls)
    except ContractError as failure:
        error = str(failure)
    if as_json:
        print(json.dumps({"kind": cls.kind, "name": cls.name, "ok": not error, "error": error}, indent=2))
    else:
        print(f"{cls.kind} {cls.name}: {f'FAILED: {error}' if error else 'ok'}")
    return 1 if error else 0


def _print_tables(tables: Tables) -> None:
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    for kind, table in tables.items():
        view = Table(title=f"{kind} ({len(table)})", title_justify="left")
        for heading in ("name", "fields and defaults", "what it is", "origin"):
            view.add_column(heading)
        for cls in table.values():
            about = describe(cls)
            fields = ", ".join(f"{name}={_default(entry)}" for name, entry in about["fields"].items())
            view.add_row(
                *(Text(one_line(text)) for text in (about["name"], fields or "-", about["doc"], about["origin"]))
            )
        console.print(Fitted(view, keep=("fields and defaults", "what it is"), rest="--json"))


def _default(entry: FieldDescription) -> str:
    return "required" if entry["required"] else json.dumps(entry["default"])


if __name__ == "__main__":
    sys.exit(main())
