"""New pictures for a few-step checkpoint of diffusers, with captions: it learns them and keeps its few steps.

`ladd tune CHECKPOINT --base BASE --images FOLDER` fills in base, student, levels and pictures and prints the line.
docs/tune.md explains it, recipes/tune_folder.py the method. Nobody has run it at the size of a public checkpoint yet.
"""

from dataclasses import replace

from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.losses.distance import SmoothL1
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.matched import Matched
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.parallel.single import Single
from ladd_dist.recipe import Augment, EarlyStop, Ema, Old
from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.sigmas.laws import FixedSet
from ladd_dist.starts.couplings import Ot
from ladd_dist.students.lora import Lora
from ladd_dist.targets.old import OldSample
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, PROMPTS

RECIPE = replace(
    CHECKPOINT,
    name="tune_checkpoint",
    note="New pictures for a few-step checkpoint, with an adapter of low rank.",
    dataset=WithOld(pictures=Folder(size=512, classes="none", captions="metadata", held_out=0.2), old_texts=PROMPTS),
    student=Lora(rank=16, alpha=16.0, targets=("attn",)),
    start=Ot(),
    student_sigma=FixedSet(),
    rollout=OnPolicy(share=1.0),
    target=OldSample(),
    distance=SmoothL1(beta=0.1),
    distill_weight=Constant(value=4.0),
    shards=replace(CHECKPOINT.shards, samples="dataset"),
    train=replace(
        CHECKPOINT.train,
        steps=2_000,
        batch_size=8,
        lr_student=1e-4,
        ema=Ema(half_life=64_000, ramp=0.3),
        heads_see_level=True,
        old=Old(share=0.25, num_samples=1_000),
        augment=Augment(flip=0.25, shift=0.125),
        early_stop=EarlyStop(every=200, num_samples=64),
    ),
    evaluate=replace(
        CHECKPOINT.evaluate,
        num_samples=64,
        num_references=256,
        steps=(4,),
        metrics=(Kid(features="pixels"), Memorising(features="pixels"), Matched()),
    ),
    parallel=Single(),
)
