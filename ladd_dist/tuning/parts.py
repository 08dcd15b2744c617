"""Whether a few-step checkpoint and its base go together, by the configurations of their parts."""

from __future__ import annotations

from pathlib import Path

from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import read_config
from ladd_dist.core.printable import one_line
from ladd_dist.networks.diffusers.checkpoint import Checkpoint

TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")
CODECS = ("vae", "movq")
_TEXT_KEYS = ("model_type", "hidden_size", "d_model", "num_hidden_layers", "num_layers", "vocab_size")
_CODEC_KEYS = ("_class_name", "latent_channels", "scaling_factor", "shift_factor")


def require_same_parts(student: Checkpoint, base: Checkpoint, roots: tuple[Path, Path], named: tuple[str, str]) -> None:
    """Refuse a base with another model, text encoder or autoencoder than the student's.

    The student's own may be missing, as where somebody published the model alone; then nothing is compared.

    Args:
        roots: folders of the student's and the base's checkpoint.
        named: how the user wrote them.

    Raises:
        UserError: names the first part that differs.
    """
    own, other = student.config.get("_class_name"), base.config.get("_class_name")
    if own != other:
        raise _differs(named, f"its model is of another architecture, {_shown(other)} instead of {_shown(own)}")
    for parts, keys, what in ((TEXTS, _TEXT_KEYS, "text encoder"), (CODECS, _CODEC_KEYS, "autoencoder")):
        for part in parts:
            files = [root / part / "config.json" for root in roots]
            if not all(file.is_file() for file in files):
                continue
            mine, theirs = map(read_config, files)
            for key in keys:
                # Libraries write fields that their older versions did not have, such as `scaling_factor`.
                if key in mine and key in theirs and mine[key] != theirs[key]:
                    change = f"{key} is {_shown(theirs[key])} instead of {_shown(mine[key])}"
                    raise _differs(named, f"its {what} ({part}) is another: {change}")


def _differs(named: tuple[str, str], words: str) -> UserError:
    return UserError(
        f"--base {named[1]} is not what {named[0]} was distilled from: {words}; name the many-step model that it was "
        "distilled from"
    )


def _shown(value: object) -> str:
    return one_line(repr(value))[:80]
