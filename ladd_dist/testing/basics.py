"""Helpers of all contract checks; the checks themselves are in `ladd_dist.testing.checks` and beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ladd_dist.core.own_code import with_place
from ladd_dist.core.plugin import Plugin, registered, summary
from ladd_dist.core.serialize import check, from_data, to_data

TOLERANCE = 1e-4  # of values that float32 computes in another order


class ContractError(ValueError):
    """A plug-in breaks the contract of its kind; the message says how."""


def require(condition: bool, message: str) -> None:
    """Raise ContractError unless the condition holds."""
    if not condition:
        raise ContractError(message)


def label(plugin: Plugin) -> str:
    """The words by which messages name a plug-in: `head 'small_conv'`."""
    return f"{plugin.kind} {plugin.name or type(plugin).__name__!r}"


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Inside, torch's global generator starts from `seed`; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def call(who: str, doing: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function; whatever it raises becomes a ContractError that says what was being done, and which line."""
    try:
        return function(*args, **kwargs)
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"{who} fails {doing}: {with_place(error)}") from error


def check_basics(plugin: Plugin) -> None:
    """Check what every kind needs: registration, docstring, types of fields, a round trip through JSON.

    Raises:
        ContractError: one of these does not hold.
    """
    who, cls = label(plugin), type(plugin)
    require(registered().get(plugin.kind, {}).get(plugin.name) is cls, f"{who} is not registered: add @register(...)")
    require(bool(summary(cls)), f"{who} has no docstring; its first line is what `python -m ladd_dist.plugins` shows")
    call(who, "the type check of its fields", check, cls, plugin, plugin.name)
    data = call(who, "to become JSON", lambda: json.loads(json.dumps(to_data(plugin))))
    back = call(who, "to be rebuilt from JSON", from_data, cls, data, plugin.name)
    require(back == plugin, f"{who} differs after a round trip through JSON: {plugin} became {back}")
