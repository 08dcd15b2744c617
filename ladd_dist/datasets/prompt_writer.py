"""Prompts for pictures of many kinds, put together from words: for a first training, or until you have your own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from ladd_dist.datasets import prompt_words as words

TEMPLATES = (
    "{a:animal}",
    "{a:colour} {thing}",
    "{a:animal} {doing}",
    "{a:animal} {doing}, {light}",
    "{a:animal} {where}, {style}",
    "{a:animal} {doing} {where}, {light}, {style}",
    "{a:mood} {style} of {a:animal} {where}, {view}",
    "{a:person} {working}",
    "{a:person} {working} {where}",
    "{a:style} of {a:person} {working}, {light}",
    "{a:mood} portrait of {a:person}, {light}, {view}, {style}",
    "{a:look} {thing} {where}",
    "{a:look} {colour} {thing} {where}, {light}, {view}",
    "{a:style} of {a:thing} and {a:food} {where}",
    "{a:thing} made of {stuff}, {view}, {light}",
    "{a:food} {where}, {light}",
    "{a:food} beside {a:look} {thing}, {style}",
    "{a:place}, {light}",
    "{a:style} of {a:mood} {place}",
    "{a:place} at {time}, {mood} and {mood}, {view}, {style}",
    "{a:person} and {a:animal} in front of {a:place}, {light}, {style}",
    "{a:colour} {shape} of {stuff} {relation} {a:colour} {shape} of {stuff}",
    "{a:colour} {shape} {relation} {a:look} {thing} {where}",
    "{number} {colour} {shape}s {where}, {light}",
    "{a:style} of {a:colour} {thing} {relation} {a:look} {thing}",
)
"""Forms of a prompt: `{thing}` is one of the things, `{a:thing}` the same with its article."""
WORDS: Mapping[str, Sequence[str]] = {
    "animal": words.ANIMALS, "doing": words.DOING, "person": words.PEOPLE, "working": words.AT_WORK,
    "thing": words.THINGS, "food": words.FOOD, "place": words.PLACES, "where": words.WHERE, "light": words.LIGHT,
    "style": words.STYLES, "colour": words.COLOURS, "look": words.LOOKS, "number": words.NUMBERS, "shape": words.SHAPES,
    "stuff": words.STUFF, "relation": words.RELATIONS, "view": words.VIEWS, "mood": words.MOODS,
    "time": ("night", "dawn", "noon", "dusk", "sunset", "midwinter"),
}  # fmt: skip
_SLOT = re.compile(r"\{(a:)?(\w+)\}")


def written_prompts(count: int, *, seed: int = 0) -> Iterator[str]:
    """`count` prompts in English, no two alike: the same for the same seed, and the first of more are those of fewer.

    They are chosen by SHA-256, so no version of a library changes them.
    """
    seen, number = set[str](), 0
    while len(seen) < count:
        prompt = _written(int.from_bytes(hashlib.sha256(f"prompt {seed} {number}".encode()).digest(), "big"))
        number += 1
        if prompt not in seen:
            seen.add(prompt)
            yield prompt


def _written(number: int) -> str:
    """The prompt that a number of 256 bits chooses: the form first, then each word."""
    number, form = divmod(number, len(TEMPLATES))
    parts, end = list[str](), 0
    for slot in _SLOT.finditer(TEMPLATES[form]):
        number, place = divmod(number, len(WORDS[slot[2]]))
        word = WORDS[slot[2]][place]
        parts += [TEMPLATES[form][end : slot.start()], f"{_article(word)} {word}" if slot[1] else word]
        end = slot.end()
    return "".join([*parts, TEMPLATES[form][end:]])


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
