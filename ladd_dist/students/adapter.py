"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685) on any denoiser, through `peft`.

W x becomes W x + strength * alpha / rank * B A x, for linear layers and convolutions. Names in an adapter's state are
PEFT's (`middle.qkv.lora_A.weight`), so readers of PEFT's format can load it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ladd_dist.core.errors import UserError

ADAPTER = "default"
"""PEFT's name of a network's only adapter; the names in its state leave it out, as PEFT's files do."""
N = TypeVar("N", bound=nn.Module)


def adaptable(network: nn.Module) -> list[str]:
    """Names of the layers that can have an adapter: linear ones and convolutions.

    Convolutions in groups are left out: PEFT cannot merge theirs into the weights.
    """
    return [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]


def require_patterns(patterns: tuple[str, ...], where: str) -> None:
    """Refuse what is no regular expression.

    Raises:
        UserError: the message begins with `where`.
    """
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(f"{where}: {pattern!r} is no regular expression: {error}") from error


def targeted(network: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Names of the layers that contain a match of one of the patterns (regular expressions); all without patterns.

    Raises:
        UserError: a pattern matches no layer.
    """
    names = adaptable(network)
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise UserError(f"adapter target {pattern!r} is in no layer's name; layers: {', '.join(names)}")
    return [name for name in names if not patterns or any(re.search(pattern, name) for pattern in patterns)]


def add_adapter(network: N, *, rank: int, alpha: float, layers: list[str]) -> N:
    """Give the named layers a low-rank adapter, in place; only the adapter trains, and it changes nothing yet (B = 0).

    A is drawn from torch's global generator.

    Raises:
        UserError: the network has an adapter already, or `peft` is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"low-rank adapters need the package peft ({error}): pip install peft") from error
    if has_adapter(network):
        raise UserError("the network has an adapter already: merge or remove it first")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # typed as int, but only divided by the rank
        target_modules="|".join(map(re.escape, layers)),  # full matches: a list would match ends of names too
        bias="none",
    )
    with warnings.catch_warnings():  # about model classes that PEFT knows
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    return network


def has_adapter(network: nn.Module) -> bool:
    """Whether a network has an adapter."""
    return any(".lora_A." in name for name, _ in network.named_parameters())


def _layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, LoraLayer))


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights of the network's adapter, float32 copies on the CPU, by PEFT's names; empty without an adapter."""
    return {
        name.replace(f".{ADAPTER}.", "."): parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, parameter in network.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


@torch.no_grad()
def set_adapter(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Overwrite the adapter's weights, the inverse of `adapter_state`.

    Raises:
        UserError: the layers or shapes are not the network's.
    """
    own = {
        name.replace(f".{ADAPTER}.", "."): parameter
        for name, parameter in network.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }
    if differing := sorted(set(own) ^ set(state)):
        where = "the network" if differing[0] in own else "the adapter"
        raise UserError(f"the adapter is of another network: only {where} has {differing[0]}")
    for name, parameter in own.items():
        if parameter.shape != state[name].shape:
            raise UserError(
                f"the adapter is of another network: {name} has shape {list(state[name].shape)}, the network's is "
                f"{list(parameter.shape)}"
            )
        parameter.copy_(state[name])


def layers_of(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers in an adapter's state."""
    return [name.removesuffix(".lora_A.weight") for name in state if name.endswith(".lora_A.weight")]


def set_strength(network: nn.Module, strength: float) -> None:
    """Set the adapter's strength: 1 as trained, 0 the untouched network bit for bit, -1 the opposite."""
    for _, layer in _layers(network):
        layer._disable_adapters = strength == 0  # not `enable_adapters`: that would change what trains
        layer.set_scale(ADAPTER, strength)


def merge_adapter(network: N) -> N:
    """Merge the adapter, at its strength, into the weights, in place, and put the plain layers back."""
    for name, layer in list(_layers(network)):
        if not layer._disable_adapters:
            layer.merge()
        _put_back(network, name, layer)
    del network.peft_config
    return network


def _put_back(network: nn.Module, name: str, layer: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer.get_base_layer())
