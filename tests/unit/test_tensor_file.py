"""Files of tensors: a flipped bit anywhere is refused or changes nothing, and what a file declares takes no memory."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ladd_dist.builders.student_file import load_student
from ladd_dist.core.budget import within
from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import digest, read_config
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.serialize import to_data
from ladd_dist.core.tensor_file import KEY, load_weights, read_tensors
from ladd_dist.core.types import ImageSpec
from ladd_dist.networks.cunet import CUNet
from ladd_dist.sliders.slider import load_control

TENSORS = {
    "w": torch.arange(6.0).view(2, 3),
    "n": torch.tensor(5),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
}
IMAGE = ImageSpec(channels=3, height=8, width=8, num_classes=2)
NETWORK = CUNet(widths=(8,), embed_dim=8, attention_heads=1)
CARD: dict[str, Any] = {
    "network": to_data(NETWORK),
    "image": to_data(IMAGE),
    "levels": {"1": [80.0], "2": [80.0, 1.5]},
    "rule": "ode",
    "recipe": "tiny",
    "signature": "0123456789",
}
CONTROL: dict[str, Any] = {
    "kind": "control", "attribute": "hue", "rank": 2, "alpha": 2.0, "on": "student", "network": to_data(NETWORK),
    "image": to_data(IMAGE), "signature": "0123456789",
}  # fmt: skip
DIRECTION = {"input.lora_A.weight": torch.ones(2, 3), "input.lora_B.weight": torch.ones(4, 2)}
CPU = torch.device("cpu")


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(NETWORK.build(image=IMAGE).state_dict())


def student(path: Path, card: dict[str, Any] | str = CARD, *, bare: bool = False, **others: Tensor) -> Path:
    """A student's file; `bare` as older versions and other programs write it, without a sha256."""
    told = {"ladd_dist": card if isinstance(card, str) else json.dumps(card)}
    content = {name: tensor.contiguous() for name, tensor in (weights() | others).items()}
    (safetensors.torch.save_file if bare else lambda *given: save_tensors(path, *given))(  # type: ignore[operator]
        *((content, path, told) if bare else (content, told))
    )
    return path


def control(path: Path, card: dict[str, Any] = CONTROL, **others: Tensor) -> Path:
    save_tensors(path, DIRECTION | others, {"ladd_dist": json.dumps(card)})
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def flipped(path: Path, every: int, tries: Callable[[], bool]) -> int:
    """Flip a bit in every k-th byte, one at a time; each is refused by `tries`, or it finds nothing changed.

    Returns how many were refused.
    """
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), every):
        content = bytearray(whole)
        content[at] ^= 1 << (at // every % 8)
        path.write_bytes(content)
        try:
            assert tries(), f"byte {at} ({whole[max(at - 20, 0) : at + 20]!r}) changed something"
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
            refused += 1
    path.write_bytes(whole)
    return refused


# Damage


def test_a_flipped_bit_in_any_byte_of_a_file_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"ladd_dist": json.dumps(CARD), "format": "pt"})
    told = read_tensors(path).metadata

    def unchanged() -> bool:
        found = read_tensors(path)
        return same(found.tensors, TENSORS) and told.items() <= found.metadata.items()

    size = path.stat().st_size
    assert unchanged()
    assert flipped(path, 1, unchanged) > size - len(KEY) - 20  # all but the name of the sha256 and white space


def test_a_flipped_bit_in_a_students_file_is_refused_or_gives_the_same_student(tmp_path: Path) -> None:
    path, expected = student(tmp_path / "student.safetensors"), weights()

    def unchanged() -> bool:
        network, card = load_student(path, CPU)
        return same(dict(network.state_dict()), expected) and card == CARD

    assert unchanged()
    assert flipped(path, 47, unchanged) > path.stat().st_size // 47 - 5


def test_a_flipped_bit_in_a_direction_is_refused_or_gives_the_same_direction(tmp_path: Path) -> None:
    path = control(tmp_path / "hue.safetensors")

    def unchanged() -> bool:
        found = load_control(path)
        return same(found.state, DIRECTION) and found.card == CONTROL

    assert unchanged()
    assert flipped(path, 1, unchanged) > path.stat().st_size - len(KEY) - 20


def test_the_same_tensors_and_card_are_the_same_bytes_and_the_tensors_lie_aligned(tmp_path: Path) -> None:
    contents = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        save_tensors(path, TENSORS, {"ladd_dist": "x", "format": "pt", "other": "é"})
        contents.add(path.read_bytes())
    (content,) = contents
    assert struct.unpack("<Q", content[:8])[0] % 8 == 0
    assert same(safetensors.torch.load_file(path), TENSORS)


def test_a_file_without_a_sha256_is_read_as_it_is(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "old.safetensors")
    assert same(load_weights(tmp_path / "old.safetensors"), TENSORS)
    network, card = load_student(student(tmp_path / "student.safetensors", bare=True), CPU)
    assert card == CARD and same(dict(network.state_dict()), weights())


# Headers


def _file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


ENTRY = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 7, _file(b"{}", length=2**60), _file(b"{}", length=2**63 + 9), _file(b"[" * 100_000),
        _file(b"{" + ENTRY + b"}"), _file(b"{" + ENTRY + b"," + ENTRY.replace(b"[0,4]", b"[4,8]") + b"}", b"\0" * 8),
        _file(b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}', b"\0" * 4),
        _file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', b"\0" * 4),
        _file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', b"\0" * 4),
        _file(b'{"a":{"dtype":"XX","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), _file(b'{"a":"\xff"}'),
        _file(b'{"__metadata__":{"ladd_dist":3}}'), _file(b'{"__metadata__":[],' + ENTRY + b"}", b"\0" * 4),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_header_that_lies_is_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (read_tensors, lambda path: load_student(path, CPU), load_control):
        with pytest.raises(UserError, match=r"x\.safetensors") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert len(digest([path])) == 16


def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "student.safetensors")
    with pytest.raises(UserError, match="is a pipe, not a regular file"):
        load_student(tmp_path, CPU)
    with pytest.raises(UserError, match="is a device, not a regular file"):
        load_control(Path("/dev/zero"))


def test_the_identity_of_a_large_file_with_a_lying_header_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", 2**60))
        stream.truncate(8 * 2**30)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(digest([path])) == 16
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


# Cards


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = weights()["input.bias"]
        broken[3] = value
        with pytest.raises(UserError, match=r"the weight input\.bias holds NaN or infinity"):
            load_student(student(tmp_path / "student.safetensors", **{"input.bias": broken}), CPU)
        direction = torch.full((2, 3), value)
        with pytest.raises(UserError, match=r"input\.lora_A\.weight holds NaN or infinity"):
            load_control(control(tmp_path / "hue.safetensors", **{"input.lora_A.weight": direction}))


NET = CARD["network"]
LARGE = r"larger than its weights|does not fit in memory|must be at least \d+ and at most"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "euler"}, r"rule is 'euler', expected one of sde, ode"),
        ({"rule": 3}, r"rule is '3', expected one of"),
        ({"levels": {}}, r"no levels"),
        ({"levels": {"1": [80.0, 3.0]}}, r"levels of '1' steps"),
        ({"levels": {"2": [3.0, 80.0]}}, r"descending numbers above 0"),
        ({"levels": {"1": [-1.0]}}, r"descending numbers above 0"),
        ({"levels": {"x": [1.0]}}, r"levels of 'x' steps"),
        ({"levels": {"1": ["a"]}}, r"levels"),
        ({"levels": [1.0]}, r"levels"),
        ({"levels": {"100000": [0.5] * 100_000}}, r"100000 numbers"),
        ({"image": {"channels": 3}}, r"image"),
        ({"image": {"channels": 3.5, "size": 8, "num_classes": 2}}, r"channels"),
        ({"image": {"channels": 3, "size": 10**6, "num_classes": 2}}, r"expected sides from 1 to"),
        ({"image": {"channels": 0, "size": 8, "num_classes": 2}}, r"expected sides from 1 to"),
        ({"image": {"channels": 10**6, "size": 8, "num_classes": 2}}, LARGE),
        ({"image": {"channels": 3, "size": 8, "num_classes": 10**9}}, LARGE),
        ({"network": {**NET, "blocks": 10_000_000}}, LARGE),
        ({"network": {**NET, "blocks": 10**12}}, r"blocks is 1000000000000"),
        ({"network": {**NET, "widths": [8_000_000]}}, LARGE),
        ({"network": {**NET, "widths": [8] * 100_000}}, r"widths has 100,000 entries"),
        ({"network": {**NET, "embed_dim": 10_000_000}}, LARGE),
        ({"network": "cunet"}, r"network"),
        ({"network": {"plugin": 3}}, r"network"),
        ({"recipe": None}, r"recipe"),
        ({"signature": 10**400}, r"signature|digits"),
        ({"more": "x" * 2**20}, r"characters"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_card_that_is_wrong_or_too_large_is_one_message_soon(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = student(tmp_path / "student.safetensors", CARD | change, bare=True)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        load_student(path, CPU)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800_000  # kB
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 50_000, '{"rule": NaN}', '"\\ud800"', '{"levels": 1e999}'])
def test_a_card_that_is_no_object_is_one_message(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"student\.safetensors"):
        load_student(student(tmp_path / "student.safetensors", text, bare=True), CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 10**9}, r"rank 1000000000"),
        ({"rank": "2"}, r"rank"),
        ({"alpha": 0.0}, r"alpha"),
        ({"attribute": "slant"}, r"attribute 'slant', known are"),
        ({"on": "critic"}, r"critic"),
        ({"kind": "other"}, r"of something else"),
        ({"image": {"channels": 3, "size": 10**9, "num_classes": 2}}, r"expected sides"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_directions_card_that_is_wrong_is_one_message(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_control(control(tmp_path / "hue.safetensors", CONTROL | change))


def test_what_is_within_its_file_is_built_and_the_limit_ends_with_the_block() -> None:
    count = sum(weight.numel() for weight in weights().values())
    with within("it", elements=count, tensors=len(weights())):
        NETWORK.build(image=IMAGE)
    with pytest.raises(UserError, match="it describes"), within("it", elements=0, tensors=10**6):
        torch.nn.Linear(2_000, 1_000)
    torch.nn.Linear(2_000, 1_000)


@pytest.mark.parametrize(
    "content", ["[]", "{", "[" * 100_000, '{"layers": [10000000000]}', '{"n": ' + "1" * 5000 + "}"]
)
def test_a_configuration_that_is_wrong_or_beyond_reason_is_one_message(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(path)
    path.write_text('{"lambda_min_clipped": -Infinity}')  # as schedulers of diffusers say
    assert read_config(path) == {"lambda_min_clipped": -float("inf")}
