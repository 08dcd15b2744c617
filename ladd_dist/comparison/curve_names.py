"""Names and units of training curves for people, and the six that tell how a training went. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

NUM_FIRST = 6
"""Curves that the page shows at once; all others are folded."""


class Named(NamedTuple):
    """The name of a curve, and its unit or what it means."""

    title: str
    note: str


GUESSING = "Share; .5 is guessing."
OF_TEACHER = "Share of the teacher's at the same noise; 1 is as varied."
NAMES: tuple[tuple[str, str, str], ...] = (
    (r"loss/distill", "Distance to the target", "Distillation loss, before its weight; lower is better."),
    (r"guard/student@(\d+)/colour_variance", "Colour variance in {} steps", OF_TEACHER),
    (r"accuracy", "How often the heads are right", GUESSING),
    (r"logit_gap", "Logit gap", "Mean logit of real minus fake: how far apart the heads score the two."),
    (
        r"watch/matched_error",
        "Error at the same noise",
        "Mean squared difference to the teacher's pictures, 32 samples.",
    ),
    (r"grad_norm/student", "Gradient norm of the student", "Before clipping; spikes mean instability."),
    (r"loss/adversarial", "Adversarial loss of the student", "Before its weight."),
    (r"loss/heads", "Loss of the heads", "Neither side should run away."),
    (r"loss/(.+)", "Loss: {}", "Before its weight."),
    (r"accuracy/real", "Heads right on the teacher's samples", GUESSING),
    (r"accuracy/fake", "Heads right on the student's samples", GUESSING),
    (r"accuracy/mismatched", "Heads right on samples of a wrong class", GUESSING),
    (r"accuracy/real/(.+)", "Head at {}: right on the teacher's", GUESSING),
    (r"accuracy/fake/(.+)", "Head at {}: right on the student's", GUESSING),
    (r"accuracy/(.+)", "Head at {}: right on both sides", GUESSING),
    (r"logit_gap/(.+)", "Head at {}: logit gap", "Mean logit of real minus fake."),
    (r"gap/(.+)", "Head at {}: logit gap, all ranks", "The same over ranks, micro-batches and the steps in between."),
    (r"grad_norm/heads", "Gradient norm of the heads", "Before clipping."),
    (r"grad_norm/heads/(.+)", "Head at {}: gradient norm", "Before clipping."),
    (r"grad_share/heads/(.+)", "Head at {}: share of the gradients", "Share of all heads' squared norm."),
    (r"grad_norm/(.+)", "Gradient norm: {}", "Before clipping."),
    (r"guard/student@(\d+)/class_distance", "Distance within a class, in {} steps", OF_TEACHER),
    (r"guard/student@(\d+)/distance", "Distance between samples, in {} steps", OF_TEACHER),
    (r"guard/student@(\d+)/finite", "Finite samples, in {} steps", "Share."),
    (r"held_out/nearest_train_share", "Nearness to the training pictures", "Of their usual distance; 0 is a copy."),
    (r"held_out/(.+)", "Distance to held-out pictures: {}", "Of the averaged student; lower is better."),
    (r"watch/accuracy", "Class accuracy while it learned", "Share of 32 samples."),
    (r"watch/hue_entropy", "Hue entropy while it learned", "Of 32 samples, in nats; higher is more varied."),
    (r"watch/pairwise_share", "Variety within a class while it learned", "Share of the teacher's, of 32 samples."),
    (r"watch/(.+)_share", "{} of the teacher's", "Share, of 32 samples while it learned."),
    (r"watch/(.+)", "{} while it learned", "Of 32 samples."),
    (r"weight/(.+)", "Weight: {}", "What this loss counts for in the student's update."),
    (r"rate/samples_per_s", "Speed", "Training samples a second."),
    (r"rate/steps_per_s", "Updates", "A second."),
)
"""Patterns of keys of metrics.jsonl, the more telling first: the page's first curves are the first that were logged."""


def named(key: str) -> Named:
    """The name and the unit of a curve; a key that is unknown here is its own name."""
    for pattern, title, note in NAMES:
        if match := re.fullmatch(pattern, key):
            words = [_words(group) for group in match.groups()]
            title = title.format(*words).replace("in 1 steps", "in one step")
            return Named(title[0].upper() + title[1:], note)
    return Named(key, "")


def first(keys: Iterable[str], steps: str) -> list[str]:
    """The six curves that the page shows at once, fewer where fewer were logged.

    Args:
        steps: the student's number of steps that decides; the guard's curves at other numbers come after all else.
    """
    own = [key for key in keys if not key.startswith("guard/") or key.startswith(f"guard/student@{steps}/")]
    order = [next((key for key in own if re.fullmatch(pattern, key)), None) for pattern, _, _ in NAMES[:8]]
    return [key for key in order if key is not None][:NUM_FIRST]


def _words(text: str) -> str:
    return text.replace("_", " ")
