"""The stages of a run, one function each: `stage(run) -> what it made`. A stage that is done is skipped."""

STAGES = ("features", "autoencoder", "teacher", "shards", "distill", "evaluate", "report")
"""Their names in order; the first one only for recipes with a codec that is trained."""
