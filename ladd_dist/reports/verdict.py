"""The verdict on a student's health: a pure function of a run's figures, its recipe and its training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ladd_dist.reports.distances import Level, Observation, against_real, against_teacher, teacher_against_real
from ladd_dist.reports.json_object import finite, items, number
from ladd_dist.reports.run_files import Figures, Metrics, ShownConfig

# Shares of the teacher's own figure. Below COLLAPSED the fault is visible at a glance in the pictures, from HEALTHY on
# it is within what two seeds differ by; the prototype's good runs had .99 and .92, its collapsed ones .15 at one step.
ENTROPY_COLLAPSED, ENTROPY_HEALTHY = 0.8, 0.95
ACCURACY_COLLAPSED, ACCURACY_HEALTHY = 0.8, 0.95
VARIANCE_COLLAPSED, VARIANCE_HEALTHY = 0.5, 0.85
# Of distances between features of pictures of one class, in which shapes count too: smoke runs that lost all colour
# have .5, those with half of the colour variance .71 to .84.
DISTANCE_COLLAPSED, DISTANCE_HEALTHY = 0.6, 0.9
KNOWN = ("fd_real", "fd_teacher", "hue_entropy", "accuracy", "colour_variance")
VARIETY = ("hue_entropy", "colour_variance", "pairwise_distance")
LOST = ("regression", "one-colour")  # how texts on lost variety begin
HEADS_WIN, HEADS_LOSE = 0.95, 0.55
HEALTHY_ACCURACY_BAND = (0.6, 0.9)
HEALTHY_GAP_BAND = (2 / 15, 6 / 15)
"""Of the logit gap, as shares of the one that the game calls large (`ShownConfig.large_gap`)."""


SMOKE = Observation("warning", "scale smoke trains for seconds: it tests the machinery, not the method")


class Verdict(NamedTuple):
    """The judgement of a run: its level, one plain sentence, and the figures behind it, worst first.

    They are of the number of steps that the recipe was made for; `others` has a line for each other number of steps,
    which changes neither level nor headline.
    """

    level: Level
    headline: str
    reasons: tuple[str, ...]
    others: tuple[str, ...] = ()


def judge(evaluation: Figures, config: ShownConfig, metrics: Metrics) -> Verdict:
    """Judge a run by its student's figures at the recipe's number of steps, against the teacher's at many steps.

    Args:
        evaluation: contents of eval.json: "student@4", "student@1", "teacher@50", "teacher@4:good" ... -> figures.
        config: the contents of config.json; its recipe says which number of steps decides, and the cause of a fault.
        metrics: the logged training steps, possibly none.
    """
    teacher, students = best_teacher(evaluation), by_steps(evaluation, "student")
    if teacher is None or not students:
        missing = "teacher" if teacher is None else "student"
        return Verdict("warning", f"not judged: eval.json has no {missing} figures", ())
    deciding, limits = few_student(evaluation, config), _limits(evaluation, config, teacher)
    seen = _quality(evaluation, deciding, teacher)
    seen += heads(metrics, config.large_gap, student_fine=all(item.level == "healthy" for item in seen))
    seen += teacher_against_real(evaluation, deciding, teacher)
    if limits:  # shares of a teacher that learned little accuse nobody
        seen = [item._replace(level="warning") if item.level == "collapsed" else item for item in seen]
    broken = [*not_finite(evaluation, deciding), *diverged(metrics)]
    observations = [*broken, *limits, *_unmeasured(evaluation, deciding, teacher), *seen]
    why = None if limits else cause(config, metrics)
    others = [key for _, key in students if key != deciding]
    rest = [(key, not_finite(evaluation, key) + _samples(evaluation, key, teacher)) for key in others]
    return _conclude(observations, why)._replace(others=_others(rest, why))


def by_steps(evaluation: Figures, who: str) -> list[tuple[int, str]]:
    """Pairs (steps, key) of every entry "<who>@<steps>[:levels]", most steps first."""
    found = []
    for key in evaluation:
        name, _, rest = key.partition("@")
        if name == who and (steps := steps_in(rest)) is not None:
            found.append((steps, key))
    return sorted(found, key=lambda item: (-item[0], item[1]))


def steps_in(text: str) -> int | None:
    """The number of steps in the part of an entry behind the @, like `4` or `4:good`; None for other text."""
    number = text.partition(":")[0]
    return int(number) if len(number) < 10 and number.isascii() and number.isdigit() else None


def best_teacher(evaluation: Figures) -> str | None:
    """The entry all others are compared with: the teacher with the most steps."""
    teachers = by_steps(evaluation, "teacher")
    return teachers[0][1] if teachers else None


def few_student(evaluation: Figures, config: ShownConfig) -> str:
    """The student at the number of steps it was trained for, else at the most that were measured."""
    students = by_steps(evaluation, "student")
    wanted = config.recipe.number("student_steps") or 4
    return next((key for steps, key in students if steps == wanted), students[0][1])


def few_step_teacher(evaluation: Figures, student: str) -> str | None:
    """The teacher at the student's number of steps; on its best levels where there are several."""
    wanted = student.partition("@")[2]
    same = [key for steps, key in by_steps(evaluation, "teacher") if str(steps) == wanted]
    return next((key for key in same if key.endswith(":good")), same[0] if same else None)


def share(evaluation: Figures, entry: str, teacher: str, key: str) -> float | None:
    """A figure of `entry` as share of the teacher's."""
    mine, theirs = number(evaluation[entry], key), number(evaluation[teacher], key)
    return mine / theirs if mine is not None and theirs is not None and theirs > 0 else None


def in_force(config: ShownConfig, metrics: Metrics, which: Literal["adversarial", "distill"]) -> float | None:
    """The largest weight a loss had: from the curves, else from the recipe's schedule."""
    logged = [value for row in metrics if (value := number(row, f"weight/{which}")) is not None]
    if logged:
        return max(logged)
    schedule = config.recipe.part("distill_weight" if which == "distill" else "adv_weight")
    values = [value for key in ("value", "start", "end") if (value := schedule.number(key)) is not None]
    points = [items(point)[1:2] for point in items(schedule.fields.get("points"))]
    values += [value for point in points for item in point if (value := finite(item)) is not None]
    return max(values, default=None)


def steps_in_words(entry: str) -> str:
    """The number of steps of an entry, like `4 steps`."""
    steps = entry.partition("@")[2]
    return "one step" if steps == "1" else f"{steps} steps"


def not_finite(evaluation: Figures, entry: str, known: Sequence[str] = KNOWN) -> list[Observation]:
    """Observe figures of an entry that are no numbers."""
    own = evaluation[entry]
    broken = [f"{entry} {key}" for key in known if key in own and number(own, key) is None]
    return [Observation("collapsed", f"figures that are not numbers: {', '.join(broken)}")] if broken else []


def diverged(metrics: Metrics) -> list[Observation]:
    """Observe the first loss that is no number."""
    for row in metrics:
        for key in row:
            if key.startswith("loss/") and number(row, key) is None:
                return [
                    Observation("collapsed", f"training diverged: {key} is not a number at step {row.get('step', '?')}")
                ]
    return []


def _samples(evaluation: Figures, entry: str, teacher: str) -> list[Observation]:
    """Observe variety and class accuracy of the student, as far as the run measures them.

    The distance within a class sees what the colours of all classes together cannot: class means in data whose colour
    depends on the class.
    """
    at = f"at {steps_in_words(entry)}"
    measures = (
        ("hue_entropy", "hue entropy", "one-colour collapse", "hues are missing", ENTROPY_COLLAPSED, ENTROPY_HEALTHY),
        ("accuracy", "class accuracy", "class collapse", "classes are mixed up", ACCURACY_COLLAPSED, ACCURACY_HEALTHY),
        (
            "colour_variance", "colour variance", "regression to the class mean",
            "colours are duller than the teacher's", VARIANCE_COLLAPSED, VARIANCE_HEALTHY,
        ),
        (
            "pairwise_distance", "distance within a class", "regression to the class mean",
            "pictures of a class are too alike", DISTANCE_COLLAPSED, DISTANCE_HEALTHY,
        ),
    )  # fmt: skip
    observations = []
    for key, words, collapse, weakness, collapsed, healthy in measures:
        ratio = share(evaluation, entry, teacher, key)
        if ratio is None:
            if key in evaluation[entry] or key in evaluation[teacher]:
                observations.append(Observation("warning", f"{words} {at} was not measured"))
        elif ratio < collapsed:
            observations.append(Observation("collapsed", f"{collapse}: {entry} {words} {ratio:.2f} of the teacher's"))
        elif ratio < healthy:
            text = f"{weakness}: {entry} {words} {ratio:.2f} of the teacher's (healthy from {healthy:g})"
            observations.append(Observation("warning", text))
        else:
            observations.append(Observation("healthy", f"{words} {ratio:.2f} of the teacher's {at}"))
    return observations


def _quality(evaluation: Figures, entry: str, teacher: str) -> list[Observation]:
    """Observe the samples, and how far they are from real pictures and the teacher's; faults of the distance first."""
    rival = few_step_teacher(evaluation, entry)
    real = against_real(evaluation, entry, rival)
    farther = [item for item in real if item.level != "healthy"]
    nearer = [item for item in real if item.level == "healthy"]
    return [*farther, *_samples(evaluation, entry, teacher), *nearer, *against_teacher(evaluation, entry, rival)]


def _unmeasured(evaluation: Figures, entry: str, teacher: str) -> list[Observation]:
    if any(key in evaluation[who] for who in (entry, teacher) for key in VARIETY):
        return []
    return [Observation("warning", f"variety was not judged: this run measures none of {', '.join(VARIETY)}")]


def _others(found: Sequence[tuple[str, list[Observation]]], why: tuple[str, str] | None) -> tuple[str, ...]:
    """Lines about the numbers of steps that do not decide, and the cause where they lost their variety."""
    lines = []
    for entry, seen in found:
        faults = [item.text for item in seen if item.level != "healthy"]
        fine = [item.text.removesuffix(f" at {steps_in_words(entry)}") for item in seen]
        lines += [f"{steps_in_words(entry)}: {'; '.join(faults or fine)}"] if seen else []
    lost = any(item.text.startswith(LOST) for _, seen in found for item in seen)
    return (*lines, why[1]) if why and lost else tuple(lines)


def heads(metrics: Metrics, large_gap: float | None, *, student_fine: bool) -> list[Observation]:
    """Observe the heads over the last quarter of the logged steps; nothing where their weight was zero all along.

    Heads at chance are a fault only beside a bad student: a good one is what they are meant to lose against.
    """
    weights = [weight for row in metrics if (weight := number(row, "weight/adversarial")) is not None]
    logged = [value for row in metrics if (value := number(row, "accuracy")) is not None]
    gaps = [value for row in metrics if (value := number(row, "logit_gap")) is not None]
    mean, gap = _late_mean(logged), _late_mean(gaps)
    if mean is None or (weights and max(weights) == 0):
        return []
    if mean > HEADS_WIN:
        return [Observation("warning", f"the heads have won: right in {mean:.0%} of cases over the last quarter")]
    if gap is not None and large_gap is not None and gap > large_gap:
        text = f"the heads have won: a logit gap of {gap:.3g} over the last quarter, {large_gap:g} is large"
        return [Observation("warning", text)]
    if mean < HEADS_LOSE and student_fine:
        text = f"the heads cannot tell the student's samples from the teacher's: right in {mean:.0%} of cases"
        return [Observation("healthy", text)]
    if mean < HEADS_LOSE:
        return [Observation("warning", f"the heads have lost: right in {mean:.0%} of cases over the last quarter")]
    return [Observation("healthy", f"the game is open: the heads are right in {mean:.0%} of cases")]


def _late_mean(logged: list[float]) -> float | None:
    """The mean over the last quarter; None of nothing."""
    last = logged[-max(1, len(logged) // 4) :]
    return sum(last) / len(last) if last else None


def _limits(evaluation: Figures, config: ShownConfig, teacher: str) -> list[Observation]:
    """Observe what a reader must know before trusting the figures."""
    observations = []
    accuracy = number(evaluation[teacher], "accuracy")
    if accuracy is not None and accuracy < ACCURACY_COLLAPSED:
        text = f"the teacher itself is weak (class accuracy {accuracy:.2f}): shares of its figures mean little"
        observations.append(Observation("warning", text))
    return ([SMOKE] if config.scale == "smoke" else []) + observations  # it explains what follows


def cause(config: ShownConfig, metrics: Metrics) -> tuple[str, str] | None:
    """The recipe's reason for a loss of diversity: half a sentence for the headline and an explanation, or None."""
    if config.recipe.part("start").text("plugin") != "fresh":
        return None
    weight = in_force(config, metrics, "distill")
    if weight is None:
        return None
    if weight == 0:
        return "fresh noise and no distance", (
            "The recipe starts from fresh noise with no distance: nothing but the heads steers the student, "
            "and they do not ask it for variety."
        )
    return f"distance weight is {weight:.1f} {_where(config)} with fresh noise", (
        "Why: with fresh noise the student's input at a high noise level says nothing of which sample is meant, so the "
        "distance is smallest for the average picture of the class. Stored noise (start=stored) removes that optimum; "
        "a distance that fades at high noise levels weakens it."
    )


def _where(config: ShownConfig) -> str:
    """Words for the levels at which the distance pulls: all alike, unless it fades as a power of the level."""
    power = config.recipe.part("distance").number("sigma_power")
    return f"(fading with noise, sigma_power {power:g})" if power else "at every level"


def _conclude(observations: list[Observation], cause: tuple[str, str] | None) -> Verdict:
    collapsed = [item.text for item in observations if item.level == "collapsed"]
    warnings = [item.text for item in observations if item.level == "warning"]
    fine = [item.text for item in observations if item.level == "healthy"]
    if not collapsed and not warnings:
        return Verdict("healthy", f"no collapse: {fine[0]}", tuple(fine[1:]))
    faults = collapsed + warnings
    headline, rest = faults[0], faults[1:]
    if cause and any(text.startswith(LOST) for text in faults):
        headline += f"; {cause[0]}"
        rest.insert(0, cause[1])
    return Verdict("collapsed" if collapsed else "warning", headline, (*rest, *(f"fine: {text}" for text in fine)))
