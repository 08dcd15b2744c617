"""What differs between the versions that pyproject.toml allows; each function names the version that ends it."""

from __future__ import annotations

from typing import Any

import torch

from ladd_dist.core.versions import installed, release

TORCH = release(torch.__version__)


def own_file_a_rank() -> dict[str, Any]:
    """The argument of `HuggingFaceStorageWriter` for one file a rank. Ends with torch 2.9, which renamed it."""
    return {"save_distributed" if TORCH >= (2, 9) else "save_sharded": True}


def loaded_as(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The argument of diffusers' `from_pretrained` for the type of the weights. Ends with diffusers 0.40."""
    return {"dtype" if release(installed("diffusers") or "") >= (0, 40) else "torch_dtype": dtype}
