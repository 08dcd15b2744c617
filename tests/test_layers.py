"""The architecture as a test: imports point down, no circle, heavy libraries wait until they are used, files are short.

`FLOORS` is the table. The commands stand above it: they are the files directly in `ladd_dist/`, and nobody imports one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "ladd_dist"
KINDS = (
    "heads", "taps", "losses", "regularisers", "schedules", "starts", "sigmas", "levels", "networks", "datasets",
    "samplers", "metrics", "trackers", "parallel", "guards", "codecs", "students", "critics", "targets", "rollouts",
)  # fmt: skip
FLOORS: dict[str, int] = {
    "zoo": 0,
    "core": 1, "costs": 1,
    **dict.fromkeys(KINDS, 2),
    "recipe": 3, "engine": 3, "reports": 3, "testing": 3,
    "workspace": 4, "cli": 4,
    "builders": 5, "comparison": 5,
    "evaluation": 6, "diagnosis": 6, "sliders": 6, "exporting": 6,
    "stages": 7,
    "cluster": 8, "preflight": 8, "tuning": 8,
}  # fmt: skip
"""A file imports from its own folder and from lower floors."""
COMMANDS = 9
"""The floor of the files directly in `ladd_dist/`."""
ANSWERS = {"cancel.py", "promote.py", "wandb_sweep.py"}
"""Names of the version before, which say what to type now (`ladd_dist/cli/renamed.py`)."""
NO_COMMANDS = {"__init__.py", "__main__.py", *ANSWERS}
HEAVY = {
    "webdataset", "sklearn", "torchvision", "matplotlib", "cleanfid", "wandb", "deepspeed", "submitit", "diffusers",
    "transformers", "peft", "accelerate", "huggingface_hub", "scipy", "PIL",
}  # fmt: skip
ABOVE_THE_PACKAGE = {"plugins", "recipes", "slurm", "tests", "benchmarks"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 50


class Import(NamedTuple):
    name: str  # a.b.c, for `from a.b import c` too
    line: int
    at_top: bool  # runs when the module is imported


class Arrow(NamedTuple):
    """One file of the package that imports another."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"ladd_dist/{self.source}:{self.line} imports {self.target}"


def imports(path: Path) -> list[Import]:
    """Every import of a file; those in functions and under TYPE_CHECKING are not `at_top`."""
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of what is imported"
            found.extend(Import(f"{node.module}.{alias.name}", node.lineno, at_top) for alias in node.names)
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inner |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, at_top and not inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def file_of(package: Path, name: str) -> str | None:
    """The file, relative to the package, that an imported name lies in; None for other packages and the bare one."""
    parts = name.split(".")
    if parts[0] != "ladd_dist":
        return None
    for length in (len(parts), len(parts) - 1):  # the last part may be an attribute
        base = package.joinpath(*parts[1:length])
        if length > 1 and base.with_suffix(".py").is_file():
            return str(base.with_suffix(".py").relative_to(package))
        if length > 1 and (base / "__init__.py").is_file():
            return str((base / "__init__.py").relative_to(package))
    return None


def arrows_of(package: Path) -> list[Arrow]:
    """Every import between two files of the package, those in functions and under TYPE_CHECKING too."""
    found = []
    for path in sorted(package.rglob("*.py")):
        own = str(path.relative_to(package))
        pairs = [(file_of(package, name), line) for name, line, _ in imports(path)]
        found += [Arrow(own, target, line) for target, line in pairs if target not in (None, own, "__init__.py")]
    return found


def room(file: str) -> str:
    """The folder directly in the package; "" for the commands."""
    return file.split("/")[0] if "/" in file else ""


def upward(arrows: list[Arrow], floors: Mapping[str, int] = FLOORS) -> list[Arrow]:
    """Imports that point up, or across to another room of the same floor; a room without a floor may import none."""
    level = {**floors, "": COMMANDS}
    across = [arrow for arrow in arrows if room(arrow.source) != room(arrow.target)]
    return [arrow for arrow in across if level.get(room(arrow.target), COMMANDS) >= level.get(room(arrow.source), 0)]


def circle(arrows: list[Arrow]) -> list[str]:
    """Files that import each other in a ring, in the order of the ring; empty if there is none."""
    graph: dict[str, list[str]] = {}
    for arrow in arrows:
        graph.setdefault(arrow.source, []).append(arrow.target)
    done: set[str] = set()

    def walk(file: str, path: list[str]) -> list[str]:
        if file in path:
            return [*path[path.index(file) :], file]
        if file in done:
            return []
        for other in graph.get(file, []):
            if ring := walk(other, [*path, file]):
                return ring
        done.add(file)
        return []

    return next((ring for file in graph if (ring := walk(file, []))), [])


def long_functions(path: Path) -> dict[str, int]:
    """Functions of more than `LONGEST_FUNCTION` lines, from `def` to the last one."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                found[node.name] = length
    return found


ARROWS = arrows_of(PACKAGE)
FILES = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))]
LOOSE = [file for file in FILES if "/" not in file and file not in NO_COMMANDS]


def test_imports_point_down() -> None:
    assert [str(arrow) for arrow in upward(ARROWS)] == []


def test_no_file_imports_itself_through_others() -> None:
    assert circle(ARROWS) == []


def test_nobody_imports_a_command() -> None:
    assert [str(arrow) for arrow in ARROWS if room(arrow.target) == ""] == []


def is_command(path: Path) -> bool:
    """Whether a file has `Options` (a class, or a union of the subcommands' classes) and `main`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names |= {node.name} if isinstance(node, ast.ClassDef | ast.FunctionDef) else set()
        names |= {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}
    return {"Options", "main"} <= names


@pytest.mark.parametrize("file", LOOSE)
def test_the_top_of_the_package_holds_commands_alone(file: str) -> None:
    assert is_command(PACKAGE / file)


def test_every_folder_has_a_floor_and_every_floor_its_folder() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FLOORS)
    assert max(FLOORS.values()) < COMMANDS <= 9


@pytest.mark.parametrize("file", FILES)
def test_nothing_in_the_package_names_what_is_built_on_it(file: str) -> None:
    for name, line, _ in imports(PACKAGE / file):
        top = name.removeprefix("ladd_dist.zoo.").split(".")[0]
        assert top not in ABOVE_THE_PACKAGE, f"ladd_dist/{file}:{line} imports {name}"


@pytest.mark.parametrize("file", FILES)
def test_heavy_libraries_are_imported_where_they_are_used(file: str) -> None:
    for name, line, at_top in imports(PACKAGE / file):
        heavy = at_top and name.split(".")[0] in HEAVY
        assert not heavy, f"ladd_dist/{file}:{line}: import {name} inside the function that needs it"


def test_the_engine_and_the_reports_never_see_a_recipe() -> None:
    """They stand on the recipe's floor, so `test_imports_point_down` holds it; this says it by name."""
    assert [str(a) for a in ARROWS if room(a.source) in ("engine", "reports") and room(a.target) == "recipe"] == []


@pytest.mark.parametrize("folder", ["ladd_dist", "plugins", "recipes", "slurm", "benchmarks"])
def test_files_are_short(folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (REPO / folder).rglob("*.py")}
    long = {str(path.relative_to(REPO)): length for path, length in lengths.items() if length > LONGEST_FILE}
    assert long == {}


@pytest.mark.parametrize("folder", ["ladd_dist", "plugins", "recipes", "slurm"])
def test_functions_are_short(folder: str) -> None:
    long = {
        str(path.relative_to(REPO)): found for path in (REPO / folder).rglob("*.py") if (found := long_functions(path))
    }
    assert long == {}


def test_the_checks_above_see_what_they_should(tmp_path: Path) -> None:
    """A check that sees nothing passes for ever: each one is shown a small package that breaks it."""
    package = tmp_path / "ladd_dist"
    files = {
        "launch.py": "",
        "core/noise.py": "def f():\n    from ladd_dist.stages.run import go\n",
        "heads/conv.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ladd_dist import launch\n",
        "taps/all.py": "from ladd_dist.heads.conv import Conv\n",
        "stages/run.py": "import ladd_dist.core.noise\n",
        "stages/good.py": "from ladd_dist.core.noise import f\nfrom ladd_dist import __version__\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    arrows = arrows_of(package)
    assert {(arrow.source, arrow.target) for arrow in upward(arrows)} == {
        ("core/noise.py", "stages/run.py"), ("heads/conv.py", "launch.py"), ("taps/all.py", "heads/conv.py"),
    }  # fmt: skip
    assert sorted(set(circle(arrows))) == ["core/noise.py", "stages/run.py"]
    long = tmp_path / "long.py"
    long.write_text("def f():\n" + "    x = 1\n" * LONGEST_FUNCTION)
    assert long_functions(long) == {"f": LONGEST_FUNCTION + 1}
    inside = [name for name, _, at_top in imports(PACKAGE / "engine" / "shard_writer.py") if not at_top]
    assert "webdataset" in inside
    assert len(ARROWS) > 500


def test_the_picture_in_the_docs_has_every_room() -> None:
    """Each folder stands on its floor in docs/architecture.md, as `| 3 | recipe/ engine/ ... |`."""
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text, re.MULTILINE)
    shown = {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)/`", names)}
    assert shown == FLOORS


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=REPO)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.alone
def test_importing_the_recipe_costs_little_more_than_importing_torch() -> None:
    """Measured as processor time of this process alone, best of three, with torch already there."""
    code = """
import time, torch
started = time.process_time()
import ladd_dist.recipe
print(time.process_time() - started)
"""
    assert min(float(run(code)) for _ in range(3)) < 0.5


def test_importing_the_recipe_loads_no_heavy_library() -> None:
    torchs_own = f"import sys, torch; before = set(sys.modules); heavy = {HEAVY!r}\n"
    loaded = "print([name for name in heavy if name in sys.modules and name not in before])"
    assert run(torchs_own + "import ladd_dist.recipe\n" + loaded) == "[]"


def test_importing_the_package_itself_loads_not_even_torch() -> None:
    assert run("import sys, ladd_dist; print('torch' in sys.modules)") == "False"


def test_no_command_needs_torch_to_print_its_help() -> None:
    modules = ", ".join(f"ladd_dist.{file.removesuffix('.py')}" for file in LOOSE)
    assert run(f"import sys, {modules}; print('torch' in sys.modules)") == "False"


def measures(package: Path) -> dict[str, int]:
    """The numbers by which the house is judged."""
    files = sorted(package.rglob("*.py"))
    arrows = arrows_of(package)
    loose = [path for path in package.glob("*.py") if path.name not in NO_COMMANDS]
    texts = [path.read_text(encoding="utf-8") for path in files]
    return {
        "files": len(files),
        "lines": sum(len(text.splitlines()) for text in texts),
        f"files over {LONGEST_FILE} lines": sum(len(text.splitlines()) > LONGEST_FILE for text in texts),
        f"functions over {LONGEST_FUNCTION} lines": sum(len(long_functions(path)) for path in files),
        "floors": len({*FLOORS.values(), COMMANDS}),
        "imports upward": len(upward(arrows)),
        "files in the first circle of imports": len(set(circle(arrows))),
        "imports of a command": sum(room(arrow.target) == "" for arrow in arrows),
        "loose modules that are no command": sum(not is_command(path) for path in loose),
        "dict[str, Any] and Mapping[str, Any]": sum(len(re.findall(r"(?:dict|Mapping)\[str, Any\]", t)) for t in texts),
    }


if __name__ == "__main__":  # python tests/test_layers.py [PACKAGE]
    for name, value in measures(Path(sys.argv[1]).resolve() if sys.argv[1:] else PACKAGE).items():
        print(f"{name:42s} {value:6d}")


def test_a_launch_starts_without_the_library_of_checkpoints() -> None:
    """It takes most of a second to import, and a command that trains nothing never needs it."""
    code = "import sys, ladd_dist.launch, ladd_dist.stages.run, ladd_dist.stages.dry_run\n"
    assert run(code + "print('torch.distributed.checkpoint' in sys.modules)") == "False"
