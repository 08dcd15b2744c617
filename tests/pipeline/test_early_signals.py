"""Signals while a command starts, and after it has ended: no traceback, one line at most, the exit code it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import RECIPE, environment, run_command

COMMANDS = {
    "launch": ("-m", "ladd_dist.launch", RECIPE, "--scale", "smoke", "--stages", "teacher"),
    "ladd launch": ("-m", "ladd_dist", "launch", RECIPE, "--scale", "smoke", "--stages", "teacher"),
    "evaluate": ("-m", "ladd_dist.evaluate", "no-such-run"),
    "plugins": ("-m", "ladd_dist.plugins"),
}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR2: 75, signal.SIGHUP: 75}


def foreground() -> None:
    """Let a process hear Ctrl-C and a closing terminal, which shells and nohup leave ignored in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(script: str, cwd: Path) -> subprocess.Popen[str]:
    """Start Python with a script."""
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True, preexec_fn=foreground)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def stopped_after(words: tuple[object, ...], delay: float, number: signal.Signals, cwd: Path) -> tuple[int, str]:
    """Start a command, send a signal once the package is imported and the delay over; exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *map(str, words)], cwd=cwd, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=foreground,
    )  # fmt: skip
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.rstrip().endswith("ladd_dist.core.signals"):  # its last line comes next: `arm_module()`
            break
    time.sleep(0.02 + delay)
    process.send_signal(number)
    text = process.communicate(timeout=120)[1]
    return process.returncode, "".join(line for line in text.splitlines(keepends=True) if "import time:" not in line)


def check(words: tuple[object, ...], delay: float, number: signal.Signals, cwd: Path) -> None:
    code, text = stopped_after(words, delay, number, cwd)
    assert "Traceback" not in text and "terminate" not in text, (delay, text)
    if code not in (0, 1):  # it had ended by itself
        assert code == CODES[number], (delay, code, text)
        (line,) = text.splitlines()
        assert line.startswith(f"stopped: stopped by {number.name}"), (delay, text)
    assert text.count("stopped:") + text.count("error:") <= 1, text


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_before_the_command_has_begun_ends_it_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    code, text = stopped_after(COMMANDS["launch"], 0.0, number, tmp_path)
    assert (code, text) == (CODES[number], f"stopped: stopped by {number.name}; nothing was begun\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_at_any_moment_of_the_start_is_one_line(command: str, tmp_path: Path) -> None:
    """40 moments of the first second and a half, most of which Python spends in imports."""
    for moment in range(10):
        for place, number in enumerate(CODES):
            check(COMMANDS[command], 0.15 * moment + 0.0375 * place, number, tmp_path)


LATE = """
import atexit, sys, time
from pathlib import Path
from ladd_dist.core.signals import arm
arm()
from ladd_dist.cli.errors import run_guarded
atexit.register(lambda: (Path("late").touch(), time.sleep({seconds})))
sys.exit(run_guarded(lambda: {code}))
"""


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("code", [0, 2])
def test_a_signal_while_python_shuts_down_changes_neither_code_nor_words(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C ends the shutdown, however long it takes; a scheduler's signal waits for it."""
    seconds = 60 if number == signal.SIGINT else 0.5
    script = LATE.format(seconds=seconds, code=code)
    process = start(script, tmp_path)
    wait_for(tmp_path / "late")
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == code


IMPORTS = """
from ladd_dist.core.signals import arm
arm()
from ladd_dist.cli.errors import run_guarded
def command():
    import slow_module
sys.exit(run_guarded(command))
"""


def test_a_signal_within_an_import_ends_the_process_there(tmp_path: Path) -> None:
    """The module would swallow the exception, as initialisers do that answer it with another."""
    (tmp_path / "slow_module.py").write_text(
        "import pathlib, time\npathlib.Path('here').touch()\n"
        "try:\n    time.sleep(60)\nexcept BaseException as error:\n    raise RecursionError from error\n"
    )
    process = start(f"import sys\nsys.path.insert(0, '.')\n{IMPORTS}", tmp_path)
    wait_for(tmp_path / "here")
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=20)[1]
    assert text == "stopped: stopped by SIGTERM; what is finished is saved: run the same command again to go on\n"
    assert process.returncode == 75


def test_importing_the_package_or_running_another_module_leaves_signals_alone(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "import signal, ladd_dist, ladd_dist.core.signals\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, ladd_dist.core.signals.Process.is_command)\n"
    )
    for words in (("-m", "other", "ladd_dist.launch"), ("other.py",)):
        assert run_command(sys.executable, *words, cwd=tmp_path).stdout == "True False\n"


@pytest.mark.parametrize("ignored", [True, False])
def test_a_terminal_that_closes_stops_a_run_cleanly_and_nohup_is_obeyed(ignored: bool, tmp_path: Path) -> None:
    """SIGHUP with output to a terminal that is gone: a message to it would be an error that cuts a save short."""
    script = (
        "import pathlib, sys, time\nfrom ladd_dist.engine.loop import StopFlag\n"
        "from ladd_dist.cli.errors import run_guarded\n"
        "def command():\n"
        "    with StopFlag().listen() as stop:\n"
        "        pathlib.Path('here').touch()\n"
        "        for _ in range(60):\n            time.sleep(0.02)\n            if stop.signal: break\n"
        "        print('saving', flush=True)\n        pathlib.Path('saved').touch()\n        stop.check()\n"
        "    return 0\n"
        "sys.exit(run_guarded(command))\n"
    )
    main, terminal = os.openpty()

    def prepare() -> None:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    out = terminal if not ignored else subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=out, stderr=out, preexec_fn=prepare)
    os.close(terminal)
    wait_for(tmp_path / "here")
    os.close(main)
    assert process.wait(30) == (0 if ignored else 75)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_during_the_clean_up_is_one_message_too(number: signal.Signals, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\nfrom ladd_dist.core.signals import arm\narm()\n"
        "from ladd_dist.cli.errors import run_guarded\n"
        "def command():\n"
        "    try:\n        pathlib.Path('here').touch()\n        time.sleep(60)\n"
        "    finally:\n        pathlib.Path('cleaning').touch()\n        time.sleep(60)\n"
        "sys.exit(run_guarded(command))\n"
    )
    process = start(script, tmp_path)
    for name in ("here", "cleaning"):
        wait_for(tmp_path / name)
        process.send_signal(number)
    text = process.communicate(timeout=20)[1]
    assert (
        text == f"stopped: stopped by {number.name}; what is finished is saved: run the same command again to go on\n"
    )
    assert process.returncode == CODES[number]


def test_a_reader_that_has_left_is_no_error_to_tell_of(tmp_path: Path) -> None:
    """As in `ladd levels ... | head`: the output is written at the very end."""
    words = "import sys; from ladd_dist.__main__ import main; sys.argv[1:] = ['plugins', '--json']; main()"
    process = start(words, tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


def test_a_job_of_a_cluster_stops_after_the_import_that_a_signal_met(tmp_path: Path) -> None:
    """It has to requeue itself, so that it cannot end there."""
    (tmp_path / "slow_module.py").write_text(
        "import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(0.5)\npathlib.Path('imported').touch()\n"
    )
    script = (
        "import signal, sys, time\nfrom ladd_dist.cluster.job import _stop\n"
        "from ladd_dist.core.signals import Stopped\n"
        "signal.signal(signal.SIGTERM, _stop)\nsys.path.insert(0, '.')\n"
        "try:\n    import slow_module\n    time.sleep(60)\nexcept Stopped as stopped:\n    print(stopped)\n"
    )
    process = start(script, tmp_path)
    wait_for(tmp_path / "here")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("stopped by SIGTERM\n", "")
    assert (tmp_path / "imported").exists()


SLOW_WORKERS = """
import pathlib, sys, time
if "spawn_main" in str(sys.orig_argv):
    pathlib.Path("here").touch()
    time.sleep(1)
"""
DECODING = """
import os, sys
from ladd_dist.core.signals import arm
arm()
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core import picture_pool
from ladd_dist.core.picture_file import Fitting
picture_pool.usable_cores = lambda: 2

def command():
    list(picture_pool.decode_all((picture_pool.Picture(str(n), b"none", 0) for n in range(1000)), Fitting(8, 8)))
    return 0

sys.exit(run_guarded(command))
"""


def test_ctrl_c_at_a_terminal_while_the_processes_start_that_decode_pictures_is_one_line(tmp_path: Path) -> None:
    """It goes to all processes of the terminal: Python would end these with tracebacks while it starts."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_WORKERS)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", DECODING], cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, preexec_fn=foreground,
        start_new_session=True, env={**environment(), "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    wait_for(tmp_path / "here")
    os.killpg(process.pid, signal.SIGINT)
    text = process.communicate(timeout=60)[1]
    assert text == "stopped: stopped by SIGINT; what is finished is saved: run the same command again to go on\n"
    assert process.returncode == 130
