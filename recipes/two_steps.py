"""Two steps: experiment 7 trained at two levels alone, the second of them higher than the teacher's best.

Three changes, nothing else:

* the student trains at the two levels at which it is called; experiment 7 spends half of its batch on two others;
* the second level is 3.0. The search for the teacher's own levels finds 1.29, but a student's first step is far better
  than the teacher's, and its second is useful where colours and strokes can still move: with one seed the distance fell
  from level 1.29 to 2.0 to 3.0, and no more at 3.9;
* 65 of 100 samples are at level 80, the harder step.

In two steps it reaches the sampling floor, as experiment 7 does (not distinguishable over three seeds); its first step
alone is better than experiment 7's.
"""

from dataclasses import replace

from ladd_dist.levels.named import Good
from ladd_dist.recipe import Reported
from ladd_dist.sigmas.laws import FixedSet, Phase
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = (
    EXP7.replace(
        name="two_steps",
        note="Two steps: as experiment 7, trained at levels 80 and 3 alone.",
        student_steps=2,
        student_sigma=FixedSet(phases=(Phase(0, (0.65, 0.35)),)),
        reported=Reported(outcome="not run there"),
    )
    .at("smoke", evaluate=replace(EXP7.smoke.evaluate, steps=(2, 1)))
    .at("laptop", levels=Good(two=(80.0, 3.0)), evaluate=replace(EXP7.laptop.evaluate, steps=(2, 1)))
    .at("paper", evaluate=replace(EXP7.paper.evaluate, steps=(2, 1)))  # not run there; its second level is 2.515
)
