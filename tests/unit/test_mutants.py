"""The list of mutants fits the code and the tests; `make mutants` runs it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from mutants import MUTANTS
from mutating import REPO, mutated


@cache
def names_in(file: str) -> set[str]:
    """Names of a file's test functions."""
    tree = ast.parse((REPO / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_bug_can_be_put_in_and_the_test_that_must_see_it_exists(name: str) -> None:
    """Without a copy, so that a change of the code that loses a mutant is noticed in quick runs too."""
    mutation = MUTANTS[name]
    for file, text in mutated(mutation.edits).items():
        before = ast.parse((REPO / file).read_text(encoding="utf-8"))
        assert ast.dump(ast.parse(text)) != ast.dump(before), f"{file} says the same with the bug as without"
    file, _, test = mutation.test.partition("::")
    assert test in names_in(file), f"{file} has no test {test!r}"


def test_no_two_mutants_are_the_same_bug() -> None:
    assert len({mutation.edits for mutation in MUTANTS.values()}) == len(MUTANTS)


SCRIPT = """
import sys
from mutants import __main__
from mutating import Mutation, one
LOG_NORMAL = "tests/unit/test_couplings.py::test_a_log_normal_law_has_its_mean_and_deviation_and_ignores_the_levels"
BUG = one("sigmas/laws.py", "self.mean, self.std, generator", "self.std, self.mean, generator")
HARMLESS = one("sigmas/laws.py", "if step >= phase.start_step", "if phase.start_step <= step")
CRASH = one("sigmas/laws.py", "class LogNormal(SigmaLaw)", "class LogNormal(NoSuchName)")
GONE = one("sigmas/laws.py", "no such text", "")
found = {name: Mutation(name, edits, test=LOG_NORMAL) for name, edits in
         {"bug": BUG, "harmless": HARMLESS, "crash": CRASH, "gone": GONE}.items()}
sys.exit(__main__.main(sys.argv[1:], found))
"""


@pytest.mark.slow
def test_the_command_fails_and_lists_the_mutants_that_no_test_kills(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPO / 'tests'}{os.pathsep}{REPO}", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, "--workers", "2"]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    progress, _, listed = done.stdout.partition("4 mutants: 1 killed\n")
    assert "bug" in progress and "bug: " not in listed
    assert "harmless: survived" in listed
    assert "crash: ended with code" in listed
    assert "gone: does not apply" in listed
    assert not list(tmp_path.glob("mutants-*")), "copies are left behind"
