"""Data files from outside are regular, of bounded size and whole, or one message names them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ladd_dist.builders.networks import OLD_TABLE
from ladd_dist.builders.texts import TEXTS, attach_texts
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.errors import UserError
from ladd_dist.core.features import CARD_NAME, load_features
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.datasets import mnist, prompts
from ladd_dist.datasets.mnist import FILES, Mnist
from ladd_dist.datasets.prompts import read_prompts
from ladd_dist.reports.grids import ROWS_KEY, grid_row, grid_rows, write_grid
from ladd_dist.reports.html import data_uri


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [read_prompts, grid_rows, data_uri, Conditions.read])
@pytest.mark.parametrize("kind", [pipe, device])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, read, kind) -> None:  # type: ignore[no-untyped-def]
    path = kind(tmp_path / "file")
    with pytest.raises(UserError, match=rf"{path} is a (pipe|device), not a regular file"):
        read(path)


@pytest.mark.timeout(20)
def test_a_card_or_an_mnist_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe(tmp_path / CARD_NAME)
    with pytest.raises(UserError, match="is a pipe"):
        load_features(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pipe(raw / "train-images-idx3-ubyte.gz")
    with pytest.raises(UserError, match="is a pipe"):
        Mnist(root=str(tmp_path)).build(split="train")


def test_a_card_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).write_text("[" * 100_000)
    with pytest.raises(UserError, match=CARD_NAME):
        load_features(tmp_path)


@pytest.mark.parametrize(("shape", "label"), [((47_040_000, 1, 1), 0), ((60_000, 28, 28), 200), ((60_000, 14, 56), 0)])
def test_mnist_files_of_the_right_size_and_another_shape_are_refused(
    tmp_path: Path, shape: tuple[int, ...], label: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size alone fits; resized to 32 x 32, the first would take 48 GB."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setattr(mnist, "resize", lambda grey, size: pytest.fail("resized"))
    for name, size in FILES.items():
        head = struct.pack(">4i", 2051, *shape) if "images" in name else struct.pack(">2i", 2049, size - 8)
        body = bytes(size - len(head)) if "images" in name else bytes([label]) * (size - 8)
        (raw / name).write_bytes(head + body)
    with pytest.raises(UserError, match=r"the MNIST files in .* are damaged"):
        Mnist(root=str(tmp_path), download=False).build(split="train")


def test_more_prompts_than_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MOST_PROMPTS", 3)
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a\r\nb\rc\n")
    assert read_prompts(path) == ("a", "b", "c")
    path.write_bytes(b"a\nb\nc\nd\ne\n")
    with pytest.raises(UserError, match=r"more than 3 prompts"):
        read_prompts(path)


def png(width: int, height: int, rows: str = "[]") -> bytes:
    """A PNG that declares a size and holds a single line of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    text = ROWS_KEY.encode() + b"\0" + rows.encode("latin-1")
    body = zlib.compress(bytes(1 + 3 * min(width, 1000)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", head), (b"tEXt", text), (b"IDAT", body), (b"IEND", b""))
    )


@pytest.mark.parametrize("size", [(100_000, 100_000), (12_000, 12_000), (2_000_000_000, 1), (9_000, 8_000)])
def test_a_picture_that_declares_too_many_pixels_is_not_unpacked(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "final.png"
    path.write_bytes(png(*size))
    with pytest.raises(UserError, match=rf"{path} is not a whole PNG picture"):
        grid_row(path, "teacher@4")


@pytest.mark.parametrize("rows", ["3", "{}", '["a", 3]', "[" * 50_000, "nonsense"])
def test_labels_of_another_form_are_one_message(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "final.png"
    path.write_bytes(png(4, 1, rows))
    with pytest.raises(UserError, match=rf"{path}: its text 'rows'"):
        grid_rows(path)


def test_a_grid_of_our_own_is_read(tmp_path: Path) -> None:
    write_grid(tmp_path / "a.png", [("teacher@4", torch.zeros(3, 3, 4, 4)), ("student@4", torch.zeros(3, 3, 4, 4))])
    assert grid_rows(tmp_path / "a.png") == ("teacher@4", "student@4")
    assert grid_row(tmp_path / "a.png", "student@4") is not None


@pytest.mark.parametrize(
    "content",
    [
        b'{"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,16]}}',
        b'{"x":{"dtype":"XX","shape":[4],"data_offsets":[0,16]}}',
        b'{"x":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
        b"[" * 1000,
    ],
)
def test_a_table_of_conditions_that_declares_another_size_is_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / OLD_TABLE
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(16))
    with pytest.raises(UserError, match=r"table of conditions"):
        Conditions.read(path)


class Reads(Denoiser):
    """Network that reads texts."""

    image = ImageSpec(3, 4, 4, 2)
    condition_shapes = {"x": (4,)}  # noqa: RUF012

    def attach(self, conditions: Conditions) -> None:
        self.conditions = conditions


@pytest.mark.parametrize("texts", [["a", 3], "ab", {"a": 1}, ["a"], None])
def test_texts_beside_a_table_that_are_not_its_own_are_refused(tmp_path: Path, texts: object) -> None:
    safetensors.torch.save_file({"x": torch.zeros(3, 4)}, tmp_path / OLD_TABLE)
    content = (tmp_path / OLD_TABLE).read_bytes()
    table = {"name": OLD_TABLE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "texts": "x"}
    (tmp_path / TEXTS).write_text(json.dumps({"table": table, "texts": ["a", "b"]}))
    assert attach_texts(Reads(), tmp_path, tmp_path) == ["a", "b"]
    (tmp_path / TEXTS).write_text(json.dumps({"table": table, "texts": texts}))
    with pytest.raises(UserError, match=TEXTS):
        attach_texts(Reads(), tmp_path, tmp_path)
