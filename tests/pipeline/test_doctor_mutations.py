"""Bugs that broke other projects, put back one by one: `ladd doctor`, or a test, sees each of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mutating import REPO, mutate
from mutations import MUTATIONS
from processes import Done, Ladd

BY_DOCTOR = {name: mutation for name, mutation in MUTATIONS.items() if mutation.check}
BY_TEST = {name: mutation for name, mutation in MUTATIONS.items() if mutation.test}
RECIPE = "recipes/exp6_stored_noise.py"
UNCHANGED = "unchanged"


@pytest.fixture(scope="module")
def answers(smoke: tuple[Done, Ladd], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What doctor says of the package as it is, and of each mutant about the check that must see it."""
    place = tmp_path_factory.mktemp("mutants")
    common = ["--scale", "smoke", "--cache", str(smoke[1].cache), "--out", str(place / "runs"), "--json"]
    jobs = [{"folder": str(REPO), "argv": [RECIPE, *common], "out": str(place / UNCHANGED)}]
    for name, mutation in BY_DOCTOR.items():
        folder = place / f"{name}-copy"
        mutate(mutation, folder)
        argv = [RECIPE, *common, "--only", mutation.check]
        jobs.append({"folder": str(folder), "argv": argv, "out": str(place / name)})
    (place / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    script = Path(__file__).with_name("mutant.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    command = [sys.executable, str(script), str(place / "jobs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return {name: json.loads((place / name).read_text(encoding="utf-8")) for name in (UNCHANGED, *BY_DOCTOR)}


@pytest.mark.slow
def test_doctor_finds_nothing_wrong_with_the_package_as_it_is(answers: dict[str, dict[str, Any]]) -> None:
    checks = answers[UNCHANGED]["checks"]
    assert not [check for check in checks if check["state"] == "fail"]
    seen = {check["name"] for check in checks if check["state"] == "pass"}
    assert {mutation.check for mutation in BY_DOCTOR.values()} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_DOCTOR)
def test_doctor_sees_the_bug(name: str, answers: dict[str, dict[str, Any]]) -> None:
    failed = {check["name"]: check for check in answers[name]["checks"] if check["state"] == "fail"}
    assert set(failed) == {BY_DOCTOR[name].check}, answers[name]
    (check,) = failed.values()
    assert check["cause"] and check["cure"], check
    assert "Error" not in check["found"], check  # seen for what it is, not by a crash


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_TEST)
def test_another_test_sees_the_bug(name: str, tmp_path: Path) -> None:
    mutation = BY_TEST[name]
    mutate(mutation, tmp_path, with_tests=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--rootdir", ".", mutation.test]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"1 failed", done.stdout), done.stdout


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_bug_can_be_put_back(name: str) -> None:
    """Without a copy, so that a change of the code that loses a bug is noticed in quick runs too."""
    for edit in MUTATIONS[name].edits:
        assert (REPO / edit.file).read_text(encoding="utf-8").count(edit.old) == 1, edit


def test_the_page_has_every_bug_and_what_sees_it() -> None:
    text = (REPO / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (.+?) \| `([\w./]+)` \| (check|test) `(.+?)` \|$", text)
    expected = []
    for mutation in MUTATIONS.values():
        kind, by = ("check", mutation.check) if mutation.check else ("test", mutation.test)
        expected.append((mutation.bug, mutation.edits[0].file.removeprefix("ladd_dist/"), kind, by))
    assert rows == [(bug, file, kind, by) for bug, file, kind, by in expected]
