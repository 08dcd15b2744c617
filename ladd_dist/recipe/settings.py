"""Settings of the stages: the plain (not pluggable) parts of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ladd_dist.core.augment import Augment
from ladd_dist.core.errors import UserError
from ladd_dist.core.ranges import (
    AnyInteger,
    BatchSize,
    Count,
    CountOrZero,
    Decay,
    NonNegative,
    Ranged,
    Share,
    Steps,
    Updates,
    Within,
)
from ladd_dist.core.serialize import ADDED, NEUTRAL
from ladd_dist.metrics import Metric
from ladd_dist.parallel.compute import Compute
from ladd_dist.samplers import Sampler
from ladd_dist.sigmas import SigmaLaw


def neutral(default: Any) -> Any:
    """Declare a field that says where or how often and changes no result; signatures leave it out."""
    return field(default=default, metadata=NEUTRAL)


def added(default: Any) -> Any:
    """Declare a field that is newer than existing runs; at its default, it does not change their signatures."""
    return field(default=default, metadata=ADDED)


@dataclass(frozen=True)
class Ema(Ranged):
    """Exponential moving average of weights, after each update (Karras et al. 2022, section F.2)."""

    half_life: CountOrZero = 500_000
    """Half-life of the average in samples; 0 turns averaging off."""
    ramp: NonNegative = 0.05
    """Limit of the half-life as a share of the samples seen so far, to forget the start; 0: no limit."""


@dataclass(frozen=True)
class TeacherStage(Ranged):
    """Training of the teacher: EDM's, or DDPM's with the law `timesteps` and the weighting `simple`."""

    steps: Updates
    """Number of updates."""
    batch_size: BatchSize
    """Images per update, over all processes."""
    lr: NonNegative
    """Learning rate at the beginning."""
    sigma: SigmaLaw
    lr_final: Share = 0.0
    """Share of `lr` to which the learning rate falls along a cosine."""
    weighting: Literal["edm", "simple"] = added("edm")
    """Weighting of noise levels in the loss: EDM's, or DDPM's L_simple, the error of the predicted noise."""
    label_dropout: Annotated[float, Within("[0, 1)")] = 0.1
    """Share of samples that train without their class, for guidance."""
    weight_decay: NonNegative = 0.0
    """Weight decay of AdamW."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient, to which larger ones are scaled; 0: no limit."""
    ema: Ema = Ema()
    seed: AnyInteger = 0
    """Seed of the teacher's training."""
    compute: Compute = added(Compute())
    checkpoint_every: Count = neutral(500)
    """Steps between checkpoints."""
    log_every: Count = neutral(10)
    """Steps between rows of the log."""


@dataclass(frozen=True)
class ShardStage(Ranged):
    """The teacher's samples, written as WebDataset shards."""

    num_samples: Count
    """Number of samples."""
    sampler: Sampler
    guidance: NonNegative = 4.0
    """Scale of classifier-free guidance; 1: none."""
    seed: AnyInteger = 0
    """Seed of the samples' noise and classes."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored numbers."""
    source: str = ""
    """Glob of existing WebDataset shards, or a folder of them, which replace generation by the teacher."""
    samples: Literal["teacher", "dataset"] = added("teacher")
    """What the heads see as real: the teacher's samples (LADD, arXiv 2403.12015), or `dataset`, up to `num_samples` of
    its training pictures, drawn once each by `seed` (GDD, arXiv 2405.20750, plays against real pictures). Pictures
    have no noise to pair with. The evaluation still compares with samples of the teacher."""
    most_member_bytes: Count = neutral(2**28)
    """Bytes of the largest member of an imported shard that is read; a larger one is refused before memory is taken."""
    batch_size: BatchSize = neutral(250)
    """Number of samples generated at a time."""
    samples_per_chunk: Count = 125
    """Number of samples in a chunk, one record of a shard."""
    chunks_per_shard: Count = 8
    """Number of chunks in a shard."""


@dataclass(frozen=True)
class Old(Ranged):
    """Old conditions that a student keeps while it learns new pictures (prior preservation; arXiv 2208.12242)."""

    share: Annotated[float, Within("[0, 1)")] = 0.0
    """Share of each batch that asks for an old condition; real is there what the student before training answers."""
    num_samples: Count = 1_000
    """Number of samples of old conditions, from which the inputs of these rows are made; they are made once."""
    seed: AnyInteger = 0
    """Seed of their noise and conditions."""

    def num_of(self, batch_size: int) -> int:
        """How many rows of a batch ask for old conditions."""
        return round(self.share * batch_size)


@dataclass(frozen=True)
class EarlyStop(Ranged):
    """End of a training at the smallest distance to held-out pictures; the student of that step is kept."""

    every: CountOrZero = 0
    """Steps between measurements of the averaged student, each of which makes a checkpoint; 0: train to the end."""
    patience: Count = 3
    """Number of measurements in a row that are no better than the best, after which the training ends."""
    num_samples: Count = 256
    """Number of samples that are measured, with the classes or captions of the held-out pictures."""


@dataclass(frozen=True)
class DistillStage(Ranged):
    """Training of student and heads."""

    steps: Updates
    """Number of updates of the student."""
    batch_size: BatchSize
    """Samples per update, over all processes."""
    lr_student: NonNegative
    """Learning rate of the student at the beginning."""
    lr_heads: NonNegative
    """Learning rate of the heads at the beginning."""
    betas_student: tuple[Decay, Decay] = (0.5, 0.99)
    """Decay rates of the student's moments in AdamW."""
    betas_heads: tuple[Decay, Decay] = (0.5, 0.99)
    """Decay rates of the heads' moments in AdamW."""
    weight_decay: NonNegative = 0.0
    """Weight decay of AdamW, for student and heads."""
    clip: NonNegative = 1.0
    """Largest norm of the gradients of student and heads, to which larger ones are scaled; 0: no limit."""
    lr_final: Share = 1.0
    """Share to which the learning rates fall along a cosine; 1 keeps them constant."""
    ema: Ema = Ema(half_life=4_400, ramp=0.0)
    mode: Literal["fused", "alternate"] = "fused"
    """Order of the updates: `fused` shares the student's forward and the features between both updates; `alternate`
    computes them twice."""
    head_updates: Annotated[int, Within("[1, 1000]")] = 1
    """Number of updates of the heads for one of the student."""
    mismatched: Annotated[float, Within("[0, 1)")] = added(0.0)
    """Share w of real samples under a wrong class or text among the heads' fakes: their loss is (1 - w) L(real, fake) +
    w L(real, mismatched) (GAN-CLS, arXiv 1605.05396: .5); 0: none. One more forward of the critic per update of the
    heads. Each wrong condition is drawn uniformly among the others. The student is pushed towards samples that are
    typical of their class, a little like guidance does."""
    heads_see_level: bool = added(False)
    """Whether conditioned heads also see the level that the student starts from, so that each of its levels plays a
    game of its own. Otherwise they compare real samples with a mixture over levels, in which the errors of one can make
    up for those of another: too dull at the highest level and too vivid at the lower ones is right on average."""
    adv_norm_decay: Decay = added(0.0)
    """Decay per step, such as .99, of the running mean of the squared norm by whose root the adversarial gradient at
    each of the student's samples is divided; 0: not normalised. `adv_weight` is then that gradient's norm; for
    comparison, a distance that averages D numbers and has slopes up to 1 pulls with at most D^-1/2."""
    old: Old = added(Old())
    augment: Augment = added(Augment())
    early_stop: EarlyStop = added(EarlyStop())
    compute: Compute = added(Compute())
    log_every: Count = neutral(10)
    """Steps between rows of the log."""
    dump_every: Count = neutral(500)
    """Steps between dumps of samples."""
    evaluate_every: CountOrZero = neutral(500)
    """Steps between measurements of the fixed small set that the dumps show (`watch/...` in the next row of the log);
    0: never."""
    checkpoint_every: Count = neutral(500)
    """Steps between checkpoints."""
    keep_checkpoints: Count = neutral(2)
    """Number of newest checkpoints to keep."""
    keep_steps: tuple[Count, ...] = neutral(())
    """Steps whose checkpoints are made and never removed."""

    def num_new(self) -> int:
        """How many rows of a batch do not ask for an old condition."""
        return self.batch_size - self.old.num_of(self.batch_size)


@dataclass(frozen=True)
class EvaluateStage(Ranged):
    """Measurement on noise and classes held out from training."""

    num_samples: Count
    """Number of samples of each sampler."""
    metrics: tuple[Metric, ...]
    steps: tuple[Steps, ...] = (4, 2, 1)
    """Numbers of sampling steps at which the student is measured."""
    num_references: Count = 5_000
    """Number of real images, and of the teacher's stored samples, to compare with."""
    seed: AnyInteger = 1_000_003
    """Seed of the held-out noise and classes of the dumps, of the figures while a student trains, and of the diagnosis;
    of the evaluation too unless it has `seeds` of its own."""
    seeds: tuple[AnyInteger, ...] = added(())
    """Seeds of the evaluation's held-out noise and classes. Figures are means over them, of `num_samples` for each, and
    their intervals cover them. Keep them out of everything that you tune with. Empty: `seed` alone."""
    batch_size: BatchSize = neutral(250)
    """Number of samples generated at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must differ from each other, got {self.seeds}")
        if self.seed in self.seeds:
            raise UserError(
                f"seeds must not hold `seed`, {self.seed}: its noise is shown while a student trains, and recipes are "
                "tuned by what it shows"
            )

    def noise_seeds(self) -> tuple[int, ...]:
        """The seeds of the noise and classes that the evaluation measures on."""
        return self.seeds or (self.seed,)


@dataclass(frozen=True)
class Reported(Ranged):
    """Published figures of the same experiment (Inception FID), for the report page."""

    student_4: NonNegative | None = None
    """Figure of the student at four steps."""
    teacher_4: NonNegative | None = None
    """Figure of the teacher at four steps."""
    teacher_50: NonNegative | None = None
    """Figure of the teacher at fifty steps."""
    outcome: str = ""
    """What became of the run, in words."""
