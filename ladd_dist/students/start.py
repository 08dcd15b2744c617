"""What a student starts from, if not from its teacher: the files of `student.init`, and the hash of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ladd_dist.core.pretrained import digest

STUDENT = "student.safetensors"
_MODELS = ("", "unet", "transformer")
_PARTS = ("config.json", "diffusion_pytorch_model*.safetensors", "pytorch_lora_weights.safetensors")
_SCHEDULERS = ("scheduler_config.json", "scheduler/scheduler_config.json")


def start_files(init: str) -> list[Path]:
    """The files of a local start: one file, a run's student, or what a folder of diffusers has; empty without any."""
    path = Path(init).expanduser()
    if path.is_dir() and (path / STUDENT).is_file():
        return [path / STUDENT]
    if path.is_dir():
        found = [file for folder in _MODELS for name in _PARTS for file in sorted((path / folder).glob(name))]
        return found + [path / name for name in _SCHEDULERS if (path / name).is_file()]
    return [path] if path.is_file() else []


def start_digest(init: str) -> str:
    """Hash of a start's content, whatever its path; empty for a repository of the hub, or where there is nothing."""
    files = start_files(init) if init else []
    return digest(files) if files else ""


def start_identity(init: str, known: str) -> Mapping[str, object]:
    """What signatures hash of a start (`Plugin.identity`): its content, as recorded or as it is there now."""
    if not init:
        return {}
    found = known or start_digest(init)
    return {"init": found, "digest": ""} if found else {}
