"""A limit on the network that a file from outside describes: it is no larger than the weights that come with it.

A card can declare a million channels or ten million blocks in a few bytes. Modules register each weight before they
write to it, so the limit is met before memory is taken or time is spent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ladd_dist.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

SLACK = 4
"""Factor by which a network may exceed its file while it is built: a weight may be registered more than once."""
SLACK_TENSORS, SLACK_ELEMENTS = 1_000, 1_000_000
"""The same for networks that are small."""
MOST_TENSORS, MOST_ELEMENTS = 20_000, 10**12
"""Most weights of a network whose file is not there, such as one that is planned by its configuration alone."""
MOST_DECLARED = 10_000_000
"""The largest number of channels, blocks, heads or classes that a configuration may declare."""
MOST_LISTED = 10_000
"""The longest list in a configuration, such as the widths of a network's levels or a scheduler's betas."""


@contextlib.contextmanager
def at_most(weights: Mapping[str, Tensor] | None, what: str) -> Iterator[None]:
    """Inside, modules with at most these weights can be built, with some slack; None: a generous constant.

    Args:
        what: the file that describes the network, which begins the message.

    Raises:
        UserError: a module has more weights, or weights that no memory holds.
    """
    elements, tensors = MOST_ELEMENTS, MOST_TENSORS
    if weights is not None:
        elements, tensors = sum(weight.numel() for weight in weights.values()), len(weights)
    with within(what, elements=elements, tensors=tensors):
        yield


@contextlib.contextmanager
def within(what: str, *, elements: int, tensors: int = MOST_TENSORS) -> Iterator[None]:
    """`at_most` with numbers: of elements of all weights together, and of weights."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    most = SLACK * elements + SLACK_ELEMENTS, SLACK * tensors + SLACK_TENSORS
    found = [0, 0]

    def count(module: nn.Module, name: str, weight: nn.Parameter) -> None:
        found[0] += weight.numel()
        found[1] += 1
        if found[0] > most[0] or found[1] > most[1]:
            raise UserError(f"{what} describes a network that is much larger than its weights: {elements:,} numbers")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (MemoryError, OverflowError) as error:
        raise UserError(f"{what} describes a network that no memory holds") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in ("allocate memory", "overflow")):
            raise
        raise UserError(f"{what} describes a network that does not fit in memory") from error
    finally:
        hook.remove()


def require_declared(data: Any, what: str) -> None:
    """Refuse a configuration with a whole number or a list beyond `MOST_DECLARED` and `MOST_LISTED`, at any depth.

    Raises:
        UserError: there is one; the message names it.
    """
    waiting = [("", data)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend((str(key), value) for key, value in item.items())
        elif isinstance(item, list | tuple):
            if len(item) > MOST_LISTED:
                raise UserError(f"{what}: {name} has {len(item):,} entries, and at most {MOST_LISTED:,} can be built")
            waiting.extend((name, value) for value in item)
        elif isinstance(item, int) and abs(item) > MOST_DECLARED:
            number = str(item) if abs(item) < 10**20 else "a longer number"
            raise UserError(f"{what}: {name} is {number}, and at most {MOST_DECLARED:,} of anything can be built")
