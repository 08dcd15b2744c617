"""Builders of a recipe's objects: teacher, student, codec, shards, texts, critic, heads, samplers, training step."""
