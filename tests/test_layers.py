"""The architecture as a test: imports point down, heavy libraries wait until they are used, files stay short.

launch and other commands > stages > recipe | engine (neither imports the other) > kinds (never each other) > core.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "ladd_dist"
KINDS = {
    "heads", "taps", "losses", "regularisers", "schedules", "starts", "sigmas", "levels", "networks", "datasets",
    "samplers", "metrics", "trackers", "parallel", "guards", "codecs", "students", "critics",
    "targets", "rollouts",
}  # fmt: skip
# Commands that live in the folder of what they are about; each file says so at its top.
SCRIPTS = {"metrics/train_features.py", "levels/__main__.py"}
HEAVY = {
    "webdataset", "sklearn", "torchvision", "matplotlib", "cleanfid", "wandb", "deepspeed", "submitit", "diffusers",
    "scipy", "PIL", "peft",
}  # fmt: skip
ABOVE_THE_PACKAGE = {"plugins", "recipes", "slurm", "tests", "benchmarks"}
LONGEST = 300


class Import(NamedTuple):
    name: str  # a.b.c, for `from a.b import c` too
    line: int
    at_top: bool  # runs when the module is imported


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


def layer(relative: str) -> str:
    """`core`, a kind, `engine`, `recipe`, `stages`, `cluster`, or `command` for what stands above them."""
    top = relative.split("/")[0].removesuffix(".py")
    if relative in SCRIPTS:
        return "command"
    if top in {"core", "engine", "stages", "cluster"} | KINDS:
        return top
    if top in {"machine", "sweeps"}:  # what stages and a cluster's jobs need too
        return "stages" if top == "machine" else "recipe"
    return "recipe" if top in {"checks", "recipe", "settings", "shipped"} else "command"


def allowed(own: str) -> set[str]:
    """The layers that a file of layer `own` may import."""
    below_all = {"core"}
    if own == "core":
        return below_all
    if own in KINDS:
        return below_all | {own}
    if own in {"engine", "recipe"}:
        return below_all | KINDS | {own}
    middle = below_all | KINDS | {"engine", "recipe"}
    return middle | {"stages", "cluster"} if own in {"stages", "cluster"} else middle | {"stages", "cluster", "command"}


def target(name: str) -> str | None:
    """The layer of an imported name inside the package, None for anything else and for the bare package."""
    parts = name.split(".")
    if parts[0] != "ladd_dist" or len(parts) == 1 or parts[1].startswith("__"):
        return None
    for length in (len(parts), len(parts) - 1):  # the last part may be an attribute
        path = "/".join(parts[1:length])
        if f"{path}.py" in SCRIPTS:
            return "command"
    return layer(parts[1])


FILES = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("file", FILES)
def test_imports_point_down(file: str) -> None:
    own = layer(file)
    for name, line, _ in imports(PACKAGE / file):
        found = target(name)
        assert found is None or found in allowed(own), f"ladd_dist/{file}:{line}: {own} may not import {name} ({found})"


@pytest.mark.parametrize("file", FILES)
def test_nothing_in_the_package_names_what_is_built_on_it(file: str) -> None:
    for name, line, _ in imports(PACKAGE / file):
        assert name.split(".")[0] not in ABOVE_THE_PACKAGE, f"ladd_dist/{file}:{line} imports {name}"


@pytest.mark.parametrize("file", FILES)
def test_heavy_libraries_are_imported_where_they_are_used(file: str) -> None:
    for name, line, at_top in imports(PACKAGE / file):
        heavy = at_top and name.split(".")[0] in HEAVY
        assert not heavy, f"ladd_dist/{file}:{line}: import {name} inside the function that needs it"


def test_only_recipe_stages_and_commands_see_a_recipe() -> None:
    for file in FILES:
        seen = {name for name, _, _ in imports(PACKAGE / file) if target(name) == "recipe"}
        assert not seen or layer(file) in {"recipe", "stages", "cluster", "command"}, (file, seen)


@pytest.mark.parametrize("folder", ["ladd_dist", "plugins", "recipes", "slurm", "benchmarks"])
def test_files_are_short(folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (REPO / folder).rglob("*.py")}
    long = {str(path.relative_to(REPO)): length for path, length in lengths.items() if length > LONGEST}
    assert long == {}


def test_the_checks_above_see_what_they_should() -> None:
    """A check that sees nothing passes for ever."""
    assert {layer(file) for file in FILES} >= KINDS | {"core", "engine", "recipe", "stages", "command"}
    assert target("ladd_dist.engine.ladd_step.LaddStep") == "engine"
    assert target("ladd_dist.metrics.train_features.main") == "command"
    assert target("ladd_dist.__version__") is None
    assert "engine" not in allowed("recipe")
    assert "recipe" not in allowed("engine")
    assert "losses" not in allowed("heads")
    inside = [name for name, _, at_top in imports(PACKAGE / "engine" / "shard_writer.py") if not at_top]
    assert "webdataset" in inside


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=REPO)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


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
