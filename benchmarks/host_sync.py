"""Whether the training loops wait for the device between logged steps: `python -m benchmarks.host_sync`.

Teacher and student are trained for a few steps by the real command, `ladd launch`. From the second step to the one
before the last, everything that the loop does is watched: the step itself, the sums of its figures, the guard's, the
progress line.

* On a CUDA device, `torch.cuda.set_sync_debug_mode("error")` turns a wait into an exception, and the profiler's trace
  must hold no call that waits and no copy to the host. `--trace FOLDER` keeps the traces, for chrome://tracing.
* On a CPU, nothing waits. There, each operation is noted through which the host learns what a tensor holds (`item`,
  `nonzero`, an index by booleans, `tolist`, `numpy` ...): on a device it would wait. What works on the host's own data
  on every device, such as the order of the samples, is named in `ON_HOST` and left out.

The exit code is 1 when anything is found.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from ladd_dist.launch import main as launch
from ladd_dist.parallel.devices import pick_device
from ladd_dist.stages.distill import Distillation
from ladd_dist.stages.teacher import TeacherTraining

ROOT = Path(__file__).resolve().parent.parent
STEPS = 5
"""Steps of each training: the first may build what the others use, and the guard looks at the fifth."""
FEW = (
    *("--scale", "smoke", "--stages", "teacher,shards,distill", "--teacher.steps", str(STEPS)),
    *("--train.steps", str(STEPS), "--teacher.log-every", "100", "--train.log-every", "100"),
    *("--train.dump-every", "100", "--train.evaluate-every", "0", "--shards.num-samples", "64"),
)
ALL = ("--train.mismatched", ".5", "--train.adv-norm-decay", ".9", "--train.head-updates", "2", "--head.conditioned")
CASES: dict[str, tuple[str, ...]] = {
    "exp6": ("recipes/exp6_stored_noise.py", "--train.compute.data", "ahead", "--teacher.compute.data", "ahead"),
    "exp6, every option": ("recipes/exp6_stored_noise.py", *ALL, "--train.compute.data", "device"),
    "ladd": ("recipes/ladd.py",),
}
READS = {
    torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select, torch.ops.aten.equal,
    torch.ops.aten._unique2, torch.ops.aten.bincount, torch.ops.aten.is_nonzero,
}  # fmt: skip
"""Operations whose result, or its shape, the host reads from a tensor."""
METHODS = ("tolist", "numpy", "cpu", "__array__")
ON_HOST = ("engine/shard_reader.py", "datasets/")
"""Files and folders of the package whose tensors are the host's on every device."""
END = "host_sync:end"
WAITS = ("Synchronize", "Memcpy DtoH")
"""Parts of the names of a trace's events that mean that the host waits."""


@dataclass(frozen=True)
class Args:
    """Look for waits for the device between logged steps."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    only: tuple[str, ...] = ()
    """Names of cases; all when empty."""
    trace: Path | None = None
    """Folder for the traces of a CUDA device."""
    json: bool = False
    """Print one JSON object."""


@dataclass
class Audit:
    """What was found in each training."""

    device: torch.device
    trace: Path | None = None
    found: dict[str, Counter[str]] = field(default_factory=dict)
    """Training -> line of code or event of the trace -> how often."""
    steps: Counter[str] = field(default_factory=Counter)

    @contextlib.contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Watch what is done inside."""
        seen = self.found.setdefault(name, Counter())
        with (
            watched_cuda(seen, self.trace and self.trace / f"{name}.json")
            if self.device.type == "cuda"
            else watched_cpu(seen)
        ):
            yield


class HostReads(TorchDispatchMode):
    """Counts operations through which the host learns what a tensor holds, by the line that asks."""

    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        by_booleans = packet in (torch.ops.aten.index, torch.ops.aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if packet in READS or by_booleans:
            note(self.seen, str(packet))
        return func(*args, **(kwargs or {}))


def note(seen: Counter[str], what: str) -> None:
    """Count a read under the innermost line of the package that led to it, unless it is the host's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and "/ladd_dist/" not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        seen[what] += 1
        return
    place = frame.f_code.co_filename.rpartition("/ladd_dist/")[2]
    if not place.startswith(ON_HOST):
        seen[f"{what} at {place}:{frame.f_lineno}"] += 1


@contextlib.contextmanager
def watched_cpu(seen: Counter[str]) -> Iterator[None]:
    """Count what a device would have to be waited for, on tensors of the CPU."""
    before = {name: getattr(torch.Tensor, name) for name in METHODS}

    def noting(name: str) -> Callable[..., Any]:
        def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            note(seen, name)
            return before[name](tensor, *args, **kwargs)

        return read

    try:
        for name in METHODS:
            setattr(torch.Tensor, name, noting(name))
        with HostReads(seen):
            yield
    finally:
        for name, method in before.items():
            setattr(torch.Tensor, name, method)


@contextlib.contextmanager
def watched_cuda(seen: Counter[str], trace: Path | None) -> Iterator[None]:
    """Refuse every wait, and count those that the trace has nevertheless."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True)
    with profiler:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
            with torch.profiler.record_function(END):
                pass
    events = profiler.events()
    end = min((event.time_range.start for event in events if event.name == END), default=float("inf"))
    for event in events:  # leaving the profiler waits, after the mark
        if any(word in event.name for word in WAITS) and event.time_range.start < end:
            seen[event.name] += 1
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))


@contextlib.contextmanager
def audited(training: type, name: str, audit: Audit) -> Iterator[None]:
    """Watch a class of trainings from its second step to the one before the last."""
    plain = training.step  # type: ignore[attr-defined]
    stack = contextlib.ExitStack()

    def step(self: Any, number: int) -> Any:
        if number == 1:
            stack.enter_context(audit.watching(name))
        if number == STEPS - 1:
            stack.close()
        elif number:
            audit.steps[name] += 1
        return plain(self, number)

    with stack:
        training.step = step  # type: ignore[attr-defined]
        try:
            yield
        finally:
            training.step = plain  # type: ignore[attr-defined]


def measure(args: Args, folder: Path) -> dict[str, Any]:
    """Train each case in a folder and say what was found.

    Raises:
        RuntimeError: a training failed; on CUDA, because it waits for the device.
    """
    device, names = pick_device(args.device), args.only or tuple(CASES)
    result: dict[str, Any] = {}
    with contextlib.chdir(ROOT):
        for name in names:
            audit = Audit(device, args.trace and args.trace.absolute() / name)
            words = [*CASES[name], *FEW, "--out", folder / "runs", "--cache", folder / "cache", "--device", args.device]
            with (
                audited(TeacherTraining, "teacher", audit),
                audited(Distillation, "student", audit),
                contextlib.redirect_stdout(sys.stderr),
            ):
                code = launch([str(word) for word in words])
            if code:
                raise RuntimeError(f"{name}: the training ended with exit code {code}")
            result[name] = {"steps": dict(audit.steps), "found": {key: dict(seen) for key, seen in audit.found.items()}}
    return {"device": str(device), "cases": result, "waits": sum(map(num_found, result.values()))}


def num_found(case: dict[str, Any]) -> int:
    """How much was found in a case."""
    return sum(sum(seen.values()) for seen in case["found"].values())


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python -m benchmarks.host_sync")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    if args.json:
        print(json.dumps(result))
    else:
        for name, case in result["cases"].items():
            for training, num in case["steps"].items():
                found = case["found"].get(training, {})
                told = ", ".join(f"{what} ({times} x)" for what, times in found.items()) or "nothing waits"
                print(f"{name}, {training}, {num} steps on {result['device']}: {told}")
    return 1 if result["waits"] else 0


if __name__ == "__main__":
    sys.exit(main())
