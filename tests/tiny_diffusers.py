"""Tiny checkpoints of every family, with random weights, written by the library's own `save_pretrained`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from torch import Tensor, nn

from ladd_dist.core.types import ImageSpec
from ladd_dist.core.versions import release

TEXT, POOLED, TOKENS = 16, 12, 6
"""Size of a tiny text encoder's states, of its pooled state, and the length of a text."""
STATES = 8
"""Size of the states of FLUX.2's text encoders, of which it takes three layers."""
LATENTS = ImageSpec(channels=4, height=8, width=8, num_classes=3)
"""What all tiny models work on; their autoencoders make it from pictures of 16 x 16 (Sana's: 32 x 32)."""


def _unet(**more: Any) -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, **more,
    )  # fmt: skip


def _text_unet(**more: Any) -> nn.Module:
    settings: dict[str, Any] = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "norm_num_groups": 4, "attention_head_dim": 2,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": TEXT,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**settings | more)


def _sdxl() -> nn.Module:
    return _text_unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, use_linear_projection=True,
        projection_class_embeddings_input_dim=6 * 4 + POOLED, cross_attention_dim=2 * TEXT,
    )  # fmt: skip


def _kandinsky3() -> nn.Module:
    return diffusers.Kandinsky3UNet(
        in_channels=4, time_embedding_dim=16, groups=4, attention_head_dim=4, layers_per_block=2,
        block_out_channels=(16, 16, 24), cross_attention_dim=TEXT, encoder_hid_dim=TEXT,
    )  # fmt: skip


def _pixart(**more: Any) -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=3, norm_num_groups=4,
        cross_attention_dim=24, caption_channels=TEXT, **{"sample_size": 8, "use_additional_conditions": False} | more,
    )  # fmt: skip


def _sd3() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=12,
        num_attention_heads=2, joint_attention_dim=TEXT, caption_projection_dim=24,
        pooled_projection_dim=2 * POOLED, pos_embed_max_size=8, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip


def _flux(**more: Any) -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=TEXT, pooled_projection_dim=POOLED, axes_dims_rope=(4, 4, 4), **more,
    )  # fmt: skip


def _sana() -> nn.Module:
    return diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=3,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=TEXT,
        sample_size=8, patch_size=1,
    )  # fmt: skip


def _flux2(**more: Any) -> nn.Module:
    return diffusers.Flux2Transformer2DModel(
        in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * STATES, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), **more,
    )  # fmt: skip


def _qwen_image() -> nn.Module:
    return diffusers.QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=3, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=TEXT, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip


def _z_image() -> nn.Module:
    return diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=24, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=TEXT,
        axes_dims=[4, 4, 4], axes_lens=[128, 64, 64],
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "unet": _unet,
    "class_unet": lambda: _unet(num_class_embeds=LATENTS.num_classes + 1),
    "sd": _text_unet,
    "sdxl": _sdxl,
    "kandinsky3": _kandinsky3,
    "pixart": _pixart,
    "pixart_sized": lambda: _pixart(sample_size=128, use_additional_conditions=None),
    "sd3": _sd3,
    "flux": _flux,
    "flux_guided": lambda: _flux(guidance_embeds=True),
    "sana": _sana,
    "flux2": lambda: _flux2(guidance_embeds=False),
    "flux2_guided": _flux2,
    "qwen_image": _qwen_image,
    "z_image": _z_image,
}
"""One model of each kind that the network plug-in `diffusers` has a branch for."""
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "unet": diffusers.DDPMScheduler,
    "class_unet": lambda: diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample"),
    "sd": lambda: diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ),
    "sdxl": lambda: diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    ),
    "kandinsky3": lambda: diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    "pixart": diffusers.DPMSolverMultistepScheduler,
    "pixart_sized": diffusers.DPMSolverMultistepScheduler,
    "sd3": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flux": lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    "flux_guided": lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    "sana": lambda: diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    ),
    "flux2": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    "flux2_guided": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    "qwen_image": lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
    "z_image": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
}


NEW = ("flux2", "flux2_guided", "qwen_image", "z_image")
IS_OLD = release(diffusers.__version__) < (0, 39)
"""Whether this diffusers is older than the interfaces that the adapters of `NEW` call."""


def tiny_model(family: str, seed: int = 0) -> nn.Module:
    """A model whose zero-initialised layers are woken up, so that nothing is hidden behind them."""
    if family in NEW and IS_OLD:
        pytest.skip(f"the tiny {family} needs diffusers 0.39 or newer, this is {diffusers.__version__}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[family]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write_model(folder: Path, family: str, seed: int = 0) -> Path:
    """A pipeline's folder with model and scheduler alone."""
    model = tiny_model(family, seed)
    part = "unet" if "UNet" in type(model).__name__ else "transformer"
    model.save_pretrained(folder / part)
    SCHEDULERS[family]().save_pretrained(folder / "scheduler")
    index = {"_class_name": "DiffusionPipeline", part: ["diffusers", type(model).__name__]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def tiny_table(shapes: Mapping[str, tuple[int, ...]], num: int = LATENTS.num_classes) -> dict[str, Tensor]:
    """Random texts for a network's `condition_shapes`: `num` of different lengths, and the null one."""
    source = torch.Generator().manual_seed(3)
    table = {name: torch.randn(num + 1, *shape, generator=source) for name, shape in shapes.items()}
    if "prompt_attention_mask" in shapes:
        kept = torch.arange(num + 1).flip(0)[:, None] + 1
        table["prompt_attention_mask"] = (torch.arange(*shapes["prompt_attention_mask"]) < kept).to(torch.int64)
    constants = {"time_ids": [16, 16, 0, 0, 16, 16], "resolution": [16, 16], "aspect_ratio": [1]}
    for name in shapes.keys() & constants.keys():
        table[name] = torch.tensor([constants[name]] * (num + 1), dtype=torch.float32)
    return table


def write_pipeline(folder: Path, family: str, seed: int = 0) -> Path:
    """A whole pipeline, as `DiffusionPipeline.from_pretrained(folder)` opens it: text encoders and autoencoder too."""
    if family in ("unet", "class_unet"):
        return write_model(folder, family, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        pipeline = PIPELINES[family](tiny_model(family, seed), SCHEDULERS[family]())
    pipeline.save_pretrained(folder)
    return folder


def tiny_vae(shift: float | None = None) -> nn.Module:
    """Pictures of 16 x 16 to latents of 8 x 8, less `shift` where newer pipelines have one."""
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        block_out_channels=(8, 16), norm_num_groups=4, sample_size=16, shift_factor=shift, scaling_factor=0.5,
    ).eval()  # fmt: skip


_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def clip_tokenizer() -> Any:
    """One token a letter."""
    words = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]
    return transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def clip_encoder(*, projects: bool = False) -> Any:
    """CLIP's text model; one that `projects` has a pooled state of its own size."""
    config = transformers.CLIPTextConfig(
        vocab_size=80, hidden_size=TEXT if projects else POOLED, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=POOLED, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    cls = transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    return cls(config).eval()


def t5_tokenizer() -> Any:
    """One token a letter."""
    specials = [(word, 0.0) for word in ("<pad>", "</s>", "<unk>")]
    vocabulary = specials + [("\u2581", -2.0)] + [(letter, -3.0) for letter in _LETTERS]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def t5_encoder() -> Any:
    """T5's encoder."""
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=64, d_model=TEXT, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    ).eval()


def gemma() -> dict[str, Any]:
    """Tokenizer and encoder of Sana."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *_LETTERS]
    config = transformers.Gemma2Config(
        vocab_size=64, hidden_size=TEXT, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return {
        "tokenizer": transformers.GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]),
        "text_encoder": transformers.Gemma2Model(config).eval(),
    }


_DC_BLOCKS = ("ResBlock", "ResBlock", "EfficientViTBlock")


def _dc_autoencoder() -> nn.Module:
    """Pictures of 32 x 32 to latents of 8 x 8: Sana's pipeline takes sizes divisible by 32."""
    return diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=_DC_BLOCKS,
        decoder_block_types=_DC_BLOCKS, encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        encoder_qkv_multiscales=((), (), (5,)), decoder_qkv_multiscales=((), (), (5,)),
        encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1), downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu",
    ).eval()  # fmt: skip


def _movq() -> nn.Module:
    return diffusers.VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), latent_channels=4, layers_per_block=1,
        norm_num_groups=4, norm_type="spatial", num_vq_embeddings=8, vq_embed_dim=4,
    ).eval()  # fmt: skip


def _sd_pipeline(model: Any, scheduler: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=_wide_clip(), tokenizer=clip_tokenizer(), unet=model, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _wide_clip() -> Any:
    return transformers.CLIPTextModel(clip_encoder(projects=True).config).eval()


def _sdxl_pipeline(model: Any, scheduler: Any) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=tiny_vae(), text_encoder=_wide_clip(), text_encoder_2=clip_encoder(projects=True),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=model, scheduler=scheduler,
    )  # fmt: skip


def _kandinsky3_pipeline(model: Any, scheduler: Any) -> Any:
    return diffusers.Kandinsky3Pipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_encoder(), unet=model, scheduler=scheduler, movq=_movq()
    )


def _pixart_pipeline(model: Any, scheduler: Any) -> Any:
    return diffusers.PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_encoder(), vae=tiny_vae(), transformer=model, scheduler=scheduler
    )


def _sd3_pipeline(model: Any, scheduler: Any) -> Any:
    clips = {"text_encoder": _half_clip(), "text_encoder_2": _half_clip()}
    return diffusers.StableDiffusion3Pipeline(
        transformer=model, scheduler=scheduler, vae=tiny_vae(shift=0.1), **clips, tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(), text_encoder_3=t5_encoder(), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def _half_clip() -> Any:
    """States of two of these lie side by side in those of one T5."""
    config = clip_encoder(projects=True).config
    config.hidden_size = TEXT // 2
    return transformers.CLIPTextModelWithProjection(config).eval()


def _flux_pipeline(model: Any, scheduler: Any) -> Any:
    return diffusers.FluxPipeline(
        scheduler=scheduler, vae=tiny_vae(shift=0.1), text_encoder=clip_encoder(), tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(), tokenizer_2=t5_tokenizer(), transformer=model,
    )  # fmt: skip


def _sana_pipeline(model: Any, scheduler: Any) -> Any:
    return diffusers.SanaPipeline(vae=_dc_autoencoder(), transformer=model, scheduler=scheduler, **gemma())


def _flux2_pipeline(model: Any, scheduler: Any) -> Any:
    import tiny_llms

    given = {"transformer": model, "scheduler": scheduler, "vae": tiny_llms.flux2_vae()}
    if model.config.guidance_embeds:
        return diffusers.Flux2Pipeline(**given, **tiny_llms.dev_parts(STATES))
    return diffusers.Flux2KleinPipeline(**given, **tiny_llms.klein_parts(STATES))


def _qwen_image_pipeline(model: Any, scheduler: Any) -> Any:
    import tiny_llms

    return diffusers.QwenImagePipeline(
        transformer=model, scheduler=scheduler, vae=tiny_llms.qwen_image_vae(), **tiny_llms.qwen_image_parts(TEXT)
    )


def _z_image_pipeline(model: Any, scheduler: Any) -> Any:
    import tiny_llms

    return diffusers.ZImagePipeline(
        transformer=model, scheduler=scheduler, vae=tiny_vae(shift=0.1), **tiny_llms.z_image_parts(TEXT)
    )


PIPELINES: dict[str, Callable[[Any, Any], Any]] = {
    "sd": _sd_pipeline,
    "sdxl": _sdxl_pipeline,
    "kandinsky3": _kandinsky3_pipeline,
    "pixart": _pixart_pipeline,
    "pixart_sized": _pixart_pipeline,
    "sd3": _sd3_pipeline,
    "flux": _flux_pipeline,
    "flux_guided": _flux_pipeline,
    "sana": _sana_pipeline,
    "flux2": _flux2_pipeline,
    "flux2_guided": _flux2_pipeline,
    "qwen_image": _qwen_image_pipeline,
    "z_image": _z_image_pipeline,
}
"""The pipeline of each text model, from model and scheduler."""
for _family in NEW:
    if IS_OLD:
        del MODELS[_family], PIPELINES[_family]
