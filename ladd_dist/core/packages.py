"""Packages that one run needs and another does without: what to type where one is missing."""

from __future__ import annotations

import importlib.util

from ladd_dist.core.errors import UserError

_DIFFUSERS = "pip install 'ladd_dist[diffusers]'"
INSTALL = {
    "accelerate": _DIFFUSERS,
    "cleanfid": "pip install clean-fid 'scipy<1.18'",
    "clip": "pip install git+https://github.com/openai/CLIP.git",
    "deepspeed": "pip install deepspeed",
    "diffusers": _DIFFUSERS,
    "matplotlib": "pip install matplotlib",
    "peft": _DIFFUSERS,
    "scipy": "pip install scipy",
    "sklearn": "pip install scikit-learn",
    "submitit": "pip install submitit",
    "tensorboard": "pip install tensorboard",
    "timm": "pip install timm",
    "torchvision": "pip install torchvision",
    "transformers": _DIFFUSERS,
    "wandb": "pip install wandb",
    "webdataset": "pip install webdataset",
}
"""Module -> the line that installs it."""
NEEDED = {
    "codec/autoencoder_kl": ("diffusers",),
    "codec/vae": ("diffusers",),
    "dataset/digits": ("sklearn",),
    "dataset/fashion_mnist": ("torchvision",),
    "dataset/mnist": ("torchvision",),
    "metric/clean_clip": ("cleanfid", "clip"),
    "metric/clean_fid": ("cleanfid",),
    "network/diffusers": ("diffusers",),
    "parallel/zero1": ("deepspeed",),
    "parallel/zero2": ("deepspeed",),
    "parallel/zero3": ("deepspeed",),
    "student/lora": ("peft",),
    "tracker/tensorboard": ("tensorboard",),
    "tracker/wandb": ("wandb",),
}
"""Kind and name of a plug-in -> modules that it imports when it is used.

A table, not a field of the plug-ins: locks hash their files, and which package is there changes no result.
"""


def is_missing(module: str) -> bool:
    """Whether a module at the top is not installed."""
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:
        return True
    except ValueError:  # it is imported, and has no spec
        return False


def require_package(module: str, who: str) -> None:
    """Refuse to begin without one of `INSTALL`.

    Args:
        who: what asks for it, the message's beginning.

    Raises:
        UserError: it is not installed; the message has the line that installs it.
    """
    if is_missing(module):
        raise UserError(f"{who} needs the package {module}, which is not installed: {INSTALL[module]}")


def missing_package(error: BaseException) -> str | None:
    """What to type where an import failed because one of `INSTALL` is not installed; None for every other error."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module not in INSTALL or not is_missing(module):
        return None
    return f"the package {module} is not installed, and this command needs it: {INSTALL[module]}"
