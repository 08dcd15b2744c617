"""The metrics of the package, imported for their registration: a name in config.json must find its class."""

from ladd_dist.metrics import (  # noqa: F401
    class_features,
    clean_fid,
    color,
    digit_color,
    diversity,
    kid,
    manifold,
    matched,
    memorising,
)
