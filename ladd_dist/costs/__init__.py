"""Formulas and counts of memory, traffic and FLOPs."""
