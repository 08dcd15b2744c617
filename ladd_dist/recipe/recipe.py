"""`Recipe`: one run as a frozen tree of dataclasses. This is the only module that knows every kind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import ladd_dist.recipe.builtin  # noqa: F401  # registers what the names in config.json stand for
from ladd_dist.codecs import Codec
from ladd_dist.codecs.pixels import Pixels
from ladd_dist.core.names import RunName
from ladd_dist.core.ranges import AnyInteger, Ranged, Steps
from ladd_dist.core.serialize import has_effect, signature, to_data
from ladd_dist.core.types import ImageSpec
from ladd_dist.critics import Critic
from ladd_dist.critics.teacher import Teacher
from ladd_dist.datasets import Dataset
from ladd_dist.guards import Guard
from ladd_dist.guards.collapse import NoGuard
from ladd_dist.heads import Head
from ladd_dist.levels import Levels
from ladd_dist.levels.named import Good, Karras
from ladd_dist.losses import Adversarial, Distance
from ladd_dist.metrics.class_features import trained_by
from ladd_dist.networks import Network
from ladd_dist.parallel import Parallel
from ladd_dist.parallel.single import Single
from ladd_dist.recipe.settings import (
    DistillStage,
    EvaluateStage,
    Reported,
    ShardStage,
    TeacherStage,
    added,
    neutral,
)
from ladd_dist.regularisers import Regulariser
from ladd_dist.rollouts import Rollout
from ladd_dist.rollouts.policies import OffPolicy
from ladd_dist.schedules import Schedule
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.starts import Start
from ladd_dist.students import StudentForm
from ladd_dist.students.full import Full
from ladd_dist.taps import TapLayout
from ladd_dist.targets import Target
from ladd_dist.targets.pulls import StoredSample
from ladd_dist.trackers import Tracker
from ladd_dist.trackers.jsonl import Jsonl


@dataclass(frozen=True)
class Recipe(Ranged):
    """Settings of one run. Derive variants with `dataclasses.replace`; `ladd launch FILE --help` lists every field."""

    dataset: Dataset
    network: Network
    teacher: TeacherStage
    shards: ShardStage
    levels: Levels
    start: Start
    student_sigma: SigmaLaw
    renoise_sigma: SigmaLaw
    taps: TapLayout
    head: Head
    adversarial: Adversarial
    distance: Distance
    regulariser: Regulariser
    adv_weight: Schedule
    distill_weight: Schedule
    train: DistillStage
    evaluate: EvaluateStage
    guard: Guard = NoGuard()
    codec: Codec = added(Pixels())
    student: StudentForm = added(Full())
    critic: Critic = added(Teacher())
    target: Target = added(StoredSample())
    rollout: Rollout = added(OffPolicy())
    parallel: Parallel = neutral(Single())
    tracker: Tracker = neutral(Jsonl())
    student_steps: Steps = 4
    """Number of steps in which the student samples."""
    seed: AnyInteger = 0
    """Seed of the distillation; teacher, shards and evaluation have their own, which runs of several seeds share."""
    name: RunName = neutral("unnamed")
    """Name of the run; its folder begins with it."""
    note: str = neutral("")
    """Note about the run, for its report."""
    reported: Reported = neutral(Reported())

    def latent(self) -> ImageSpec:
        """Shape of the networks' inputs: the dataset's images, or the codec's latents of them."""
        return self.codec.latent(self.dataset.spec())

    def asked(self) -> ImageSpec:
        """Shape of the networks' inputs, with the classes alone that evaluations ask for (`Dataset.num_asked`)."""
        return dataclasses.replace(self.latent(), num_classes=self.dataset.num_asked())

    def student_levels(self) -> tuple[float, ...]:
        """Descending levels at which the student is trained and sampled with `student_steps` calls."""
        return self.levels(self.student_steps)

    def path_levels(self) -> tuple[float, ...]:
        """Levels at which the shards must hold the teacher's states."""
        return self.student_levels() if self.start.needs_path else ()

    def teacher_levels(self) -> dict[str, tuple[float, ...]]:
        """Sets of four levels, by name, at which the teacher itself is measured, the recipe's own among them."""
        own = {self.levels.name: self.levels(4)} if self.levels.name in ("good", "karras") else {}
        if self.network.pretrained:  # its own range of levels may not reach 80
            high, *_, low = self.shards.sampler.levels()
            return {"karras": Karras(sigma_min=low, sigma_max=high)(4)} | own
        return {"good": Good()(4), "karras": Karras()(4)} | own

    def autoencoder_signature(self) -> str:
        """Signature of the codec that the stage `autoencoder` trains."""
        return signature("autoencoder-1", self.dataset, self.codec)

    def features_signature(self) -> str:
        """Signature of the feature network that the stage `features` trains on the data."""
        return signature("class-features-1", self.dataset, trained_by(self.evaluate.metrics))

    def teacher_signature(self) -> str:
        """Signature of the teacher."""
        trained = () if self.network.pretrained else (self.teacher,)
        return signature("teacher-1", self.dataset, self.network, *trained, *self._later("codec"))

    def shards_signature(self) -> str:
        """Signature of the shards, the teacher's samples or the dataset's pictures."""
        if self.shards.samples == "dataset":  # no teacher, sampler or guidance in them
            own = {name: getattr(self.shards, name) for name in _PICTURES}
            return signature("pictures-1", self.dataset, own, *self._later("codec"))
        if self.shards.source:
            encoded = (self.dataset, self.network) if self.dataset.texts() else ()  # the texts' table is our own
            states = [list(self.path_levels())] if self.path_levels() else []
            return signature(
                "shards-1", self.shards, self.latent().identity(), *self._later("codec"), *encoded, *states
            )
        return signature("shards-1", self.teacher_signature(), self.shards, list(self.path_levels()))

    def old_signature(self) -> str:
        """Signature of the samples of old conditions that the student before training makes (`train.old`)."""
        own = {"num_samples": self.train.old.num_samples, "seed": self.train.old.seed, "rule": self.start.rule}
        start = {"init": self.student.init, **self.student.identity()}
        first = {"start": start, "levels": list(self.student_levels())}
        encoded = {"dtype": self.shards.dtype, "num_asked": self.dataset.num_asked()}
        return signature("old-1", self.teacher_signature(), own, first, encoded)

    def with_teacher_samples(self) -> Recipe:
        """The recipe whose shards are the teacher's samples that the evaluation compares with: this one, unless its
        shards are the dataset's pictures."""
        if self.shards.samples == "teacher":
            return self
        num_samples = min(self.shards.num_samples, self.evaluate.num_references)
        shards = dataclasses.replace(self.shards, samples="teacher", num_samples=num_samples)
        return dataclasses.replace(self, shards=shards)

    def distill_signature(self) -> str:
        """Signature of the run: everything that the trained student depends on."""
        own = [part for name in _DISTILL_FIELDS if has_effect(part := getattr(self, name))]
        own += [*self._later(*_DISTILL_LATER), self.student_steps, self.seed]
        return signature("distill-1", self.teacher_signature(), self.shards_signature(), *own)

    def reference_signature(self) -> str:
        """Signature of the teacher's own evaluation."""
        held_out = [self.evaluate.num_samples, self.evaluate.seed, self.shards.guidance, self.teacher_levels()]
        return signature("reference-1", self.teacher_signature(), self.shards.sampler, *held_out)

    def evaluate_signature(self) -> str:
        """Signature of the figures of a run."""
        return signature("evaluate-2", self.distill_signature(), self.reference_signature(), self.evaluate)

    def _later(self, *names: str) -> list[dict[str, object]]:
        """Values by name of fields that are newer than existing runs, without those at their default."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        changed = [name for name in names if getattr(self, name) != defaults[name]]
        return [{name: to_data(getattr(self, name), neutral=False)} for name in changed]


_DISTILL_FIELDS = (
    "levels", "start", "student_sigma", "renoise_sigma", "taps", "head", "adversarial", "distance", "regulariser",
    "adv_weight", "distill_weight", "train", "guard",
)  # fmt: skip

_PICTURES = ("num_samples", "seed", "dtype", "samples_per_chunk", "chunks_per_shard")
"""Fields of `shards` on which shards of the dataset's pictures depend."""

_DISTILL_LATER = ("student", "critic", "target", "rollout")
"""Further fields of the run's signature, newer than existing runs; signatures leave them out at their default."""
