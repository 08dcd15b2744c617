"""New pictures for a finished few-step student on pixels: it learns them and still samples in as few steps.

`ladd tune STUDENT --images FOLDER` fills in what this recipe lacks and prints the line: the teacher's weights
(`network`), the student's (`student.init`) and the pictures (`dataset.pictures.root`). docs/tune.md explains it.

It is LADD with other roles. Real are the new pictures, the critic is the frozen base that the student was distilled
from, and the student goes on from its few-step weights with an adapter of low rank. Against forgetting, a quarter of
each batch asks for old conditions and is held at what the student would have made of the same input before. Against
memorising, the heads see pictures and samples flipped and shifted alike, and the training ends when the distance to
held-out pictures grows. The average of the weights reaches far back: one student of such a game is noisier than the
mean of many, and so is the figure that the early stop looks at.
"""

from dataclasses import replace

from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.losses.distance import SmoothL1
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.matched import Matched
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.networks.given import Given
from ladd_dist.recipe import Augment, EarlyStop, Ema, Old
from ladd_dist.regularisers.penalties import R1
from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.starts.couplings import Ot
from ladd_dist.students.lora import Lora
from ladd_dist.targets.old import OldSample
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.recipes._base import LAPTOP, PAPER, SMOKE
from ladd_dist.zoo.recipes.ladd import LEARNING
from ladd_dist.zoo.recipes.ladd import RECIPE as LADD

METRICS = (Kid(features="pixels"), Memorising(features="pixels"), Matched())
TUNING = {
    **{**LEARNING, "lr_student": 3e-4, "mismatched": 0.0},
    "old": Old(share=0.25),
    "augment": Augment(flip=0.25, shift=0.125),
}

RECIPE = (
    LADD.replace(
        name="tune_folder",
        note="New pictures for a few-step student, with an adapter of low rank.",
        dataset=WithOld(pictures=Folder(size=32, held_out=0.2)),
        network=Given(),
        student=Lora(rank=16, alpha=16.0),
        start=Ot(),  # `ode` without pairs: a picture has no noise that it came from
        rollout=OnPolicy(share=1.0),
        target=OldSample(),
        regulariser=R1(gamma=1.0, every=4),  # few pictures: heads learn by heart what R1 does not keep flat
        distance=SmoothL1(beta=0.1),
        distill_weight=Constant(value=8.0),
    )
    .at(
        "smoke",
        dataset=WithOld(pictures=Folder(size=16, held_out=0.2)),
        shards=replace(SMOKE.shards, samples="dataset", guidance=1.0),
        train=replace(
            SMOKE.train,
            **{**TUNING, "old": Old(share=0.25, num_samples=64)},
            early_stop=EarlyStop(every=10, num_samples=32),
        ),
        evaluate=replace(SMOKE.evaluate, metrics=METRICS, steps=(4,)),
    )
    .at(
        "laptop",
        shards=replace(LAPTOP.shards, samples="dataset", num_samples=20_000, guidance=1.0),
        train=replace(
            LAPTOP.train,
            **TUNING,
            steps=1_000,
            ema=Ema(half_life=16_000, ramp=0.3),
            dump_every=500,
            evaluate_every=500,
            checkpoint_every=100,
            early_stop=EarlyStop(every=100, patience=4),
        ),
        evaluate=replace(LAPTOP.evaluate, metrics=METRICS, steps=(4,), num_samples=256, num_references=1_000),
    )
    .at(
        "paper",
        shards=replace(PAPER.shards, samples="dataset", guidance=1.0),
        train=replace(PAPER.train, **TUNING, early_stop=EarlyStop(every=1_000)),
        evaluate=replace(PAPER.evaluate, metrics=METRICS, steps=(4,)),
    )
)
