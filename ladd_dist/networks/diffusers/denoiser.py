"""A model of diffusers as a denoiser with named taps and early exit.

The library's own forward runs. Hooks on the wanted blocks read the taps; they exist during one call. The last hook ends
the forward by an exception that the same call catches. Hooks registered this late run after those of FSDP, when a
sharded block has already released its gathered weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.errors import UnknownTapError, UserError
from ladd_dist.core.types import Denoiser, NetOutput, TapSpec
from ladd_dist.networks.diffusers.family import Family
from ladd_dist.networks.diffusers.prediction import Prediction


class _Enough(Exception):
    """Signal of a hook that all requested outputs have been read, to end the forward."""


class _TapHooks:
    """Forward hooks that read features and embedding from the model's parts during one call."""

    def __init__(self, family: Family, model: nn.Module, taps: Iterable[str], *, stop: bool) -> None:
        self.family, self.stop = family, stop
        self.blocks = {name: block for name, block in family.blocks(model).items() if name in set(taps)}
        self.parts = family.embeddings(model)
        self.features: dict[str, Tensor] = {}
        self.embedding: Tensor | None = None
        self.missing = len(self.blocks) + len(self.parts)
        self.handles: list[Any] = []
        if any(getattr(block, "_compiled_call_impl", None) is not None for block in self.blocks.values()):
            raise UserError(  # compiled code would run on without the hook
                "taps cannot be read from compiled blocks of a diffusers network: take 'teacher' out of compute.compile"
            )

    def __enter__(self) -> _TapHooks:
        self.handles += [block.register_forward_hook(self._keep(name)) for name, block in self.blocks.items()]
        self.handles += [part.register_forward_hook(self._add) for part in self.parts]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for handle in self.handles:
            handle.remove()
        return kind is _Enough

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            self.features[name] = self.family.feature(out)
            self._count()

        return hook

    def _add(self, module: nn.Module, args: Any, out: Any) -> None:
        part: Tensor = out[-1] if isinstance(out, tuple) else out
        self.embedding = part if self.embedding is None else self.embedding + part
        self._count()

    def _count(self) -> None:
        self.missing -= 1
        if self.stop and not self.missing:
            raise _Enough


class DiffusersDenoiser(Denoiser):
    """The module behind `Diffusers`; `model` is the library's own, which saves and loads itself."""

    def __init__(
        self, *, model: nn.Module, family: Family, prediction: Prediction, taps: Mapping[str, TapSpec], embed_dim: int
    ) -> None:
        super().__init__()
        family.complete(model)
        self.model, self.family, self.prediction = model, family, prediction
        self.image, self.taps = family.image, taps
        self.has_null = family.has_null()
        self.sigma_max, self.sigma_min = prediction.sigma_max(), prediction.sigma_min()
        self.condition_shapes, self.reads_padding = family.condition_shapes(), family.reads_padding
        self.cond_dim = embed_dim + (self.condition_shapes["prompt_embeds"][-1] if self._adds_text else 0)
        self.conditions: Conditions | None = None

    @property
    def _adds_text(self) -> bool:
        return "prompt_embeds" in self.condition_shapes and not self.family.pools_text

    def facts(self) -> dict[str, str]:
        return {"class": type(self.model).__name__, "prediction": self.prediction.kind}

    def blocks(self) -> list[nn.Module]:
        return list(self.family.blocks(self.model).values())

    def attach(self, conditions: Conditions) -> None:
        """Set the table of texts; their number of tokens may differ from that in `condition_shapes`.

        Raises:
            UserError: the table's entries or their sizes are not those that this model reads.
        """
        needed, given = ({name: shape[-1] for name, shape in shapes.items() if "mask" not in name}
                         for shapes in (self.condition_shapes, conditions.shapes))  # fmt: skip
        if needed != given or set(self.condition_shapes) != set(conditions.shapes):
            raise UserError(
                f"the table of conditions holds {_listed(conditions.shapes)}, the model reads "
                f"{_listed(self.condition_shapes) or 'class ids, no table'}; was it made for another model?"
            )
        self.conditions = conditions

    def rescaled(self, guided: Tensor, conditional: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        if not self.family.rescales:
            return guided
        own = (self.prediction.raw(denoised, x, sigma) for denoised in (guided, conditional))
        return self.prediction.denoised(self.family.rescaled(*own), x, sigma)

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown:
            raise UnknownTapError(f"unknown tap {unknown[0]!r}; this network has {', '.join(self.taps)}")
        rows = self._rows(cond)
        noised = self.prediction.noised(x, sigma.to(x.dtype))
        raw: Tensor | None = None
        with _TapHooks(self.family, self.model, taps, stop=not denoise) as hooks:
            raw = self.family.call(self.model, noised.x, noised.timestep, cond, rows)
        assert hooks.embedding is not None
        cond_vec = torch.cat([hooks.embedding, text_mean(rows)], dim=1) if self._adds_text else hooks.embedding
        if raw is None or not denoise:
            return NetOutput(None, hooks.features, cond_vec)
        raw = raw[:, : x.shape[1]]  # the rest, where there is one, is the predicted variance
        return NetOutput(self.prediction.denoised(raw, x, sigma), hooks.features, cond_vec)

    def _rows(self, cond: Tensor) -> dict[str, Tensor]:
        if not self.condition_shapes:
            return {}
        if self.conditions is None:
            raise UserError(
                "this network reads texts, and has no table of conditions; call attach() with the shards' own"
            )
        return self.conditions.take(cond)


def text_mean(rows: Mapping[str, Tensor]) -> Tensor:
    """Mean [B,E] of encoder states [B,T,E] over the tokens that the mask keeps, or over all without a mask."""
    states = rows["prompt_embeds"].float()
    if "prompt_attention_mask" not in rows:
        return states.mean(dim=1)
    kept = rows["prompt_attention_mask"].float()[:, :, None]
    return (states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def find_taps(model: nn.Module, family: Family) -> tuple[dict[str, TapSpec], int]:
    """Tap catalog and embedding size, from one forward of a model on the device "meta"."""
    image = family.image
    with torch.device("meta"), torch.no_grad():
        x = torch.zeros(1, *image.shape)
        rows = {name: torch.zeros(1, *shape) for name, shape in family.condition_shapes().items()}
        with _TapHooks(family, model, family.blocks(model), stop=False) as hooks:
            family.call(model, x, torch.zeros(1), torch.zeros(1, dtype=torch.int64), rows)
    assert hooks.embedding is not None
    specs = {name: TapSpec(found.shape[1], image.height // found.shape[2]) for name, found in hooks.features.items()}
    return specs, hooks.embedding.shape[1]


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
