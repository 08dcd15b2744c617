"""A fault inside a stage is never shown as the user's: its traceback, one closing line, the log, exit code 1."""

from __future__ import annotations

from pathlib import Path

from processes import Done, Ladd

PLUGIN = '''
from dataclasses import dataclass
from ladd_dist.core.plugin import register
from ladd_dist.schedules import Schedule

@register("breaks_at_two")
@dataclass(frozen=True)
class BreaksAtTwo(Schedule):
    """Fails in the stage distill, after the trial of one step has passed."""

    def __call__(self, step):
        if step == 2:
            raise ValueError("a plain sentence with blanks in it")
        return 0.1
'''


def test_a_plain_value_error_in_a_stage_keeps_its_traceback(ladd: Ladd, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(PLUGIN, encoding="utf-8")
    done: Done = ladd.start("--plugins", "breaks", "--swap", "adv_weight=breaks_at_two").wait()
    assert done.code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "ValueError: a plain sentence with blanks in it" in done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: ValueError: this is a fault of the program")
    (log,) = tmp_path.rglob("fault-*.txt")
    assert log.parent.name == "logs"
    assert log.name in last
    assert "a plain sentence with blanks in it" in log.read_text(encoding="utf-8")
