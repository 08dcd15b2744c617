"""Latent Adversarial Diffusion Distillation (LADD): a slow diffusion teacher becomes a 1-4 step student."""

__version__ = "0.1.0"
