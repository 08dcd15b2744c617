"""The rows of docs/results.md: what `ladd launch` is given for each.

At most `MOST_ROWS` in the first table: with stored noise everything is at the floor of distance, so of the losses and
regularisers one of each stays, the one that differed most.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_ROWS = 24
NO_HEADS = ("--swap", "adv_weight=constant", "--adv-weight.value", "0")
EXP7 = "recipes/exp7_stored_smooth_l1.py"
PURE = "recipes/ladd.py"


class Variant(NamedTuple):
    """A row."""

    section: str
    arguments: tuple[str, ...]


REPORT = "the report's experiments and controls"
OWN = "tuned for a number of steps, or against the collapse"
LADD = "LADD without a distance and without stored noise"
GAME = "another game, another regulariser, otherwise as exp7"
METHODS = "other methods ([methods.md](methods.md))"
TEACHERS = "other teachers and spaces, each measured against its own teacher"
VARIANTS: dict[str, Variant] = {
    "exp1": Variant(REPORT, ("recipes/exp1_smallconv.py",)),
    "exp2": Variant(REPORT, ("recipes/exp2_smallconv_warmup.py",)),
    "exp3": Variant(REPORT, ("recipes/exp3_maxpool.py",)),
    "exp4": Variant(REPORT, ("recipes/exp4_specnorm.py",)),
    "exp5": Variant(REPORT, ("recipes/exp5_specnorm_5taps.py",)),
    "control_fresh_adv_only": Variant(REPORT, ("recipes/control_fresh_adv_only.py",)),
    "exp6": Variant(REPORT, ("recipes/exp6_stored_noise.py",)),
    "control_stored_distill_only": Variant(REPORT, ("recipes/control_stored_distill_only.py",)),
    "exp7": Variant(REPORT, (EXP7,)),
    "exp7, w_adv 0": Variant(REPORT, (EXP7, *NO_HEADS)),
    "ladd": Variant(LADD, (PURE,)),
    "ladd_paper": Variant(LADD, ("recipes/ladd_paper.py",)),
    "one_step": Variant(OWN, ("recipes/one_step.py",)),
    "exp5_fading_distance": Variant(OWN, ("recipes/exp5_fading_distance.py",)),
    "relativistic": Variant(GAME, (EXP7, "--swap", "adversarial=relativistic")),
    "gradient_penalty, w .05": Variant(
        GAME, (EXP7, "--swap", "regulariser=gradient_penalty", "--adv-weight.value", "0.05")
    ),
    "no_pairs": Variant(METHODS, ("recipes/no_pairs.py",)),
    "on_policy": Variant(METHODS, ("recipes/on_policy.py",)),
    "every_step": Variant(METHODS, ("recipes/every_step.py",)),
    "add_digits": Variant(METHODS, ("recipes/add_digits.py",)),
    "path_coupling": Variant(METHODS, ("recipes/path_coupling.py",)),
    "exp7, LoRA of rank 16": Variant(METHODS, (EXP7, "--swap", "student=lora", "--student.rank", "16")),
    "ddpm_teacher": Variant(TEACHERS, ("recipes/ddpm_teacher.py",)),
    "latent_digits": Variant(TEACHERS, ("recipes/latent_digits.py",)),
}
HEADLINE = ("exp6", "exp7", "ladd")
"""Rows that are also trained on other teachers, for an interval over teachers."""
BASE = "ladd"
"""The row whose bars are judged."""
BASE_SEEDS = (0, 1, 2, 3, 4)
"""Seeds of the distillation of `BASE`."""
SHORT = f"{BASE}, 1,000 updates"
"""`BASE` in a quarter of its updates: what the last table changes, one thing at a time."""
LEAVE_ONE_OUT: dict[str, tuple[str, ...]] = {
    "heads do not see the level": ("--train.no-heads-see-level",),
    "the teacher's samples as real": ("--shards.samples", "teacher"),
    "without R1": ("--swap", "regulariser=none"),
    "heads see neither level nor class": (
        *("--head.no-conditioned", "--train.no-heads-see-level"),
        *("--train.mismatched", "0"),
    ),
    "heads spectral_norm": ("--swap", "head=spectral_norm", "--head.conditioned"),
    "relativistic, R1 and R2 (R3GAN)": (
        *("--swap", "adversarial=relativistic", "regulariser=r1_r2"),
        *("--regulariser.gamma", "0.1", "--regulariser.every", "4"),
    ),
    "comparison at ln sigma ~ N(.307, 1)": ("--renoise-sigma.mean", "0.307", "--renoise-sigma.std", "1"),
    "without mismatched pairs": ("--train.mismatched", "0"),
    "without EMA": ("--train.ema.half-life", "0"),
    "a student as fast as its heads": ("--train.lr-student", "1e-3"),
}
"""What each row of the last table gives `SHORT` besides its own arguments."""
SHORTENED = (*VARIANTS[BASE].arguments, "--train.steps", "1000")
ROWS: dict[str, tuple[str, ...]] = {
    **{name: variant.arguments for name, variant in VARIANTS.items()},
    SHORT: SHORTENED,
    **{f"{SHORT}, {name}": (*SHORTENED, *flags) for name, flags in LEAVE_ONE_OUT.items()},
}
"""The arguments of all rows."""
PAIRS = (
    ("exp7", "exp6"),
    ("exp6", "control_stored_distill_only"),
    ("exp7", "exp7, w_adv 0"),
    ("exp6", "exp5"),
    ("exp2", "exp3"),
    ("exp3", "exp4"),
    ("exp4", "exp5"),
    ("ladd", "ladd_paper"),
    ("ladd", "exp7"),
    ("one_step", "exp7"),
    ("exp5_fading_distance", "exp5"),
    ("add_digits", "exp7"),
    ("every_step", "exp7"),
    ("on_policy", "exp7"),
    ("no_pairs", "exp7"),
    ("path_coupling", "exp7"),
    ("relativistic", "exp7"),
    ("gradient_penalty, w .05", "exp7"),
)
"""Differences of the first table."""
