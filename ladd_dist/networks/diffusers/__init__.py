"""`Diffusers`: a checkpoint of Hugging Face diffusers as a network."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import digest, locate
from ladd_dist.core.ranges import CountOrZero, NonNegative
from ladd_dist.core.types import Denoiser, ImageSpec, TapSpec
from ladd_dist.networks import Network


@register("diffusers")
@dataclass(frozen=True)
class Diffusers(Network):
    """Model of Hugging Face diffusers (docs/teachers.md lists them) with its own prediction and noise schedule."""

    source: str = ""
    """Folder or hub repository of a pipeline, or of one model with a `scheduler/` in it or beside it."""
    revision: str = ""
    """Branch, tag or commit of the hub repository; empty: the newest."""
    subfolder: str = ""
    """The model's folder in `source`; empty: `unet`, `transformer`, or `source` itself."""
    config: str = ""
    """Folder with the configuration files alone, laid out like `source`: enough to plan without the weights."""
    tokens: CountOrZero = 0
    """Length of a text in tokens; 0: the pipeline's own, the only one for Stable Diffusion 1, 2, XL and Kandinsky 3."""
    embedded_guidance: NonNegative = 3.5
    """Guidance scale given as an input to a guidance-distilled model (Flux and FLUX.2 dev); other models ignore it."""
    pretrained: ClassVar[bool] = True

    def identity(self) -> dict[str, str]:
        from ladd_dist.networks.diffusers.checkpoint import checkpoint_files

        files = checkpoint_files(self.source or self.config, self.subfolder)
        if not files:  # of the hub
            return {"config": ""}
        return {"source": digest(files), "revision": "", "subfolder": "", "config": ""}

    def build(self, *, image: ImageSpec) -> Denoiser:
        return self._make(image, weights=False)

    def load(self, *, image: ImageSpec) -> Denoiser:
        return self._make(image, weights=True)

    def encode(self, texts: Sequence[str], *, image: ImageSpec, device: torch.device) -> Iterator[Mapping[str, Tensor]]:
        from ladd_dist.networks.diffusers.checkpoint import FAMILIES, open_checkpoint
        from ladd_dist.networks.diffusers.texts import PARTS, TextEncoder, encode

        config = open_checkpoint(self.source, subfolder=self.subfolder, revision=self.revision, weights=False).config
        settings = defaults_of(config) | config
        family = FAMILIES[str(settings["_class_name"])](settings, image, self.tokens, self.embedded_guidance)
        root = locate(self.source, field="network.source", revision=self.revision, patterns=PARTS)
        encoder = TextEncoder(root, settings, self.tokens, device)
        names, size = tuple(family.condition_shapes()), (image.height, image.width)
        return encode(encoder, texts, names, size=size, reads_padding=family.reads_padding)

    def _make(self, image: ImageSpec, *, weights: bool) -> Denoiser:
        from ladd_dist.networks.diffusers.checkpoint import FAMILIES, build_model, load_model, open_checkpoint
        from ladd_dist.networks.diffusers.denoiser import DiffusersDenoiser
        from ladd_dist.networks.diffusers.prediction import read_scheduler

        source = self.source if weights else self.config or self.source
        checkpoint = open_checkpoint(source, subfolder=self.subfolder, revision=self.revision, weights=weights)
        settings = defaults_of(checkpoint.config) | checkpoint.config
        with _settings_of(checkpoint.folder):
            family = FAMILIES[str(settings["_class_name"])](settings, image, self.tokens, self.embedded_guidance)
            try:
                family.check()
            except ValueError as error:
                raise UserError(f"{checkpoint.folder}: {error}") from error
            taps, embed_dim = _taps_of(checkpoint.folder, json.dumps(settings), image, self.tokens)
        model = load_model(checkpoint) if weights else build_model(checkpoint)
        prediction = read_scheduler(checkpoint.scheduler, f"{source}: scheduler")
        return DiffusersDenoiser(model=model, family=family, prediction=prediction, taps=taps, embed_dim=embed_dim)


@contextlib.contextmanager
def _settings_of(folder: Path) -> Iterator[None]:
    """Turn the errors of settings that have a wrong type, or are missing, into one about the configuration.

    Raises:
        UserError: the configuration describes no model.
    """
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{folder / 'config.json'} describes no model ({type(error).__name__}: {error}); download it again"
        ) from error


@functools.lru_cache(maxsize=8)
def _taps_of(folder: Path, config: str, image: ImageSpec, tokens: int) -> tuple[dict[str, TapSpec], int]:
    """Taps and embedding size of a model of this configuration (JSON), from a forward on the device "meta"."""
    from ladd_dist.networks.diffusers.checkpoint import FAMILIES, Checkpoint, build_model
    from ladd_dist.networks.diffusers.denoiser import find_taps

    settings = json.loads(config)
    family = FAMILIES[settings["_class_name"]](settings, image, tokens, embedded_guidance=0.0)
    with torch.device("meta"):
        return find_taps(build_model(Checkpoint(folder, settings, {})), family)


def defaults_of(config: Mapping[str, object]) -> dict[str, object]:
    """Defaults of diffusers for the settings of a model, by name; its configuration may leave some out."""
    import inspect

    import diffusers

    parameters = inspect.signature(getattr(diffusers, str(config["_class_name"])).__init__).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
