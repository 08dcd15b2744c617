"""Commands in processes of their own that start with everything imported: each is a fork of one that has it all.

Importing PyTorch, its checkpoints and its compiler takes longer than most commands of the tests. What starts is a real
process, with its own output, environment, exit code and shutdown of the interpreter. Where a test is about the start
itself, or disturbs a process while it runs, it starts one as a user does.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COMMAND = (
    "torch._dynamo", "ladd_dist.engine.dcp_planners", "ladd_dist.stages.dry_run", "ladd_dist.stages.run",
    "ladd_dist.cli.recipe_arguments",
)  # fmt: skip
"""What every launch imports, and what saves checkpoints."""


class Prepared:
    """Starts modules as `python -m MODULE` would; the process that is forked starts with the first.

    Args:
        imports: what it imports beforehand.
    """

    def __init__(self, imports: Sequence[str]) -> None:
        self.imports = imports
        self.server: subprocess.Popen[str] | None = None

    def run(
        self, words: Sequence[str], *, cwd: Path, out: Path, err: Path, environments: Sequence[Mapping[str, str]]
    ) -> list[int]:
        """Run a module with its arguments to the end, once at a time in each environment; returns the exit codes.

        When one of them fails, the others are ended: they may wait for it for ever.
        """
        order = {"words": words, "cwd": str(cwd), "out": str(out), "err": str(err), "environments": environments}
        if self.server is None or self.server.poll() is not None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # read when PyTorch is imported
            self.server = subprocess.Popen(
                [sys.executable, __file__, *self.imports],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
            )  # fmt: skip
            atexit.register(self.server.communicate, timeout=10)  # it ends with its input
        assert self.server.stdin is not None and self.server.stdout is not None
        try:
            print(json.dumps(order, default=dict), file=self.server.stdin, flush=True)
            codes: list[int] = json.loads(self.server.stdout.readline())
        except BaseException:  # a test's time is over
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
            raise
        return codes


def run_ranks(num: int, module: str, *arguments: object, cwd: Path, out: Path) -> str:
    """Run a module as `num` ranks of one thread each, as torchrun does; returns what they printed.

    Raises:
        AssertionError: one failed; with the end of stderr.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num)}
    environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num)]
    words = [module, *map(str, arguments)]
    err = out.with_suffix(".err")
    codes = PREPARED.run(words, cwd=cwd, out=out, err=err, environments=environments)
    assert codes == [0] * num, (codes, err.read_text(errors="replace")[-6_000:])
    return out.read_text()


def serve() -> dict[str, Any]:
    """Fork for every order that comes, and tell how it ended; returns in the forks alone, with what they are to do."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import may print is no reply
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        for path in (order["out"], order["err"]):
            Path(path).write_bytes(b"")
        children: dict[int, int | None] = {}
        for environment in order["environments"]:
            child = os.fork()
            if child == 0:
                return {**order, "environment": environment}
            children[child] = None
        while None in children.values():
            ended, status = os.wait()
            if ended in children:
                children[ended] = os.waitstatus_to_exitcode(status)
                for other in (child for child, code in children.items() if code is None and children[ended] != 0):
                    os.kill(other, signal.SIGTERM)
        print(json.dumps(list(children.values())), file=replies, flush=True)
    sys.exit()


def become(order: Mapping[str, Any]) -> None:
    """Make this process look like one that was started for the order."""
    append = os.O_WRONLY | os.O_APPEND
    for number, (path, flags) in enumerate(((os.devnull, os.O_RDONLY), (order["out"], append), (order["err"], append))):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = list(order["words"])
    sys.path[0] = order["cwd"]


PREPARED = Prepared(COMMAND)

if __name__ == "__main__":
    given = serve()
    become(given)
    runpy.run_module(given["words"][0], run_name="__main__", alter_sys=True)
