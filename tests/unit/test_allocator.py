"""The memory that large tensors free is taken again by those after them, where the C library can be asked for it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from ladd_dist.core.allocator import keep_freed_memory

CODE = """
import resource, sys
from ladd_dist.core.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
if sys.argv[1] == "command":
    from ladd_dist.parallel.devices import compute_on
    kept = compute_on("cpu", 1)
bytes_used = lambda: bytearray(16 << 20)
bytes_used()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytes_used()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str, **environment: str) -> tuple[str, int]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", CODE, word]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True, timeout=60)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_memory_that_was_freed_is_used_again_without_a_page_fault() -> None:
    pages = 20 * (16 << 20) // 4096
    (kept, few), (_, many) = faults("keep"), faults("leave")
    assert kept == "True"
    assert few < 0.05 * pages
    assert few < many


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_commands_that_compute_on_a_cpu_keep_it() -> None:
    device, few = faults("command")
    assert device == "cpu" and few < 0.05 * 20 * (16 << 20) // 4096


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
