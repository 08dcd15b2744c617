"""Where a run lies on disk: its folders, config.json, recipe.lock, a sweep's record, and progress read back."""
