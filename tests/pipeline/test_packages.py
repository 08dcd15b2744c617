"""What a run can do without: packages that are not installed, which a hook in the import system plays here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import test_layers
from processes import REPO, Done, read_json, run_command

from ladd_dist.cli.errors import FAILURE, exit_report
from ladd_dist.core import packages
from ladd_dist.core.packages import INSTALL, NEEDED
from ladd_dist.core.plugin import load_plugins, registered

OPTIONAL = {
    "deepspeed", "wandb", "tensorboard", "submitit", "diffusers", "transformers", "peft", "accelerate", "cleanfid",
    "timm", "clip", "torchvision",
}  # fmt: skip
"""What the main job at smoke scale needs none of."""
HIDING = f"""
import sys

class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hiding())
from ladd_dist.__main__ import main
main()
"""


def hidden(cwd: Path, *words: object) -> Done:
    """Run a command where none of `OPTIONAL` can be imported."""
    return run_command(sys.executable, "-c", HIDING, *words, cwd=cwd)


@pytest.mark.slow
def test_the_main_job_runs_from_teacher_to_page_without_them(tmp_path: Path) -> None:
    done = hidden(tmp_path, "launch", "exp4_specnorm", "--scale", "smoke", "--train.steps", "5")
    assert done.code == 0, done.stderr
    run = tmp_path / done.run
    assert "student@4" in read_json(run / "eval.json")
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "who", "module"),
    [
        ("launch exp4_specnorm --scale smoke --parallel zero1", "parallel=zero1", "deepspeed"),
        ("launch exp4_specnorm --scale smoke --swap tracker=wandb", "tracker=wandb", "wandb"),
        ("launch exp4_specnorm --scale smoke --swap tracker=tensorboard", "tracker=tensorboard", "tensorboard"),
        ("sweep sweep_heads --scale smoke --on laptop", "--on laptop", "submitit"),
    ],
)
def test_what_is_asked_for_and_missing_is_named_with_the_line_that_installs_it(
    words: str, who: str, module: str, tmp_path: Path
) -> None:
    done = hidden(tmp_path, *words.split())
    assert done.code == FAILURE
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert line == f"error: {who} needs the package {module}, which is not installed: {INSTALL[module]}"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()


def test_a_dry_run_counts_for_another_machine_and_needs_none(tmp_path: Path) -> None:
    done = hidden(tmp_path, "launch", "exp4_specnorm", "--scale", "smoke", "--swap", "tracker=wandb", "--dry-run")
    assert done.code == 0, done.stderr


def test_an_import_that_fails_deep_inside_is_one_message_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(name: str) -> tuple[int, str | None]:
        return exit_report(ModuleNotFoundError(f"No module named {name!r}", name=name))[:2]

    assert report("wandb.sdk") == (FAILURE, None)  # wandb is there: a damaged one is another matter
    monkeypatch.setattr(packages, "is_missing", lambda module: module != "json")
    assert report("wandb.sdk") == (
        FAILURE,
        "the package wandb is not installed, and this command needs it: pip install wandb",
    )
    assert report("somebodys_module") == (FAILURE, None)
    assert exit_report(ImportError("no such name"))[:2] == (FAILURE, None)


def test_the_tables_name_what_there_is() -> None:
    load_plugins(())
    known = {f"{kind}/{name}" for kind, table in registered().items() for name in table}
    assert set(NEEDED) <= known
    assert {module for modules in NEEDED.values() for module in modules} <= set(INSTALL)
    lazy = {
        found.name.partition(".")[0]
        for path in (REPO / "ladd_dist").rglob("*.py")
        for found in test_layers.imports(path)
        if not found.at_top
    }
    assert set(INSTALL) >= (lazy & test_layers.HEAVY) - {"PIL", "huggingface_hub"}
