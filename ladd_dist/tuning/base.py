"""Whether a base is what a student was distilled from, as far as their files say it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ladd_dist.builders.card import ImageData, StudentCard
from ladd_dist.builders.origin import Origin, origin_of
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import one_line
from ladd_dist.recipe import Recipe

MOST_SHOWN = 120
"""Characters of a value in a message."""


def origin_of_student(card: StudentCard, network: dict[str, Any], recipe: Recipe | None) -> Origin:
    """What is known of a student's teacher: by its card, or by the recipe of its run where an older card is silent.

    Args:
        network: the card's, with every field that this version has.
    """
    own: Origin = {"network": network, "image": card["image"], "class_names": card.get("class_names", [])}
    if "space" in card:
        own["space"] = card["space"]
    told = card.get("base") or (origin_of(recipe) if recipe is not None else {})
    for name in ("signature", "dataset"):
        if name in told:
            own[name] = told[name]
    return own


def require_own_base(student: Origin, base: Origin, named: str) -> None:
    """Refuse a base that cannot be what the student was distilled from; note on stderr one that is merely another.

    Another teacher of the same pictures and architecture may serve, since the heads learn on its features anew: one
    that was trained longer is no mistake.

    Args:
        named: the base as the user wrote it.

    Raises:
        UserError: names what differs, and what to give.
    """
    own, found = student.get("signature", ""), base.get("signature", "")
    if own and own == found:
        return
    where = f"cache/teacher-{_plain(own) or 'SIGNATURE'}/teacher.safetensors"
    if differing := list(_differences(student, base)):
        raise UserError(
            f"--base {named} is not what the student was distilled from: {'; '.join(differing)}; name the student's "
            f"own, {where}, or a run's folder that used it"
        )
    if own and found:
        known = "network" in base and "dataset" in base
        kind = "of the same architecture and kind of pictures" if known else "and nothing says what it learned"
        print(
            f"note: --base {named} is another teacher ({_plain(found)}) than the student's ({_plain(own)}), {kind}; "
            "it may serve, and the student's own is what it was distilled from",
            file=sys.stderr,
        )


def require_same_classes(table: Tensor | None, student: Origin, named: str) -> None:
    """Refuse a base's weights with another number of classes than the student's.

    Args:
        table: a row for each of the base's classes and one for none, [K+1,C]; None: it has no such table.

    Raises:
        UserError: says both numbers.
    """
    own = student["image"]["num_classes"]
    if table is not None and table.ndim and len(table) - 1 != own:
        raise UserError(
            f"--base {named} is not what the student was distilled from: it knows {len(table) - 1} classes, the "
            f"student {own}; name the student's own teacher, cache/teacher-SIGNATURE/teacher.safetensors"
        )


def _differences(student: Origin, base: Origin) -> Iterator[str]:
    """What differs between a student's teacher and a base, of what is known of both."""
    if "network" in base and student.get("space", "") != base.get("space", ""):
        yield f"it works {_room(base, student)}, the student {_room(student, base)}"
        return  # other sizes and networks follow from it
    if "network" in student and "network" in base:
        own, other = dict(student["network"]), dict(base["network"])
        names = [name for name in own if name in other and own[name] != other[name]]
        for name in ["plugin"] if "plugin" in names else names[:3]:
            what = "network" if name == "plugin" else f"network.{name}"
            yield f"its {what} is {_shown(other[name])}, the student's {_shown(own[name])}"
    if "image" in student and "image" in base:
        found, wanted = base["image"], student["image"]
        if _size(found) != _size(wanted):
            yield f"it makes {_size(found)}, the student {_size(wanted)}"
        if found["num_classes"] != wanted["num_classes"]:
            yield f"it knows {found['num_classes']} classes, the student {wanted['num_classes']}"
    if words := _names_differ(student, base):
        yield words
    learned, own_data = base.get("dataset", ""), student.get("dataset", "")
    same_names = bool(student.get("class_names")) and student.get("class_names") == base.get("class_names")
    if learned and own_data and learned != own_data and not same_names:
        yield f"it learned from dataset {_shown(learned)}, the student from {_shown(own_data)}"


def _room(of: Origin, other: Origin) -> str:
    if not of.get("space"):
        return "on pixels"
    return "in the latents of another autoencoder" if other.get("space") else "in latents"


def _names_differ(student: Origin, base: Origin) -> str:
    own, other = student.get("class_names", []), base.get("class_names", [])
    if not own or not other or own == other or len(own) != len(other):
        return ""
    place = next(number for number in range(len(own)) if own[number] != other[number])
    return f"its class {place} is {_shown(other[place])}, the student's {_shown(own[place])}"


def _size(image: ImageData) -> str:
    return f"{image['channels']} channels of {image['height']} x {image['width']}"


def _plain(text: str) -> str:
    return one_line(text[:MOST_SHOWN])


def _shown(value: object) -> str:
    return one_line(repr(value))[:MOST_SHOWN]
