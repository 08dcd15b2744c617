"""Diagnosis of a recipe or a run: the optimum of its distance, deciding steps of samplers, saliency of heads."""
