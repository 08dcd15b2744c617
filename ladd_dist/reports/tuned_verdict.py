"""The verdict on a tuning: whether the student shows the new pictures, keeps the old ones, and copies none. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ladd_dist.core.early_stop_file import EarlyStopFile, kept_in_words
from ladd_dist.metrics.interval import HIGH, LOW
from ladd_dist.reports.distances import Level, Observation, to_real, untrained_of
from ladd_dist.reports.json_object import Values, number
from ladd_dist.reports.run_files import Figures, Metrics, RunFiles
from ladd_dist.reports.table import figure
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD, is_tuning
from ladd_dist.reports.verdict import (
    SMOKE,
    Verdict,
    best_teacher,
    by_steps,
    diverged,
    few_student,
    heads,
    judge,
    not_finite,
    steps_in_words,
)

FORGOT = 0.05
"""Rise of `kid_old` over its floor from which a student forgot, as a share of the untrained student's distance to the
new pictures: a plain LoRA on the diffusion loss has about 1, tunings that keep the old have less than .01."""
COPIES = 0.5
"""`nearest_train_share` below which samples count as copies, as in the table of docs/tune.md."""
SHARE = "nearest_train_share"
KNOWN = (KID_HELD_OUT, KID_OLD, "kid", "fd_real", SHARE)
SHARE_MEANING = (
    "0 is a copy, about 1 as new as one more picture of the same kind; above 1 the samples lie farther from the "
    "training pictures than these lie from each other, so they are no copies, and the larger it is, the less alike"
)


class _Seen(NamedTuple):
    """One thing seen: how bad it is, a few words for the headline (or none), and a sentence with figures."""

    level: Level
    brief: str
    text: str


def verdict_on(files: RunFiles, metrics: Metrics) -> Verdict:
    """The verdict on a run: a tuning is judged by its pictures, every other run by its teacher.

    Args:
        metrics: the logged training steps, possibly none.
    """
    if is_tuning(files.config.recipe):
        return judge_tuning(files, metrics)
    return judge(files.evaluation, files.config, metrics)


def judge_tuning(files: RunFiles, metrics: Metrics) -> Verdict:
    """Judge a tuning by its student at the recipe's number of steps, against the student before."""
    evaluation = files.evaluation
    students = by_steps(evaluation, "student")
    if not students:
        return Verdict("warning", "not judged: eval.json has no student figures", ())
    few = few_student(evaluation, files.config)
    broken = [*not_finite(evaluation, few, KNOWN), *diverged(metrics)]
    limits = [SMOKE] if files.config.scale == "smoke" else []
    new = _new(evaluation, few)
    lost = [item for item in new if item.level != "healthy"]
    game = heads(metrics, files.config.large_gap, student_fine=False) if lost else []
    seen = [
        *_plain([*broken, *limits]), *new, *_old(files, few), *_copies(evaluation[few], few),
        *_plain([item for item in game if item.level != "healthy"]), *_kept(files.early_stop),
    ]  # fmt: skip
    others = [key for _, key in students if key != few]
    return _concluded(seen)._replace(others=tuple(_other(evaluation[key], key) for key in others))


def new_distance(figures: Values) -> str | None:
    """The name of the distance to new pictures that decides: to held-out ones, where it was measured."""
    return KID_HELD_OUT if number(figures, KID_HELD_OUT) is not None else to_real(figures)


def _plain(observations: list[Observation]) -> list[_Seen]:
    return [_Seen(item.level, item.text, item.text) for item in observations]


def _new(evaluation: Figures, few: str) -> list[_Seen]:
    """Observe whether the samples came nearer to the new pictures."""
    key, before = new_distance(evaluation[few]), untrained_of(evaluation, few)
    mine = None if key is None else number(evaluation[few], key)
    if key is None or mine is None:
        return [_Seen("warning", text := "the distance to the new pictures was not measured", text)]
    which = "held-out new pictures" if key == KID_HELD_OUT else "new pictures (those of the training)"
    teacher = best_teacher(evaluation)
    beside = "" if teacher is None or (theirs := number(evaluation[teacher], key)) is None else (
        f"; {teacher}, which has not seen them, has {figure(theirs)}"
    )  # fmt: skip
    if before is None or (floor := number(evaluation[before], key)) is None:
        return [_Seen("healthy", "", f"{key} to {which} is {figure(mine)} of {few}{beside}")]
    words = f"{key} {figure(mine)} of {few} against {figure(floor)} of {before}, the student before{beside}"
    if _bound(evaluation[few], key, HIGH) < _bound(evaluation[before], key, LOW):
        return [_Seen("healthy", "nearer to the new pictures than before", f"nearer to {which} than before: {words}")]
    if _bound(evaluation[few], key, LOW) > _bound(evaluation[before], key, HIGH):
        brief = "farther from the new pictures than before"
        return [_Seen("warning", brief, f"farther from {which} than before: {words}. Try a smaller --train.lr-student")]
    text = f"not clearly nearer to {which} than before: {words}. Try more --updates, or a higher --rank"
    return [_Seen("warning", "not clearly nearer to the new pictures than before", text)]


def _old(files: RunFiles, few: str) -> list[_Seen]:
    """Observe what is left of the old conditions, or say why nobody measured that."""
    evaluation, before = files.evaluation, untrained_of(files.evaluation, few)
    mine = number(evaluation[few], KID_OLD)
    if mine is None:
        reason = files.left_out.get(KID_OLD, f"eval.json has no {KID_OLD}, like those of earlier versions")
        return [_Seen("healthy", "", f"nobody measured what is left of the old conditions: {reason}")]
    floor = None if before is None else number(evaluation[before], KID_OLD)
    if before is None or floor is None:
        return [_Seen("healthy", "", f"{KID_OLD} of {few} to its own old samples is {figure(mine)}")]
    words = f"{KID_OLD} {figure(mine)} of {few} against {figure(floor)} of {before}, which is the floor"
    way = number(evaluation[before], KID_HELD_OUT)
    share = (mine - floor) / way if way is not None and way > 0 else None
    is_apart = _bound(evaluation[few], KID_OLD, LOW) > _bound(evaluation[before], KID_OLD, HIGH)
    if not is_apart:
        return [_Seen("healthy", "the old ones are kept", f"it makes the old ones as before: {words}")]
    if share is not None and share < FORGOT:
        return [_Seen("healthy", "the old ones are kept", f"it makes the old ones nearly as before: {words}")]
    part = "" if share is None else f"; it rose by {share:.0%} of the distance between {before} and the new pictures"
    text = f"it forgot: {words}{part}. A larger --old-weight or --old-share keeps more"
    return [_Seen("warning", "it forgot old ones", text)]


def _copies(figures: Values, few: str) -> list[_Seen]:
    """Observe whether the samples are copies of training pictures."""
    share = number(figures, SHARE)
    if share is None:
        return []
    words = f"{SHARE} of {few} is {figure(share)} ({SHARE_MEANING})"
    if share < COPIES:
        text = f"it repeats training pictures: {words}. Take more pictures, or fewer --updates"
        return [_Seen("warning", "it repeats training pictures", text)]
    return [_Seen("healthy", "no copies", f"no copies of training pictures: {words}")]


def _kept(told: EarlyStopFile | None) -> list[_Seen]:
    """Say which checkpoint the student is."""
    if told is None:
        return [_Seen("healthy", "", "no early stop: the student is that of the last update")]
    more = ". It was still coming nearer: try more --updates" if told["kept"] == told["last"] else ""
    return [_Seen("healthy", "", f"early stop: {kept_in_words(told)}{more}")]


def _other(figures: Values, entry: str) -> str:
    """A line about another number of steps."""
    keys = [key for key in (new_distance(figures), KID_OLD, SHARE) if key]
    found = [f"{key} {figure(value)}" for key in keys if (value := number(figures, key)) is not None]
    return f"{steps_in_words(entry)}: {', '.join(found) or 'not measured'}"


def _bound(figures: Values, key: str, end: str) -> float:
    """A bound of a figure's interval; the figure where it has none."""
    found = number(figures, f"{key}{end}")
    return found if found is not None else number(figures, key) or 0.0


def _concluded(seen: list[_Seen]) -> Verdict:
    order: tuple[Level, ...] = ("collapsed", "warning", "healthy")
    level = next(level for level in order if any(item.level == level for item in seen))
    briefs = [item.brief for item in seen if item.level == level and item.brief]
    texts = [item.text for which in order for item in seen if item.level == which]
    headline = "; ".join(briefs) or "nothing speaks against it"
    return Verdict(level, headline, tuple(text for text in texts if text not in briefs))
