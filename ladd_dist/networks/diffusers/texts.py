"""Text encoding by the checkpoint's own diffusers pipeline, of which only the text parts are loaded.

The encoders compute in float32. Rows have the type of the encoders' weights, which is the accuracy that they were
trained or published with: bfloat16 for a T5 that is stored so.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.budget import within
from ladd_dist.core.compat import loaded_as
from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import read_config, weight_bytes, weights_dtype
from ladd_dist.networks.diffusers.texts_chat import num_tokens
from ladd_dist.networks.diffusers.texts_lengths import Rows, filled, filled_batch

BATCH = 16
"""Number of texts encoded together; fixed, because the same texts must always give the same bits."""
TOKENIZER_LOGGER = "transformers.tokenization_utils_base"
PARTS = ("*.json", "text_encoder*/*.safetensors", "tokenizer*/*")
"""Patterns of the files in a hub repository that encoding needs."""
_HEAVY = (
    "unet", "transformer", "vae", "movq", "scheduler", "safety_checker", "feature_extractor", "image_encoder",
)  # fmt: skip


class _Way(NamedTuple):
    """Way to call the `encode_prompt` of a pipeline."""

    pipelines: tuple[str, ...]
    """Classes of diffusers: the one that `model_index.json` names is used, otherwise the first."""
    returns: tuple[str, ...]
    """Names of the returned tensors, in order; those with `negative_` belong to the null condition."""
    asks: Mapping[str, None] = {}
    """Further arguments."""
    takes_length: bool = True
    """Whether the length of a text is an argument."""
    length: int = 0
    """Length in tokens where the recipe names none; 0: the method's own."""
    null: str = ""
    """Text whose embedding is the null condition, where the pipeline makes no negative embedding of its own."""
    finish: Callable[[Mapping[str, Any], int], Rows] | None = None
    """Function (results by name, length in tokens) -> tensors [n,...] of rows of one length."""


_EMBEDS = ("prompt_embeds", "negative_prompt_embeds")
_MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
_POOLED = (*_EMBEDS, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_WAYS = {
    "UNet2DConditionModel": _Way(("StableDiffusionPipeline",), _EMBEDS, takes_length=False),
    "UNet2DConditionModel text_time": _Way(("StableDiffusionXLPipeline",), _POOLED, takes_length=False),
    "Kandinsky3UNet": _Way(
        ("Kandinsky3Pipeline",), (*_EMBEDS, "prompt_attention_mask", "negative_prompt_attention_mask"),
        takes_length=False,
    ),
    "PixArtTransformer2DModel": _Way(("PixArtAlphaPipeline", "PixArtSigmaPipeline"), _MASKED),
    "SD3Transformer2DModel": _Way(
        ("StableDiffusion3Pipeline",), _POOLED, {"prompt_2": None, "prompt_3": None}
    ),
    "FluxTransformer2DModel": _Way(("FluxPipeline",), ("prompt_embeds", "pooled_prompt_embeds", "")),
    "SanaTransformer2DModel": _Way(("SanaPipeline",), _MASKED),
    "Flux2Transformer2DModel": _Way(("Flux2Pipeline", "Flux2KleinPipeline"), ("prompt_embeds", ""), length=512),
    "QwenImageTransformer2DModel": _Way(
        ("QwenImagePipeline",), ("prompt_embeds", "prompt_attention_mask"), length=512, null=" ", finish=filled_batch
    ),
    "ZImageTransformer2DModel": _Way(("ZImagePipeline",), _EMBEDS, length=512, finish=filled),
}  # fmt: skip


class TextEncoder:
    """Text parts of a pipeline, on a device; they compute in float32."""

    def __init__(self, root: Path, config: Mapping[str, object], tokens: int, device: torch.device) -> None:
        """Load tokenizers and text encoders, and nothing else.

        Args:
            root: folder of the pipeline.
            config: configuration of its denoising model.
            tokens: length of a text in tokens; 0: the pipeline's own.

        Raises:
            UserError: there is no pipeline with text encoders, or it cannot be read (pickles are not).
        """
        self.name = str(config["_class_name"])
        kind = f"{self.name} {config['addition_embed_type']}" if config.get("addition_embed_type") else self.name
        self.way, self.tokens, self.device = _WAYS[kind], tokens, device
        self.pipeline = _load(root, self.way).to(device)
        self.dtype = _stored_dtype(root)
        self.cut: list[str] = []
        """The longest text of each batch in which one was too long and lost its end."""

    @torch.no_grad()
    def rows(self, texts: Sequence[str], *, size: tuple[int, int]) -> Rows:
        """Rows [n, ...] of texts for pictures of this height and width in pixels, on the CPU."""
        return self._finished(self._ask(list(texts), null=False), size)

    @torch.no_grad()
    def null(self, *, size: tuple[int, int]) -> Rows:
        """Row [1, ...] of the null condition: the pipeline's own negative embedding, otherwise the empty text."""
        found = self._ask([self.way.null], null=True)
        own = {name.removeprefix("negative_"): row for name, row in found.items() if name.startswith("negative_")}
        return self._finished(own or found, size)

    def _ask(self, texts: list[str], *, null: bool) -> Rows:
        accepted = inspect.signature(self.pipeline.encode_prompt).parameters
        asked = {
            "num_images_per_prompt": 1,
            "device": self.device,
            "do_classifier_free_guidance": null,
            **self.way.asks,
        }
        if self.way.takes_length and (self.tokens or self.way.length):
            asked["max_sequence_length"] = self._length()
        if "complex_human_instruction" in accepted:  # Sana's pipeline puts it before each text
            own = inspect.signature(type(self.pipeline).__call__).parameters["complex_human_instruction"]
            asked["complex_human_instruction"] = own.default
        with _cuts_heard(self.pipeline) as cuts:
            found = self.pipeline.encode_prompt(  # Z-Image's writes into the list that it is given
                list(texts), **{name: value for name, value in asked.items() if name in accepted}
            )
            long = self._too_long(texts) if self.way.length else []
        self.cut += [max(long or texts, key=len)] if cuts or long else []
        given = {name: rows for name, rows in zip(self.way.returns, found, strict=True) if name and rows is not None}
        return self.way.finish(given, self._length()) if self.way.finish else given

    def _too_long(self, texts: list[str]) -> list[str]:
        """Texts that have, with the chat around them, more tokens than are asked for; these pipelines log nothing."""
        found = zip(texts, num_tokens(self.pipeline, texts), strict=True)
        return [text for text, num in found if num > self._length()]

    def _length(self) -> int:
        """Length in tokens to request from the pipeline; SD3 appends T5's tokens to CLIP's."""
        of_clip = self.pipeline.tokenizer_max_length if self.name == "SD3Transformer2DModel" else 0
        return (self.tokens or self.way.length) - of_clip

    def _finished(self, rows: Rows, size: tuple[int, int]) -> Rows:
        num, (height, width) = len(rows["prompt_embeds"]), map(float, size)
        if self.way.pipelines == ("StableDiffusionXLPipeline",):  # sizes and corner of the crop
            rows["time_ids"] = torch.tensor([[height, width, 0.0, 0.0, height, width]]).expand(num, -1)
        if self.name == "PixArtTransformer2DModel":
            rows["resolution"] = torch.tensor([[height, width]]).expand(num, -1)
            rows["aspect_ratio"] = torch.full((num, 1), height / width)
        return {name: _stored(name, row, self.dtype) for name, row in rows.items()}


def encode(
    encoder: TextEncoder,
    texts: Sequence[str],
    names: Sequence[str],
    *,
    size: tuple[int, int],
    reads_padding: bool = True,
) -> Iterator[Rows]:
    """Rows of the table with the entries in `names`, batch by batch: one per text, then the null condition.

    Args:
        reads_padding: whether the model's numbers depend on the states of tokens that the mask leaves out; where they
            do not, the states become zero, which a table does not store.
    """
    for first in range(0, len(texts), BATCH):
        rows = encoder.rows(texts[first : first + BATCH], size=size)
        yield {name: rows[name] for name in names} if reads_padding else _without_padding(rows, names)
    null = encoder.null(size=size)
    if encoder.cut:
        longest = max(encoder.cut, key=len)
        print(
            f"note: at least {len(encoder.cut)} of {len(texts)} texts are longer than the text encoder reads; what "
            f"comes after its last token counts for nothing. The longest begins {longest[:60]!r}",
            file=sys.stderr,
        )
    yield {name: null[name] for name in names} if reads_padding else _without_padding(null, names)


def _without_padding(rows: Rows, names: Sequence[str]) -> Rows:
    """The rows, with states of zero where the mask is; a mask that keeps no token keeps all: then each counts alike."""
    mask = rows["prompt_attention_mask"].bool()
    kept = mask | ~mask.any(dim=1, keepdim=True)
    states = rows["prompt_embeds"].masked_fill(~kept[:, :, None], 0)
    return {name: states if name == "prompt_embeds" else rows[name] for name in names}


@contextlib.contextmanager
def _cuts_heard(pipeline: Any) -> Iterator[list[str]]:
    """Take what the libraries log about texts that they cut, a message for each batch, for one note of our own."""
    heard: list[str] = []

    def takes(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        about = "was truncated because" in text or "longer than the specified maximum sequence length" in text
        heard.extend([text] if about else [])
        return not about

    loggers = [logging.getLogger(name) for name in (type(pipeline).__module__, TOKENIZER_LOGGER)]
    for logger in loggers:
        logger.addFilter(takes)
    try:
        yield heard
    finally:
        for logger in loggers:
            logger.removeFilter(takes)


def _stored(name: str, row: Tensor, dtype: torch.dtype) -> Tensor:
    kept = torch.uint8 if "mask" in name else dtype if "embeds" in name else torch.float32
    return row.to("cpu", kept).contiguous()


def _stored_dtype(root: Path) -> torch.dtype:
    """The type of the encoders' weights: that of the largest of each, and the wider one where encoders differ."""
    folders = sorted({path.parent for path in root.glob("text_encoder*/*.safetensors")})
    return functools.reduce(torch.promote_types, map(weights_dtype, folders)) if folders else torch.float32


def _load(root: Path, way: _Way) -> Any:
    import diffusers
    from safetensors import SafetensorError

    index_path = root / "model_index.json"
    if not index_path.is_file():
        raise UserError(
            f"{root} has no text encoders (there is no model_index.json); name a pipeline's folder, which has "
            "model_index.json, text_encoder/ and tokenizer/ beside the model"
        )
    index = read_config(index_path)
    chosen = index.get("_class_name") if index.get("_class_name") in way.pipelines else way.pipelines[0]
    pipeline: Any = getattr(diffusers, str(chosen), None)
    if pipeline is None:
        version = diffusers.__version__
        raise UserError(f"{root} is a {chosen}, which diffusers {version} does not have: pip install -U diffusers")
    accepted = [name for name in inspect.signature(pipeline.__init__).parameters if name != "self"]
    parts = [name for name in accepted if name.startswith(("text_encoder", "tokenizer"))]
    for name in parts:
        _require_part(root, name, index.get(name))
    others: dict[str, bool | None] = {name: None for name in accepted if name in _HEAVY}
    others |= {"requires_safety_checker": False} if "requires_safety_checker" in accepted else {}
    try:
        with within(f"{root}: a text encoder", elements=weight_bytes(root, "text_encoder*/*.safetensors")):
            return pipeline.from_pretrained(
                str(root), use_safetensors=True, local_files_only=True, **loaded_as(torch.float32), **others
            )
    except (OSError, ValueError, RuntimeError, TypeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{root}: its text encoders cannot be read ({reason}); only safetensors are") from error


def _require_part(root: Path, name: str, entry: object) -> None:
    """Refuse a part that is missing, or whose class is not of transformers or diffusers."""
    if entry is None or entry == [None, None]:
        return  # this checkpoint needs none
    library = entry[0] if isinstance(entry, list) and len(entry) == 2 else entry
    if library not in ("transformers", "diffusers"):
        raise UserError(f"{root / 'model_index.json'}: {name} is of {library!r}, supported is 'transformers'")
    folder = root / name
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: the shard stage encodes the texts with it")
    if name.startswith("text_encoder") and (folder / "config.json").exists():
        read_config(folder / "config.json")
    pickles = [path.name for suffix in ("bin", "pt") for path in folder.glob(f"*.{suffix}")]
    if name.startswith("text_encoder") and pickles and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} has its weights only as a pickle ({pickles[0]}), which could run code when it is read; convert "
            "it where you trust it: Model.from_pretrained(folder).save_pretrained(folder) writes safetensors"
        )
