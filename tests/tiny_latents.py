"""Between the latents of diffusers' pipelines and the shape [B,C,H,W] of a model's input."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from tiny_llms import flux2_vae
from torch import Tensor

_FLAT = ("flux", "flux_guided", "qwen_image")
"""Families whose pipelines call tokens latents."""


def pack(latents: Tensor, family: str) -> Tensor:
    """What the pipeline takes as `latents`."""
    return diffusers.FluxPipeline._pack_latents(latents, *latents.shape) if family in _FLAT else latents


def unpack(latents: Tensor, family: str, like: Tensor) -> Tensor:
    """What the pipeline gives as latents, in the shape of `like`."""
    if family in _FLAT:
        return diffusers.FluxPipeline._unpack_latents(latents, 2 * like.shape[2], 2 * like.shape[3], 2)
    if family == "flux2_guided":
        return latents.transpose(1, 2).reshape(like.shape)
    if family == "flux2":  # scaled for its autoencoder
        norm = flux2_vae().bn
        mean, std = (part.view(1, -1, 1, 1) for part in (norm.running_mean, torch.sqrt(norm.running_var + norm.eps)))
        return (diffusers.Flux2KleinPipeline._patchify_latents(latents) - mean) / std
    return latents


def unguided(family: str) -> dict[str, Any]:
    """Arguments with which a pipeline does not guide; 3.5 is told to the model, not applied."""
    if family == "qwen_image":
        return {"true_cfg_scale": 1.0}
    told = family in ("flux", "flux_guided", "flux2_guided")
    return {"guidance_scale": 3.5 if told else 0.0 if family == "z_image" else 1.0}
