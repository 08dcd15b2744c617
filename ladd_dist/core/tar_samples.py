"""The members of a WebDataset shard as samples: those with one key stand together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ladd_dist.core.errors import ShardError
from ladd_dist.core.tar_members import Member

# WebDataset's rules: a key is the path up to the first dot of the name; names of this form, and hidden ones, are no
# samples.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


class TarSample(NamedTuple):
    """The members of one key."""

    key: str
    members: dict[str, bytes]
    """Content by extension, in small letters; empty for those that are not kept."""
    offset: int  # of the first member's header


def grouped(
    members: Iterable[Member], shard: str, keeps: Callable[[str], bool] = lambda extension: True
) -> Iterator[TarSample]:
    """The members of a shard grouped by key, as WebDataset does it.

    Args:
        shard: name, for messages.
        keeps: whether the content of a member with this extension is kept until its sample is whole.

    Raises:
        ShardError: a member has no extension, or the members of a key do not stand together.
    """
    current: TarSample | None = None
    keys = set[str]()
    for member in members:
        if _META.match(member.name) or member.name.rpartition("/")[2].startswith("."):
            continue
        found = _KEY_AND_EXTENSION.fullmatch(member.name)
        if found is None:  # WebDataset ignores it; yet a flipped bit in a long name, which has no checksum, makes one
            raise ShardError(
                f"shard {shard}: {member.name[:80]!r} (byte {member.offset:,}) has no extension, so it belongs to no "
                "sample; remove it from the shard"
            )
        key, extension = found[1], found[2].lower()
        if current is None or key != current.key:
            if current is not None:
                yield current
            if key in keys:
                raise ShardError(
                    f"sample {key!r} of {shard} (byte {member.offset:,}): its members do not stand together, or two "
                    "samples have this key; sort the shard by name, or rename one"
                )
            keys.add(key)
            current = TarSample(key, {}, member.offset)
        if extension in current.members:
            raise ShardError(f"sample {key!r} of {shard} (byte {member.offset:,}): it has two members .{extension}")
        current.members[extension] = member.content if keeps(extension) else b""
    if current is not None:
        yield current
