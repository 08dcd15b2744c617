"""Formulas and counts of memory, traffic and FLOPs; nothing here needs data or an accelerator."""
