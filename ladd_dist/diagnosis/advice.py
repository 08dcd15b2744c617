"""Advice for a recipe whose distance regresses to the mean: a pure function of the findings in diagnose.json."""

from __future__ import annotations

from ladd_dist.diagnosis.record import Advice, Findings
from ladd_dist.losses import Distance
from ladd_dist.losses.distance import sigma_weight
from ladd_dist.recipe import Recipe
from ladd_dist.reports.diagnosis_text import REGRESSES

STRONG = 0.1
"""A distance weight above this still dominates heads of the usual weight."""
GAIN = 0.8
"""Levels are suggested if they bring the Frechet distance below this share of the recipe's own."""


def weight_at(distance: Distance, sigma: float) -> float | None:
    """The weight that a distance gives a level; None for a distance without the fields of the project's own."""
    import torch

    scale, power = getattr(distance, "sigma_scale", None), getattr(distance, "sigma_power", None)
    if not isinstance(scale, float) or not isinstance(power, float):
        return None
    return float(sigma_weight(torch.tensor([sigma]), scale, power))


def advise(recipe: Recipe, findings: Findings, *, has_noise: bool) -> list[Advice]:
    """Suggestions, the strongest first.

    Args:
        has_noise: whether the shards hold the noise of their samples.
    """
    if not any(recipe.distill_weight(step) for step in range(0, recipe.train.steps, max(1, recipe.train.steps // 100))):
        return [_advice("the distance has weight 0", "nothing here regresses by it; the heads alone steer the student")]
    bad = [row["sigma"] for row in findings["levels"] if row["verdict"] == REGRESSES and row["trained"]]
    if findings["deterministic"]:
        return _without_new_noise(findings)
    if not bad:
        return [_advice("nothing to change", "at every trained level the input says which sample is meant")]
    return _stored(has_noise) + _fade(recipe, findings, bad) + _levels(findings)


def _advice(what: str, why: str, flags: str = "") -> Advice:
    return {"what": what, "why": why, "flags": flags}


def _without_new_noise(findings: Findings) -> list[Advice]:
    error = findings["reproduced"]
    if error is not None and error > 1e-3:
        why = (
            f"sampled from its own noise by the rule {findings['rule']!r} the optimum misses the stored samples (mean "
            f"square error {error:.3g}): the rule does not fit the coupling"
        )
        return [_advice("another sampling rule", why)]
    return [_advice("nothing to change", "each input belongs to one sample, so that nothing is averaged at any level")]


def _stored(has_noise: bool) -> list[Advice]:
    if not has_noise:
        why = "stored noise would remove the averaging, but these shards hold none: make shards with a teacher of yours"
        return [_advice("shards with their noise", why)]
    why = "with the noise from which the teacher made it, each input belongs to one sample: nothing is left to average"
    return [_advice("stored noise", why, "--swap start=stored")]


def _fade(recipe: Recipe, findings: Findings, bad: list[float]) -> list[Advice]:
    """The advice to let a strong distance fade above the threshold."""
    weights = {sigma: weight_at(recipe.distance, sigma) for sigma in bad}
    scale = findings["threshold"]
    if scale is None or any(weight is None or weight < STRONG for weight in weights.values()):
        return []
    top = max(bad)
    new = (1 + (top / scale) ** 2) ** -1
    why = (
        f"the distance pulls towards the mean above {scale:g}: faded, its weight at {top:g} is {new:.2g} in place of "
        f"{weights[top]:.2g}, and the heads decide there. It does not change what the distance wants, only how much"
    )
    return [_advice("a distance that fades", why, f"--distance.sigma-power 1 --distance.sigma-scale {scale:g}")]


def _levels(findings: Findings) -> list[Advice]:
    found = findings["found_levels"]
    own = next(
        (row for row in findings["samples"].values() if found and len(row["levels"]) == len(found["levels"])), None
    )
    if not found or own is None or found["fd_teacher"] > GAIN * own["fd_teacher"]:
        return []
    text = ", ".join(f"{level:g}" for level in found["levels"])
    before, after = f"{own['fd_teacher']:.3g}", f"{found['fd_teacher']:.3g}"
    why = f"in as many steps the optimum's Frechet distance is {after} in place of {before}"
    field = {2: "two", 4: "four"}.get(len(found["levels"]))
    flags = f"--levels.{field} {' '.join(f'{level:g}' for level in found['levels'])}" if field else ""
    return [_advice(f"levels {text}", why, flags)]
