"""A folder of your own pictures to a student of four steps: copy this file, or name the folder on the command line.

`ladd launch folder --dataset.root my_pictures` takes each folder in `my_pictures` for a class; docs/pictures.md says
what else a folder may hold. The method is that of `ladd`: the heads compare the student's samples with your pictures
themselves. Figures fit any pictures: a small network that is trained on yours first measures distances.
"""

from dataclasses import replace

from ladd_dist.datasets.folder import Folder
from ladd_dist.metrics.class_features import ClassFeatures
from ladd_dist.metrics.color import Color
from ladd_dist.metrics.diversity import Diversity
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.metrics.matched import Matched
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.zoo.recipes._base import LAPTOP, PAPER, SMOKE
from ladd_dist.zoo.recipes.ladd import RECIPE as LADD

METRICS = (
    ClassFeatures(), Color(of="picture"), Kid(features="pixels"), Manifold(features="class_features"),
    Diversity(features="class_features"), Memorising(features="class_features"), Matched(),
)  # fmt: skip

RECIPE = (
    LADD.replace(name="folder", note="Your own pictures, with LADD alone.", dataset=Folder(size=32))
    .at(
        "smoke",
        dataset=Folder(size=16),
        evaluate=replace(SMOKE.evaluate, metrics=(ClassFeatures(steps=60), *METRICS[1:])),
    )
    # Pictures of 32 px have four times the pixels of the digits, and more to learn.
    .at(
        "laptop",
        teacher=replace(LAPTOP.teacher, steps=4_000),
        evaluate=replace(LAPTOP.evaluate, metrics=METRICS),
    )
    .at("paper", dataset=Folder(size=64), evaluate=replace(PAPER.evaluate, metrics=METRICS))
)
