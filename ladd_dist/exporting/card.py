"""What an exported folder says of itself: `student.json` for programs, `README.md` for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ladd_dist.core.serialize import from_data
from ladd_dist.exporting.schedulers import Sampling
from ladd_dist.networks import Network
from ladd_dist.students import StudentForm
from ladd_dist.students.full import Full

CARD, README = "student.json", "README.md"
NOTICEABLE = 0.99
"""A start below it is worth a line of code: the pipeline's own noise would be that much too strong."""

_RULES = {
    "ode": "keeps the direction of its noise (Euler's method)",
    "sde": "adds new noise in each step",
}


@dataclass(frozen=True)
class Card:
    """What an exported student says of itself; `data` is what is written, the other fields are what exports read."""

    recipe: str
    signature: str
    step: int
    network: Network
    form: StudentForm
    """Which of its weights are kept beside the teacher's."""
    adapter: StudentForm | None
    """The adapter that can be given alone; None where all weights were trained."""
    levels: Mapping[str, Sequence[float]]
    """Descending noise levels, by number of calls."""
    rule: Literal["ode", "sde"]
    data: Mapping[str, object]
    """Every key of the card in its order, those that a newer or older version wrote too."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Card:
        """Read a card that `load_student` has accepted, with `step`.

        Raises:
            RecipeError: a network or form whose plug-in is not there.
        """
        form: StudentForm = from_data(StudentForm, data["student"], "student") if "student" in data else Full()
        beside: StudentForm | None = from_data(StudentForm, data["adapter"], "adapter") if "adapter" in data else None
        return cls(
            recipe=data["recipe"],
            signature=data["signature"],
            step=data["step"],
            network=from_data(Network, data["network"], "network"),
            form=form,
            adapter=beside or (form if form.needs_teacher else None),
            levels=data["levels"],
            rule=data["rule"],
            data=data,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the student's pictures in pixels."""
        pictures: Any = self.data.get("pixels", self.data["image"])
        return pictures["height"], pictures["width"]

    def merged(self) -> Card:
        """The card of the student with its adapter merged into its weights: it needs no teacher any more."""
        given = self.data.get("student", self.data.get("adapter"))
        if given is None:
            return self
        rest = {key: value for key, value in self.data.items() if key not in ("student", "teacher", "adapter")}
        return replace(self, form=Full(), adapter=None, data={**rest, "merged": given})

    def with_samplings(self, samplings: Mapping[str, Sampling]) -> dict[str, object]:
        """The contents of `student.json`: the card, and what a pipeline must be told, by number of calls."""
        return {
            **self.data,
            "height": self.size[0],
            "width": self.size[1],
            "scheduler": {steps: type(found.scheduler).__name__ for steps, found in samplings.items()},
            "pipeline_arguments": {steps: found.arguments for steps, found in samplings.items()},
            "initial_noise": {steps: found.start for steps, found in samplings.items()},
        }


def page(card: Card, source: str, samplings: Mapping[str, Sampling], opening: str, call: str) -> str:
    """The text of README.md.

    Args:
        source: the checkpoint that was distilled.
        samplings: by number of calls, the student's own first.
        opening: code that makes `pipe`.
        call: further arguments of its call.
    """
    steps, sampling = next(iter(samplings.items()))
    levels = "\n".join(f"| {count} | {_numbers(card.levels[count])} |" for count in samplings)
    return f"""# A {steps}-step student of {source}

Distilled by ladd_dist, recipe `{card.recipe}`, signature `{card.signature}`, after {card.step} steps. It works
without guidance and {_RULES[card.rule]}. `{CARD}` has the same facts for programs.

| calls | noise levels sigma |
|---|---|
{levels}

```python
{_code(sampling, opening, call) if sampling.arguments is not None else _loop(card.levels[steps], card.rule)}```
{_others(samplings)}"""


def _code(sampling: Sampling, opening: str, call: str) -> str:
    arguments = "".join(f", {name}={_value(value)}" for name, value in (sampling.arguments or {}).items())
    scaled = sampling.start < NOTICEABLE
    noise = f"noise = {sampling.start:.6g} * torch.randn(SHAPE)  # of the latents; it starts below the highest level\n"
    return (
        f"{opening}{noise if scaled else ''}"
        f'image = pipe("a lighthouse in a storm"{call}{arguments}{", latents=noise" if scaled else ""}).images[0]\n'
    )


def _loop(levels: Sequence[float], rule: str) -> str:
    step = "torch.randn_like(x)" if rule == "sde" else "(x - x0) / sigma"
    return f"""# This pipeline cannot be told these levels: sample in a loop, for a variance-preserving model.
levels = [{_numbers(levels)}, 0.0]
x = levels[0] * torch.randn(SHAPE)  # of the latents
for sigma, lower in zip(levels, levels[1:]):
    # x0: the model's prediction from x / (1 + sigma**2) ** 0.5 at the timestep of sigma, as a clean sample
    x = x0 + lower * {step}
"""


def _others(samplings: Mapping[str, Sampling]) -> str:
    rest = {steps: found for steps, found in list(samplings.items())[1:] if found.arguments}
    if not rest:
        return ""
    lines = [
        f"* {steps}: `{', '.join(f'{name}={_value(value)}' for name, value in (found.arguments or {}).items())}`"
        for steps, found in rest.items()
    ]
    return "\nWith other numbers of calls it was measured too:\n\n" + "\n".join(lines) + "\n"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _value(value: Any) -> str:
    return f"[{_numbers(value)}]" if isinstance(value, list) else json.dumps(value)
