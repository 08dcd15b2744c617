"""Dataset `folder`: what people's folders hold is used, or named in one message; decoded once, split by names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import BLUE, GREEN, RED, encoded, plain, png

from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import from_outside
from ladd_dist.datasets import folder_contents, folder_inventory
from ladd_dist.datasets.cached_pictures import CachedPictures, held_out_mask
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.picture_cache import read_card, silent
from ladd_dist.testing import check_dataset

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder_inventory.forget()
    yield
    folder_inventory.forget()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three red, three green and three blue pictures, each colour a class."""
    folder = tmp_path / "pictures"
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE)):
        write(folder, {f"{name}/{number}.png": encoded(plain(colour)) for number in range(3)})
    return folder


def write(root: Path, files: Files) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder_inventory.forget()


def metadata(root: Path, *lines: dict[str, Any], name: str = "metadata.jsonl") -> None:
    write(root, {name: "".join(json.dumps(line) + "\n" for line in lines).encode()})


def opened(root: Path, **settings: Any) -> CachedPictures:
    settings = {"held_out": 0.0, "size": 8, **settings}
    return Folder(root=str(root), **settings).open(split="train", cache=root.parent / "cache")


def colours(images: CachedPictures) -> list[tuple[tuple[int, ...], int]]:
    """Colour and class of each picture."""
    pixels, labels = images.batch(torch.arange(len(images)))
    found = ((pixels.mean(dim=(2, 3)) + 1) * 127.5).round().int().tolist()
    return [(tuple(colour), label) for colour, label in zip(found, labels.tolist(), strict=True)]


def refused(root: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        opened(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def bad_of(root: Path, **settings: Any) -> dict[str, str]:
    """Names and reasons of what is left out."""
    images = opened(root, on_bad="skip", **settings)
    card = read_card(images.path.parent)
    assert len(images) == card.num and card.skipped == len(card.bad)
    return dict(card.bad)


# --- classes ---


def test_each_folder_is_a_class_in_the_order_of_names(root: Path) -> None:
    images = opened(root)
    assert colours(images) == [(BLUE, 0)] * 3 + [(GREEN, 1)] * 3 + [(RED, 2)] * 3
    assert (images.image.num_classes, images.image.shape) == (3, (3, 8, 8))


def test_without_classes_all_pictures_are_one(root: Path) -> None:
    write(root, {"loose.png": encoded(plain())})
    images = opened(root, classes="none", size=(8, 12))
    assert {label for _, label in colours(images)} == {0} and len(images) == 10
    assert (images.image.num_classes, images.image.shape) == (1, (3, 8, 12))


def test_nested_folders_belong_to_the_first_and_empty_ones_are_no_class(root: Path) -> None:
    write(root, {"red/more/deep/4.png": encoded(plain(RED)), "a/notes.txt": b"x"})
    (root / "empty" / "within").mkdir(parents=True)
    images = opened(root)
    assert images.image.num_classes == 3 and colours(images).count((RED, 2)) == 4


def test_names_may_be_of_any_alphabet_no_utf_8_at_all_or_differ_in_case(root: Path) -> None:
    write(
        root,
        {"Größe 火/ñ.PNG": encoded(plain()), "Größe 火/Ñ.png": encoded(plain(BLUE)), "Red/0.png": encoded(plain())},
    )
    strange = os.fsdecode(b"red/\xff\xe9.png")
    write(root, {strange: encoded(plain(RED))})
    images = opened(root)
    assert images.image.num_classes == 5 and len(images) == 13
    assert (root / "red" / "0.png").exists() and (root / "Red" / "0.png").exists()


def test_a_class_with_one_picture_keeps_it_for_training(root: Path) -> None:
    write(root, {f"single-{number}/1.png": encoded(plain()) for number in range(20)})
    images = opened(root, held_out=0.6)
    assert set(images.conditions.tolist()) == set(range(23))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": encoded(plain())}, r"no folders with pictures.*--dataset\.classes none"),
        ({"a.png": encoded(plain()), "b/b.png": encoded(plain())}, r"1 pictures are in no class folder \(a\.png\)"),
        ({}, "cannot be opened"),
        ({"a/b.txt": b"x"}, "holds no picture"),
        ({"a/.hidden.png": encoded(plain())}, "holds no picture"),
        ({"a/1.png": b"", "b/2.png": b"text"}, r"none of the 2 pictures can be used: a/1\.png: it is empty .*; b/2"),
        ({"a/1.png": encoded(plain()), "b/2.png": b""}, "1 of 2 pictures cannot be used: b/2.png: it is empty"),
    ],
)
def test_a_folder_without_classes_or_pictures_is_refused(tmp_path: Path, files: Files, message: str) -> None:
    import re

    write(tmp_path / "set", files)
    assert re.search(message, refused(tmp_path / "set"))
    assert not list((tmp_path / "cache").glob(".tmp*"))


def test_a_class_of_which_nothing_can_be_used_is_named(root: Path) -> None:
    write(root, {"white/1.png": b""})
    assert "in class white" in refused(root, on_bad="skip")


def test_a_root_that_is_missing_empty_or_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "circle").symlink_to("circle")
    for name, message in (("nowhere", "cannot be opened"), ("file", "is no folder"), ("circle", "cannot be opened")):
        assert message in refused(tmp_path / name)
    with pytest.raises(UserError, match=r"dataset\.root is empty; name a folder"):
        Folder().spec()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"size": 0}, "size"), ({"size": (8, 0)}, "width"), ({"background": "greenish"}, "'greenish' is no colour"),
     ({"held_out": 1.0}, "below 1"), ({"background": "#ffffff00"}, "transparent")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Folder(root="x", **settings)


# --- what people's folders hold ---


def test_clutter_is_left_out_without_a_word(root: Path) -> None:
    clutter = (".DS_Store", "Thumbs.db", "red/._0.png", "__MACOSX/red/0.png", "red/.thumbs/1.png", "red/@eaDir/2.jpg",
               "red/desktop.ini", "README.md", "list.csv", "red/0.json")  # fmt: skip
    write(root, dict.fromkeys(clutter, b"clutter"))
    assert len(opened(root)) == 9


def test_everything_that_cannot_be_used_is_named_with_its_reason_and_counted(root: Path) -> None:
    whole = encoded(plain(size=(64, 64)), "JPEG")
    write(root, {"red/zero.png": b"", "red/cut.jpg": whole[:-300], "red/text.png": b"hello", "red/old.bmp": b"BM",
                 "red/huge.png": png(14_000, 12_000, 8, 2, b"")})  # fmt: skip
    os.mkfifo(root / "red" / "pipe.png")
    (root / "red" / "gone.png").symlink_to("nowhere.png")
    (root / "red" / "self.png").symlink_to("self.png")
    (root / "red" / "up").symlink_to("..")
    (root / "red" / "twice").symlink_to("../green")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("pictures/red/s.png")
    listener.close()
    folder_inventory.forget()
    reasons = {
        "zero.png": "it is empty", "cut.jpg": "truncated", "text.png": "it is no PNG", "old.bmp": "convert it to PNG",
        "huge.png": "168 megapixels", "pipe.png": "a pipe", "gone.png": "a link to nothing", "self.png": "a link to",
        "up": "the folder '.' again", "twice": "the folder 'green' again", "s.png": "a socket",
    }  # fmt: skip
    found = bad_of(root)
    assert found.keys() == {f"red/{name}" for name in reasons}
    for name, reason in reasons.items():
        assert reason in found[f"red/{name}"], name
    message = refused(root)
    assert "11 of 20 pictures cannot be used" in message and "and 6 more" in message and "on-bad skip" in message
    told = Folder(root=str(root), size=8).facts(root.parent / "cache")
    assert told["pictures"] == "9" and told["cannot be used"].startswith("11 (red/")


def test_files_and_folders_without_permission_are_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        root = Path(name) / "set"
        write(root, {"a/1.png": encoded(plain()), "a/2.png": encoded(plain()), "b/3.png": encoded(plain())})
        (root / "a" / "2.png").chmod(0)
        (root / "b").chmod(0)
        for path in (Path(name), root, root / "a"):
            path.chmod(0o755)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)  # nothing is closed to root
        try:
            fields = Folder(root=str(root), size=8, on_bad="skip")
            fingerprint = fields.fingerprint()
            found = folder_inventory.inventory(root, "folders", "none")
        finally:
            os.seteuid(was)
            (root / "b").chmod(0o755)
        assert len(fingerprint) == 16
        assert [(entry.name, entry.bad) for entry in found.entries if entry.bad] == [
            ("a/2.png", "Permission denied"), ("b", "the folder cannot be read (Permission denied)")
        ]  # fmt: skip


def test_a_link_to_a_folder_elsewhere_is_followed(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"1.png": encoded(plain())})
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    folder_inventory.forget()
    assert opened(root).image.num_classes == 4


def test_a_folder_that_a_file_from_outside_names_is_read_and_never_written_to(root: Path) -> None:
    from_outside({"dataset": {"root": str(root)}}, "received/config.json")
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    assert len(opened(root)) == 9
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


# --- metadata and captions ---


def test_captions_are_conditions_and_equal_ones_are_one(root: Path) -> None:
    lines = [{"file_name": f"red/{n}.png", "text": ("a red one", "  a red\tone ", "another")[n]} for n in range(3)]
    metadata(root, *lines)
    for folder in ("green", "blue"):
        metadata(root, *({"file_name": f"{n}.png", "text": folder} for n in range(3)), name=f"{folder}/metadata.jsonl")
    dataset = Folder(root=str(root), captions="metadata", size=8)
    assert dataset.texts() == ("a red one", "another", "blue", "green")
    assert dataset.spec().num_classes == 4
    assert colours(opened(root, captions="metadata")) == [(BLUE, 2)] * 3 + [(GREEN, 3)] * 3 + [
        (RED, 0), (RED, 0), (RED, 1)
    ]  # fmt: skip
    assert Folder(root=str(root), size=8).texts() == ()


def test_a_pipe_with_the_name_of_a_text_is_not_waited_for(root: Path) -> None:
    write(root, {f"red/{number}.txt": b"red" for number in range(3)})
    os.mkfifo(root / "blue" / "0.txt")
    folder_inventory.forget()
    assert "0.txt beside it cannot be used: it is a pipe" in bad_of(root, captions="txt")["blue/0.png"]
    os.mkfifo(root / "metadata.jsonl")
    folder_inventory.forget()
    assert "metadata.jsonl is a pipe, not a regular file" in refused(root, captions="metadata")


def test_a_text_beside_a_picture_is_its_caption(root: Path) -> None:
    write(root, {f"{path}.txt": f"\ufeff {path}\n".encode() for path in ("red/0", "red/1", "green/0")})
    write(root, {"green/1.txt": b" \n", "green/2.txt": b"caf\xe9", "blue/0.txt": b"x" * 10_001})
    found = bad_of(root, captions="txt")
    assert {name: reason for name, reason in found.items() if "there is no" not in reason}.keys() == {
        "green/1.png", "green/2.png", "blue/0.png"
    }  # fmt: skip
    assert "is empty" in found["green/1.png"] and "not UTF-8" in found["green/2.png"] and len(found) == 6
    assert Folder(root=str(root), captions="txt").texts() == ("green/0", "red/0", "red/1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"file_name": "red/0.png"}\n{"file_name": red}\n', r"metadata\.jsonl, line 2 is not valid JSON"),
        (b'{"file_name": "red/0.png"}\n\n["red/1.png"]\n', r"metadata\.jsonl, line 3 does not have the expected form"),
        (b'{"text": "no name"}\n', r"line 1 does not have the expected form"),
        (b'{"file_name": "red/\xe9.png"}\n', "line 1 is not valid JSON"),
        (b'{"file_name": "../x.png"}\n', r"line 1: file_name '\.\./x\.png' is no path below"),
        (b'{"file_name": "/etc/passwd"}\n', "is no path below"),
        (b'{"file_name": "red/0.png"}\n{"file_name": "./red/0.png"}\n', r"line 2: metadata\.jsonl, line 1 has 'red/0"),
        (b'{"file_name": "red/0.png", "label": "green"}\n', r"line 1: label 'green' of 'red/0\.png' is not its folder"),
        (b'{"file_name": "red/9.png"}\n', r"red/9\.png: metadata\.jsonl, line 1, names it, and it is not there"),
    ],
)
def test_broken_metadata_is_refused_with_its_line(root: Path, content: bytes, message: str) -> None:
    import re

    write(root, {"metadata.jsonl": content})
    assert re.search(message, refused(root))


def test_captions_that_are_missing_are_named(root: Path) -> None:
    assert "there is no metadata.jsonl" in refused(root, captions="metadata")
    assert "there is no 0.txt beside it" in refused(root, captions="txt")
    metadata(root, {"file_name": "red/0.png", "text": "x"}, {"file_name": "red/1.png", "text": " "})
    found = bad_of(root, captions="metadata")
    assert len(found) == 8 and set(found.values()) == {"metadata.jsonl has no text for it"}


def test_accents_that_a_system_wrote_apart_are_the_same_name(root: Path) -> None:
    write(root, {"red/e\u0301.png": encoded(plain())})
    metadata(root, {"file_name": "red/\u00e9.png", "label": "red", "base": 7})
    assert len(opened(root)) == 10


# --- split ---


def test_near_duplicates_of_one_base_stay_together_and_names_alone_decide(root: Path, tmp_path: Path) -> None:
    files = {f"{'ab'[n % 2]}/{n:03d}.png": encoded(plain((n, 0, 0))) for n in range(240)}
    write(tmp_path / "many", files)
    metadata(tmp_path / "many", *({"file_name": name, "base": f"b{int(name[2:5]) // 6}"} for name in files))
    dataset = Folder(root=str(tmp_path / "many"), size=8, held_out=0.3)
    sets = [dataset.open(split=split, cache=tmp_path / "cache") for split in ("train", "test")]  # type: ignore[arg-type]
    seen = [{round(c[0][0]) // 6 for c in colours(images)} for images in sets]
    assert not seen[0] & seen[1] and len(seen[1]) in range(5, 21)
    assert sum(map(len, sets)) == 240
    before = {c[0][0] for c in colours(sets[1])}
    write(tmp_path / "many", {"a/new.png": encoded(plain((255, 0, 0)))})
    after = {c[0][0] for c in colours(dataset.open(split="test", cache=tmp_path / "cache"))}
    assert after - {255} == before


def test_the_mask_holds_out_about_its_share_and_leaves_each_class_one() -> None:
    share = torch.rand(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.arange(10_000) % 10
    mask = held_out_mask(share, classes, 0.2)
    assert torch.equal(mask, share < 0.2)
    classes[share < 0.01] = 10  # all of this class would be held out
    kept = held_out_mask(share, classes, 0.2)
    assert (kept != (share < 0.2)).sum() == 1 and (classes[~kept] == 10).sum() == 1
    assert held_out_mask(share[:1], classes[:1] * 0, 0.9).sum() == 0
    assert held_out_mask(share[:50].clamp(min=0.5), torch.zeros(50, dtype=torch.int64), 0.01).sum() >= 1


def test_a_set_without_held_out_pictures_says_so(root: Path) -> None:
    with pytest.raises(UserError, match="split 'test' of 9 pictures is empty"):
        Folder(root=str(root), size=8, held_out=0.0).open(split="test", cache=root.parent / "cache")


# --- signatures and the cache ---


def test_the_signature_follows_contents_and_settings_but_no_place_or_time(root: Path, tmp_path: Path) -> None:
    def identity(path: Path) -> str:
        folder_inventory.forget()
        return Folder(root=str(path)).fingerprint()

    before = identity(root)
    os.utime(root / "red" / "0.png", (1, 1))
    write(root, {".DS_Store": b"x", "notes.md": b"x"})
    assert identity(root) == before
    root.rename(tmp_path / "moved")
    assert identity(tmp_path / "moved") == before
    write(tmp_path / "moved", {"red/0.png": encoded(plain(BLUE))})
    assert identity(tmp_path / "moved") != before
    assert identity(tmp_path / "nowhere") == ""


def test_contents_are_read_again_only_if_something_was_touched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_contents, "_RACE_S", -1.0)
    read = list[str]()
    real = folder_contents._content
    monkeypatch.setattr(folder_contents, "_content", lambda *given: (read.append(given[1].name), real(*given))[1])
    dataset = Folder(root=str(root))
    first = dataset.fingerprint()
    assert len(read) == 9
    folder_inventory.forget()
    assert dataset.fingerprint() == first and len(read) == 9
    write(root, {"red/0.png": encoded(plain(BLUE))})
    assert dataset.fingerprint() != first and len(read) == 18
    for note in (root.parent / "home").rglob("*.json"):
        note.write_text("damaged")
    folder_inventory.forget()
    assert dataset.fingerprint() and len(read) == 27


def test_a_folder_that_was_just_touched_is_read_again(root: Path) -> None:
    Folder(root=str(root)).fingerprint()
    assert not (root.parent / "home").exists()


def test_pictures_are_decoded_once_and_again_for_other_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(root)
    told = list[int]()
    for settings in ({}, {"flip": True}, {"held_out": 0.5}, {"on_bad": "skip"}):
        fields = Folder(root=str(root), **{"size": 8, **settings})  # type: ignore[arg-type]
        fields.prepare(root.parent / "cache", lambda done, total: told.append(done))
    assert told == []
    for settings in ({"size": 9}, {"fit": "pad"}, {"background": "black"}, {"classes": "none"}):
        fields = Folder(root=str(root), **{"size": 8, **settings})  # type: ignore[arg-type]
        fields.prepare(root.parent / "cache", lambda done, total: told.append(done))
    assert told == [9] * 4 and len(list((root.parent / "cache").glob("pictures-*"))) == 5


def test_many_pictures_are_decoded_by_several_processes_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "many", {f"{n % 3}/{n:03d}.png": encoded(plain((n % 256, n // 256, 9))) for n in range(400)})
    write(tmp_path / "many", {"2/200.png": b"", "0/201.png": b"x"})
    told = list[tuple[int, int]]()
    dataset = Folder(root=str(tmp_path / "many"), size=8, held_out=0.0, on_bad="skip")
    dataset.prepare(tmp_path / "cache", lambda *given: told.append(given))
    images = dataset.open(split="train", cache=tmp_path / "cache")
    expected = sorted(((n % 256, n // 256, 9), n % 3) for n in range(400) if n not in (200, 201))
    assert sorted(colours(images)) == expected
    assert [label for _, label in colours(images)] == sorted(label for _, label in expected)
    assert told[-1] == (400, 400)


def test_a_script_that_opens_the_set_outside_of_a_function_is_not_run_again_by_each_process(tmp_path: Path) -> None:
    write(tmp_path / "many", {f"a/{n:03d}.png": encoded(plain()) for n in range(300)})
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom ladd_dist.datasets.folder import Folder\nprint('once')\n"
        "print(len(Folder(root='many', size=8, held_out=0.0).open(split='train', cache=Path('cache'))))\n"
    )
    package = str(Path(folder_inventory.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": package}, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["once", "300"] and not done.stderr


def test_two_that_decode_at_once_make_one_cache(root: Path) -> None:
    dataset, errors = Folder(root=str(root), size=8), list[BaseException]()
    made = list[int]()

    def prepare() -> None:
        try:
            dataset.prepare(root.parent / "cache", lambda done, total: made.append(done))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and made == [9]


def test_what_is_stopped_leaves_nothing_and_what_changes_meanwhile_is_refused(root: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def touch(done: int, total: int) -> None:
        (root / "red" / "0.png").write_bytes(b"other")

    cache = root.parent / "cache"
    with pytest.raises(KeyboardInterrupt):
        Folder(root=str(root), size=8).prepare(cache, stop)
    with pytest.raises(UserError, match="changed while it was read"):
        Folder(root=str(root), size=8).prepare(cache, touch)
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []


def test_a_damaged_cache_is_one_message(root: Path) -> None:
    images = opened(root)
    file = images.path
    content = bytearray(file.read_bytes())
    content[5 * 192 + 17] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged at picture 5; delete this folder"):
        colours(opened(root))
    file.write_bytes(content[:-1])
    assert "has not the size that card.json says" in refused(root)
    for name in ("index.safetensors", "card.json"):
        path = file.parent / name
        before = path.read_bytes()
        path.write_bytes(before[: len(before) // 2] + b"\0" * 9)
        assert str(path) in refused(root)
        path.write_bytes(before)


def test_a_full_disk_is_said_before_the_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(root)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "the decoded pictures take 1.73 kB" in refused(root)


def test_the_contract_holds(root: Path) -> None:
    write(root, {f"red/more-{n}.png": encoded(plain((n, n, n))) for n in range(40)})
    check_dataset(Folder(root=str(root), size=8, held_out=0.2))
    assert np.asarray(opened(root).batch(torch.tensor([0]))[0]).min() == -1
    silent(0, 0)
