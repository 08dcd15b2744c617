"""What a discriminator's features cost: share of a forward up to each tap: `python benchmarks/diffusers_taps.py`.

Every family of the network `diffusers` at its published size, on tensors without data: floating-point operations of one
forward that ends at a tap, against the whole. No weights, no network connection; about a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from wherever it is called

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.costs.flops import count_flops, count_parameters
from ladd_dist.costs.memory_trace import no_data
from ladd_dist.networks.diffusers import Diffusers

SDXL = {
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10), "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "use_linear_projection": True,
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
CIFAR = {
    "sample_size": 32, "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
SD3 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}


class Case(NamedTuple):
    """A published model, where it differs from the library's defaults, and its latents."""

    label: str
    model: str
    settings: dict[str, Any]
    channels: int
    size: int


CASES = (
    Case("DDPM CIFAR-10", "UNet2DModel", CIFAR, 3, 32),
    Case("Stable Diffusion 1.5", "UNet2DConditionModel", {"cross_attention_dim": 768}, 4, 64),
    Case("Stable Diffusion XL", "UNet2DConditionModel", SDXL, 4, 128),
    Case("Kandinsky 3", "Kandinsky3UNet", {}, 4, 128),
    Case("PixArt-XL 512", "PixArtTransformer2DModel", {"sample_size": 64, "caption_channels": 4096}, 4, 64),
    Case("Stable Diffusion 3", "SD3Transformer2DModel", SD3, 16, 128),
    Case("Flux dev", "FluxTransformer2DModel", {"guidance_embeds": True}, 16, 128),
    Case("Sana 1.6B", "SanaTransformer2DModel", {}, 32, 32),
)


def planned(case: Case) -> Denoiser:
    """The network without data."""
    import diffusers

    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        getattr(diffusers, case.model)(**case.settings).save_config(folder)
        cast(Any, diffusers.DDPMScheduler()).save_config(Path(folder) / "scheduler")  # its world changes no cost
        return Diffusers(source=folder).build(image=ImageSpec(case.channels, case.size, case.size, 1))


def shares(case: Case) -> tuple[int, int, dict[str, float]]:
    """Parameters, FLOPs of a forward, and the share of it up to the first tap, quarters of the depth, and the last."""
    network = planned(case)
    if network.condition_shapes:
        network.attach(Conditions.blank(network.condition_shapes))
    names = list(network.taps)
    if len(names) > 10:
        names = [names[i * (len(names) - 1) // 4] for i in range(5)]
    with no_data(network), torch.no_grad():
        x = torch.zeros(1, case.channels, case.size, case.size)
        arguments = (x, torch.ones(1), torch.zeros(1, dtype=torch.int64))
        whole = count_flops(lambda: network(*arguments))
        found = {
            name: count_flops(lambda name=name: network(*arguments, taps=(name,), denoise=False)) / whole
            for name in names
        }
    return count_parameters(network), whole, found


def main() -> None:
    table = Table("model", "parameters", "TFLOP", "share of a forward up to a tap", title="batch 1")
    for case in CASES:
        parameters, flops, found = shares(case)
        row = ", ".join(f"{name} {share:.2f}" for name, share in found.items())
        table.add_row(case.label, f"{parameters / 1e6:.0f} M", f"{flops / 1e12:.3f}", row)
    Console().print(table)


if __name__ == "__main__":
    main()
