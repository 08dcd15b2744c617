"""Tiny pipelines of every family that reads texts: random text encoders, and tokenizers that know letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_llms
import torch
from tiny_diffusers import POOLED, STATES, TEXT, TOKENS, tiny_vae, write_model

PIPELINES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "kandinsky3": "Kandinsky3Pipeline",
    "pixart": "PixArtAlphaPipeline",
    "pixart_sized": "PixArtAlphaPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "flux_guided": "FluxPipeline",
    "sana": "SanaPipeline",
    "flux2": "Flux2KleinPipeline",
    "flux2_guided": "Flux2Pipeline",
    "qwen_image": "QwenImagePipeline",
    "z_image": "ZImagePipeline",
}
LANGUAGE_MODELS = {
    "flux2": lambda: tiny_llms.klein_parts(STATES),
    "flux2_guided": lambda: tiny_llms.dev_parts(STATES),
    "qwen_image": lambda: tiny_llms.qwen_image_parts(TEXT),
    "z_image": lambda: tiny_llms.z_image_parts(TEXT),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-"


def write_pipeline(folder: Path, family: str, seed: int = 0) -> Path:
    """A whole pipeline's folder: model, scheduler, autoencoder, and text encoders of the kinds that it has."""
    write_model(folder, family, seed)
    index = json.loads((folder / "model_index.json").read_text())
    parts: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        if family in PIPELINES:
            index["_class_name"] = PIPELINES[family]
            parts |= text_parts(family)
        parts["movq" if family == "kandinsky3" else "vae"] = autoencoder(family)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = "diffusers" if name in ("vae", "movq") else "transformers"
        index[name] = [library, type(part).__name__]
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def text_parts(family: str) -> dict[str, Any]:
    """Tokenizers and text encoders by the name that the pipeline gives them."""
    if family in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[family]()
    if family == "sd":
        return {"tokenizer": clip_tokenizer(), "text_encoder": clip(TEXT)}
    if family == "sdxl":
        return {
            "tokenizer": clip_tokenizer(), "text_encoder": clip(TEXT),
            "tokenizer_2": clip_tokenizer(), "text_encoder_2": clip(TEXT, projection=POOLED),
        }  # fmt: skip
    if family == "sd3":
        return {
            "tokenizer": clip_tokenizer(), "text_encoder": clip(TEXT // 2, projection=POOLED),
            "tokenizer_2": clip_tokenizer(), "text_encoder_2": clip(TEXT // 2, projection=POOLED),
            "tokenizer_3": letters_tokenizer(), "text_encoder_3": t5(),
        }  # fmt: skip
    if family in ("flux", "flux_guided"):
        return {
            "tokenizer": clip_tokenizer(), "text_encoder": clip(POOLED),
            "tokenizer_2": letters_tokenizer(), "text_encoder_2": t5(),
        }  # fmt: skip
    if family == "sana":
        return {"tokenizer": letters_tokenizer(), "text_encoder": gemma()}
    return {"tokenizer": letters_tokenizer(), "text_encoder": t5()}


def clip(hidden: int, projection: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=hidden, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=200,
        max_position_embeddings=TOKENS, projection_dim=projection or 8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(d_model=TEXT, d_ff=16, d_kv=8, num_layers=2, num_heads=2, vocab_size=100))


def gemma() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    return Gemma2Model(
        Gemma2Config(
            hidden_size=TEXT, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=8, vocab_size=100,
        )
    )  # fmt: skip


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=TOKENS)


def letters_tokenizer() -> Any:
    """A token a letter; ends a text as T5 does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *LETTERS]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TOKENS
    )


def autoencoder(family: str) -> Any:
    """Pictures of 16 x 16 to latents of 8 x 8."""
    import diffusers

    if family == "kandinsky3":
        return diffusers.VQModel(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
            block_out_channels=(8, 16), norm_num_groups=4, sample_size=16, num_vq_embeddings=8,
        ).eval()  # fmt: skip
    if family == "sana":
        return diffusers.AutoencoderDC(
            latent_channels=4, attention_head_dim=4, encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), scaling_factor=0.4,
            encoder_block_types="ResBlock", decoder_block_types="ResBlock",
            encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()),
        ).eval()  # fmt: skip
    if family.startswith("flux2"):
        return tiny_llms.flux2_vae()
    return tiny_llms.qwen_image_vae() if family == "qwen_image" else tiny_vae()


if __name__ == "__main__":
    import sys

    print(write_pipeline(Path(sys.argv[1]), sys.argv[2]))
