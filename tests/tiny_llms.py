"""Tiny parts of the pipelines whose texts a language model reads (FLUX.2, Qwen-Image, Z-Image), with random weights."""

from __future__ import annotations

import re
from typing import Any

import diffusers
import transformers
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers import pre_tokenizers
from torch import nn

_QWEN_SYSTEM = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_INSTRUCTION = "{% for message in messages %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}"


def bytes_tokenizer(template: str, *whole: str) -> Any:
    """A token a letter, except for Qwen's marks and the phrases `whole`."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    words = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet()), *whole]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=2048
    )
    tokenizer.add_special_tokens({"additional_special_tokens": marks[1:]})
    tokenizer.add_tokens(list(whole))
    tokenizer.chat_template = template
    return tokenizer


def qwen_image_tokenizer() -> Any:
    """What comes before a prompt of Qwen-Image has 34 tokens, which its pipeline drops, as with the real tokenizer."""
    first, second, *rest = re.findall(r"\s?\S+", _QWEN_SYSTEM)
    return bytes_tokenizer(_CHAT, first + second, *rest)


def _sizes(tokenizer: Any, hidden: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": max(tokenizer.get_vocab().values()) + 1, "hidden_size": hidden, "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip


def klein_parts(hidden: int) -> dict[str, Any]:
    """Of FLUX.2 klein, which reads the layers 9, 18 and 27 of Qwen3."""
    tokenizer = bytes_tokenizer(_CHAT)
    config = transformers.Qwen3Config(**_sizes(tokenizer, hidden, 28), head_dim=4)
    return {"tokenizer": tokenizer, "text_encoder": transformers.Qwen3ForCausalLM(config).eval()}


def dev_parts(hidden: int) -> dict[str, Any]:
    """Of FLUX.2 dev, which reads the layers 10, 20 and 30 of Mistral 3."""
    tokenizer = bytes_tokenizer(_INSTRUCTION, "[IMG]", "[IMG_BREAK]", "[IMG_END]", SYSTEM_MESSAGE)
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(), tokenizer=tokenizer, chat_template=_INSTRUCTION
    )
    seen = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**_sizes(tokenizer, hidden, 31), head_dim=4),
        vision_config=transformers.PixtralVisionConfig(**seen, image_size=16, patch_size=8),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return {"tokenizer": processor, "text_encoder": transformers.Mistral3ForConditionalGeneration(config).eval()}


def qwen_image_parts(hidden: int) -> dict[str, Any]:
    """Of Qwen-Image, which reads the last layer of Qwen 2.5 VL."""
    tokenizer = qwen_image_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**_sizes(tokenizer, hidden, 2), "rope_parameters": rope},
        vision_config={"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": hidden},
    )
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    return {"tokenizer": tokenizer, "text_encoder": encoder}


def z_image_parts(hidden: int) -> dict[str, Any]:
    """Of Z-Image, which reads the last layer but one of Qwen3."""
    tokenizer = bytes_tokenizer(_CHAT)
    config = transformers.Qwen3Config(**_sizes(tokenizer, hidden, 3), head_dim=8)
    return {"tokenizer": tokenizer, "text_encoder": transformers.Qwen3Model(config).eval()}


def flux2_vae() -> nn.Module:
    """Pictures of 16 x 16 to latents of 16 x 16 with one channel, which are 8 x 8 patches of 2 x 2."""
    model = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), block_out_channels=(8,),
        latent_channels=1, layers_per_block=1, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    for statistic, value in ((model.bn.running_mean, 0.2), (model.bn.running_var, 0.5)):
        statistic += value * statistic.new_tensor([0.0, 1.0, 2.0, 3.0])
    return model.eval()


def qwen_image_vae() -> nn.Module:
    """Pictures of 16 x 16 to latents of 8 x 8."""
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[-0.7, 0.1, 0.9, -0.2], latents_std=[2.8, 1.4, 1.2, 0.6],
    ).eval()  # fmt: skip
