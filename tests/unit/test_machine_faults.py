"""A fault of the machine while pictures are read is an error that leaves nothing, and no property of a picture."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from picture_files import encoded, plain

from ladd_dist.core.door import read_listed
from ladd_dist.core.errors import MachineError, is_of_the_file
from ladd_dist.core.picture_file import Fitting
from ladd_dist.core.picture_pool import Picture, decode_all
from ladd_dist.datasets import folder_inventory, shard_notes
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.picture_cache import read_card, silent
from ladd_dist.datasets.webdataset import Webdataset

REPO = Path(__file__).resolve().parents[2]
FAILING = Path("/proc/self/mem")
"""A regular file whose first byte cannot be read: EIO."""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder_inventory.forget()
    yield
    folder_inventory.forget()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures, and a fourth that is damaged."""
    folder = tmp_path / "pictures" / "a"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(plain((number, 0, 0))))
    (folder / "damaged.png").write_bytes(encoded(plain())[:40])
    return folder.parent


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("*") if not path.name.endswith(".lock")]


def test_a_disk_that_fails_while_pictures_are_decoded_stops_and_a_later_opening_has_them_all(
    root: Path, tmp_path: Path
) -> None:
    data, cache, whole = Folder(root=str(root), size=8, on_bad="skip"), tmp_path / "cache", root / "a" / "1.png"
    assert data.fingerprint() and data.spec()
    whole.rename(tmp_path / "aside")
    whole.symlink_to(FAILING)
    with pytest.raises(
        MachineError, match=r"a/1\.png' cannot be read now \(Input/output error\).* run the same"
    ) as error:
        data.prepare(cache, silent)
    assert "\n" not in str(error.value) and kept(cache) == []
    whole.unlink()
    with pytest.raises(MachineError, match=r"cannot be read now \(No such file"):  # as of a disk that is not mounted
        data.prepare(cache, silent)
    assert kept(cache) == []
    (tmp_path / "aside").rename(whole)
    folder_inventory.forget()
    data.prepare(cache, silent)
    card = read_card(data.cache_folder(cache))
    assert card.num == 3 and [bad.name for bad in card.bad] == ["a/damaged.png"]


def test_a_disk_that_fails_while_the_folder_is_looked_at_gives_no_fingerprint_and_no_captions(root: Path) -> None:
    (root / "a" / "x.png").symlink_to(FAILING)
    with pytest.raises(MachineError, match="Input/output error"):
        Folder(root=str(root)).fingerprint()
    folder_inventory.forget()
    (root / "a" / "0.txt").symlink_to(FAILING)
    (root / "a" / "1.txt").write_text("one")
    with pytest.raises(MachineError, match="Input/output error"):
        Folder(root=str(root), captions="txt").texts()


def test_a_shard_on_a_disk_that_fails_gives_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "0.tar").symlink_to(FAILING)
    shard_notes.content_fingerprint.cache_clear()
    with pytest.raises(MachineError, match=r"cannot be read now \(Input/output error\)") as error:
        Webdataset(urls=str(tmp_path / "0.tar")).fingerprint()
    assert "\n" not in str(error.value)


def test_no_free_file_descriptor_is_no_fault_of_a_picture(root: Path) -> None:
    path = root / "a" / "0.png"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with pytest.raises(MachineError, match="Too many open files"):
            read_listed(path)
        with pytest.raises(MachineError, match="Too many open files"):
            list(decode_all([Picture("0.png", path, 0)], Fitting(8, 8), total=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


LITTLE_MEMORY = """
import io, resource, sys
from pathlib import Path
from PIL import Image
from ladd_dist.core.picture_file import Fitting
from ladd_dist.core.picture_pool import Picture, decode_all

def decoded(content):
    try:
        return next(decode_all([Picture("large", content, 0)], Fitting(8, 8), total=1)).bad
    except Exception as error:
        return f"{type(error).__name__}: {error}"

contents = []
for form in ("PNG", "JPEG", "WEBP"):
    data = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(data, form)
    contents.append(data.getvalue())
assert [decoded(content) for content in contents] == [[], [], []]
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 20 * 2**20,) * 2)
for content in contents:
    print(decoded(content))
"""


def test_too_little_memory_is_no_fault_of_a_picture() -> None:
    """Also of a WebP, whose decoder fails as it does for a damaged file."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
             "MALLOC_TRIM_THRESHOLD_": "0"},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout + done.stderr
    for line in lines:
        assert line.startswith("MachineError: there is too little memory to decode large, so nothing is kept"), line


def test_names_links_and_permissions_are_the_files_and_the_rest_is_the_machines() -> None:
    def of_the_file(number: int) -> bool:
        return is_of_the_file(OSError(number, "x"))

    assert all(map(of_the_file, (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG)))
    machine = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ETIMEDOUT,
               errno.EHOSTDOWN, errno.EINTR, errno.ENODEV)  # fmt: skip
    assert not any(map(of_the_file, machine))
