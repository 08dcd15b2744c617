"""Shards from outside: damage is found wherever it is, declared sizes take no memory, and our own shards are read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ladd_dist.core.errors import UserError
from ladd_dist.core.tar_members import MOST_ZEROS, read_members
from ladd_dist.core.types import ImageSpec
from ladd_dist.engine.foreign_samples import Wanted
from ladd_dist.engine.foreign_shards import find_shards
from ladd_dist.engine.foreign_survey import survey_shards
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.stages.imported import Imported

IMAGE = ImageSpec(channels=3, height=4, width=4, num_classes=10)
WANTED = Wanted(IMAGE)
MOST = 2**20
LEVELS = (80.0, 1.0)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sample(number: int) -> dict[str, bytes]:
    x0 = np.random.default_rng(number).uniform(-1, 1, (3, 4, 4)).astype(np.float32)
    return {"npy": npy(x0), "cls": str(number % 10).encode()}


def packed(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.GNU_FORMAT, end: int = 20) -> bytes:
    """A tar file; a header without content stands alone."""
    blocks = b""
    for member in members:
        info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
        content = b"" if isinstance(member, tarfile.TarInfo) else member[1]
        info.size = info.size or len(content)
        blocks += info.tobuf(form) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
    return blocks + bytes(end * tarfile.BLOCKSIZE)


def files(num: int, prefix: str = "") -> list[tuple[str, bytes]]:
    return [(f"{prefix}s{n:03d}.{ext}", content) for n in range(num) for ext, content in sample(n).items()]


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def read(source: str | Path, wanted: Wanted = WANTED, most: int | None = None) -> list[Chunk]:
    """The samples of a source, which every check has passed, each sample or stored chunk by itself."""
    survey = survey_shards(str(source), wanted, most)
    chunks = list(survey.read_from(0)[1])
    return chunks if most is None else chunks[:most]


def same(found: list[Chunk], whole: list[Chunk]) -> bool:
    """Whether the tensors are those of `whole`: none is lost, none has changed."""
    return len(found) == len(whole) and all(
        torch.equal(a.x0, b.x0) and torch.equal(a.cond, b.cond) for a, b in zip(found, whole, strict=True)
    )


@contextmanager
def within(seconds: float = 5.0, megabytes: float = 40.0) -> Iterator[None]:
    """Fail if the block takes more time or memory."""
    tracemalloc.start()
    begin = time.monotonic()
    try:
        yield
        assert time.monotonic() - begin < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


# Damage


def test_any_flipped_bit_of_a_header_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    content = packed(*files(3))
    path = tmp_path / "a.tar"
    whole = [member[:2] for member in read_members(Path(put(path, content)), MOST)]
    assert whole == files(3)
    begin = tarfile.BLOCKSIZE * 4  # npy of the first sample, then its cls: the third member's header
    errors = 0
    for bit in range(begin * 8, (begin + tarfile.BLOCKSIZE) * 8):
        put(path, flipped(content, bit))
        try:
            assert [member[:2] for member in read_members(path, MOST)] == whole
        except ShardError as error:
            assert f"a.tar is damaged (at byte {begin:,}: " in str(error)
            errors += 1
    assert errors > 4000  # the others are in the text of the checksum itself: 0 or a blank before its digits


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_flipped_bit_in_a_long_name_loses_no_sample(tmp_path: Path, form: int) -> None:
    tensors = [{"x0": torch.rand(3, 4, 4), "cond": torch.tensor(number)} for number in range(3)]
    members = [(f"{'d' * 120}/s{n}.safetensors", safetensors.torch.save(item)) for n, item in enumerate(tensors)]
    content = packed(*members, form=form)
    path = tmp_path / "a.tar"
    put(path, content)
    whole = read(path)
    assert len(whole) == 3
    begin = content.index(b"d" * 120, content.index(b"d" * 120) + 1000) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    for bit in range((begin - tarfile.BLOCKSIZE) * 8, (begin + 160) * 8, 7):  # its own header and the name
        put(path, flipped(content, bit))
        try:
            assert same(read(path), whole), bit
        except ShardError:
            continue


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_any_flipped_bit_of_a_compressed_shard_is_an_error_or_changes_nothing(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    content = pack(packed(*files(2)))
    path = tmp_path / "a.tar.packed"
    put(path, content)
    whole = read(path)
    assert len(whole) == 2
    for bit in range(0, len(content) * 8, 7):
        put(path, flipped(content, bit))
        try:
            assert same(read(path), whole), bit
        except ShardError as error:
            assert "a.tar.packed" in str(error)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_streams_behind_each_other_are_read_and_what_is_no_stream_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    content = packed(*files(3))
    path = tmp_path / "a.tar.packed"
    put(path, pack(content[:2500]) + pack(content[2500:]))
    assert len(read(path)) == 3
    put(path, pack(content) + b"rubbish")
    with pytest.raises(ShardError, match=r"is damaged or truncated \(at byte [\d,]+ of its unpacked \w+ stream"):
        read(path)
    put(path, pack(content)[:-4])
    with pytest.raises(ShardError, match="compressed stream"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(*files(3)) + packed(*files(1)), r"is damaged \(at byte \d+,\d+: it goes on behind its end"),
        (packed(*files(3), end=1), r"is truncated .*blocks of zeros at its end are missing"),
        (packed(*files(3), end=0), r"is truncated"),
        (packed(*files(3))[:-1] + b"x", r"goes on behind its end"),
        (packed(*files(3), end=0)[:-100] + bytes(MOST_ZEROS + 1000), r"zeros alone from there on"),
        (packed(*files(3), end=0)[:2100], r"it ends within a header"),
        (packed(*files(3), end=0)[:3000], r"whose header is at byte 2,048 is not whole"),
        (b"", r"is truncated or no tar file"),
        (b"PK\x03\x04" * 500, r"is truncated or no tar file \(at byte 0"),
        (b"\x28\xb5\x2f\xfd" * 500, r"zstd is not read"),
        (packed(*files(2), *files(1)), r"'s000' of .*do not stand together"),
        (packed(*files(2), files(2)[3]), r"'s001' of .*two members \.cls"),
        (packed(*files(2)[::2], *files(2)[1::2]), r"'s000' of .*needs x0 .* and a class"),
        (packed(*files(1), ("README", b"text")), r"'README' .*has no extension"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tar"
    put(path, content)
    with pytest.raises(ShardError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_folders_hidden_files_and_names_of_webdataset_are_no_samples(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("data")
    folder.type = tarfile.DIRTYPE
    own = [(name, b"x") for name in ("__meta__", "__data__/x.npy", "data/.DS_Store", "._s000.npy")]
    put(tmp_path / "a.tar", packed(folder, *own, *files(2, "data/")))
    assert len(read(tmp_path / "a.tar")) == 2


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"Z"])
def test_a_link_or_a_device_as_a_member_is_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("s001.npy")
    link.type, link.linkname = kind, "s000.npy"
    put(tmp_path / "a.tar", packed(*files(1), link))
    with pytest.raises(ShardError, match=r"has a member that is no file .*s001\.npy"):
        read(tmp_path / "a.tar")


def test_a_name_that_is_a_shell_command_for_webdataset_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "pipe:touch pwned", packed(*files(2)))
    assert len(read("*")) == 2
    assert not (tmp_path / "pwned").exists()


# Sizes


def header(name: str = "a.npy", size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def pax(**records: str) -> bytes:
    info = tarfile.TarInfo("a.npy")
    info.pax_headers = {key.replace("__", "."): value for key, value in records.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(10240)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(header(size=6 * 10**9)), r"'a\.npy' has 6 GB, .*--shards\.most-member-bytes"),
        (packed(header(size=20 * 10**9, kind=tarfile.GNUTYPE_SPARSE)), r"sparse member"),
        (pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="20000000000"), "sparse member"),
        (pax(GNU__sparse__size="20000000000", GNU__sparse__map="0,1"), "sparse member"),
        (pax(size="6000000000"), "'a.npy' has 6 GB"),
        (pax(size="9" * 400), "size of too many digits"),
        (pax(size="-512"), "size below zero"),
        (pax(size="many"), "no valid extended header"),
        (packed(header(size=10**9, kind=tarfile.XHDTYPE)), "has 1 GB"),
        (packed(header(size=10**9, kind=tarfile.GNUTYPE_LONGNAME)), "has 1 GB"),
        (packed(header(size=-(2**40))), "size below zero"),
        (gzip.compress(bytes(2**22)), "zeros alone"),
        (gzip.compress(packed(header(size=8 * 10**9)) + bytes(2**20)), "has 8 GB"),
        (gzip.compress(bytes(2**26), 1) * 128, "zeros alone"),
    ],
)
def test_a_declared_size_is_refused_before_it_takes_memory_or_time(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.tar"
    put(path, content)
    with within(), pytest.raises(ShardError, match=message):
        read(path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_stream_that_unpacks_without_end_is_refused_while_it_is_read(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    block = packed(("a.txt", bytes(2**20)), end=0)
    path = tmp_path / "a.tar.packed"
    put(path, pack(block * 64))
    with within(), pytest.raises(ShardError, match="more than 200 times its size"):
        list(read_members(path, 2**20))


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with within(), pytest.raises(UserError, match=rf"{path} is a (pipe|device|folder), not a regular file"):
        read(f"{tmp_path}/*.tar")


def npy_with(text: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    line = text.encode() + b"\n"
    return b"\x93NUMPY" + version + len(line).to_bytes(2 if version[0] == 1 else 4, "little") + line + body


def tensors_with(header: str, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + body


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("npy", npy_with(HUGE % "(3, 100000, 100000)", bytes(192))),
        ("npy", npy_with(HUGE % "(1099511627776, 1099511627776)")),
        ("npy", npy_with(HUGE % "(-3, 4, 4)", bytes(192))),
        ("npy", npy_with(HUGE % "(3, 4, 4)", bytes(191))),
        ("npy", npy_with(HUGE % "(3, 4, 4)", bytes(193))),
        ("npy", npy_with(HUGE % ("(" * 3000), bytes(192))),
        ("npy", npy_with("{" * 9000, bytes(192))),
        ("npy", npy_with(HUGE % "(True, 4, 4)", bytes(192), b"\x03\x00")),
        ("npy", npy_with("{'descr': '|O', 'fortran_order': False, 'shape': (3, 4, 4)}", bytes(400))),
        ("npy", npy_with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 4, 4)}", bytes(192))),
        ("npy", npy_with("{'descr': '<c8', 'fortran_order': False, 'shape': (3, 4, 4)}", bytes(384))),
        ("npy", b"\x93NUMPY"),
        ("cls", b"9" * 400),
        ("cls", b"999999999999999999"),
        ("cls", b"3.5"),
        ("cls", b"\xff\xfe"),
        ("cls", b""),
        (
            "safetensors",
            tensors_with('{"x0":{"dtype":"F32","shape":[9999999999,4,4],"data_offsets":[0,192]}}', bytes(192)),
        ),
        ("safetensors", tensors_with('{"x0":{"dtype":"F32","shape":[3,4,4],"data_offsets":[0,1e18]}}', bytes(192))),
        ("safetensors", tensors_with('{"x0":{"dtype":"XX","shape":[3,4,4],"data_offsets":[0,192]}}', bytes(192))),
        ("safetensors", tensors_with('{"x0":' * 5000)),
        ("safetensors", b"\xff" * 16),
        ("safetensors", safetensors.torch.save({"x0": torch.zeros(3, 4, 4)})),  # x0 twice
        ("safetensors", safetensors.torch.save({"x0": torch.zeros(0, 3, 4, 4), "cond": torch.zeros(0).long()})),
        ("noise.npy", npy(np.zeros((3, 4, 4), np.int32))),
        ("noise.npy", npy(np.zeros((2, 4, 4), np.float32))),
    ],
)
def test_a_member_that_declares_too_much_or_something_else_is_one_message(
    tmp_path: Path, member: str, content: bytes
) -> None:
    members = {**({} if b'"cond"' in content else sample(0)), member: content}
    put(tmp_path / "a.tar", packed(*((f"s.{name}", data) for name, data in members.items())))
    with within(), pytest.raises(ShardError, match=r"sample 's' of .*a\.tar"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
def test_arrays_of_any_float_in_any_order_are_read(tmp_path: Path, dtype: str) -> None:
    x0 = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4)).astype(dtype)
    put(tmp_path / "a.tar", packed(("s.npy", npy(np.asfortranarray(x0))), ("s.cls", b"3")))
    (found,) = read(tmp_path / "a.tar")
    assert torch.equal(found.x0[0], torch.from_numpy(x0.astype(np.float32)))


# What is known beside the shards


SIDECARS: dict[str, tuple[str, Any]] = {
    "sizes": ("sizes.json", {"a.tar": 4}),
    "wids": (INDEX, {"wids_version": 1, "shardlist": [{"url": "http://x/a.tar", "nsamples": 4}]}),
    "img2dataset": ("a_stats.json", {"successes": 4, "count": 9}),
}


@pytest.mark.parametrize("kind", SIDECARS)
def test_a_count_beside_the_shards_is_compared(tmp_path: Path, kind: str) -> None:
    name, data = SIDECARS[kind]
    (tmp_path / name).write_text(json.dumps(data))
    put(tmp_path / "a.tar", packed(*files(4)))
    assert len(read(f"{tmp_path}/*.tar")) == 4
    put(tmp_path / "a.tar", packed(*files(3)))
    with pytest.raises(ShardError, match=rf"shard .*a\.tar holds 3 samples, .*{name} says 4"):
        read(f"{tmp_path}/*.tar")
    (tmp_path / "a.tar").rename(tmp_path / "b.tar")
    if kind != "img2dataset":  # it does not name shards
        with pytest.raises(ShardError, match=rf"shard .*a\.tar is missing: .*{name} names it"):
            read(f"{tmp_path}/*.tar")
    assert len(read(f"{tmp_path}/b*.tar")) == 3  # chosen without it
    (tmp_path / name).write_text('{"a.tar": "many", "shardlist": 3, "successes": []}')
    if kind != "img2dataset":
        with pytest.raises(UserError, match=rf"{name} does not have the expected form"):
            read(f"{tmp_path}/*.tar")


def test_the_checksum_of_an_index_finds_a_flipped_bit_in_the_data(tmp_path: Path) -> None:
    content = packed(*files(4))
    facts = {"url": "a.tar", "nsamples": 4, "filesize": len(content), "md5sum": hashlib.md5(content).hexdigest()}
    (tmp_path / INDEX).write_text(json.dumps({"shardlist": [facts]}))
    put(tmp_path / "a.tar", content)
    assert len(read(tmp_path)) == 4
    put(tmp_path / "a.tar", flipped(content, 8 * 700))  # in the first array
    with pytest.raises(ShardError, match=r"a\.tar is damaged: its md5 is not that of .*index\.json"):
        read(tmp_path)


def test_the_last_shard_is_verified_to_its_end(tmp_path: Path) -> None:
    content = gzip.compress(packed(*files(6)))
    put(tmp_path / "a.tar.gz", content)
    assert len(read(tmp_path, most=2)) == 2
    put(tmp_path / "a.tar.gz", flipped(content, 8 * (len(content) - 6)))
    with pytest.raises(ShardError, match="CRC check failed"):
        read(tmp_path, most=2)


# Our own shards


def make(first: int, last: int) -> Chunk:
    rows = [torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(index)) for index in range(first, last)]
    values = torch.stack(rows)
    return Chunk(values[:, 0].clamp(-1, 1), torch.arange(first, last) % 10, values[:, 1], values[:, 2:])


def write_own(folder: Path, texts: tuple[str, ...] = ()) -> Path:
    write_shards(
        folder, num_samples=23, samples_per_chunk=4, chunks_per_shard=2, dtype=torch.float32, make=make, image=IMAGE,
        card={"path_levels": list(LEVELS)}, texts=texts,
    )  # fmt: skip
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_own(tmp_path / "own")


@pytest.mark.parametrize("source", ["{}", "{}/*.tar", "{}/"])
@pytest.mark.parametrize("with_index", [True, False])
def test_own_shards_are_read(own: Path, source: str, with_index: bool) -> None:
    if not with_index:
        (own / INDEX).unlink()
    chunks, expected = read(source.format(own)), make(0, 23)
    for name in ("x0", "cond", "noise"):
        assert torch.equal(torch.cat([getattr(chunk, name) for chunk in chunks]), getattr(expected, name))
    assert all(chunk.path is None for chunk in chunks)


def test_imported_chunks_are_cut_anew_in_any_size(own: Path) -> None:
    imported, expected = Imported(survey_shards(str(own), WANTED, 21), StopFlag()), make(0, 21)
    assert imported.count() == 21
    for size in (1, 3, 5, 21):
        parts = [imported(first, min(first + size, 21)) for first in range(0, 21, size)]
        assert torch.equal(torch.cat([part.x0 for part in parts]), expected.x0)
        assert expected.noise is not None
        assert torch.equal(torch.cat([part.noise for part in parts if part.noise is not None]), expected.noise)
    assert torch.equal(imported(17, 19).x0, make(17, 19).x0)  # what lies before is passed over
    with pytest.raises(ShardError, match="sample 23 was there before"):
        imported(20, 24)


def test_states_of_own_shards_come_through_where_they_are_wanted_and_of_its_levels(own: Path) -> None:
    wanted = replace(WANTED, path_levels=LEVELS)
    found, expected = torch.cat([chunk.path for chunk in read(own, wanted) if chunk.path is not None]), make(0, 23).path
    assert expected is not None
    assert torch.equal(found, expected)
    with pytest.raises(
        ShardError, match=r"states at levels \(80.0, 2.0\), the shards in .* have them at \(80.0, 1.0\)"
    ):
        find_shards(str(own), (80.0, 2.0))
    (own / INDEX).unlink()
    with pytest.raises(ShardError, match=r"the shards in .* have none; use start=stored"):
        find_shards(str(own), LEVELS)


def test_texts_beside_own_samples_must_be_those_of_the_recipe(tmp_path: Path) -> None:
    texts = tuple(f"a picture of {number}" for number in range(10))
    folder = write_own(tmp_path / "own", texts)
    assert sum(len(chunk.cond) for chunk in read(folder, replace(WANTED, texts=texts))) == 23
    assert sum(len(chunk.cond) for chunk in read(folder)) == 23
    other = (*texts[:3], "a cat", *texts[4:])
    with pytest.raises(ShardError, match=r"class 3 is 'a picture of 3', in the recipe's dataset it is 'a cat'"):
        read(folder, replace(WANTED, texts=other))


def test_damage_of_own_shards_is_found_by_their_index(own: Path) -> None:
    tar = own / "000001.tar"
    content = tar.read_bytes()
    put(tar, flipped(content, 8 * (len(content) // 2)))
    with pytest.raises(ShardError, match=r"000001\.tar is damaged: its sha256 is not that of .*index\.json"):
        read(own)
    put(tar, content[:-512])
    with pytest.raises(ShardError, match=r"000001\.tar is damaged: .* bytes, .*index\.json says"):
        read(own)
    tar.unlink()
    with pytest.raises(ShardError, match=r"000001\.tar is missing: .*index\.json names it"):
        read(own)


# Ranges


@pytest.mark.parametrize(
    ("change", "space", "message"),
    [
        (lambda x: (x + 1) * 127.5, "pixels", r"x0 reaches from .*\[-1, 1\].*x / 127\.5 - 1"),
        (lambda x: x * 1e30, "pixels", r"x0 reaches from"),
        (lambda x: (x + 1) * 127.5, "latents", r"x0 reaches from .*scaling_factor"),
        (lambda x: x.double() * 1e300, "latents", "holds NaN or infinity"),
    ],
)
def test_samples_in_other_units_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], space: Any, message: str
) -> None:
    x0 = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tensors = {"x0": change(x0).contiguous(), "cond": torch.tensor(1)}
    put(tmp_path / "a.tar", packed(("s.safetensors", safetensors.torch.save(tensors))))
    with pytest.raises(ShardError, match=rf"sample 's' of .*a\.tar.*{message}"):
        read(tmp_path / "a.tar", replace(WANTED, space=space))


def test_guided_samples_may_leave_the_range_of_pixels(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", packed(("s.npy", npy(np.full((3, 4, 4), -3.4, np.float32))), ("s.cls", b"1")))
    assert len(read(tmp_path / "a.tar")) == 1


@pytest.mark.parametrize("change", [lambda n: n * 80, lambda n: n * 1e30, lambda n: n + 0.5, lambda n: n * 0.56])
def test_noise_that_is_not_unit_normal_is_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    def members(change: Callable[[Any], Any]) -> Iterator[tuple[str, bytes]]:
        for number in range(16):
            noise = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(number))
            tensors = {"x0": torch.zeros(3, 4, 4), "noise": change(noise), "cond": torch.tensor(1)}
            yield f"s{number}.safetensors", safetensors.torch.save(tensors)

    put(tmp_path / "a.tar", packed(*members(lambda noise: noise)))
    assert len(read(tmp_path / "a.tar")) == 16
    put(tmp_path / "a.tar", packed(*members(change)))
    with pytest.raises(ShardError, match=r"noise so far has mean .* and deviation .*unit normal"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize("cond", [torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor(-1), torch.tensor(True)])
def test_class_ids_are_one_integer_a_sample_within_the_classes(tmp_path: Path, cond: torch.Tensor) -> None:
    tensors = {"x0": torch.zeros(3, 4, 4), "cond": cond}
    put(tmp_path / "a.tar", packed(("s.safetensors", safetensors.torch.save(tensors))))
    with pytest.raises(ShardError, match=r"sample 's' of .*(cond|class ids)"):
        read(tmp_path / "a.tar")
