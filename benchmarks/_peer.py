"""NVlabs/FastGen in a checkout of the user's. This file knows its names; it is found by path and never copied here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

REPOSITORY = "https://github.com/NVlabs/FastGen"
KNOWN = "34f30e8ff1a563555fc0c7d59f1c1409dacd8af2"
"""The commit that this benchmark was made with."""
PACKAGE = "fastgen"
CONFIG, METHOD, LOG = "fastgen.configs.methods.config_ladd", "fastgen.methods", "fastgen.utils.logging_utils"
NAMES = {CONFIG: ("ModelConfig",), METHOD: ("LADDModel",), LOG: ("set_log_level",)}
"""Module -> what is asked of it."""
ATTRIBUTES = (
    "net.img_resolution", "net.img_channels", "net.label_dim", "teacher", "discriminator.discriminator_heads",
    "discriminator.feature_indices", "discriminator.in_res", "discriminator.in_channels", "on_train_begin",
    "init_optimizers", "optimizers_zero_grad", "single_train_step", "optimizers_schedulers_step",
)  # fmt: skip
"""What is asked of its model, once it is built."""
REQUIRED = {
    "antlr4": "antlr4-python3-runtime==4.9.3", "attrs": "attrs", "av": "av", "boto3": "boto3", "botocore": "botocore",
    "cv2": "opencv-python-headless", "ftfy": "ftfy", "hydra": "hydra-core", "imageio": "imageio",
    "jmespath": "jmespath", "loguru": "loguru", "omegaconf": "omegaconf", "pandas": "pandas", "pynvml": "nvidia-ml-py",
    "pytz": "pytz", "s3transfer": "s3transfer", "timm": "timm", "tzdata": "tzdata", "wcwidth": "wcwidth",
}  # fmt: skip
"""Packages that it imports and this project does not: name of the import -> name for pip."""
CHANNELS = 32
"""Base width of the network; with the peer's own multipliers of 2, its feature maps have twice as many channels."""
STEPS = 4
"""Steps of the student: it starts from noised samples, as ours does."""
Data = dict[str, Tensor]


class Peer(NamedTuple):
    """The peer's model, ready for its training, and where it comes from."""

    model: Any
    """Student `net`, `teacher` and `discriminator`, with their optimizers."""
    commit: str


def load_peer(path: Path, device: torch.device) -> Peer:
    """The peer's LADD model of a checkout at `path`, with random weights: its SongUNet at 32 px, its heads on it.

    Raises:
        SystemExit: the path holds no such checkout, packages are missing, or the checkout's names are others. The
            message says what is missing and what to do.
    """
    root = require_checkout(path)
    with quietly(), importable(root):
        modules = import_names(root)
        modules[LOG].set_log_level("ERROR")
        model = build(modules, device)
    return Peer(model, commit_of(root))


def require_checkout(path: Path) -> Path:
    """The checkout's folder, resolved.

    Raises:
        SystemExit: it is none; nothing is imported to find that out.
    """
    root = path.expanduser().resolve()
    if not (root / PACKAGE / "__init__.py").is_file():
        raise SystemExit(f"{path} is no checkout of {REPOSITORY}: it lacks {PACKAGE}/__init__.py; {how_to_get()}")
    return root


def how_to_get() -> str:
    """The line that makes a checkout of the known commit."""
    return f"make one with: git clone {REPOSITORY} fastgen && git -C fastgen checkout {KNOWN}"


@contextlib.contextmanager
def importable(root: Path) -> Iterator[None]:
    """Let modules of `root` be imported, before others of their names."""
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Lose what the peer and its packages print and log while it is built; exceptions pass as ever."""
    lost = io.StringIO()
    with contextlib.redirect_stdout(lost), contextlib.redirect_stderr(lost):
        yield


def import_names(root: Path) -> dict[str, Any]:
    """The modules of `NAMES`, imported from the checkout.

    Raises:
        SystemExit: packages or names are missing; the message has all of them.
    """
    modules: dict[str, Any] = {}
    lacking: list[str] = []
    for name, asked in NAMES.items():
        try:
            modules[name] = importlib.import_module(name)
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            if package != PACKAGE and isinstance(error, ModuleNotFoundError):
                raise SystemExit(packages_message(package)) from error
            if package != PACKAGE:
                raise SystemExit(f"the peer does not go with the {package} that is installed: {error}") from error
            lacking.append(f"{name} ({error})")
            continue
        lacking += [f"{name}.{one}" for one in asked if not hasattr(modules[name], one)]
    found = Path(str(importlib.import_module(PACKAGE).__file__)).resolve()
    if not found.is_relative_to(root):
        raise SystemExit(f"{PACKAGE} was imported from {found.parent} before, not from {root}: start a new process")
    if lacking:
        raise SystemExit(names_message(root, lacking))
    return modules


def packages_message(found: str) -> str:
    """What is missing, `found` among it, and how to install it beside the environment of this project."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    names = [found, *(name for name in missing if name != found)]
    wanted = " ".join(REQUIRED.get(name, name) for name in names)
    return (
        f"the peer needs packages that are not installed: {', '.join(names)}. Put them into a folder of their own, so "
        f"that this project's environment stays as it is: pip install --no-deps --target peer-packages {wanted}; "
        "then start again with PYTHONPATH=peer-packages"
    )


def names_message(root: Path, lacking: list[str]) -> str:
    """Which names a checkout lacks, and which commit has them."""
    return (
        f"{root} (commit {commit_of(root)}) is another version of the peer: it lacks {', '.join(lacking)}; commit "
        f"{KNOWN} is known to work: {how_to_get()}"
    )


def build(modules: dict[str, Any], device: torch.device) -> Any:
    """The peer's model with what its configuration gives a user, but a narrower network and the same work as ours.

    One update of the student follows one of the heads, the student has four steps, and real samples and fakes share
    levels and noise, as in `LaddStep`. There are no pretrained weights, no average of weights, and no callbacks, such
    as one that clips gradients.

    Raises:
        SystemExit: the configuration or the model lacks a name.
    """
    config = modules[CONFIG].ModelConfig()
    settings = {
        "device": str(device), "precision": "float32", "pretrained_model_path": "", "student_update_freq": 2,
        "student_sample_steps": STEPS, "gan_use_same_t_noise": True, "net.model_channels": CHANNELS,
        "discriminator.in_channels": 2 * CHANNELS,
    }  # fmt: skip
    root = Path(modules[CONFIG].__file__).parents[3]
    require(config, tuple(settings), "ModelConfig", root)
    for place, value in settings.items():
        *parents, name = place.split(".")
        owner = config
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, value)
    model = modules[METHOD].LADDModel(config)
    require(model, ATTRIBUTES, "LADDModel", root)
    model.on_train_begin()
    model.init_optimizers()
    return model


def require(owner: Any, places: tuple[str, ...], title: str, root: Path) -> None:
    """Refuse an object that lacks some of the dotted names.

    Raises:
        SystemExit: the message has all names that it lacks.
    """
    if lacking := [f"{title}.{place}" for place in places if not has(owner, place)]:
        raise SystemExit(names_message(root, lacking))


def has(owner: Any, place: str) -> bool:
    """Whether an object has a dotted name; a value of None counts."""
    for name in place.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def commit_of(root: Path) -> str:
    """The commit of a checkout; `unknown` where git does not say."""
    asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def peer_data(model: Any, x0: Tensor, cond: Tensor) -> Data:
    """A batch of samples x0 [B,C,H,W] of classes cond [B] in the peer's form."""
    condition = nn.functional.one_hot(cond, model.net.label_dim).to(x0.dtype)
    return {"real": x0, "condition": condition, "neg_condition": torch.zeros_like(condition)}


def peer_cycle(model: Any, data: Data, number: int) -> None:
    """One update of the peer's student and one of its heads, in the order of its trainer.

    Args:
        number: of the cycle; the peer updates the student in even iterations.
    """
    for iteration in (2 * number, 2 * number + 1):
        losses, _ = model.single_train_step(data, iteration)
        losses["total_loss"].backward()
        model.optimizers_schedulers_step(iteration)
        model.optimizers_zero_grad(iteration)
