"""What each stage of a run can be told: the plain (not pluggable) parts of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import ADDED, NEUTRAL
from ladd_dist.metrics import Metric
from ladd_dist.parallel.compute import Compute
from ladd_dist.samplers import Sampler
from ladd_dist.sigmas import SigmaLaw


def neutral(default: Any) -> Any:
    """A field that changes where or how often, never what is computed: signatures leave it out."""
    return field(default=default, metadata=NEUTRAL)


def added(default: Any) -> Any:
    """A field that came after runs had been made: at its default, it does not change their signatures."""
    return field(default=default, metadata=ADDED)


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of weights, after each update (Karras et al. 2022, section F.2)."""

    half_life: int = 500_000
    """In samples; 0 turns averaging off."""
    ramp: float = 0.05
    """Half-life is at most this share of the samples seen, so that the start is forgotten; 0 means no such limit."""


@dataclass(frozen=True)
class TeacherStage:
    """Training of the teacher: EDM's, or DDPM's with the law `timesteps` and the weighting `simple`."""

    steps: int
    batch_size: int
    lr: float
    sigma: SigmaLaw
    lr_final: float = 0.0
    """The learning rate falls along a cosine to this share of `lr`."""
    weighting: Literal["edm", "simple"] = added("edm")
    """Of noise levels in the loss: EDM's, or DDPM's L_simple, the error of the predicted noise."""
    label_dropout: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: Ema = Ema()
    seed: int = 0
    compute: Compute = added(Compute())
    checkpoint_every: int = neutral(500)
    log_every: int = neutral(10)


@dataclass(frozen=True)
class ShardStage:
    """The teacher's samples, written as WebDataset shards."""

    num_samples: int
    sampler: Sampler
    guidance: float = 4.0
    seed: int = 0
    dtype: Literal["float32", "float16"] = "float32"
    source: str = ""
    """A glob of somebody else's WebDataset shards; set, it replaces generation by the teacher."""
    batch_size: int = neutral(250)
    samples_per_chunk: int = 125
    chunks_per_shard: int = 8


@dataclass(frozen=True)
class DistillStage:
    """Training of student and heads."""

    steps: int
    batch_size: int
    lr_student: float
    lr_heads: float
    betas_student: tuple[float, float] = (0.5, 0.99)
    betas_heads: tuple[float, float] = (0.5, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    lr_final: float = 1.0
    """The learning rates fall along a cosine to this share; 1 keeps them constant."""
    ema: Ema = Ema(half_life=4_400, ramp=0.0)
    mode: Literal["fused", "alternate"] = "fused"
    """`fused` shares the student's forward and the features between both updates; `alternate` computes them twice."""
    head_updates: int = 1
    """Updates of the heads for one of the student."""
    adv_norm_decay: float = added(0.0)
    """Above 0, the adversarial gradient at each of the student's samples is divided by its usual norm: the root of a
    running mean (this is its decay a step, such as .99) of its square. `adv_weight` is then that gradient's norm; for
    comparison, a distance that averages D numbers and has slopes up to 1 pulls with at most D^-1/2."""
    compute: Compute = added(Compute())
    log_every: int = neutral(10)
    dump_every: int = neutral(500)
    evaluate_every: int = neutral(500)
    """Steps between measurements of the fixed small set that the dumps show (`watch/...` in the next row of the log);
    0: never."""
    checkpoint_every: int = neutral(500)
    keep_checkpoints: int = neutral(2)
    """The newest ones that are kept."""
    keep_steps: tuple[int, ...] = neutral(())
    """Steps that get a checkpoint which is never removed."""

    def __post_init__(self) -> None:
        if self.evaluate_every < 0:
            raise UserError(f"evaluate_every must be 0 (never) or more, got {self.evaluate_every}")
        if not 0 <= self.adv_norm_decay < 1:
            raise UserError(f"adv_norm_decay must be in [0, 1) (0: not normalised), got {self.adv_norm_decay}")


@dataclass(frozen=True)
class EvaluateStage:
    """Measurement on noise and classes held out from training."""

    num_samples: int
    metrics: tuple[Metric, ...]
    steps: tuple[int, ...] = (4, 2, 1)
    num_references: int = 5_000
    """Real images, and stored samples of the teacher, that the samples are compared with."""
    seed: int = 1_000_003
    batch_size: int = neutral(250)


@dataclass(frozen=True)
class Reported:
    """The published figures of the same experiment (Inception FID), for the report page."""

    student_4: float | None = None
    teacher_4: float | None = 25.29
    teacher_50: float | None = 3.66
    outcome: str = ""
