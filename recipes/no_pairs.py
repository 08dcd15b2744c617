"""No pairs, and no collapse: the teacher's next step from the student's own sample, instead of a stored pair.

Target `teacher_denoised` with the noise that the student's input had left: the student's sample goes back to a level t
along that noise, as in the deterministic sampler, and the frozen teacher denoises it in one call. The result belongs to
this noise, so there is nothing to average, and no stored pair is needed: all noise is fresh. t lies where the teacher
decides on shape and colour (quartiles 1, 1.6, 2.8); much higher, the result is the mean image; much lower, it is the
student's sample itself. Everything else is `exp7_stored_smooth_l1`'s.
"""

from ladd_dist.recipe import Reported
from ladd_dist.starts.couplings import Ot
from ladd_dist.targets.pulls import TeacherDenoised
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="no_pairs",
    note="As experiment 7 without its pairs: the target is the teacher's next step from the student's own sample.",
    start=Ot(),
    target=TeacherDenoised(mean=0.5, std=0.8, noise="input"),
    reported=Reported(outcome="not run there"),
)
