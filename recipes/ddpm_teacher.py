"""A teacher trained and sampled as in DDPM: uniform timesteps, the error of the predicted noise, ancestral sampling.

(Ho et al. 2020, arXiv 2006.11239, algorithms 1 and 2.) The student trains as in experiment 7, but for its noise.

**Which start.** Ancestral sampling adds noise in every step, so the initial noise does not determine the sample:
hundreds of samples belong to one x_T, and later noise decides nearly everything about them. `stored` and `path` would
pair unrelated noise and samples; `validate` refuses them. `fresh` remains, x = x0 + sigma eps with new eps, which needs
no pairs. Its L2 optimum at high sigma is the mean, so the distance fades there (`sigma_power`) and the heads decide.
Stored noise works again with a sampler that adds none, on the same teacher:

    --swap start=stored --swap shards.sampler=euler

At laptop scale the network has EDM's preconditioning: with the teacher's own form, predicted noise, an error of the
network counts 80-fold in a one-step sample, and the student never recovers (docs/methods.md).

The cosine schedule: `--teacher.sigma.schedule cosine --shards.sampler.schedule cosine`.
"""

from dataclasses import replace

from ladd_dist.losses.distance import SmoothL1
from ladd_dist.recipe import Reported
from ladd_dist.samplers.ancestral import Ancestral
from ladd_dist.sigmas.timesteps import Timesteps
from ladd_dist.starts.couplings import Fresh
from ladd_dist.zoo.recipes._base import LAPTOP, PAPER, SMOKE
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = (
    EXP7.replace(
        name="ddpm_teacher",
        note="The teacher is a DDPM (linear schedule) with ancestral sampling; fresh noise, a distance that fades.",
        start=Fresh(),
        distance=SmoothL1(beta=0.03, sigma_power=1.0, sigma_scale=7.81),
        reported=Reported(outcome="not run there"),
    )
    .at(
        "smoke",
        network=replace(SMOKE.network, precondition="ddpm"),
        teacher=replace(SMOKE.teacher, sigma=Timesteps(), weighting="simple"),
        shards=replace(SMOKE.shards, sampler=Ancestral(steps=50)),
    )
    .at(
        "laptop",
        teacher=replace(LAPTOP.teacher, sigma=Timesteps(), weighting="simple"),
        shards=replace(LAPTOP.shards, sampler=Ancestral(steps=50)),
    )
    .at(
        "paper",
        network=replace(PAPER.network, precondition="ddpm"),
        teacher=replace(PAPER.teacher, sigma=Timesteps(), weighting="simple"),
        shards=replace(PAPER.shards, sampler=Ancestral(steps=250)),
    )
)
