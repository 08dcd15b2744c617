"""What `ladd --version` prints: the versions and the device that a report of a fault needs."""

from __future__ import annotations


def version_line() -> str:
    """One line: version, commit where the code is a checkout, Python, PyTorch and the device; imports PyTorch."""
    import platform

    import torch

    from ladd_dist.core.checkout import UNKNOWN, current_commit, version
    from ladd_dist.parallel.devices import pick_device

    commit = current_commit()
    device = pick_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    own = version() if commit == UNKNOWN else f"{version()} (commit {commit})"
    return f"ladd_dist {own}, python {platform.python_version()}, torch {torch.__version__}, device {name}"
