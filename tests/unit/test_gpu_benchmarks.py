"""`make gpu`: parts in processes of their own, results as they come, an end in time; on the CPU here."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks import device_memory, gpu, sampling
from benchmarks.gpu import Args, Part

CPU = torch.device("cpu")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four small parts: one that works, one that fails, one that hangs, one whose package nobody has."""
    (tmp_path / "part_good.py").write_text('print(\'{"waits": 0, "cases": {}}\')')
    (tmp_path / "part_bad.py").write_text("raise SystemExit('the kernel is missing')")
    sleeping = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    (tmp_path / "part_slow.py").write_text(sleeping)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu, "LEAST_S", 0.1)
    made = [Part(name, "a part", f"part_{name}", small=()) for name in ("good", "bad", "slow")]
    monkeypatch.setattr(gpu, "PARTS", (*made, Part("lacking", "a part", "part_good", needs=("nobody_has_this",))))


@pytest.fixture
def deaf() -> Iterator[None]:
    """Interrupts are ignored, as in what a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_tests_that_are_ended_have_said_which_failed(tmp_path: Path, deaf: None) -> None:
    """A lent GPU is gone when its time is up, so a failure that only a summary names would be lost."""
    lines = ["import time", "def test_wrong(): assert 1 == 2", "def test_long(): time.sleep(60)"]
    (tmp_path / "test_two.py").write_text("\n".join(lines))
    part = Part("tests", "two tests", "pytest", (str(tmp_path / "test_two.py"),))
    outcome = gpu.run(part._replace(small=part.words), Args(device="cpu", quick=True, out=tmp_path), 5.0)
    assert outcome.state == "out of time" and outcome.seconds < 5 + gpu.INTERRUPTED_S + 10
    assert "FAILED" in outcome.said and "test_wrong" in outcome.said and "assert 1 == 2" in outcome.said
    assert len(gpu.told(outcome)) <= gpu.MOST_SHOWN


def test_what_an_interrupted_part_started_is_ended_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold the device while the next part is timed."""
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    lines = [
        "import subprocess, sys, time",
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], {quiet})",
        "print(child.pid, flush=True)",
        "time.sleep(300)",
    ]
    (tmp_path / "part_parent.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    outcome = gpu.run(
        Part("parent", "a part", "part_parent", small=()), Args(device="cpu", quick=True, out=tmp_path), 6.0
    )
    child = int((tmp_path / "parent.txt").read_text().splitlines()[-1])
    assert outcome.state == "out of time"
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(30)  # killed by then, but a busy machine may not have ended it yet


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_failing_part_takes_nothing_from_the_others(
    parts: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = gpu.main(["--only", "bad", "good", "lacking", "--device", "cpu", "--quick", "--out", str(out)])
    machine, *rows = results(out)
    assert code == 1 and machine["machine"]["device"] == "cpu"
    assert {row["part"]: row["state"] for row in rows} == {"good": "done", "bad": "failed", "lacking": "passed over"}
    assert "the kernel is missing" in next(row["said"] for row in rows if row["part"] == "bad")
    assert next(row["result"] for row in rows if row["part"] == "good") == {"waits": 0, "cases": {}}
    printed = capsys.readouterr().out
    assert "the kernel is missing" in printed and "nobody_has_this is not installed" in printed


def test_a_part_that_hangs_is_ended_with_its_processes_when_the_budget_is_spent(parts: None, tmp_path: Path) -> None:
    started, out = time.monotonic(), tmp_path / "out"
    words = ["--only", "slow", "lacking", "--device", "cpu", "--quick", "--budget-min", "0.02", "--out", str(out)]
    assert gpu.main(words) == gpu.OUT_OF_TIME
    assert time.monotonic() - started < 40
    assert [row["state"] for row in results(out)[1:]] == ["out of time", "passed over"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_there_is_one_message_and_a_way_to_try_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no CUDA device here; `python -m benchmarks.gpu --device cpu --quick`")
    assert gpu.main(["--only", "everything", "--list"]) == 1
    assert "--only everything: no such part; there are sync, tests" in capsys.readouterr().err


def test_every_part_names_a_module_that_is_there_and_files_of_tests_that_are_there() -> None:
    root = Path(gpu.ROOT)
    for part in gpu.PARTS:
        assert part.module == "pytest" or (root / f"{part.module.replace('.', '/')}.py").exists(), part
        for word in (*part.words, *part.small):
            assert not word.startswith("tests/") or (root / word).exists(), word
    words = gpu.words_of(gpu.PARTS[1], Args(device="cpu"))
    assert words[:3] == ["pytest", "-m", "not gpu and not slow"]
    assert gpu.words_of(gpu.PARTS[1], Args())[2] == "gpu and not slow"


def test_samplers_are_compared_with_the_teacher_round_by_round(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scale", "smoke", "--batch", "2", "--rounds", "2", "--device", "cpu", "--json"]
    assert sampling.main(words) == 0
    rows = json.loads(capsys.readouterr().out)["samplers"]
    assert {name: row["forwards"] for name, row in rows.items()} == {
        "teacher@50": 100, "student@4": 4, "student@2": 2, "student@1": 1,
    }  # fmt: skip
    assert rows["teacher@50"]["times_faster"] == 1.0 and rows["student@1"]["times_faster"] > 5
    for row in rows.values():
        assert row["pictures_per_s"] == pytest.approx(1e3 / row["ms_per_picture"])


def test_the_planned_memory_is_that_of_ladd_plan_and_the_steps_run() -> None:
    ((_, recipe),) = device_memory.cases(Args(quick=True)).items()  # type: ignore[arg-type]
    row = device_memory.measure(recipe, CPU)
    assert row.planned > 4 * 7 * sum(p.numel() for p in device_memory.fresh_network(recipe).parameters())
    assert (row.measured, row.ratio) == (None, None)
