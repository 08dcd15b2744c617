"""Latent Adversarial Diffusion Distillation (LADD): a slow diffusion teacher becomes a 1-4 step student."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:
    from ladd_dist.core.signals import arm_module

    if arm_module() not in ("", "ladd_dist"):  # `ladd_dist` itself looks when it knows the command
        from ladd_dist.core.versions import require_versions

        require_versions()
