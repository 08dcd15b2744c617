"""No pairs, and no collapse: the teacher's next step from the student's own sample, instead of a stored pair.

Target `teacher_denoised` with the noise that the student's input had left: the student's sample is taken back to a
level t along that noise, as the deterministic sampler does, and the frozen teacher denoises it in one call. What the
teacher makes of it belongs to this noise, so that there is nothing to average, and nobody had to store which noise a
sample came from: fresh noise everywhere. t lies where the teacher decides on shape and colour (quartiles 1, 1.6, 2.8);
much higher its answer is the mean picture, much lower the sample is left as it is. Everything else is
`exp7_stored_smooth_l1`'s.
"""

from ladd_dist.recipe import Reported
from ladd_dist.starts.couplings import Ot
from ladd_dist.targets.pulls import TeacherDenoised
from recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="no_pairs",
    note="As experiment 7 without its pairs: the target is the teacher's next step from the student's own sample.",
    start=Ot(),
    target=TeacherDenoised(mean=0.5, std=0.8, noise="input"),
    reported=Reported(teacher_4=None, teacher_50=None, outcome="not run there"),
)
