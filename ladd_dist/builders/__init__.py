"""What a recipe and the disk are made into: teacher, student, codec, shards, texts, critic, heads, training step."""
