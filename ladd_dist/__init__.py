"""Latent Adversarial Diffusion Distillation (LADD): a slow diffusion teacher becomes a 1-4 step student."""

import sys
from typing import TYPE_CHECKING

import ladd_dist.zoo  # noqa: F401  finds what ships with the package

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:  # asking git, or the installed package's metadata, takes milliseconds
        if name == "__version__":
            from ladd_dist.core.checkout import release

            return release()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if sys.argv[:1] == ["-m"]:
    from ladd_dist.core.signals import arm_module

    if arm_module() not in ("", "ladd_dist"):  # `ladd_dist` itself looks when it knows the command
        from ladd_dist.core.versions import require_versions

        require_versions()
