"""What `ladd tune` finds out about a student, its base and new pictures, as flags of a recipe."""
