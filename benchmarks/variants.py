"""The rows of docs/results.md: what `ladd launch` is given for each."""

from __future__ import annotations

from typing import NamedTuple

NO_HEADS = ("--swap", "adv_weight=constant", "--adv-weight.value", "0")
EXP7 = "recipes/exp7_stored_smooth_l1.py"


class Variant(NamedTuple):
    """A row."""

    section: str
    arguments: tuple[str, ...]
    shares_set: bool = True
    """Whether teacher and stored samples are those of most rows, so that distances can be compared."""


OWN = "tuned for a number of steps, or against the collapse"
GAME = "other adversarial losses, otherwise as exp7"
KEEPING = "regularisers and normalisation of the adversarial gradient, otherwise as exp7"
METHODS = "other methods ([methods.md](methods.md))"
TEACHERS = "other teachers and spaces, each measured against its own teacher"
DDPM = "recipes/ddpm_teacher.py"
PENALTY = ("--swap", "regulariser=gradient_penalty")
REPORT = "the report's experiments and controls"
VARIANTS: dict[str, Variant] = {
    "exp1": Variant(REPORT, ("recipes/exp1_smallconv.py",), shares_set=False),
    "exp2": Variant(REPORT, ("recipes/exp2_smallconv_warmup.py",)),
    "exp3": Variant(REPORT, ("recipes/exp3_maxpool.py",)),
    "exp4": Variant(REPORT, ("recipes/exp4_specnorm.py",)),
    "exp5": Variant(REPORT, ("recipes/exp5_specnorm_5taps.py",)),
    "exp5, w_adv 0": Variant(REPORT, ("recipes/exp5_specnorm_5taps.py", *NO_HEADS)),
    "control_fresh_adv_only": Variant(REPORT, ("recipes/control_fresh_adv_only.py",)),
    "exp6": Variant(REPORT, ("recipes/exp6_stored_noise.py",)),
    "control_stored_distill_only": Variant(REPORT, ("recipes/control_stored_distill_only.py",)),
    "exp7": Variant(REPORT, (EXP7,)),
    "exp7, w_adv 0": Variant(REPORT, (EXP7, *NO_HEADS)),
    "two_steps": Variant(OWN, ("recipes/two_steps.py",)),
    "one_step": Variant(OWN, ("recipes/one_step.py",)),
    "exp5_fading_distance": Variant(OWN, ("recipes/exp5_fading_distance.py",)),
    "hinge, w .3": Variant(GAME, (EXP7, "--swap", "adversarial=hinge", "--adv-weight.value", "0.3")),
    "lsgan, w .3": Variant(GAME, (EXP7, "--swap", "adversarial=lsgan", "--adv-weight.value", "0.3")),
    "wgan + gradient_penalty, w .02": Variant(
        GAME, (EXP7, "--swap", "adversarial=wgan", *PENALTY, "--adv-weight.value", "0.02")
    ),
    "relativistic": Variant(GAME, (EXP7, "--swap", "adversarial=relativistic")),
    "bce, saturating": Variant(GAME, (EXP7, "--adversarial.saturating")),
    "r1": Variant(KEEPING, (EXP7, "--swap", "regulariser=r1")),
    "approximate_r1": Variant(KEEPING, (EXP7, "--swap", "regulariser=approximate_r1")),
    "approximate_r1 + approximate_r2": Variant(KEEPING, (EXP7, "--swap", "regulariser=sum")),
    "centring": Variant(KEEPING, (EXP7, "--swap", "regulariser=centring")),
    "gradient_penalty, w .05": Variant(KEEPING, (EXP7, *PENALTY, "--adv-weight.value", "0.05")),
    "normalised gradient, w .02": Variant(
        KEEPING, (EXP7, "--train.adv-norm-decay", "0.99", "--adv-weight.value", "0.02")
    ),
    "ladd_paper": Variant(METHODS, ("recipes/ladd_paper.py",)),
    "add_digits": Variant(METHODS, ("recipes/add_digits.py",)),
    "every_step": Variant(METHODS, ("recipes/every_step.py",)),
    "on_policy": Variant(METHODS, ("recipes/on_policy.py",)),
    "path_coupling": Variant(METHODS, ("recipes/path_coupling.py",), shares_set=False),
    "ot_coupling": Variant(METHODS, ("recipes/ot_coupling.py",)),
    "no_pairs": Variant(METHODS, ("recipes/no_pairs.py",)),
    "exp7, LoRA of rank 16": Variant(METHODS, (EXP7, "--swap", "student=lora", "--student.rank", "16")),
    "ddpm_teacher, linear": Variant(TEACHERS, (DDPM,), shares_set=False),
    "ddpm_teacher, cosine": Variant(
        TEACHERS, (DDPM, "--teacher.sigma.schedule", "cosine", "--shards.sampler.schedule", "cosine"), shares_set=False
    ),
    "latent_digits": Variant(TEACHERS, ("recipes/latent_digits.py",), shares_set=False),
}
PAIRS = (
    ("exp7", "exp6"),
    ("exp6", "control_stored_distill_only"),
    ("exp7", "exp7, w_adv 0"),
    ("exp5", "exp5, w_adv 0"),
    ("exp6", "exp5"),
    ("exp2", "exp3"),
    ("exp3", "exp4"),
    ("exp4", "exp5"),
    ("one_step", "exp7"),
    ("two_steps", "exp7"),
    ("exp5_fading_distance", "exp5"),
    ("add_digits", "exp7"),
    ("every_step", "exp7"),
    ("on_policy", "exp7"),
    ("no_pairs", "exp7"),
    ("normalised gradient, w .02", "exp7"),
    ("relativistic", "exp7"),
    ("lsgan, w .3", "exp7"),
    ("hinge, w .3", "exp7"),
    ("wgan + gradient_penalty, w .02", "exp7"),
    ("gradient_penalty, w .05", "exp7"),
)
