"""Files that a user names: links stay links, pipes and devices get the content, and nothing is replaced by a file."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ladd_dist import compare, control, evaluate, export, sample
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.rundir import commit_folder, publish, write_bytes, write_json
from ladd_dist.core.targets import output_file, output_folder, output_picture, require_apart

Main = Callable[[list[str]], int]


def device(path: Path) -> Path:
    """A character device of the numbers of /dev/null."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"this user may make no devices here ({error})")
    return path


def test_a_device_stays_one_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = device(tmp_path / "null")
    write_json(output_file(path), {"a": 1})
    write_bytes(path, b"x")
    assert stat.S_ISCHR(path.lstat().st_mode)
    assert [item.name for item in tmp_path.iterdir()] == ["null"]


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path: Path) -> None:
    path, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    content = os.urandom(300_000)  # more than a pipe holds

    def read() -> None:
        select.select([reader], [], [], 20)  # a pipe that nobody has opened for writing yet reads as ended
        while part := os.read(reader, 65_536):
            got.append(part)

    thread = threading.Thread(target=read)
    write = threading.Thread(target=write_bytes, args=(output_file(path), content))
    write.start()
    thread.start()
    write.join(timeout=20)
    thread.join(timeout=20)
    os.close(reader)
    assert b"".join(got) == content
    assert stat.S_ISFIFO(path.lstat().st_mode)


def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="nobody reads"):
        write_bytes(tmp_path / "pipe", b"x")


def test_standard_output_can_be_named(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from ladd_dist.core.rundir import write_bytes\n"
        "from ladd_dist.core.targets import output_file\n"
        "print('first'); write_bytes(output_file(Path('/dev/stdout')), b'second\\n'); print('third', flush=True)"
    )
    for name in ("redirected", "piped"):
        with (tmp_path / name).open("wb") as file:
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=file if name == "redirected" else subprocess.PIPE, check=True
            )
        text = (tmp_path / name).read_bytes() if name == "redirected" else done.stdout
        assert text == b"first\nsecond\nthird\n", name


def test_a_link_that_a_user_names_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "table.csv", tmp_path / "table.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_bytes(output_file(link), b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "real" / "later.csv")
    write_bytes(output_file(dangling), b"new")
    assert dangling.is_symlink() and (tmp_path / "real" / "later.csv").read_bytes() == b"new"


def test_a_link_in_a_folder_from_elsewhere_does_not_lead_a_write_out_of_it(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "run" / "eval.json"
    precious.write_text("mine")
    link.parent.mkdir()
    link.symlink_to(precious)
    write_json(link, {"a": 1})
    assert precious.read_text() == "mine" and not link.is_symlink()


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    write_bytes(output_file(path), b"new")
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["folder", "file/below", "file/far/below", "x" * 300, "circle", "nul\0", "", "socket"])
def test_what_cannot_become_a_file_is_refused_by_every_command_before_it_works(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    listening = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    listening.bind("socket")
    path = str(tmp_path / name) if name else str(tmp_path)
    commands: list[tuple[Main, list[str]]] = [
        (compare.main, ["nowhere", "--csv", path]),
        (compare.main, ["nowhere", "--out", path]),
        (sample.main, ["nowhere", "--out", path]),
        (evaluate.main, ["nowhere", "--out", path]),
    ]
    for main, words in commands:
        assert main(words) == 2, (main, words)
        err = " ".join(capsys.readouterr().err.split())
        assert words[1] in err and "Traceback" not in err, err
    listening.close()
    assert (tmp_path / "file").read_text() == "mine"


def test_outputs_with_endings_are_looked_at_before_the_run_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("safetensors", "png", "json"):
        (tmp_path / f"folder.{ending}").mkdir()
    (tmp_path / "side.json").mkdir()
    (tmp_path / "grid.png").mkdir()
    (tmp_path / "file").write_text("mine")
    cases: list[tuple[Main, list[str]]] = [
        (export.main, ["nowhere", "--out", str(tmp_path / "folder.safetensors")]),
        (export.main, ["nowhere", "--out", str(tmp_path / "side.safetensors")]),
        (export.main, ["nowhere", "--to", "lora", "--out", str(tmp_path / "file")]),
        (export.main, ["nowhere", "--to", "lora", "--out", str(tmp_path / "file" / "below")]),
        (sample.main, ["nowhere", "--folder", str(tmp_path / "file")]),
        (control.main, ["train", "nowhere", "--out", str(tmp_path / "folder.safetensors")]),
        (control.main, ["apply", "nowhere", "--out", str(tmp_path / "folder.png")]),
        (control.main, ["transfer", "nowhere", "--out", str(tmp_path / "folder.json")]),
        (control.main, ["transfer", "nowhere", "--out", str(tmp_path / "grid.json")]),
    ]
    for main, words in cases:
        assert main(words) == 2, words
        err = " ".join(capsys.readouterr().err.split())
        assert ("is a folder" in err or "no folder" in err or "cannot be written" in err) and "Traceback" not in err


@pytest.mark.parametrize("name", ["s1", "s1.jpg", "s1.png.tmp", "deep/s1", "link"])
def test_a_picture_whose_name_does_not_say_so_is_refused_before_the_student_is_opened(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "later.png")
    commands: list[tuple[Main, list[str]]] = [(sample.main, ["nowhere"]), (control.main, ["apply", "nowhere", "file"])]
    for main, words in commands:
        assert main([*words, "--out", name]) == 2
        err = " ".join(capsys.readouterr().err.split())
        assert f"--out {name}: the file's name must end in .png, like {Path(name).stem}.png" in err
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_picture_may_be_a_pipe_of_any_name_and_its_ending_may_be_in_capitals(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
    assert output_picture(tmp_path / "to_pipe") == tmp_path / "pipe"
    for path in (tmp_path / "pipe", Path("/dev/stdout"), tmp_path / "A.PNG"):
        assert output_picture(path) == path


def test_two_outputs_in_one_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "table")
    words = ["nowhere", "--csv", str(tmp_path / "table"), "--out", str(tmp_path / "link")]
    assert compare.main(words) == 2
    assert "--csv and --out are one file" in " ".join(capsys.readouterr().err.split())
    require_apart(csv=tmp_path / "table", out=None)
    require_apart(csv=tmp_path / "table", out=tmp_path / "page")


def test_a_folder_takes_the_place_of_a_folder_alone(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_text("new")

    for name in ("file", "link"):
        place = tmp_path / name
        place.write_text("mine") if name == "file" else place.symlink_to(tmp_path)
        with pytest.raises(UserError, match="move it away"):
            commit_folder(place, fill)
        made = tmp_path / "made"
        made.mkdir(exist_ok=True)
        with pytest.raises(UserError, match="move it away"):
            publish(made, place)
        assert place.is_symlink() or place.read_text() == "mine"
    real, link = tmp_path / "real", tmp_path / "to_real"
    real.mkdir()
    link.symlink_to(real)
    commit_folder(output_folder(link), fill)
    assert link.is_symlink() and (real / "a").read_text() == "new"
    with pytest.raises(RecipeError, match="no folder"):
        output_folder(tmp_path / "file")


def test_a_folder_in_place_of_a_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no regular file"):
        write_bytes(tmp_path, b"x")
