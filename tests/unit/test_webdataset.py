"""Dataset `webdataset`: pictures from shards in files, behind pipes and on web servers, each whole or one message."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shlex
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ladd_dist.core import picture_pool, pretrained
from ladd_dist.core.errors import ConsentError, UserError
from ladd_dist.datasets import shard_notes, shard_urls, webdataset
from ladd_dist.datasets.picture_cache import read_card, silent
from ladd_dist.datasets.webdataset import Webdataset
from ladd_dist.testing import check_plugin
from tests.foreign_source import member, write_tar


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's cache of the test's own, nothing remembered of other tests, and decoding in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(picture_pool, "usable_cores", lambda: 1)
    monkeypatch.setattr(pretrained, "_named_outside", {})
    monkeypatch.setattr(pretrained, "_allowed", set())
    forget()
    yield
    forget()


def forget() -> None:
    """Look at shards anew, as another process would."""
    webdataset._expanded.cache_clear()
    shard_notes.content_fingerprint.cache_clear()
    shard_notes._texts.cache_clear()


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def picture(number: int, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, kind)
    return stream.getvalue()


def sample(number: int, **more: bytes) -> dict[str, bytes]:
    return {"png": picture(number), "cls": str(number % 3).encode(), **more}


def shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    members = [member(f"{key}.{name}", content) for key, parts in samples.items() for name, content in parts.items()]
    write_tar(path, members)
    return path


def shards(folder: Path, num: int = 3, each: int = 4, **more: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(num):
        rows = range(number * each, (number + 1) * each)
        shard(folder / f"{number:03d}.tar", {f"s{index:03d}": sample(index, **more) for index in rows})
    return folder


def of(urls: object, **more: Any) -> Webdataset:
    return Webdataset(**{"urls": str(urls), "size": 8, "num_classes": 3, "held_out": 0.0, **more})


def read(data: Webdataset, cache: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures uint8 [N,8,8,3] with their conditions."""
    images = data.open(split="train", cache=cache)
    found, conditions = images.batch(torch.arange(len(images)))
    return ((found + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1), conditions


def expected(num: int = 12) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels(number) for number in range(num)]))


def no_cache(cache: Path) -> bool:
    """Whether nothing is there, neither a whole cache nor a part of one."""
    return not [path for path in cache.glob("*") if not path.name.endswith(".lock")] if cache.exists() else True


# What is read


@pytest.mark.parametrize(
    "urls",
    ["{}/{{000..002}}.tar", "{}", "{}/*.tar", "{}/000.tar::{}/{{001,002}}.tar", "file:{}/{{000..002}}.tar",
     "pipe:cat {}/000.tar {}/none 2> /dev/null; true::{}/00{{1..2}}.tar"],
)  # fmt: skip
def test_shards_are_read_in_order_with_their_classes(tmp_path: Path, urls: str) -> None:
    folder = shards(tmp_path / "source")
    found, conditions = read(of(urls.replace("{}", str(folder)).replace("{{", "{").replace("}}", "}")), tmp_path / "c")
    assert torch.equal(found, expected())
    assert conditions.tolist() == [number % 3 for number in range(12)]


def test_jpeg_webp_and_compressed_shards_are_read(tmp_path: Path) -> None:
    samples = {kind: {kind: picture(7, kind.replace("jpg", "jpeg")), "cls": b"0"} for kind in ("jpg", "webp", "png")}
    path = shard(tmp_path / "a.tar", samples)
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for source in (path, packed, f"pipe:cat {packed}"):
        found, conditions = read(of(source, num_classes=1), tmp_path / "cache")
        assert conditions.tolist() == [0, 0, 0]
        assert (found.float() - expected(8)[7].float()).abs().mean((1, 2, 3)).tolist()[2] == 0


def test_without_classes_all_pictures_are_of_one(tmp_path: Path) -> None:
    folder = shards(tmp_path / "source")
    data = of(folder, num_classes=0)
    assert data.spec().num_classes == 1
    assert read(data, tmp_path / "cache")[1].tolist() == [0] * 12


def test_a_later_opening_reads_no_shard_and_the_split_goes_by_keys(tmp_path: Path) -> None:
    folder = shards(tmp_path / "source", num=4, each=10)
    data = of(f"pipe:cat {folder}/00{{0..3}}.tar", held_out=0.3)
    sets = {split: data.open(split=split, cache=tmp_path / "cache") for split in ("train", "test")}
    assert len(sets["train"]) + len(sets["test"]) == 40
    assert 4 <= len(sets["test"]) <= 20
    for path in folder.iterdir():
        path.unlink()
    forget()
    assert len(data.open(split="test", cache=tmp_path / "cache")) == len(sets["test"])


@pytest.mark.parametrize("captions", ["txt", "json"])
def test_captions_become_texts_which_are_read_once(
    tmp_path: Path, captions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a cat ", "a dog\n", "a cat", "two  birds"]
    content = [text.encode() if captions == "txt" else json.dumps({"text": text}).encode() for text in texts]
    path = shard(tmp_path / "a.tar", {f"s{n}": {"png": picture(n), captions: content[n]} for n in range(4)})
    data = of(path, num_classes=0, captions=captions)
    assert data.texts() == ("a cat", "a dog", "two birds")
    assert read(data, tmp_path / "cache")[1].tolist() == [0, 1, 0, 2]
    forget()
    monkeypatch.setattr(webdataset, "read_captions", lambda *_: pytest.fail("read again"))
    assert data.spec().num_classes == 3


def test_memory_does_not_grow_with_the_shards(tmp_path: Path) -> None:
    """250 MB of pictures."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)).save(stream, "jpeg")
    content = stream.getvalue() + bytes(200_000)
    for number in range(2):
        shard(tmp_path / f"{number}.tar", {f"s{index}": {"jpg": content, "cls": b"1"} for index in range(500)})
    assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) > 200e6
    Path("/proc/self/clear_refs").write_text("5")  # the highest RSS so far is forgotten
    before = memory("VmRSS")
    of(tmp_path).prepare(tmp_path / "cache", silent)
    assert memory("VmHWM") - before < 120e6


def memory(name: str) -> float:
    """Bytes of this process, by its status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1]) * 1024


def test_it_keeps_the_contract_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_plugin(of(shards(tmp_path / "source", num=4, each=10), held_out=0.3))


# What cannot be read


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4000])


def flip(path: Path) -> None:
    """A bit of the second sample's header, which `tarfile` would take for the end."""
    with tarfile.open(path) as tar:
        at = tar.getmembers()[2].offset
    content = bytearray(path.read_bytes())
    content[at + 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, r"shard '.*001\.tar' is truncated or no tar file"),
        (flip, r"shard '.*001\.tar' is damaged \(at byte [\d,]+: no valid header"),
        (lambda path: path.write_bytes(b""), r"shard '.*001\.tar' is truncated or no tar file"),
        (lambda path: path.unlink(), r"dataset\.urls: shard .*001\.tar is missing"),
    ],
)
def test_a_shard_that_is_not_whole_is_one_message_and_leaves_nothing(
    tmp_path: Path, harm: Callable[[Path], Any], message: str
) -> None:
    folder = shards(tmp_path / "source")
    harm(folder / "001.tar")
    with pytest.raises(UserError, match=message) as caught:
        of(f"{folder}/{{000..002}}.tar", on_bad="skip").prepare(tmp_path / "cache", silent)
    assert "\n" not in str(caught.value)
    assert no_cache(tmp_path / "cache")


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "text": ({"jpg": b"no picture", "cls": b"1"}, "it is no PNG, JPEG, WebP or GIF"),
    "empty": ({"png": b"", "cls": b"1"}, r"it is empty"),
    "cut": ({"png": picture(1)[:60], "cls": b"1"}, "it is truncated or damaged"),
    "none": ({"txt": b"a cat", "cls": b"1"}, r"it has no picture \(\.png, \.jpg, \.webp\), only \.cls, \.txt"),
    "other": ({"tiff": b"II*", "cls": b"1"}, r"\.tiff is not read; convert it"),
    "two": ({"jpg": b"x", "png": b"y", "cls": b"1"}, r"it has 2 pictures \(\.jpg, \.png\)"),
    "no class": ({"png": picture(1)}, r"it has no class \(\.cls\)"),
    "negative": ({"png": picture(1), "cls": b"-1"}, r"holds class -1, and --dataset\.num-classes says 0 to 2"),
    "huge": ({"png": picture(1), "cls": b"999999999999999999"}, "holds class 999999999999999999, and"),
    "longer": ({"png": picture(1), "cls": b"9" * 5000}, r"\.cls holds b'9{20}', not the number of a class"),
    "word": ({"png": picture(1), "cls": b"cat"}, r"\.cls holds b'cat', not the number of a class"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_sample_that_cannot_be_used_is_named_or_left_out_and_counted(tmp_path: Path, name: str) -> None:
    parts, message = BAD[name]
    path = shard(tmp_path / "a.tar", {"s0": sample(0), "s1": parts, "s2": sample(2), "s3": sample(1)})
    with pytest.raises(UserError, match=rf"1 of 4 pictures cannot be used: .*sample 's1': .*{message}.*on-bad skip"):
        of(path).prepare(tmp_path / "cache", silent)
    data = of(path, on_bad="skip")
    assert read(data, tmp_path / "cache")[1].tolist() == [0, 2, 1]
    card = read_card(data.cache_folder(tmp_path / "cache"))
    assert (card.num, card.skipped) == (3, 1)
    assert data.facts(tmp_path / "cache")["left out"].startswith("1 (")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, r"it has no caption \(\.txt\)"),
        ({"txt": b" \n"}, "is empty"),
        ({"txt": b"\xff\xfe"}, "is not UTF-8"),
        ({"txt": b"x" * 10**5}, "is no caption: 100,000 characters"),
    ],
)
def test_a_sample_without_a_caption_is_bad_where_captions_are_asked_for(
    tmp_path: Path, parts: dict[str, bytes], message: str
) -> None:
    samples = {"s0": {"png": picture(0), "txt": b"a cat"}, "s1": {"png": picture(1), **parts}}
    path = shard(tmp_path / "a.tar", samples)
    with pytest.raises(UserError, match=rf"sample 's1': .*{message}"):
        of(path, num_classes=0, captions="txt").prepare(tmp_path / "cache", silent)


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("", r"dataset\.urls is empty; name shards, like 'pictures/\{000\.\.099\}\.tar'"),
        ("none/*.tar", r"dataset\.urls: nothing matches 'none/\*\.tar'"),
        ("none/{0..3}.tar", r"dataset\.urls: shard none/0\.tar is missing"),
        ("s3://bucket/{0..3}.tar", r"s3 is not read; give a command that does: pipe:COMMAND"),
        ("x/{0..999999999999}.tar", r"are 1,000,000,000,000 shards or more; at most 1,000,000 are read"),
        ("x/{0..9999}/{0..9999}.tar", r"are 100,000,000 shards"),
        ("x/{0..99999999999999999999}.tar", r"are 1,000,001 shards"),
        ("x/{0..99999999999\n}.tar", r"are 100,000,000,000 shards"),
        ("x/" + 9_999 * "{a..z}", r"at most 1,000,000 are read"),
        ("x/" + 9 * "{a,b,{c,d}{e,f}}", r"at most 1,000,000 are read"),
        ("x/{0..3.tar", r"'x/\{0\.\.3\.tar': a brace is not closed"),
        ("x/" + 51 * "{" + 51 * "}", r"braces are nested too deeply; at most 50 are read"),
        ("pipe:cat ${NO_SUCH}/0.tar", r"WDS_NO_SUCH.*write \$NAME for a variable"),
    ],
)
def test_names_that_are_no_shards_are_one_message_at_once(tmp_path: Path, urls: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(urls).prepare(tmp_path / "cache", silent)


def test_names_are_counted_for_each_set_by_itself_and_with_its_step() -> None:
    urls = ["https://x/{0..999}/{0..500}.tar"] * 3 + ["https://x/{0..9000000..9}.tar", "pipe:cat \\{a,b\\}{1,2}"]
    with pytest.raises(UserError, match="are 2,503,003 shards"):
        shard_urls.expand("::".join(urls), "urls")
    assert len(shard_urls.expand("::".join(urls[:1] + urls[4:]), "urls")) == 501_002


def test_a_class_without_a_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"num_classes is 5, and no picture is of class 3, 4"):
        of(shards(tmp_path / "source"), num_classes=5).open(split="train", cache=tmp_path / "cache")


def test_shards_that_change_while_they_are_read_leave_no_cache(tmp_path: Path) -> None:
    folder = shards(tmp_path / "source")

    def touch(done: int, total: int) -> None:
        (folder / "000.tar").write_bytes((folder / "000.tar").read_bytes() + bytes(512))

    with pytest.raises(UserError, match="the shards changed while they were read"):
        of(folder).prepare(tmp_path / "cache", touch)
    assert no_cache(tmp_path / "cache")


# Commands


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo no such bucket >&2; exit 3", r"the command ended with exit code 3: no such bucket"),
        ("cat {}; echo broken >&2; exit 4", r"the command ended with exit code 4: broken"),
        ("head -c 3000 {}; exit 5", r"ended with exit code 5"),
        ("head -c 3000 {}", r"is truncated or no tar file"),
        ("cat {}; kill -9 $$", r"was ended by signal 9"),
        ("no_such_command", r"ended with exit code 127"),
        ("true", r"is truncated or no tar file"),
    ],
)
def test_a_command_that_fails_is_one_message_and_leaves_nothing(tmp_path: Path, command: str, message: str) -> None:
    path = shards(tmp_path / "source") / "000.tar"
    with pytest.raises(UserError, match=rf"shard 'pipe:.*{message}") as caught:
        of(f"pipe:{command}".replace("{}", str(path))).prepare(tmp_path / "cache", silent)
    assert "\n" not in str(caught.value)
    assert no_cache(tmp_path / "cache")


def test_a_command_that_goes_on_is_ended_where_its_shard_is_damaged(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begin = time.monotonic()
    with pytest.raises(UserError, match="is truncated or no tar file"):
        of(f"pipe:echo $$ > {pid}; yes; sleep 60").prepare(tmp_path / "cache", silent)
    assert time.monotonic() - begin < 10
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo $$ > {pid}; sleep 50", r"the command wrote nothing for 0\.8 s, so it was ended; try it by itself"),
        ("echo $$ > {pid}; head -c 3000 {}; sleep 50", r"the command wrote nothing for 0\.8 s"),
        ("echo $$ > {pid}; cat {}; exec >&-; sleep 50", r"closed its output and did not end for 0\.8 s"),
    ],
)
def test_a_command_that_neither_writes_nor_ends_is_one_message_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.setattr(shard_urls, "PATIENCE_S", 0.8)
    path, pid = shards(tmp_path / "source") / "000.tar", tmp_path / "pid"
    begin = time.monotonic()
    with pytest.raises(UserError, match=rf"shard 'pipe:.*{message}") as caught:
        of(f"pipe:{command}".replace("{}", str(path)).replace("{pid}", str(pid))).prepare(tmp_path / "cache", silent)
    assert "\n" not in str(caught.value) and no_cache(tmp_path / "cache")
    assert time.monotonic() - begin < 10
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_a_command_that_pauses_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_urls, "PATIENCE_S", 1.5)
    path = shards(tmp_path / "source", num=1) / "000.tar"
    command = f"head -c 700 {path}; sleep 0.9; tail -c +701 {path}; sleep 0.9"
    assert torch.equal(read(of(f"pipe:{command}"), tmp_path / "cache")[0], expected(4))


# Web servers


class Server(ThreadingHTTPServer):
    """Gives the files of a folder, and counts what is asked of it."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.asked = folder, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.asked.append(name)
        if name.startswith("slow"):
            time.sleep(3)
        path = self.server.folder / name.removeprefix("slow-").removeprefix("cut-")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever asked is gone
            self.wfile.write(content[:3000] if name.startswith("cut") else content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(shards(tmp_path / "source"))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def test_shards_of_a_web_server_are_fetched_once(tmp_path: Path, server: Server) -> None:
    data = of(f"{server.url}/{{000..002}}.tar")
    for _ in range(2):
        found, conditions = read(data, tmp_path / "cache")
        assert torch.equal(found, expected())
        assert conditions.tolist() == [number % 3 for number in range(12)]
    assert server.asked == ["000.tar", "001.tar", "002.tar"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("003.tar", r"cannot be fetched \(the server says 404 Not Found\)"),
        ("cut-001.tar", r"cannot be fetched \(.*3,?000"),
        ("slow-001.tar", r"cannot be fetched \(.*timed out\)"),
    ],
)
def test_a_server_that_does_not_give_a_shard_is_one_message(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(shard_urls, "PATIENCE_S", 0.5)
    with pytest.raises(UserError, match=rf"shard '{server.url}/{name}' {message}"):
        of(f"{server.url}/000.tar::{server.url}/{name}", on_bad="skip").prepare(tmp_path / "cache", silent)
    assert no_cache(tmp_path / "cache")


def test_no_server_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shard 'http://127\.0\.0\.1:1/a\.tar' cannot be fetched \(.*refused"):
        of("http://127.0.0.1:1/a.tar").prepare(tmp_path / "cache", silent)


# Consent


@pytest.mark.parametrize("captions", ["none", "txt"])
def test_what_a_received_file_names_is_neither_run_nor_fetched_unasked(
    tmp_path: Path, server: Server, captions: str
) -> None:
    marker = tmp_path / "ran"
    command = f"pipe:touch {marker}; cat {tmp_path}/source/000.tar"
    for urls in (command, f"{server.url}/000.tar"):
        data = of(urls, captions=captions, num_classes=0)
        pretrained.from_outside({"recipe": {"dataset": {"urls": urls}}}, "theirs/config.json")
        with pytest.raises(ConsentError, match=r"theirs/config\.json names the shards .*--hub") as caught:
            data.prepare(tmp_path / "cache", silent)
        assert shlex.quote(urls) in str(caught.value)
    assert not marker.exists()
    assert server.asked == []
    pretrained.allow([command])
    of(command, num_classes=0).prepare(tmp_path / "cache", silent)
    assert marker.exists()


def test_local_shards_that_a_received_file_names_are_read_as_data(tmp_path: Path) -> None:
    folder = shards(tmp_path / "source")
    pretrained.from_outside({"urls": str(folder)}, "theirs/config.json")
    of(folder).prepare(tmp_path / "cache", silent)


# Signatures


def test_the_content_of_files_is_the_identity_wherever_they_lie(tmp_path: Path) -> None:
    first, same = shards(tmp_path / "a"), shards(tmp_path / "b")
    assert of(first).identity() == of(same).identity() != {}
    before = of(first).identity()
    shard(first / "001.tar", {"s": sample(9)})
    forget()
    assert of(first).identity() != before
    assert of(tmp_path / "none").identity() == {}


def test_commands_and_addresses_are_known_by_their_text_and_the_revision(tmp_path: Path, server: Server) -> None:
    data = of(f"{server.url}/000.tar")
    assert data.identity() != of(f"{server.url}/001.tar").identity()
    assert data.cache_folder(tmp_path) != replace(data, revision="2").cache_folder(tmp_path)
    assert server.asked == []
