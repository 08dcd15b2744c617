"""How many tokens a pipeline makes of a text that it puts into a chat, whose own tokens take places of the text's.

The pipelines of language models cut what does not fit without a word, and return no number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_THINKING = {"Flux2KleinPipeline": False, "ZImagePipeline": True}
"""Pipelines whose chat is the text alone -> whether they ask the language model to think."""


def num_tokens(pipeline: Any, texts: Sequence[str]) -> list[int]:
    """The number of tokens of each text with its chat, before anything is cut, as diffusers' pipelines count them.

    Tokens that a pipeline drops from the beginning (Qwen-Image) take no place, and are left out.
    """
    name, tokenizer = type(pipeline).__name__, pipeline.tokenizer
    if name == "Flux2Pipeline":
        more = {"tokenize": True, "return_dict": True, "add_generation_prompt": False}
        chats = [[_instructed(text, pipeline.system_message)] for text in texts]  # one a call: lengths differ
        return [len(tokenizer.apply_chat_template(chat, **more)["input_ids"][0]) for chat in chats]
    dropped = 0
    if name in _THINKING:
        more = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": _THINKING[name]}
        texts = [tokenizer.apply_chat_template([{"role": "user", "content": text}], **more) for text in texts]
    elif name == "QwenImagePipeline":
        dropped = int(pipeline.prompt_template_encode_start_idx)
        texts = [pipeline.prompt_template_encode.format(text) for text in texts]
    return [len(ids) - dropped for ids in tokenizer(list(texts))["input_ids"]]


def _instructed(text: str, instruction: str) -> list[dict[str, Any]]:
    """The chat of FLUX.2 dev, as its pipeline makes it."""
    said = {"system": instruction, "user": text.replace("[IMG]", "")}
    return [{"role": role, "content": [{"type": "text", "text": content}]} for role, content in said.items()]
