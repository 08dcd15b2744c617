"""Sweeps that cannot be: each is an exit code and one message that says what, where and what to do; nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bench import PROFILE, SWEEP

from ladd_dist import sweep


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Ask:
    """`ladd sweep` in this process, on a file of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, rest: str, *words: str, code: int = 2, profile: str = 'executor="local"') -> str:
        """What it says on stderr, one message; nothing is written."""
        (self.folder / "small.py").write_text(SWEEP.format(steps=6, every=5, rest=rest))
        (self.folder / "profile.py").write_text(PROFILE.format(fields=profile))
        before = files(self.folder)
        place = ["--on", "profile.py", "--scale", "smoke", "--out", "runs", "--cache", "cache"]
        assert sweep.main(["small.py", *place, *words]) == code
        assert {name for name in files(self.folder) - before if "__pycache__" not in name} == set()
        said = self.capsys.readouterr()
        assert said.out == "" or code == 0
        assert len(said.err.strip().splitlines()) == 1, said.err
        return said.err


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.chdir(tmp_path)
    return Ask(tmp_path, capsys)


def test_an_axis_that_names_no_field_lists_those_there_are(ask: Ask) -> None:
    said = ask('(Axis("heads", ("max_pool",)),)')
    assert said.startswith("error: axis 'heads': no field 'heads'; fields of Recipe: ")
    assert " head, " in said and "or 'recipe' with files as values" in said


def test_an_empty_sweep_says_what_is_empty(ask: Ask) -> None:
    assert ask("(), seeds=()") == "error: SWEEP.seeds: an empty sweep; give at least one seed, like seeds=(0,)\n"
    assert ask('(Axis("head", ()),)') == "error: axis 'head': an empty sweep; give at least one value\n"
    assert ask("(), mode=Points(())") == "error: SWEEP.mode: an empty sweep; Points needs at least one point\n"


def test_runs_of_equal_signature_are_run_once_and_both_are_named(ask: Ask) -> None:
    said = ask('(Axis("train.log_every", (1, 2)),)', "--dry-run", "--json", code=0)
    assert said.startswith("'train.log_every=2 seed=0' is the same run as 'train.log_every=1 seed=0' (signature ")


def test_runs_that_would_share_a_folder_are_refused(ask: Ask) -> None:
    said = ask('(Axis("evaluate.num_samples", (32, 64)),)')
    assert "they would share a folder; measure them in two sweeps, with two folders --out" in said


def test_a_profile_with_a_misspelt_field_lists_the_valid_ones(ask: Ask) -> None:
    said = ask("()", profile='partitions="gpu"')
    assert said.startswith(
        "error: --on profile.py: Cluster has no field 'partitions', did you mean 'partition'? Fields: "
    )
    assert "time_min" in said
    assert "Cluster has no field 'colour'. Fields: partition, " in ask("()", profile='colour="blue"')


def test_without_sbatch_on_the_path_a_machine_that_needs_none_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = ask("()", profile='partition="gpu"')
    assert said.startswith("error: --on profile.py: no `sbatch` on the path; submit from a machine of the cluster, or ")
    assert "--on slurm/laptop.py" in said


def test_an_unknown_partition_is_named_with_those_that_the_profiles_cluster_has(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that stand for SLURM's and answer for one cluster alone: the profile's `client` leads there."""
    monkeypatch.setenv("SLURM_CONF", "/another/cluster")  # put back at the end, as is the path
    monkeypatch.setenv("PATH", os.environ["PATH"])
    commands = ask.folder / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun", "sinfo"):
        (commands / name).write_text("#!/bin/sh\ntest $SLURM_CONF = /the/cluster && echo low && echo high\n")
        (commands / name).chmod(0o755)
    client = f'client=(("SLURM_CONF", "/the/cluster"), ("PATH", "{commands}"))'
    said = ask("()", profile=f'partition="gpus", {client}')
    assert said == "error: --on profile.py: no partition 'gpus'; partitions: high, low\n"


def test_a_sweep_of_another_version_under_the_same_out_is_named_and_nothing_submitted(ask: Ask) -> None:
    record = ask.folder / "runs" / "sweeps" / "other-0123456789" / "sweep.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"format": 9, "runs": [], "jobs": []}))
    said = ask("()", code=1)
    assert "runs/sweeps/other-0123456789/sweep.json has format 9, this version reads 1: use the version that" in said
    record.write_text('{"format": 1, "jobs": [')
    damaged = ask("()", code=1)
    assert "sweeps/other-0123456789/sweep.json is not valid JSON" in damaged
    assert "move it away; what the runs have done is kept" in damaged and "delete" not in damaged
