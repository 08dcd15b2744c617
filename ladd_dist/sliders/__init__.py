"""Concept sliders: learned on one network, used and measured on another (Gandikota and Bau, arXiv 2503.10637)."""
