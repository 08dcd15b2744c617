"""Fixtures shared by all tests, and the reasons of skipped tests in plain sight."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_server import QUIET, Server

import ladd_dist.recipe  # noqa: F401  # registers the core's plug-ins, before a test copies the tables
from ladd_dist.core import plugin as registry
from ladd_dist.core.signals import Process

_REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What commands note of this user goes to a folder of the tests; processes that they start inherit it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """What a test does to the signals of its process, as a job does that runs there or `arm`, is gone after it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    handlers, mask = {number: signal.getsignal(number) for number in numbers}, signal.pthread_sigmask(0, ())
    is_command = Process.is_command
    yield
    Process.is_command, Process.stop = is_command, None
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of plug-ins as a copy: what a test registers is gone after it."""
    monkeypatch.setattr(registry, "_tables", copy.deepcopy(registry._tables))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a teacher of exp4 at smoke scale that was never trained; the current folder is the repository's."""
    import torch
    from safetensors.torch import save_file

    from ladd_dist.builders.teacher import fresh_network
    from ladd_dist.recipe import load_recipe
    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace, mark_done

    monkeypatch.chdir(_REPO)
    recipe = load_recipe(_REPO / "recipes" / "exp4_specnorm.py", "smoke")
    folder = Run(recipe, Workspace(tmp_path / "runs", tmp_path / "cache", torch.device("cpu"))).teacher_folder
    folder.mkdir(parents=True)
    network = fresh_network(recipe)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the zero-initialised output would make every level as good as another
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=source))
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "teacher.safetensors"
    )
    mark_done(folder / "done.json", recipe.teacher_signature())
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """A folder with the real MNIST (MNIST/raw/train-images-idx3-ubyte, ...); the test is skipped without one."""
    named = os.environ.get("LADD_MNIST_ROOT")
    place = Path(named) if named else _REPO.parent / "shared" / "data" / "mnist"
    if not (place / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"the real MNIST is not in {place}: name its folder in the environment variable LADD_MNIST_ROOT")
    return place


@pytest.fixture(scope="session")
def fashion_root() -> Path:
    """A folder with the real Fashion-MNIST (FashionMNIST/raw/...); the test is skipped without one."""
    named = os.environ.get("LADD_FASHION_ROOT")
    place = Path(named) if named else _REPO.parent / "shared" / "data" / "fashion-mnist"
    if not (place / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(
            f"the real Fashion-MNIST is not in {place}: name its folder in the environment variable LADD_FASHION_ROOT"
        )
    return place


@pytest.fixture
def wandb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A W&B server, and the environment in which clients find it and have its key."""
    server = Server(tmp_path / "wandb-server.log")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()


@pytest.fixture
def no_wandb_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no settings of W&B in the environment, whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


def pytest_configure() -> None:
    """Compute with one thread, here and in every process of the tests: their networks are too small to share out.

    Threads that wait for each other cost a busy machine many times the work itself.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, let those that mostly wait, for SLURM, begin."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With `-n`: a file's tests in one process, for their fixtures, and all tests of SLURM in one, for its cluster."""
    from xdist.scheduler import LoadFileScheduling

    class Grouped(LoadFileScheduling):  # type: ignore[misc, unused-ignore]
        """Files in the order in which they were collected."""

        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "slurm" if Path(file).name.startswith("test_slurm") else file

    config.option.loadscopereorder = False
    return Grouped(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why tests were skipped, once a reason: a skip nobody sees is a test nobody runs."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, num in sorted(reasons.items()):
        terminalreporter.write_line(f"{num} test{'s' if num > 1 else ''} skipped: {reason.removeprefix('Skipped: ')}")
