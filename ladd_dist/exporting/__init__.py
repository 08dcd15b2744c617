"""The forms of `ladd export` that diffusers reads: a pipeline's folder, and low-rank weights."""
