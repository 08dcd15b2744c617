"""Places where nothing can be made: every command says so in one message that names the flag, before it works."""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
from pathlib import Path

import pytest
from processes import Done
from tuned import write_pictures, write_student

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import commit_folder, exclusive, make_folder, write_json
from ladd_dist.core.targets import require_place

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that takes no files is on Linux")
RECIPE = "exp1_smallconv --scale smoke --device cpu --threads 1"
COMMANDS = (
    f"launch {RECIPE} --out PLACE",
    f"launch {RECIPE} --cache PLACE",
    "tune runs/student --images pictures --classes 3 --scale smoke --device cpu --out PLACE",
    "tune runs/student --images pictures --classes 3 --scale smoke --device cpu --cache PLACE",
    "sweep sweep_heads --scale smoke --on laptop --out PLACE",
    "sweep sweep_heads --scale smoke --on laptop --cache PLACE",
    "evaluate runs/student --out PLACE",
    "export runs/student --out PLACE.safetensors",
    "export runs/student --to diffusers --out PLACE",
    "sample runs/student --out PLACE.png",
    "sample runs/student --folder PLACE",
    "compare runs/student runs/student --csv PLACE.csv",
    "compare runs/student runs/student --out PLACE.html",
    "control train runs/student --out PLACE.safetensors",
    "control apply runs/student --out PLACE.png",
    "control transfer runs/student --out PLACE.json",
    "new mine --folder PLACE",
)
"""Every command that writes where it is told, with each flag that says where."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_student(folder).rename(folder / "runs" / "student")
    write_pictures(folder / "pictures", 8)
    (folder / "file").write_text("kept")
    return folder


def run_in(folder: Path, line: str) -> Done:
    """The command within this process, in a folder."""
    name, *words = line.split()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = importlib.import_module(f"ladd_dist.{name}").main(words)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("place", [pytest.param("/proc/x", marks=needs_proc), "file/x"])
@pytest.mark.parametrize("line", COMMANDS)
def test_a_place_where_nothing_can_be_made_is_one_message_before_the_work(
    given: Path, tmp_path: Path, own_tables: None, monkeypatch: pytest.MonkeyPatch, line: str, place: str
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    done = run_in(tmp_path, line.replace("PLACE", place))
    assert done.code in (1, 2), done.stderr
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    *_, flag, named = line.replace("PLACE", place).split()
    message = " ".join(done.stderr.partition("error: ")[2].split())
    assert message.startswith(("no access to", flag)) and flag in message and named in message
    assert sorted(tmp_path.rglob("*")) == before, "nothing was begun"


@needs_proc
@pytest.mark.parametrize("folder", [Path("/proc/x"), Path("/proc/x/y")])
def test_what_writes_says_that_a_file_system_takes_no_files(folder: Path) -> None:
    for write in (
        lambda: make_folder(folder),
        lambda: write_json(folder.with_suffix(".json"), {}),
        lambda: commit_folder(folder, lambda place: None),
        lambda: exclusive(folder).__enter__(),
    ):
        with pytest.raises(UserError, match=r"no access to /proc/\S+: its file system takes no new files"):
            write()


def test_a_full_cache_may_be_anywhere_and_an_output_is_tried(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    require_place(tmp_path / "cache", "--cache", may_be_full=True)
    require_place(tmp_path / "new" / "runs", "--out")
    assert [path.name for path in tmp_path.rglob("*")] == ["cache"], "what was tried is gone"
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"nothing can be made in \S+link \(it is a link to nothing\)"):
        require_place(tmp_path / "link", "--out")
    if Path("/proc/self").exists():
        require_place(Path("/proc"), "--cache", may_be_full=True)
        with pytest.raises(UserError, match="no access to --out /proc: nothing can be made in /proc"):
            require_place(Path("/proc"), "--out")
